#!/bin/bash
# clang-tidy with the repository's .clang-tidy over every C file of a build's compile commands.
# Usage: check_tidy.sh BUILD (configured with clang).
set -euo pipefail
build=$(realpath "${1:?usage: check_tidy.sh BUILD}")
cd "$(dirname "$0")/../.."
mapfile -t files < <(find cdc sinks -name '*.c' | sort)
known=()
for file in "${files[@]}"; do
	# A file that this build does not compile (a fuzz target in a build without fuzzing) has no command.
	if grep -q "\"file\": \".*/$file\"" "$build/compile_commands.json"; then
		known+=("$file")
	fi
done
printf '%s\0' "${known[@]}" |
	xargs -0 -n 4 -P "$(nproc)" clang-tidy --quiet -p "$build" 2> >(grep -Ev 'warnings? (generated|treated)|Suppressed|^$' >&2 || true)
echo "tidy: ${#known[@]} files without a warning"
