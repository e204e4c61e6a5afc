#include "cdc/store/attempt_queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *copy_text(char **at, const char *text)
{
	size_t size = strlen(text) + 1;
	char *to = *at;

	memcpy(to, text, size);
	*at += size;
	return to;
}

struct cdc_attempt *cdc_attempt_new(const struct cdc_attempt_row *row)
{
	const struct cdc_attempt_texts *t = &row->texts;
	size_t bytes = strlen(t->method) + strlen(t->url) + strlen(t->headers) + strlen(t->text) +
		       strlen(t->request) + strlen(t->response) + 6;
	struct cdc_attempt *a = malloc(sizeof(*a) + bytes);
	char *at = (char *)(a + 1);

	if (!a)
		return NULL;
	*a = (struct cdc_attempt){.row = *row, .bytes = bytes};
	a->row.texts = (struct cdc_attempt_texts){
		.method = copy_text(&at, t->method),
		.url = copy_text(&at, t->url),
		.headers = copy_text(&at, t->headers),
		.text = copy_text(&at, t->text),
		.request = copy_text(&at, t->request),
		.response = copy_text(&at, t->response),
	};
	return a;
}

static struct cdc_attempts *find(const struct cdc_attempt_queue *q, const char *sync)
{
	struct cdc_attempts *of = q->syncs;

	while (of && strcmp(of->sync, sync) != 0)
		of = of->next;
	return of;
}

bool cdc_attempt_queue_has_room(const struct cdc_attempt_queue *q, const char *sync,
				const struct cdc_attempt_row *row)
{
	const struct cdc_attempts *of = find(q, sync);
	const bool is_done = !row->outcome && !row->refused;

	return q->bytes < CDC_ATTEMPTS_BYTES &&
	       (!of || of->n < (is_done ? CDC_ATTEMPTS_DONE : CDC_ATTEMPTS_OF_SYNC));
}

bool cdc_attempt_queue_put(struct cdc_attempt_queue *q, const char *sync, struct cdc_attempt *a,
			   const struct cdc_attempt_ring *ring)
{
	struct cdc_attempts *of = find(q, sync);

	if (!of) {
		of = calloc(1, sizeof(*of));
		if (!of)
			return false;
		(void)snprintf(of->sync, sizeof(of->sync), "%s", sync);
		of->next = q->syncs;
		q->syncs = of;
	}
	if (of->last)
		of->last->next = a;
	else
		of->first = a;
	of->last = a;
	of->n++;
	of->ring = *ring;
	q->n++;
	q->bytes += a->bytes;
	return true;
}

void cdc_attempt_queue_put_back(struct cdc_attempt_queue *q, struct cdc_attempt_queue *older)
{
	while (older->syncs) {
		struct cdc_attempts *of = older->syncs, *newer = find(q, of->sync);

		older->syncs = of->next;
		if (!newer) {
			of->next = q->syncs;
			q->syncs = of;
			continue;
		}
		of->last->next = newer->first;
		newer->first = of->first;
		newer->n += of->n;
		free(of);
	}
	q->n += older->n;
	q->bytes += older->bytes;
	*older = (struct cdc_attempt_queue){0};
}

void cdc_attempt_queue_clear(struct cdc_attempt_queue *q)
{
	while (q->syncs) {
		struct cdc_attempts *of = q->syncs;

		q->syncs = of->next;
		while (of->first) {
			struct cdc_attempt *a = of->first;

			of->first = a->next;
			free(a);
		}
		free(of);
	}
	*q = (struct cdc_attempt_queue){0};
}
