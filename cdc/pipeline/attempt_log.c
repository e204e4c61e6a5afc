#include "cdc/pipeline/attempt_log.h"

#include <string.h>

#include "cdc/pipeline/text.h"
#include "cdc/store/attempt.h"

static bool fill_texts(const struct sink_result *r, struct cdc_attempt_texts *ret)
{
	const struct sink_attempt *a = r->attempt;

	*ret = (struct cdc_attempt_texts){
		.method = cdc_text_readable(a->method, strlen(a->method)),
		.url = cdc_text_readable(a->url, strlen(a->url)),
		.headers = cdc_text_readable(a->headers, strlen(a->headers)),
		.text = cdc_text_readable(r->text, strlen(r->text)),
		.request = cdc_text_readable(a->body, a->body_len),
		.response = cdc_text_readable(a->response, a->response_len),
	};
	return ret->method && ret->url && ret->headers && ret->text && ret->request &&
	       ret->response;
}

bool cdc_attempt_log(struct cdc_store *store, const char *sync,
		     const struct cdc_deliver_settings *settings, const struct sink_result *r,
		     int64_t wall_us)
{
	CDC_AUTO(cdc_attempt_row_clear)
	struct cdc_attempt_row row = {
		.at_us = wall_us - (int64_t)r->took_us,
		.took_us = r->took_us,
		.status = r->status,
		.outcome = r->outcome,
		.refused = r->failed_n,
	};
	const struct cdc_attempt_ring ring = {.rows = settings->recorded.requests,
					      .bytes = settings->recorded.bytes};

	if (!r->attempt || !cdc_store_attempt_room(store, sync, &row))
		return false;
	row.records = r->attempt->records;
	row.request_bytes = r->attempt->body_bytes;
	return fill_texts(r, &row.texts) && cdc_store_attempt(store, sync, &row, &ring);
}
