/* The texts of positions, ids and instants: what is taken is exactly what is written back. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/err.h"
#include "cdc/base/lsn.h"
#include "cdc/record/id.h"
#include "cdc/record/instant.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_lsn(const char *text, size_t n)
{
	char back[CDC_LSN_TEXT];
	cdc_lsn lsn, again;

	if (!cdc_lsn_parse(text, n, &lsn))
		return;
	/* Case and leading zeros are free, the position is not. */
	CDC_ASSERT(cdc_lsn_parse(back, cdc_lsn_format(lsn, back), &again) && again == lsn);
}

static void check_id(const char *text, size_t n)
{
	char back[CDC_ID_TEXT];
	struct cdc_id id;

	if (!cdc_id_parse(text, n, &id))
		return;
	CDC_ASSERT(cdc_id_format(&id, back) == n && memcmp(back, text, n) == 0);
}

static void check_instant(const char *text, size_t n)
{
	char back[CDC_INSTANT_TEXT];
	int64_t us;

	if (!cdc_instant_parse(text, n, &us))
		return;
	CDC_ASSERT(cdc_instant_format(us, back) == n && memcmp(back, text, n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;

	check_lsn(text, size);
	check_id(text, size);
	check_instant(text, size);
	return 0;
}
