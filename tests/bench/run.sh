#!/usr/bin/env bash
# Measures walpost beside what PostgreSQL and libcurl do alone, on one scratch server.
#
#   tests/bench/run.sh [--stage drain,single,latency,memory,steady,backfill,endpoints,skew] [--rows N] [--rounds N]
#                      [--out FILE] [--keep]      (all options: --help)
#
# Builds the release preset into build/release; needs nothing but a checkout and the packages of
# deploy/packages.sh, which it installs when they are missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=deploy/packages.sh
. deploy/packages.sh

case " $* " in
*" --help "* | *" -h "*) exec /usr/bin/python3 tests/bench/bench.py --help ;;
esac
install_packages "${BUILD_PACKAGES[@]}" "${DEMO_PACKAGES[@]}"
cmake --preset release >/dev/null
cmake --build --preset release
exec /usr/bin/python3 tests/bench/bench.py --build build/release "$@"
