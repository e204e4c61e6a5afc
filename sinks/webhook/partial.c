#include "sinks/webhook/partial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

void sink_webhook_partial_clear(struct sink_webhook_partial *p)
{
	free(p->ids);
	free(p->failed);
	*p = (struct sink_webhook_partial){0};
}

enum cdc_code sink_webhook_partial_note(struct sink_webhook_partial *p, const struct sink_job *job,
					struct cdc_err *err)
{
	if (p->cap < job->n) {
		struct cdc_id *ids = reallocarray(p->ids, job->n, sizeof(*ids));
		struct sink_failed *failed;

		if (!ids)
			return cdc_err_set(err, CDC_NOMEM, "out of memory for a request");
		p->ids = ids;
		failed = reallocarray(p->failed, job->n, sizeof(*failed));
		if (!failed)
			return cdc_err_set(err, CDC_NOMEM, "out of memory for a request");
		p->failed = failed;
		p->cap = job->n;
	}
	p->n = job->n;
	for (size_t i = 0; i < job->n; i++)
		p->ids[i] = job->views[i].rec->id;
	return CDC_OK;
}

/* Its place in the request; n: it was not sent. */
static size_t place_of(const struct sink_webhook_partial *p, const json_t *id)
{
	const char *text = json_string_value(id);
	struct cdc_id wanted;
	size_t i = p->n;

	if (text && cdc_id_parse(text, json_string_length(id), &wanted)) {
		for (i = 0; i < p->n && cdc_id_cmp(&p->ids[i], &wanted) != 0;)
			i++;
	}
	return i;
}

/* What is wrong with an entry, or NULL. */
static const char *read_entry(const struct sink_webhook_partial *p, const json_t *entry,
			      struct sink_failed *ret)
{
	const json_t *reason = json_object_get(entry, "reason");
	const json_t *retry = json_object_get(entry, "retry");

	if (!json_is_object(entry) || (reason && !json_is_string(reason)) ||
	    (retry && !json_is_boolean(retry)))
		return "an entry of failed is not {id, reason, retry}";
	ret->index = place_of(p, json_object_get(entry, "id"));
	if (ret->index == p->n)
		return "failed names an id that was not sent";
	ret->may_retry = !retry || json_is_true(retry);
	(void)snprintf(ret->reason, sizeof(ret->reason), "%s",
		       reason ? json_string_value(reason) : "no reason given");
	return NULL;
}

static int compare(const void *a, const void *b)
{
	const struct sink_failed *x = a, *y = b;

	return x->index < y->index ? -1 : x->index > y->index;
}

/* Fills p->failed, by rising index. */
static const char *read_failed(struct sink_webhook_partial *p, const json_t *failed, size_t *ret_n)
{
	if (failed && !json_is_array(failed))
		return "failed is not an array";
	if (json_array_size(failed) > p->n)
		return "failed has more entries than records were sent";
	for (size_t i = 0; i < json_array_size(failed); i++) {
		const char *wrong = read_entry(p, json_array_get(failed, i), &p->failed[i]);

		if (wrong)
			return wrong;
	}
	*ret_n = json_array_size(failed);
	if (*ret_n)
		qsort(p->failed, *ret_n, sizeof(*p->failed), compare);
	for (size_t i = 1; i < *ret_n; i++) {
		if (p->failed[i].index == p->failed[i - 1].index)
			return "failed names an id twice";
	}
	return NULL;
}

static const char *read_answer(struct sink_webhook_partial *p, const struct sink_http_answer *a,
			       size_t *ret_n)
{
	json_error_t error;
	json_t *root;
	const char *wrong;

	*ret_n = 0;
	if (!a->is_whole || a->body_len >= SINK_HTTP_ANSWER_BYTES)
		return "the answer is cut";
	if (a->body_len == 0)
		return NULL;
	root = json_loadb(a->body, a->body_len, JSON_REJECT_DUPLICATES, &error);
	wrong = json_is_object(root) ? read_failed(p, json_object_get(root, "failed"), ret_n)
				     : "the answer is not a JSON object";
	json_decref(root);
	return wrong;
}

static void set_again(struct sink_result *ret, const struct sink_http_answer *a, const char *text)
{
	ret->outcome = SINK_RETRY;
	ret->is_transient = true;
	ret->response = a->body;
	ret->response_len = a->body_len < SINK_HTTP_KEPT_BYTES ? a->body_len : SINK_HTTP_KEPT_BYTES;
	(void)snprintf(ret->text, sizeof(ret->text), "%d, but %s", a->status, text);
}

void sink_webhook_partial_read(struct sink_webhook_partial *p, const struct sink_http_answer *a,
			       struct sink_result *ret)
{
	size_t n;
	const char *wrong = read_answer(p, a, &n);

	if (wrong) {
		set_again(ret, a, wrong);
	} else if (n && p->n == 1) {
		set_again(ret, a, p->failed[0].reason);
		if (!p->failed[0].may_retry) {
			ret->outcome = SINK_REJECT;
			ret->is_transient = false;
		}
	} else if (n) {
		ret->failed = p->failed;
		ret->failed_n = n;
	}
}
