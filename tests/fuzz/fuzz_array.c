/*
 * The text of a value: the first two bytes choose a built-in type, the rest is
 * the text.  What is taken is JSON (of a json column nothing is known: its text
 * is passed on), a bounded buffer is never passed, and a column's value is UTF-8.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/err.h"
#include "cdc/record/scan.h"
#include "cdc/record/type.h"
#include "cdc/record/utf8.h"
#include "cdc/record/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_verbatim(const struct cdc_type *type)
{
	while (type->kind == CDC_KIND_ARRAY)
		type = type->elem;
	return type->kind == CDC_KIND_JSON;
}

/* The JSON as the only element of an array. */
static void check_json(struct cdc_buf *json)
{
	struct cdc_scan s;
	struct cdc_member m;

	cdc_buf_putc(json, ']');
	CDC_ASSERT(!json->failed);
	cdc_scan_begin(&s, (const char *)json->data, json->len,
		       (struct cdc_span){.len = (uint32_t)json->len});
	CDC_ASSERT(cdc_scan_next(&s, &m) && m.value.off == 1 && m.value.len == json->len - 2);
	CDC_ASSERT(!cdc_scan_next(&s, &m) && !s.is_bad);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct cdc_type *type;
	struct cdc_buf json, small;
	bool is_good;
	char *text;

	if (size < 2)
		return 0;
	type = cdc_type_builtin((uint32_t)data[0] << 8 | data[1]);
	size -= 2;
	text = malloc(size ? size : 1); /* of its own, so that a sanitizer sees an overrun */
	CDC_ASSERT(text);
	memcpy(text, data + 2, size);
	if (!type)
		type = cdc_type_builtin(1009); /* text[] */

	cdc_buf_init(&json, SIZE_MAX / 2);
	cdc_buf_putc(&json, '[');
	is_good = cdc_value_write(&json, type, text, size);
	CDC_ASSERT(!json.failed);
	cdc_buf_init(&small, size);
	CDC_ASSERT(cdc_value_write(&small, type, text, size) == is_good || small.failed);
	CDC_ASSERT(small.len <= size);
	if (is_good && !is_verbatim(type))
		check_json(&json);
	json.len = 0;
	if (cdc_value_column(&json, type, text, size))
		CDC_ASSERT(cdc_utf8_valid((const char *)json.data, json.len) == json.len);
	cdc_buf_clear(&small);
	cdc_buf_clear(&json);
	free(text);
	return 0;
}
