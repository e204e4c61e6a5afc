#!/bin/bash
# Shows walpost at work on a Debian 12 machine, from nothing but a checkout.
#
#   deploy/quickstart.sh                              everything from scratch: a PostgreSQL, a receiver,
#                                                     some changes and how they arrive; a minute or two
#   deploy/quickstart.sh --source postgresql://USER[:PASSWORD]@HOST[:PORT]/DATABASE
#                                                     the changes of your own database
#   deploy/quickstart.sh --webhook https://HOST/PATH  delivered to your own endpoint
#
# Both options go together.  With one of them walpost stays in the foreground until Ctrl-C, and
# with --source you are then asked whether to remove the slot and the publication again.
#
#   --table SCHEMA.TABLE   with --source: this table only; may be given several times.  Without it
#                          the tables of the publication "walpost", or all tables if there is none
#   --dir FOLDER           with --source: where walpost.yaml and the buffer are kept
#                          (default: ./walpost-quickstart)
#   --help
#
# A password that is not in the URL is taken from PGPASSWORD, or asked for.  It is written to a
# file that only you can read, never to a command line.
#
# Run it as root, or as a user with sudo (for installing packages, nothing else).  Everything it
# starts ends with it; its scratch server listens on 127.0.0.1 only, on a port of its own, and a
# PostgreSQL that this machine already runs is left alone.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/packages.sh
source "$checkout/deploy/packages.sh"

program=$checkout/build/release/walpost
source_url=
webhook_url=
tables=()
keep_dir=$PWD/walpost-quickstart

scratch=     # folder of what is thrown away at the end
folder=      # folder of walpost.yaml, its data and its log
pg_bin=      # where the server's programs are
as_server=() # how to run a command as the server's user
server_pid=
server_port=
listen_port=
receiver_pid=
walpost_pid=
failing_log= # shown when a step fails

bold=
plain=
if [[ -t 1 ]]; then
	bold=$'\e[1m'
	plain=$'\e[0m'
fi

step() {
	printf '\n%s==> %s%s\n' "$bold" "$*" "$plain"
}

# As a shell takes it, for a command that is to be pasted.
quoted() {
	printf '%q' "$1"
}

say() {
	printf '    %s\n' "$@"
}

fail() {
	printf '\n%squickstart: %s%s\n' "$bold" "$*" "$plain" >&2
	if [[ $failing_log && -s $failing_log ]]; then
		# What lies in the scratch folder is gone by the time anybody could look.
		if [[ $failing_log == "$scratch"/* ]]; then
			printf '    its last lines:\n' >&2
		else
			printf '    the last lines of %s:\n' "$failing_log" >&2
		fi
		tail -n 20 "$failing_log" | cut -c 1-240 | sed 's/^/    | /' >&2
	fi
	exit 1
}

is_alive() {
	[[ $1 ]] && kill -0 "$1" 2>/dev/null
}

# Ends a process that this script started, and waits for it: stop PID SECONDS
stop() {
	local pid=$1 tenths=$(($2 * 10))
	is_alive "$pid" || return 0
	kill -TERM "$pid" 2>/dev/null || return 0
	while is_alive "$pid" && ((tenths-- > 0)); do
		sleep 0.1
	done
	! is_alive "$pid" || kill -KILL "$pid" 2>/dev/null || true
}

stop_walpost() {
	stop "$walpost_pid" 12
	walpost_pid=
}

# walpost first: it says farewell to both of the others.
stop_all() {
	stop_walpost
	stop "$receiver_pid" 5
	receiver_pid=
	if is_alive "$server_pid"; then
		"${as_server[@]}" "$pg_bin/pg_ctl" -s -D "$scratch/postgresql/data" -m fast -t 20 stop >/dev/null 2>&1 ||
			stop "$server_pid" 5
	fi
	server_pid=
}

cleanup() {
	local code=$?
	trap '' INT TERM HUP
	trap - EXIT
	set +e
	stop_all
	[[ -z $scratch ]] || rm -rf "$scratch"
	exit "$code"
}

# --- the steps ------------------------------------------------------------------------------

read_command_line() {
	while (($#)); do
		case $1 in
		--help | -h)
			sed -n '2,/^set /{/^set /d;s/^#\( \|$\)//;p;}' "${BASH_SOURCE[0]}"
			exit 0
			;;
		--source | --webhook | --table | --dir)
			[[ ${2:-} ]] || usage_error "$1 needs a value"
			case $1 in
			--source) source_url=$2 ;;
			--webhook) webhook_url=$2 ;;
			--table) tables+=("$2") ;;
			--dir) keep_dir=$2 ;;
			esac
			shift 2
			;;
		*) usage_error "unknown argument: $1" ;;
		esac
	done
	case $source_url in
	"" | postgresql://* | postgres://*) ;;
	*) usage_error "--source is not a URL like postgresql://user@host:5432/database" ;;
	esac
	case $webhook_url in
	"" | http://* | https://*) ;;
	*) usage_error "--webhook is not a URL like https://host/path" ;;
	esac
	[[ $source_url || ${#tables[@]} -eq 0 ]] || usage_error "--table goes with --source"
}

usage_error() {
	printf 'quickstart: %s\n(%q --help shows what there is)\n' "$1" "$checkout/deploy/quickstart.sh" >&2
	exit 2
}

install_what_is_missing() {
	local missing
	mapfile -t missing < <(missing_packages "${BUILD_PACKAGES[@]}" "${DEMO_PACKAGES[@]}")
	if ((${#missing[@]} == 0)); then
		step "Packages: all ${#BUILD_PACKAGES[@]} + ${#DEMO_PACKAGES[@]} that are needed are installed"
		return
	fi
	step "Installing ${#missing[@]} packages of Debian (only now a password for sudo may be asked)"
	say "${missing[*]}"
	failing_log=$scratch/apt.log
	install_packages "${missing[@]}" >"$failing_log" 2>&1 || fail "the packages could not be installed"
	failing_log=
}

# Root's build cannot be gone on with by somebody else.
check_build_folder() {
	local path
	mkdir -p "$checkout/build" 2>/dev/null ||
		fail "$checkout/build cannot be made: this checkout belongs to $(stat -c %U "$checkout"); use a checkout of your own"
	for path in "$checkout/build" "$checkout/build/release" "$checkout"/build/release/{CMakeCache.txt,.ninja_log} \
		"$checkout/build/quickstart.log"; do
		[[ ! -e $path || -w $path ]] ||
			fail "$path belongs to $(stat -c %U "$path") and cannot be written; use a checkout of your own"
	done
}

build() {
	local first=
	[[ -x $program ]] || first=" (the first time takes about a minute)"
	step "Building walpost, preset release$first"
	failing_log=$checkout/build/quickstart.log
	(
		cd "$checkout"
		[[ -f build/release/build.ninja ]] || cmake --preset release
		cmake --build --preset release --target walpost
	) >"$failing_log" 2>&1 || fail "the build failed"
	failing_log=
	say "$("$program" version): $program"
}

free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Runs psql on the scratch server as its superuser; the server's folder is its own.
scratch_psql() {
	"${as_server[@]}" "$pg_bin/psql" -X -q -v ON_ERROR_STOP=1 -h "$scratch/postgresql" -p "$server_port" \
		-U postgres "$@"
}

start_server() {
	local password
	pg_bin=/usr/lib/postgresql/15/bin
	server_port=$(free_port)
	step "Starting a scratch PostgreSQL on 127.0.0.1:$server_port"
	mkdir -m 700 "$scratch/postgresql"
	as_server=(env --chdir=/)
	if ((EUID == 0)); then # PostgreSQL refuses to run as root
		as_server+=(setpriv --reuid=postgres --regid=postgres --init-groups --)
		chown postgres: "$scratch/postgresql"
		chmod 711 "$scratch"
	fi
	failing_log=$scratch/initdb.log
	"${as_server[@]}" "$pg_bin/initdb" -D "$scratch/postgresql/data" -U postgres -E UTF8 --locale=C.UTF-8 \
		--auth-local=trust --auth-host=scram-sha-256 --no-sync >"$failing_log" 2>&1 ||
		fail "a scratch PostgreSQL could not be made"
	failing_log=$scratch/postgresql/server.log
	"${as_server[@]}" "$pg_bin/pg_ctl" -s -w -t 60 -D "$scratch/postgresql/data" -l "$failing_log" \
		-o "-c listen_addresses=127.0.0.1 -c port=$server_port" \
		-o "-c unix_socket_directories=$scratch/postgresql" \
		-o "-c wal_level=logical -c shared_buffers=32MB -c fsync=off" start ||
		fail "the scratch PostgreSQL did not start"
	server_pid=$(head -n 1 "$scratch/postgresql/data/postmaster.pid")

	password=$(python3 -c 'import secrets; print(secrets.token_hex(16))')
	printf '%s\n' "$password" >"$folder/source.password"
	scratch_psql postgres >/dev/null <<-SQL || fail "the scratch database could not be prepared"
		CREATE ROLE walpost LOGIN REPLICATION PASSWORD '$password';
		CREATE DATABASE shop OWNER walpost;
		\connect shop
		SET ROLE walpost;
		CREATE TABLE orders (
			id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
			customer text NOT NULL, status text NOT NULL DEFAULT 'new', total numeric(10,2));
	SQL
	failing_log=
	say "wal_level is logical; the database shop has a table orders; walpost's role has REPLICATION"
}

start_receiver() {
	step "Starting an example receiver (deploy/example_receiver.py)"
	failing_log=$scratch/receiver.log
	python3 "$checkout/deploy/example_receiver.py" --listen 127.0.0.1:0 --port-file "$scratch/port" \
		--save "$scratch/received.jsonl" 2>"$failing_log" &
	receiver_pid=$!
	wait_until 10 test -s "$scratch/port" || fail "the receiver did not start"
	failing_log=
	webhook_url=http://127.0.0.1:$(<"$scratch/port")/hook
	say "it answers 200 on $webhook_url and prints every record it gets"
}

# wait_until SECONDS COMMAND...: true as soon as the command is.
wait_until() {
	local tenths=$(($1 * 10))
	shift
	until "$@"; do
		((tenths-- > 0)) || return 1
		sleep 0.1
	done
}

# Writes walpost.yaml; URLs come through the environment, so they are on no command line.
write_config() {
	listen_port=$(free_port)
	SOURCE_URL=$source_url WEBHOOK_URL=$webhook_url python3 - "$folder" "$listen_port" "$server_port" \
		"${tables[@]}" <<-'PYTHON'
		import json
		import os
		import sys
		import urllib.parse

		folder, listen_port, server_port, *tables = sys.argv[1:]

		def text(value):
		    """A string of YAML; "${" would stand for an environment variable."""
		    return json.dumps(value, ensure_ascii=False).replace("${", "$${")

		if os.environ["SOURCE_URL"]:
		    url = urllib.parse.urlsplit(os.environ["SOURCE_URL"])
		    options = dict(urllib.parse.parse_qsl(url.query))
		    unquote = urllib.parse.unquote
		    host = unquote(options.get("host") or url.hostname or "127.0.0.1")
		    is_local = host.startswith("/") or host in ("localhost", "127.0.0.1", "::1")
		    mode = options.get("sslmode", "disable" if is_local and "sslrootcert" not in options else "require")
		    source = {
		        "hostname": text(host),
		        "port": int(options.get("port") or url.port or 5432),
		        "database": text(unquote(url.path.lstrip("/")) or unquote(url.username or "postgres")),
		        "username": text(unquote(url.username or options.get("user") or "postgres")),
		        "password_file": "source.password",
		        "ssl": "false" if mode in ("disable", "allow") else "true",
		    }
		    if "sslrootcert" in options and source["ssl"] == "true":
		        source["ca_cert"] = text(os.path.abspath(options["sslrootcert"]))
		else:
		    source = {"hostname": "127.0.0.1", "port": server_port, "database": "shop", "username": "walpost",
		              "password_file": "source.password", "ssl": "false"}
		    tables = ["public.orders"]

		lines = ["# Written by deploy/quickstart.sh.  `walpost config` explains every key.",
		         "data_dir: ./data", f"listen: 127.0.0.1:{listen_port}", "buffer:", "  type: local",
		         "  max_bytes: 1GiB", "connections:", "  source:", "    type: postgresql", "    configuration:"]
		lines += [f"      {key}: {value}" for key, value in source.items()]
		lines += ["      change_detection: true", "      publication: walpost", "  destination:", "    type: webhook",
		          "    configuration:", f"      url: {text(os.environ['WEBHOOK_URL'])}", "      auth_method: none",
		          "bulk_syncs:", "  quickstart:", "    source_connection: source",
		          "    destination_connection: destination", "    mode: replicate",
		          "    default_schedule: {frequency: continuous}", "    skip_initial_backfill: true"]
		if tables:
		    lines += ["    schemas:"] + [f"      - {text(table)}" for table in tables]
		with open(f"{folder}/walpost.yaml", "w", encoding="utf-8") as f:
		    f.write("\n".join(lines) + "\n")
	PYTHON
}

# The part of a URL, as libpq's environment wants it; the password apart.
parse_source() {
	SOURCE_URL=$source_url python3 - <<-'PYTHON'
		import os
		import shlex
		import urllib.parse

		url = urllib.parse.urlsplit(os.environ["SOURCE_URL"])
		options = dict(urllib.parse.parse_qsl(url.query))
		password = urllib.parse.unquote(url.password) if url.password is not None else options.get("password", "")
		print("source_password=" + shlex.quote(password))
		rest = url._replace(netloc=url.netloc.rpartition("@")[0].partition(":")[0]
		                    + ("@" if "@" in url.netloc else "") + url.netloc.rpartition("@")[2],
		                    query=urllib.parse.urlencode({k: v for k, v in options.items() if k != "password"}))
		print("source_url=" + shlex.quote(rest.geturl()))
	PYTHON
}

prepare_own_source() {
	local source_password='' assignments
	step "Your database"
	assignments=$(parse_source 2>/dev/null) || fail "--source is not a URL that can be read"
	eval "$assignments" # quoted by shlex; sets source_url (now without a password), source_password
	[[ $source_password ]] || source_password=${PGPASSWORD:-}
	if [[ -z $source_password && -t 0 ]]; then
		read -rsp "    password of the database user (empty: none): " source_password
		echo
	fi
	printf '%s\n' "$source_password" >"$folder/source.password"

	if ((${#tables[@]} == 0)); then
		# Which tables: those of the publication, or all where there is none.
		failing_log=$scratch/psql.log
		PGPASSWORD=$source_password PGCONNECT_TIMEOUT=10 psql -X -A -t -v ON_ERROR_STOP=1 -d "$source_url" \
			>"$scratch/tables" 2>"$failing_log" <<-'SQL' || fail "your database could not be asked for its tables"
			SELECT n.nspname || '.' || c.relname
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
				AND NOT c.relispartition AND NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'walpost')
			ORDER BY 1;
		SQL
		failing_log=
		mapfile -t tables <"$scratch/tables"
	fi
	if ((${#tables[@]})); then
		say "tables: ${tables[*]:0:10}$( ((${#tables[@]} <= 10)) || echo " and $((${#tables[@]} - 10)) more")"
	else
		say "tables: those of the publication walpost"
	fi
}

check() {
	step "Checking: walpost check -c $folder/walpost.yaml"
	if ! "$program" check -c "$folder/walpost.yaml" 2>&1 | sed 's/^/    /'; then
		fail "something has to be mended first; see above, then run this again"
	fi
}

is_ready() {
	is_alive "$walpost_pid" || return 0
	python3 - "http://127.0.0.1:$listen_port/readyz?strict" 2>/dev/null <<-'PYTHON'
		import sys
		import urllib.request

		urllib.request.urlopen(sys.argv[1], timeout=2).read()
	PYTHON
}

start_walpost() {
	step "Starting walpost: walpost run -c $folder/walpost.yaml"
	failing_log=$folder/walpost.log
	"$program" run -c "$folder/walpost.yaml" >>"$failing_log" 2>&1 &
	walpost_pid=$!
	wait_until 30 is_ready || fail "walpost did not become ready within 30 s"
	is_alive "$walpost_pid" || fail "walpost ended"
	failing_log=
	say "it reads its slot; state: http://127.0.0.1:$listen_port/status.txt, log: $folder/walpost.log"
}

# Have so many records arrived, or will no more?
received() {
	! is_alive "$walpost_pid" || [[ $(wc -l <"$scratch/received.jsonl") -ge $1 ]]
}

# change RECORDS SQL: runs it, and waits until so many records have arrived in all.
change() {
	local records=$1 sql=$2
	printf '\n%s    shop=> %s%s\n' "$bold" "${sql//$'\n'/$'\n           '}" "$plain"
	scratch_psql -c 'SET ROLE walpost' -c "$sql" shop >/dev/null || fail "the change was refused"
	[[ $receiver_pid ]] || return 0
	failing_log=$folder/walpost.log
	wait_until 20 received "$records" || fail "the change did not arrive within 20 s"
	is_alive "$walpost_pid" || fail "walpost ended"
	failing_log=
	sleep 0.1 # the receiver prints after it has answered
}

make_changes() {
	step "Making changes, as an application would"
	change 2 "INSERT INTO orders (customer, total) VALUES ('Ada', 19.90), ('Grace', 250.00);"
	change 3 "UPDATE orders SET status = 'paid', total = 24.90 WHERE id = 1;"
	change 4 "DELETE FROM orders WHERE id = 2;"
	change 6 "BEGIN;
INSERT INTO orders (customer, total) VALUES ('Edsger', 0.10);
UPDATE orders SET status = 'shipped' WHERE id = 1;
COMMIT;"
}

show_a_record() {
	step "One record, whole (in a request, records are the list object.records)"
	# Line by line, with the receiver's own reader: numbers keep their digits.
	PYTHONPATH=$checkout/deploy python3 -B - "$scratch/received.jsonl" <<-'PYTHON' | sed 's/^/    /'
		import decimal
		import json
		import sys

		from example_receiver import text_of

		with open(sys.argv[1], encoding="utf-8") as f:
		    record = json.loads(f.readlines()[-1], parse_float=decimal.Decimal)
		members = [f"  {text_of(name)}: {text_of(value)}" for name, value in record.items()]
		print("{\n" + ",\n".join(members) + "\n}")
	PYTHON
}

show_status() {
	step "What walpost says about itself (http://127.0.0.1:$listen_port/status.txt)"
	python3 - "http://127.0.0.1:$listen_port/status.txt" <<-'PYTHON' | sed 's/^/    /'
		import sys
		import urllib.request

		print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode(), end="")
	PYTHON
}

stay() {
	step "walpost is running; press Ctrl-C to stop it"
	if [[ $server_pid ]]; then
		say "make changes of your own:" "  PGPASSWORD=$(<"$folder/source.password") psql -h 127.0.0.1 -p $server_port -U walpost shop"
	fi
	is_interrupted=no
	trap 'is_interrupted=yes' INT TERM HUP
	while [[ $is_interrupted == no ]] && is_alive "$walpost_pid"; do
		wait "$walpost_pid" || true
	done
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	if [[ $is_interrupted == no ]]; then
		failing_log=$folder/walpost.log
		fail "walpost ended by itself"
	fi
	step "Stopping walpost"
	stop_walpost
}

ask() {
	local answer=
	[[ -t 0 ]] && read -rp "    $1 [y/N] " answer && [[ $answer == [yY]* ]]
}

uninstall() {
	"$program" uninstall source -c "$folder/walpost.yaml" "$@" 2>&1 | sed 's/^/    /'
}

offer_to_remove() {
	if ask "Remove the slot and the publication that walpost made in your database?" &&
		{ uninstall || { ask "Remove them all the same, with what is not delivered?" && uninstall --force; }; }; then
		rm -rf "$folder/data" "$folder/source.password"
		say "Nothing of walpost is left in your database; $folder/walpost.yaml is kept."
		return
	fi
	say "The slot is kept: until it is read again your database keeps every change for it, on its disk." \
		"go on:  $(quoted "$program") run -c $(quoted "$folder/walpost.yaml")" \
		"remove: $(quoted "$program") uninstall source -c $(quoted "$folder/walpost.yaml")"
	[[ -z $receiver_pid ]] || say "The url in walpost.yaml is that of the example receiver, which ends now: set your own."
}

say_what_is_next() {
	step "Done; everything that was started is stopped. What to try next"
	say "your own endpoint:  $(quoted "$checkout/deploy/quickstart.sh") --webhook https://..." \
		"your own database:  $(quoted "$checkout/deploy/quickstart.sh") --source postgresql://user@host/database" \
		"every setting:      $(quoted "$program") config" \
		"the tests:          $(quoted "$checkout/tests/run.sh")" \
		"and README.md"
}

read_command_line "$@"
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
scratch=$(mktemp -d "${TMPDIR:-/tmp}/walpost-quickstart.XXXXXX")
folder=$scratch
if [[ $source_url ]]; then
	(umask 077 && mkdir -p "$keep_dir") || fail "$keep_dir cannot be made"
	folder=$(cd "$keep_dir" && pwd)
fi
is_own=$source_url$webhook_url

check_build_folder
install_what_is_missing
build
umask 077
if [[ $source_url ]]; then
	prepare_own_source
else
	start_server
fi
[[ $webhook_url ]] || start_receiver
write_config || fail "walpost.yaml could not be written"
check
start_walpost
[[ $source_url ]] || make_changes
if [[ $is_own ]]; then
	if [[ -z $receiver_pid ]]; then
		sleep 1 # nothing here sees the records arrive
		show_status
	fi
	stay
	[[ -z $source_url ]] || offer_to_remove
	exit 0
fi
show_a_record
show_status
stop_all
say_what_is_next
