# shellcheck shell=bash
# packages.sh - the one list of Debian packages that walpost needs, and how they are installed.
#
# Sourced by deploy/quickstart.sh and tests/run.sh.  Sets three arrays and defines:
#
#   missing_packages PACKAGE...   prints those that are not installed
#   install_packages PACKAGE...   installs those that are not installed; does nothing (no apt, no
#                                 network, no sudo) when all of them are there
#
# The arrays are read by the scripts that source this file.
# shellcheck disable=SC2034

# To build the program.
BUILD_PACKAGES=(
	build-essential cmake ninja-build pkg-config
	libpq-dev libsqlite3-dev libcurl4-openssl-dev libmicrohttpd-dev libjansson-dev libyaml-dev
	libssl-dev liblz4-dev libzstd-dev zlib1g-dev libxxhash-dev
)

# To show it: a scratch server, its client, and a receiver written in Python.
DEMO_PACKAGES=(postgresql-15 postgresql-client-15 python3)

# To test it, besides all of the above.
TEST_PACKAGES=(
	libcmocka-dev clang clang-format clang-tidy libclang-rt-14-dev
	python3-venv gdb curl openssl ca-certificates procps util-linux nodejs golang-go zstd
)

missing_packages() {
	local package
	for package in "$@"; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
			printf '%s\n' "$package"
	done
}

# Runs a command as root: as it is for root, through sudo for everybody else.
as_root() {
	if ((EUID == 0)); then
		"$@"
	else
		sudo "$@"
	fi
}

install_packages() {
	local missing
	mapfile -t missing < <(missing_packages "$@")
	((${#missing[@]})) || return 0

	if ! command -v apt-get >/dev/null; then
		echo "missing packages: ${missing[*]}; this script can install them only on Debian 12 (apt-get not found)" >&2
		return 1
	fi
	if ((EUID != 0)) && ! command -v sudo >/dev/null; then
		echo "missing packages: ${missing[*]}; to install them, run as root: apt-get install ${missing[*]}" >&2
		return 1
	fi

	# A subshell, so that its trap takes the two files away whatever happens.
	(
		no_cluster=/etc/postgresql-common/createcluster.d/walpost-install.conf
		no_start=/usr/sbin/policy-rc.d
		undo=()
		trap '((${#undo[@]} == 0)) || as_root rm -f "${undo[@]}"' EXIT
		trap 'exit 130' INT
		trap 'exit 143' TERM

		# A server package makes a cluster "main" and starts it when it is installed.  We bring
		# our own clusters, so this machine is to get none; one that is there stays as it is.
		if [[ " ${missing[*]} " == *" postgresql-15 "* ]]; then
			undo+=("$no_cluster")
			as_root mkdir -p "${no_cluster%/*}" &&
				as_root sh -c "echo 'create_main_cluster = false' >'$no_cluster'" || exit 1
		fi
		# Nor is a service to be started on its usual port.
		if [[ ! -e $no_start ]]; then
			undo+=("$no_start")
			as_root sh -c "printf '#!/bin/sh\nexit 101\n' >'$no_start' && chmod 755 '$no_start'" || exit 1
		fi

		apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600)
		as_root "${apt[@]}" update &&
			as_root "${apt[@]}" -y install --no-install-recommends "${missing[@]}"
	) || {
		echo "installing failed; still missing: $(missing_packages "$@" | tr '\n' ' ')" >&2
		return 1
	}
}
