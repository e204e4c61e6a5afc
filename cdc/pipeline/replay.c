#include "cdc/pipeline/replay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/clock.h"

void cdc_replay_from_time(int64_t us, char ret_argument[CDC_REPLAY_TEXT])
{
	(void)snprintf(ret_argument, CDC_REPLAY_TEXT, "@%" PRId64, us);
}

void cdc_replay_from_id(const struct cdc_id *id, char ret_argument[CDC_REPLAY_TEXT])
{
	(void)cdc_id_format(id, ret_argument);
}

/* The highest id of a change below this one. */
static struct cdc_id before(struct cdc_id id)
{
	if (id.part) {
		id.part--;
	} else if (id.ordinal) {
		id.part = UINT16_MAX;
		id.ordinal--;
	} else if (id.commit_lsn) {
		id.part = UINT16_MAX;
		id.ordinal = UINT32_MAX;
		id.commit_lsn--;
	} else {
		id = (struct cdc_id){0};
	}
	return id;
}

bool cdc_replay_parse(const char *argument, struct cdc_start *ret)
{
	char *end;

	*ret = (struct cdc_start){.at = CDC_START_ID};
	if (argument[0] != '@') {
		if (!cdc_id_parse(argument, strlen(argument), &ret->id) || ret->id.range)
			return false;
		ret->id = before(ret->id);
		return true;
	}
	errno = 0;
	ret->at = CDC_START_TIME;
	ret->time_us = strtoll(argument + 1, &end, 10);
	return !errno && end != argument + 1 && !*end;
}

/* What every reader says first of a table lies below the group's position. */
static bool find_in(const struct cdc_read *read, const struct cdc_id *above, struct cdc_id *ret_id,
		    int64_t *ret_us)
{
	for (size_t i = 0; i < read->n; i++) {
		const struct cdc_record *rec = &read->batch->records[read->index[i]];

		if (cdc_id_cmp(&rec->id, above) <= 0)
			continue;
		*ret_id = rec->id;
		*ret_us = rec->commit_us;
		return true;
	}
	return false;
}

enum cdc_code cdc_replay_find(const struct cdc_replay_search *s, struct cdc_id *ret_id,
			      int64_t *ret_us, struct cdc_err *err)
{
	const struct cdc_position from = {.n = 1,
					  .streams = &(struct cdc_stream_position){
						  .stream = s->from.stream, .id = s->from.id}};
	struct cdc_buffer_reader *reader = NULL;
	bool is_found = false, is_over = false;
	enum cdc_code rc = s->ops->reader_open(s->buffer, s->group, &from, s->tables, s->table_n,
					       &reader, err);

	while (!rc && !is_found && !is_over) {
		struct cdc_read read;

		rc = s->ops->read(reader, &read, err);
		if (rc)
			break;
		is_found = find_in(&read, &s->from.id, ret_id, ret_us);
		is_over = read.is_at_end || cdc_id_cmp(&read.through.id, &s->to) >= 0;
		if (read.lease)
			s->ops->release(reader, read.lease);
		cdc_board_beat(s->board, cdc_clock_mono_ms());
		if (!is_found && !is_over && cdc_stop_is_set(s->stop))
			rc = cdc_err_set(err, CDC_STOPPED, "walpost stops");
	}
	if (reader)
		s->ops->reader_close(reader);
	if (!rc && (!is_found || cdc_id_cmp(ret_id, &s->to) > 0))
		rc = cdc_err_set(err, CDC_MISSING, "no change of its tables");
	return rc;
}
