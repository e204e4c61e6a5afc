/*
 * The span scanner over any bytes: every span lies inside the input, members
 * follow each other, and a record that is taken is taken again as it was.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/err.h"
#include "cdc/record/scan.h"

#define MAX_INPUT (1 << 16) /* bytes; several times any seed */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(struct cdc_span inner, struct cdc_span outer)
{
	CDC_ASSERT(inner.off >= outer.off && inner.len <= outer.len &&
		   inner.off - outer.off <= outer.len - inner.len);
}

static void walk(const char *json, size_t len, struct cdc_span span, int depth)
{
	struct cdc_scan s;
	struct cdc_member m;
	char text[32];
	size_t n;
	uint32_t behind = span.off;

	cdc_scan_begin(&s, json, len, span);
	while (cdc_scan_next(&s, &m)) {
		if (s.is_object) {
			check_inside(m.name, span);
			CDC_ASSERT(m.name.off > behind && m.value.off > m.name.off + m.name.len);
			if (cdc_scan_text(json, m.name, text, sizeof(text), &n))
				CDC_ASSERT(n <= sizeof(text));
		}
		check_inside(m.value, span);
		CDC_ASSERT(m.value.len > 0 && m.value.off >= behind);
		behind = m.value.off + m.value.len;
		if (depth < 4)
			walk(json, len, m.value, depth + 1);
	}
	CDC_ASSERT(!cdc_scan_next(&s, &m)); /* the end is the end */
}

static void check_record(const struct cdc_batch *b)
{
	const struct cdc_record *r = b->records;
	const struct cdc_span all = {.len = r->json_len};
	uint32_t behind = 0;

	check_inside(r->key, all);
	check_inside(r->fields, all);
	check_inside(r->changes, all);
	check_inside(r->unchanged, all);
	CDC_ASSERT(r->key.len > 0 && r->fields.len > 0);
	for (size_t i = 0; i < r->cols; i++) {
		uint32_t end = b->col_ends[r->col_first + i];

		CDC_ASSERT(end > behind && end < r->fields.len);
		behind = end;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(MAX_INPUT);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *again = cdc_batch_new(MAX_INPUT);
	char *json;

	CDC_ASSERT(b && again);
	if (size > MAX_INPUT)
		return 0;
	json = malloc(size ? size : 1); /* of its own, so that a sanitizer sees an overrun */
	CDC_ASSERT(json);
	memcpy(json, data, size);
	walk(json, size, (struct cdc_span){.len = (uint32_t)size}, 0);
	if (cdc_scan_record(b, json, size, NULL) == CDC_OK) {
		CDC_ASSERT(b->n == 1 && b->json.len == size &&
			   memcmp(b->json.data, json, size) == 0);
		check_record(b);
		CDC_ASSERT(cdc_scan_record(again, (char *)b->json.data, size, NULL) == CDC_OK);
		CDC_ASSERT(memcmp(again->records, b->records, sizeof(*b->records)) == 0);
	} else {
		CDC_ASSERT(b->n == 0 && b->json.len == 0 && b->table_n == 0 && b->col_n == 0);
	}
	free(json);
	return 0;
}
