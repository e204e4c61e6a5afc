#include "cdc/store/row.h"

#include <stdlib.h>
#include <string.h>

bool cdc_row_id(const struct cdc_sql_value *v, struct cdc_id *ret)
{
	return v->type == CDC_SQL_TEXT && cdc_id_parse(v->text, strlen(v->text), ret);
}

bool cdc_row_lsn(const struct cdc_sql_value *v, cdc_lsn *ret)
{
	return v->type == CDC_SQL_TEXT && cdc_lsn_parse(v->text, strlen(v->text), ret);
}

bool cdc_row_text(const struct cdc_sql_value *v, char *ret, size_t size)
{
	size_t n = v->type == CDC_SQL_TEXT ? strlen(v->text) : size;

	if (n >= size)
		return false;
	memcpy(ret, v->text, n + 1);
	return true;
}

bool cdc_row_int(const struct cdc_sql_value *v, int64_t min, int64_t max, int64_t *ret)
{
	if (v->type != CDC_SQL_INT || v->i < min || v->i > max)
		return false;
	*ret = v->i;
	return true;
}

enum cdc_code cdc_row_room(void **array, size_t n, size_t size, struct cdc_err *err)
{
	void *bigger;

	if (n >= CDC_ROWS_MAX)
		return cdc_err_set(err, CDC_LIMIT, "more than %d rows", CDC_ROWS_MAX);
	if ((n & (n - 1)) != 0)
		return CDC_OK;
	bigger = reallocarray(*array, n ? 2 * n : 1, size);
	if (!bigger)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	*array = bigger;
	return CDC_OK;
}
