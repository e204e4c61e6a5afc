#include "sinks/webhook/parts.h"

#include <string.h>

#include "cdc/record/scan.h"

struct wanted {
	const char *name;
	struct cdc_span *to;
};

static void take(const char *json, const struct cdc_member *m, const struct wanted *wanted)
{
	for (; wanted->name; wanted++) {
		if (strlen(wanted->name) == m->name.len &&
		    memcmp(wanted->name, json + m->name.off, m->name.len) == 0)
			*wanted->to = m->value;
	}
}

static bool walk(const char *json, size_t len, struct cdc_span object, const struct wanted *wanted)
{
	struct cdc_member m;
	struct cdc_scan s;

	cdc_scan_begin(&s, json, len, object);
	while (cdc_scan_next(&s, &m))
		take(json, &m, wanted);
	return !s.is_bad && s.is_object;
}

enum cdc_code sink_webhook_parts_find(struct cdc_view view, struct sink_webhook_parts *ret,
				      struct cdc_err *err)
{
	struct sink_webhook_parts p = {0};
	struct cdc_span all = {.len = view.rec->json_len};
	const struct wanted of_record[] = {{"id", &p.id},
					   {"schema", &p.schema},
					   {"position", &p.position},
					   {"commit", &p.commit},
					   {0}};
	const struct wanted of_commit[] = {{"xid", &p.xid}, {"time", &p.time}, {0}};
	const char *json = cdc_view_json(view);
	bool is_whole = walk(json, all.len, all, of_record) &&
			walk(json, all.len, p.commit, of_commit) && p.id.len > 2 &&
			p.schema.len > 2 && p.position.len > 2 && p.xid.len && p.time.len;
	char id[CDC_ID_TEXT];

	if (!is_whole) {
		(void)cdc_id_format(&view.rec->id, id);
		return cdc_err_set(err, CDC_CORRUPT, "record %s is not whole", id);
	}
	*ret = p;
	return CDC_OK;
}

bool sink_webhook_parts_has(const char *json, struct cdc_span value)
{
	return value.len && !(value.len == 4 && memcmp(json + value.off, "null", 4) == 0);
}
