#!/bin/bash
# Reads the library's symbols: every global one starts with cdc_, pgo_ or sink_,
# and no writable data exists, neither global nor static.
# Usage: check_symbols.sh LIBRARY (built without sanitizers).
set -euo pipefail

library=${1:?usage: check_symbols.sh LIBRARY}
wrong=0

# Types: upper case is global, lower case is static; D data, B zeroed data, C common, G and S small
# data.  R (constants), and .data.rel.ro (a constant with addresses in it, also shown as D or d), are
# fine: those are read-only once the program has been loaded.
names=$(nm --defined-only "$library" | awk 'NF == 3 && $2 ~ /[A-Z]/ { print $3 }' |
	grep -Ev '^(cdc_|pgo_|sink_)' | sort -u || true)
if [ -n "$names" ]; then
	echo "global symbols without a prefix of ours:"
	sed 's/^/  /' <<<"$names"
	wrong=1
fi

writable=$(objdump -t "$library" | awk '
	/file format/ { object = $1; sub(/:$/, "", object) }
	/^[0-9a-f]+ / {
		section = ""
		for (i = 2; i <= NF; i++)
			if ($i ~ /^\.(data|bss|tdata|tbss)/ || $i == "*COM*") { section = $i; break }
		if (section == "" || section ~ /^\.data\.rel\.ro/)
			next
		if ($NF == section || $NF ~ /^\.(data|bss|tdata|tbss)/)
			next
		print object ": " $NF " in " section
	}' | sort -u)
if [ -n "$writable" ]; then
	echo "writable data:"
	sed 's/^/  /' <<<"$writable"
	wrong=1
fi
[ $wrong -ne 0 ] || echo "symbols: $(nm --defined-only "$library" | awk 'NF == 3 && $2 ~ /[A-Z]/' | wc -l) global ones with a prefix of ours, nothing writable"
exit $wrong
