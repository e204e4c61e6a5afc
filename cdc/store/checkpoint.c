#include "cdc/store/checkpoint.h"

#include <stdlib.h>
#include <string.h>

/* A copy of n elements with room for one, so that none is not NULL. */
static void *copy_of(const void *from, size_t n, size_t size)
{
	void *to = calloc(n + 1, size);

	if (to && n)
		memcpy(to, from, n * size);
	return to;
}

struct cdc_checkpoint *cdc_checkpoint_new(const struct cdc_cursor *from)
{
	struct cdc_checkpoint *c = calloc(1, sizeof(*c));
	struct cdc_cursor *to;

	if (!c)
		return NULL;
	to = &c->cursor;
	memcpy(to->sync, from->sync, sizeof(to->sync));
	to->streams = copy_of(from->streams, from->stream_n, sizeof(*to->streams));
	to->tables = copy_of(from->tables, from->table_n, sizeof(*to->tables));
	to->stream_n = from->stream_n;
	to->table_n = from->table_n;
	if (to->streams && to->tables)
		return c;
	cdc_checkpoints_free(c);
	return NULL;
}

void cdc_checkpoints_free(struct cdc_checkpoint *list)
{
	while (list) {
		struct cdc_checkpoint *next = list->next;

		cdc_cursor_clear(&list->cursor);
		free(list);
		list = next;
	}
}

struct cdc_checkpoint *cdc_checkpoints_take(struct cdc_checkpoint **list, const char *sync)
{
	for (struct cdc_checkpoint **at = list; *at; at = &(*at)->next) {
		struct cdc_checkpoint *c = *at;

		if (strcmp(c->cursor.sync, sync) == 0) {
			*at = c->next;
			c->next = NULL;
			return c;
		}
	}
	return NULL;
}

struct cdc_checkpoint *cdc_checkpoints_put(struct cdc_checkpoint **list, struct cdc_checkpoint *c)
{
	struct cdc_checkpoint *old = cdc_checkpoints_take(list, c->cursor.sync);

	c->next = *list;
	*list = c;
	return old;
}

struct cdc_checkpoint *cdc_checkpoints_put_back(struct cdc_checkpoint **list,
						struct cdc_checkpoint *older)
{
	struct cdc_checkpoint *dead = NULL;

	while (older) {
		struct cdc_checkpoint *c = older;
		struct cdc_checkpoint *newer = cdc_checkpoints_take(list, c->cursor.sync);

		older = c->next;
		if (newer) {
			c->next = dead;
			dead = c;
			c = newer;
		}
		c->next = *list;
		*list = c;
	}
	return dead;
}
