#!/bin/bash
# Runs every test of walpost on a Debian 12 machine: as root, or as a user with sudo.
#
#   tests/run.sh            everything, some 30 minutes on two cores
#   tests/run.sh --quick    for work in between: two builds, no sanitizers, no fuzzing, no slow tests,
#                           everything on PostgreSQL 15 only
#
# Installs what is missing, builds under build/, and uses ports of 127.0.0.1 and folders below /tmp
# only.  A PostgreSQL or nginx that this machine already runs is not touched.  A stage that fails
# does not stop the later ones; the exit code is 0 only if all of them passed.  Every stage is also
# a test of the last one, so the closing line counts it.
#
# Of a stage in which up to three tests fail, these are run once more, each alone, when the stage is
# over.  Passing then is passing, but never in silence: the end of the run names every such test as
# UNSTEADY, and how it failed first is kept in build/unsteady.txt.  What a sanitizer or the
# checker of deliveries found is no matter of luck: it fails at once.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

quick=no
case "${1:-}" in
"") ;;
--quick) quick=yes ;;
*)
	sed -n '2,7s/^# \{0,1\}//p' "$0"
	exit 2
	;;
esac

cores=$(nproc)
[ "$cores" -le 4 ] || cores=4
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
mkdir -p build
export WALPOST_STAGES=$PWD/build/stages.txt
: >"$WALPOST_STAGES"
: >"$WALPOST_STAGES.failures"
unsteady=$PWD/build/unsteady.txt
: >"$unsteady"
failed=()
begun=$SECONDS

# stage NAME COMMAND...: runs it, notes its exit code and time.
stage() {
	local name=$1 rc start=$SECONDS
	shift
	printf '\n=== %s\n' "$name"
	"$@" 2>&1 | tee build/stage.log
	rc=${PIPESTATUS[0]}
	printf '%s\t%d\t%d\n' "$name" "$rc" $((SECONDS - start)) >>"$WALPOST_STAGES"
	if [ $rc -ne 0 ]; then
		failed+=("$name")
		grep -aE '^(FAILED|ERROR) |tests failed|\*\*\*Failed|error:' build/stage.log | head -20 |
			sed "s/^/$name: /" >>"$WALPOST_STAGES.failures"
		printf '=== %s FAILED (%d) after %d s\n' "$name" "$rc" $((SECONDS - start))
	else
		printf '=== %s passed in %d s\n' "$name" $((SECONDS - start))
	fi
	return 0
}

# --- what is needed ------------------------------------------------------------------------

# shellcheck source=deploy/packages.sh
. deploy/packages.sh

install_all() {
	install_packages "${BUILD_PACKAGES[@]}" "${DEMO_PACKAGES[@]}" "${TEST_PACKAGES[@]}" || return 1
	# nginx is unpacked, not installed: the package would start a web server on port 80.
	if ! command -v nginx >/dev/null && [ ! -x /usr/sbin/nginx ] && [ ! -x build/nginx/usr/sbin/nginx ]; then
		(
			mkdir -p build/nginx && cd build/nginx &&
				{ apt-get -q -q download nginx || { as_root apt-get -q -q update && apt-get -q -q download nginx; }; } &&
				dpkg-deb -x nginx_*.deb .
		) || return 1
	fi
	# pgbouncer likewise.
	if [ ! -x build/pgbouncer/usr/sbin/pgbouncer ]; then
		(
			mkdir -p build/pgbouncer && cd build/pgbouncer &&
				{ apt-get -q -q download pgbouncer libc-ares2 || { as_root apt-get -q -q update && apt-get -q -q download pgbouncer libc-ares2; }; } &&
				for package in ./*.deb; do dpkg-deb -x "$package" . || exit 1; done
		) || return 1
	fi
}

# The versions that Debian does not have, or those named, unpacked below build/.
fetch_postgresql() {
	.venv/bin/python tests/fetch_postgresql.py "$@"
}

make_venv() {
	[ -x .venv/bin/python ] || /usr/bin/python3 -m venv .venv || return 1
	if ! cmp -s tests/requirements.txt .venv/requirements.txt; then
		.venv/bin/pip install --disable-pip-version-check -q -r tests/requirements.txt &&
			cp tests/requirements.txt .venv/requirements.txt
	fi
}

# --- stages --------------------------------------------------------------------------------

build() {
	local log=build/$1.log
	if cmake --preset "$1" >"$log" 2>&1 && cmake --build --preset "$1" -j "$cores" >>"$log" 2>&1; then
		return 0
	fi
	tail -60 "$log"
	return 1
}

lint_symbols() {
	tests/lint/check_symbols.sh build/dev/libwalpost_core.a
}

unit_tests() {
	local preset=$1 run=()
	# GCC 12's thread sanitizer does not start where the kernel randomises more bits than it knows.
	if [ "$preset" = tsan ] && setarch "$(uname -m)" -R true 2>/dev/null; then
		run=(setarch "$(uname -m)" -R)
	fi
	local logs=build/$preset/Testing/Temporary tests
	rm -f "$logs/LastTestsFailed.log"
	"${run[@]}" ctest --preset "$preset" -j "$cores" --no-tests=error && return 0
	mapfile -t tests < <(sed 's/^[0-9]*://' "$logs/LastTestsFailed.log")
	[ ${#tests[@]} -ge 1 ] && [ ${#tests[@]} -le 3 ] || return 1
	! grep -qE 'Sanitizer: | runtime error: ' "$logs/LastTest.log" || return 1
	cp "$logs/LastTest.log" "build/unsteady-$preset.log"
	"${run[@]}" ctest --preset "$preset" --rerun-failed || return 1
	printf "UNSTEADY $preset unit tests: %s passed only alone: see build/unsteady-$preset.log\n" "${tests[@]}" |
		tee -a "$unsteady"
}

fuzz_one() {
	local target=$1 name seeds=() dictionary=()
	name=$(basename "$target")
	mkdir -p "build/fuzz-corpus/$name" build/fuzz-crashes
	for folder in "tests/fuzz/corpus/$name" "tests/fuzz/corpus/${name#fuzz_}" "tests/fuzz/seeds/${name#fuzz_}"; do
		[ ! -d "$folder" ] || seeds+=("$folder")
	done
	for file in "tests/fuzz/$name.dict" "tests/fuzz/${name#fuzz_}.dict"; do
		[ ! -f "$file" ] || dictionary=("-dict=$file")
	done
	if "$target" -max_total_time=20 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
		"-artifact_prefix=build/fuzz-crashes/$name-" "${dictionary[@]}" \
		"build/fuzz-corpus/$name" "${seeds[@]}" >"build/fuzz-$name.log" 2>&1; then
		echo "$name: $(grep -o 'number_of_executed_units: *[0-9]*' "build/fuzz-$name.log" | tr -s ' ')"
		return 0
	fi
	echo "$name FAILED:"
	tail -40 "build/fuzz-$name.log"
	return 1
}
export -f fuzz_one

fuzz_all() {
	local targets
	mapfile -t targets < <(find build/fuzz/tests -maxdepth 1 -type f -name 'fuzz_*' -perm -u+x | sort)
	[ ${#targets[@]} -gt 0 ] || return 1
	printf '%s\0' "${targets[@]}" | xargs -0 -n 1 -P "$cores" bash -c 'fuzz_one "$1"' _
}

system_tests() {
	WALPOST_BUILD=$PWD/build/$1 .venv/bin/pytest tests/system --again "$unsteady" "${@:2}"
}

# system_tests_on VERSION OPTION...
system_tests_on() {
	(
		unset WALPOST_STAGES
		WALPOST_PG=$1 system_tests release -q "${@:2}"
	)
}

stage "packages" install_all
stage "python" make_venv
stage "build dev" build dev
stage "build release" build release
stage "lint layers" tests/lint/check_layers.py
stage "lint symbols" lint_symbols
stage "lint format" tests/lint/check_format.sh
stage "lint catalog" .venv/bin/python tests/catalog.py
stage "unit tests dev" unit_tests dev
if [ $quick = yes ]; then
	stage "postgresql" fetch_postgresql 18 # some tests of 15 have a server of 18 beside it
else
	stage "postgresql" fetch_postgresql
	stage "build clang" build clang
	stage "lint tidy" tests/lint/check_tidy.sh build/clang
	stage "build asan" build asan
	stage "unit tests asan" unit_tests asan
	stage "system tests asan" system_tests asan -q -m sanitized
	stage "build tsan" build tsan
	stage "unit tests tsan" unit_tests tsan
	stage "build fuzz" build fuzz
	stage "fuzz" fuzz_all
	for version in 13 14 16 17 18; do
		stage "postgresql $version" system_tests_on "$version" -m versions
	done
fi

printf '\n=== stages so far, %d s\n' $((SECONDS - begun))
awk -F '\t' '{ printf "%-20s %s in %d s\n", $1, $2 == 0 ? "passed" : "FAILED", $3 }' "$WALPOST_STAGES"
printf '\n=== system tests\n'
if [ $quick = yes ]; then
	system_tests release -m "not slow"
else
	system_tests release
fi
rc=$?
[ ${#failed[@]} -eq 0 ] || rc=1
cat "$WALPOST_STAGES.failures"
exit $rc
