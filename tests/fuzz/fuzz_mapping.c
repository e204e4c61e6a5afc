/*
 * Mapping over any record: with every column as it is the bytes are the same; what
 * is left out, masked, made null or hashed is not in the output; the output is a
 * record again, with the offset block that a scan of it finds.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cdc/base/err.h"
#include "cdc/record/mapping.h"
#include "cdc/record/scan.h"

#define MAX_INPUT (1 << 16)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cdc_view first(const struct cdc_batch *b)
{
	return (struct cdc_view){.rec = &b->records[0], .batch = b};
}

/* Everything but what the JSON does not show. */
static void check_block(const struct cdc_batch *b)
{
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *again = cdc_batch_new(UINT32_MAX);
	struct cdc_record want, have;

	CDC_ASSERT(again && b->n == 1);
	CDC_ASSERT(cdc_scan_record(again, cdc_view_json(first(b)), b->records[0].json_len, NULL) ==
		   CDC_OK);
	want = b->records[0];
	have = again->records[0];
	/* An insert that was the second half of a key change keeps its mark. */
	want.flags &= CDC_RECORD_BARRIER | CDC_RECORD_NO_KEY;
	have.flags &= CDC_RECORD_BARRIER | CDC_RECORD_NO_KEY;
	CDC_ASSERT(memcmp(&want, &have, sizeof(want)) == 0);
	for (size_t i = 0; i < want.cols; i++)
		CDC_ASSERT(b->col_ends[want.col_first + i] == again->col_ends[have.col_first + i]);
}

static enum cdc_code map(const struct cdc_batch *in, const struct cdc_select_field *fields,
			 size_t n, struct cdc_hmac *hmac, enum cdc_map how, struct cdc_batch *out)
{
	struct cdc_columns *c = NULL;
	enum cdc_code rc;

	CDC_ASSERT(cdc_columns_new(fields, n, hmac, &c, NULL) == CDC_OK);
	rc = cdc_map_record(c, first(in), how, out, NULL);
	if (rc)
		CDC_ASSERT(out->n == 0 && out->json.len == 0 && out->col_n == 0 &&
			   out->table_n == 0);
	else
		check_block(out);
	cdc_columns_free(c);
	return rc;
}

/* The same but for white space, which the writer does not make outside of values. */
static bool is_same(const char *a, size_t a_len, const char *b, size_t b_len)
{
	size_t i = 0, k = 0;

	for (;;) {
		while (i < a_len && strchr(" \t\r\n", a[i]) && a[i])
			i++;
		while (k < b_len && strchr(" \t\r\n", b[k]) && b[k])
			k++;
		if (i == a_len || k == b_len)
			return i == a_len && k == b_len;
		if (a[i++] != b[k++])
			return false;
	}
}

static bool holds(const char *json, size_t len, const char *text)
{
	return memmem(json, len, text, strlen(text)) != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char star[] = "*", name[] = "phone", other[] = "tel";
	static const struct cdc_select_field nothing_but[] = {{.id = name}};
	static const struct cdc_select_field hidden[][2] = {
		{{.id = star}, {.id = name, .is_left_out = true}},
		{{.id = star}, {.id = name, .obfuscate = CDC_OBFUSCATE_HASH, .output_name = other}},
		{{.id = star}, {.id = name, .obfuscate = CDC_OBFUSCATE_MASK}},
		{{.id = star}, {.id = name, .obfuscate = CDC_OBFUSCATE_NULL}},
	};
	static const char secret[] = "+491234567";
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *in = cdc_batch_new(MAX_INPUT);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *out = cdc_batch_new(UINT32_MAX);
	struct cdc_hmac *hmac = NULL;
	const char *json = (const char *)data;
	bool is_only_phone;

	CDC_ASSERT(in && out && cdc_hmac_new("0123456789abcdef", 16, &hmac, NULL) == CDC_OK);
	if (size > MAX_INPUT || cdc_scan_record(in, json, size, NULL)) {
		cdc_hmac_free(hmac);
		return 0;
	}
	for (unsigned how = CDC_MAP_SAME; how <= CDC_MAP_DELETE_KEY; how++) {
		if (how != CDC_MAP_SAME && in->records[0].op != CDC_OP_UPDATE)
			break;
		cdc_batch_reset(out, MAX_INPUT);
		if (map(in, NULL, 0, NULL, (enum cdc_map)how, out) == CDC_OK &&
		    how == CDC_MAP_SAME && in->records[0].op != CDC_OP_SCHEMA) {
			/* But for the hash, which the input may have any way it likes, and an
			 * empty list of unchanged columns, which the writer leaves out. */
			if (in->records[0].unchanged.len != 2)
				CDC_ASSERT(is_same(cdc_view_json(first(out)),
						   out->records[0].json_len - 18, json, size - 18));
		}
		cdc_batch_reset(out, MAX_INPUT);
		(void)map(in, nothing_but, 1, NULL, (enum cdc_map)how, out);
		/* Only where the secret is the value of the column, and of nothing else. */
		is_only_phone = false;
		if (in->records[0].op != CDC_OP_SCHEMA &&
		    (in->records[0].op <= CDC_OP_DELETE || in->records[0].op == CDC_OP_READ)) {
			static char rest[] = "phone";
			static const struct cdc_select_field without[] = {
				{.id = star}, {.id = rest, .is_left_out = true}};

			cdc_batch_reset(out, MAX_INPUT);
			is_only_phone =
				map(in, without, 2, NULL, (enum cdc_map)how, out) == CDC_OK &&
				!holds(cdc_view_json(first(out)), out->records[0].json_len, secret);
		}
		for (size_t i = 0; i < sizeof(hidden) / sizeof(hidden[0]); i++) {
			cdc_batch_reset(out, MAX_INPUT);
			if (map(in, hidden[i], 2, hmac, (enum cdc_map)how, out) == CDC_OK &&
			    is_only_phone)
				CDC_ASSERT(!holds(cdc_view_json(first(out)),
						  out->records[0].json_len, secret));
		}
	}
	cdc_hmac_free(hmac);
	return 0;
}
