#!/bin/bash
# Every C file is laid out as .clang-format says.
set -euo pipefail
cd "$(dirname "$0")/../.."
mapfile -t files < <(find cdc sinks tests deploy -name '*.[ch]' | sort)
clang-format --dry-run -Werror "${files[@]}"
echo "format: ${#files[@]} files as .clang-format says"
