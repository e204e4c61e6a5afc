#include "cdc/base/behind.h"

#include <stdio.h>
#include <string.h>

void cdc_behind_init(struct cdc_behind *b)
{
	memset(b, 0, sizeof(*b));
	(void)pthread_mutex_init(&b->mu, NULL);
}

void cdc_behind_clear(struct cdc_behind *b)
{
	(void)pthread_mutex_destroy(&b->mu);
}

void cdc_behind_oldest(struct cdc_behind *b, const struct cdc_behind_record *r)
{
	(void)pthread_mutex_lock(&b->mu);
	b->view.has_oldest = r != NULL;
	if (r)
		b->view.oldest = *r;
	(void)pthread_mutex_unlock(&b->mu);
}

void cdc_behind_failed(struct cdc_behind *b, const char *text, int64_t now_us)
{
	(void)pthread_mutex_lock(&b->mu);
	(void)snprintf(b->view.failure, sizeof(b->view.failure), "%s", text);
	b->view.failure_us = now_us;
	(void)pthread_mutex_unlock(&b->mu);
}

void cdc_behind_read(struct cdc_behind *b, struct cdc_behind_view *ret)
{
	(void)pthread_mutex_lock(&b->mu);
	*ret = b->view;
	(void)pthread_mutex_unlock(&b->mu);
}
