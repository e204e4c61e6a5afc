#include "cdc/cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BAR 20

/* The number behind the label sync="NAME" of a line that begins with the metric's name. */
static bool find(const char *metrics, const char *name, const char *sync, uint64_t *ret)
{
	const size_t name_n = strlen(name), sync_n = strlen(sync);

	for (const char *line = metrics; line && *line;
	     line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		const char *end = strchrnul(line, '\n'), *label, *brace;

		if (strncmp(line, name, name_n) != 0 || line[name_n] != '{')
			continue;
		label = strstr(line, "sync=\"");
		if (!label || label > end || strncmp(label + 6, sync, sync_n) != 0 ||
		    label[6 + sync_n] != '"')
			continue;
		brace = strstr(label, "} ");
		if (!brace || brace > end)
			continue;
		*ret = strtoull(brace + 2, NULL, 10);
		return true;
	}
	return false;
}

struct cdc_progress cdc_progress_parse(const char *metrics, const char *sync)
{
	struct cdc_progress p = {0};
	uint64_t permille = 0;

	p.is_known = find(metrics, "walpost_backfill_pending_tables", sync, &p.tables_left) &&
		     find(metrics, "walpost_backfill_rows_total", sync, &p.rows) &&
		     find(metrics, "walpost_backfill_permille", sync, &permille) &&
		     find(metrics, "walpost_backfill_eta_milliseconds", sync, &p.eta_ms);
	p.permille = permille > 1000 ? 1000 : (unsigned)permille;
	return p;
}

void cdc_progress_format(const struct cdc_progress *p, const char *sync, size_t width, char *ret,
			 size_t size)
{
	const uint64_t s = p->eta_ms / 1000;
	const unsigned full = p->permille * BAR / 1000;
	char bar[BAR + 1];

	memset(bar, '.', BAR);
	memset(bar, '#', full);
	bar[BAR] = '\0';
	(void)snprintf(ret, size, "%s [%s] %5.1f %%  %" PRIu64 " rows  %" PRIu64 " table%s left",
		       sync, bar, (double)p->permille / 10, p->rows, p->tables_left,
		       p->tables_left == 1 ? "" : "s");
	if (p->permille && p->permille < 1000 && strlen(ret) + 24 < size)
		(void)sprintf(ret + strlen(ret), "  ETA %" PRIu64 ":%02" PRIu64, s / 60, s % 60);
	if (width < strlen(ret))
		ret[width] = '\0';
}
