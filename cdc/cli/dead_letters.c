/*
 * `walpost dead-letters list|show|replay|discard`: what endpoints have refused for
 * good, from the state in data_dir, whether walpost runs or not.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cdc/base/clock.h"
#include "cdc/cli/command.h"
#include "cdc/cli/data_dir.h"
#include "cdc/cli/key_text.h"
#include "cdc/cli/when.h"
#include "cdc/record/value.h"

#define PAGE 500

static const char *state_name(const struct cdc_parked_record *r)
{
	switch (r->state) {
	case CDC_PARKED_WAITING:
		return "parked";
	case CDC_PARKED_DEAD:
		return "dead";
	case CDC_PARKED_REPLAY:
		return "replay";
	}
	return "";
}

/* --- what is meant ------------------------------------------------------------------ */

static bool read_time(const char *option, const char *text, int64_t *ret_us)
{
	return !text || cdc_command_time(option, text, ret_us);
}

static bool read_id(const char *text, char ret_id[CDC_ID_TEXT])
{
	struct cdc_id id;

	if (!cdc_id_parse(text, strlen(text), &id)) {
		(void)fprintf(stderr, "walpost: %s is no id of a record\n", text);
		return false;
	}
	(void)cdc_id_format(&id, ret_id);
	return true;
}

static bool read_key(const char *text, struct cdc_buf *key)
{
	if (!cdc_key_text(text, key)) {
		(void)fprintf(stderr,
			      "walpost: --key %s is no key of a record; write it as records have "
			      "it, such as '{\"id\": 1}', or null\n",
			      text);
		return false;
	}
	if (key->failed)
		(void)fprintf(stderr, "walpost: out of memory\n");
	return !key->failed;
}

/* An empty one would stand for all of them. */
static bool read_table(const char *text)
{
	if (cdc_command_is_table(text))
		return true;
	(void)fprintf(stderr, "walpost: --table %s is no table's name; write schema.table\n", text);
	return false;
}

/* What ret points to is the arguments', id's and key's. */
static bool read_filter(const struct cdc_cli_args *args, const struct cdc_config *config,
			char id[CDC_ID_TEXT], struct cdc_buf *key, struct cdc_parked_filter *ret)
{
	*ret = (struct cdc_parked_filter){.sync = args->sync,
					  .table = args->table,
					  .state = args->is_parked ? CDC_PARKED_WAITING
								   : CDC_PARKED_DEAD};
	if (args->sync && !cdc_command_sync(config, "dead-letters", args->sync))
		return false;
	if (args->id && !read_id(args->id, id))
		return false;
	ret->id = args->id ? id : NULL;
	if ((args->key && !read_key(args->key, key)) || (args->table && !read_table(args->table)))
		return false;
	ret->key = args->key ? (const char *)key->data : NULL;
	return read_time("since", args->since, &ret->since_us) &&
	       read_time("until", args->until, &ret->until_us);
}

/* --- printing ----------------------------------------------------------------------- */

static void put_time(struct cdc_buf *out, const char *name, int64_t at_us)
{
	char text[CDC_TIME_TEXT];

	(void)cdc_time_format(at_us, text);
	if (at_us)
		cdc_buf_printf(out, ",\"%s\":\"%s\"", name, text);
	else
		cdc_buf_printf(out, ",\"%s\":null", name);
}

static void put_text(struct cdc_buf *out, const char *name, const char *text)
{
	cdc_buf_printf(out, ",\"%s\":", name);
	cdc_value_string(out, text, strlen(text));
}

/* One object on a line; key and record as the record has them. */
static enum cdc_code print_json(const struct cdc_parked_record *r, struct cdc_err *err)
{
	struct cdc_buf out;
	char id[CDC_ID_TEXT];
	bool failed;

	cdc_buf_init(&out, SIZE_MAX);
	(void)cdc_id_format(&r->id, id);
	cdc_buf_printf(&out, "{\"id\":\"%s\"", id);
	put_text(&out, "sync", r->sync);
	put_text(&out, "schema", r->table);
	cdc_buf_puts(&out, ",\"key\":");
	cdc_buf_puts(&out, *r->key ? r->key : "null");
	cdc_buf_printf(&out,
		       ",\"state\":\"%s\",\"attempts\":%" PRIu64 ",\"status\":", state_name(r),
		       r->attempts);
	if (r->status)
		cdc_buf_printf(&out, "%d", r->status);
	else
		cdc_buf_puts(&out, "null");
	put_text(&out, "reason", r->reason);
	put_text(&out, "response", r->response);
	put_time(&out, "parked_at", r->parked_us);
	put_time(&out, "dead_at", r->dead_us);
	if (r->damage)
		put_text(&out, "unreadable", r->damage);
	if (r->record) {
		cdc_buf_puts(&out, ",\"record\":");
		cdc_buf_puts(&out, *r->record ? r->record : "null");
	}
	cdc_buf_puts(&out, "}\n");
	failed = out.failed;
	if (!failed)
		(void)fwrite(out.data, 1, out.len, stdout);
	cdc_buf_clear(&out);
	return failed ? cdc_err_set(err, CDC_NOMEM, "out of memory") : CDC_OK;
}

/* Control characters of others must not reach a terminal. */
static void print_clean(const char *text)
{
	for (; *text; text++)
		(void)putchar((unsigned char)*text < ' ' || *text == 0x7f ? ' ' : *text);
}

static void print_line(const struct cdc_parked_record *r)
{
	char id[CDC_ID_TEXT], since[CDC_TIME_TEXT];

	(void)cdc_id_format(&r->id, id);
	(void)cdc_time_format(r->dead_us ? r->dead_us : r->parked_us, since);
	since[19] = '\0'; /* to the second */
	(void)printf("%s  %s  %-6s  %3" PRIu64 "  %3d  ", id, since, state_name(r), r->attempts,
		     r->status);
	print_clean(r->sync);
	(void)printf("  ");
	print_clean(r->table);
	(void)putchar(' ');
	print_clean(r->key);
	(void)printf("  ");
	print_clean(r->reason);
	if (r->damage)
		(void)printf("  (%s)", r->damage);
	(void)putchar('\n');
}

static enum cdc_code print_whole(const struct cdc_parked_record *r)
{
	print_line(r);
	(void)printf("record: %s\n", r->record);
	(void)printf("response: ");
	print_clean(r->response);
	(void)putchar('\n');
	return CDC_OK;
}

/* --- verbs -------------------------------------------------------------------------- */

static enum cdc_code list(const struct cdc_cli_args *args, struct cdc_store *store,
			  struct cdc_parked_filter *f, struct cdc_err *err)
{
	char sync[CDC_NAME_MAX], id[CDC_ID_TEXT];
	size_t n = PAGE;
	enum cdc_code rc = CDC_OK;

	if (!args->is_json)
		(void)printf("ID, SINCE, STATE, ATTEMPTS, STATUS, SYNC, TABLE, KEY, REASON\n");
	while (!rc && n == PAGE) {
		struct cdc_parked_record *rows = NULL;

		n = 0;
		rc = cdc_store_parked_list(store, f, PAGE, &rows, &n, err);
		for (size_t i = 0; i < n && !rc; i++) {
			if (args->is_json)
				rc = print_json(&rows[i], err);
			else
				print_line(&rows[i]);
		}
		if (n && !rc) {
			(void)snprintf(sync, sizeof(sync), "%s", rows[n - 1].sync);
			(void)cdc_id_format(&rows[n - 1].id, id);
			f->after_sync = sync;
			f->after_id = id;
		}
		cdc_parked_records_free(rows, n);
	}
	return rc;
}

/* In every sync that may have it. */
static enum cdc_code show(const struct cdc_cli_args *args, const struct cdc_config *config,
			  struct cdc_store *store, const struct cdc_parked_filter *f,
			  struct cdc_err *err)
{
	size_t found = 0;
	enum cdc_code rc = CDC_OK;

	for (size_t i = 0; i < config->sync_n && !rc; i++) {
		struct cdc_parked_record *row = NULL;

		if (f->sync && strcmp(f->sync, config->syncs[i].name) != 0)
			continue;
		rc = cdc_store_parked_get(store, config->syncs[i].name, f->id, &row, err);
		if (rc == CDC_MISSING) {
			rc = CDC_OK;
			continue;
		}
		if (rc)
			break;
		found++;
		rc = args->is_json ? print_json(row, err) : print_whole(row);
		if (!rc && row->damage)
			rc = cdc_err_set(err, CDC_REJECTED, "%s", row->damage);
		cdc_parked_records_free(row, 1);
	}
	if (!rc && !found)
		return cdc_err_set(err, CDC_MISSING, "no record with the id %s is kept", f->id);
	return rc;
}

static enum cdc_code discard_unreadable(const struct cdc_config *config, struct cdc_store *store,
					enum cdc_code locked, struct cdc_err *err)
{
	uint64_t n = 0;
	enum cdc_code rc;

	/* A walpost that runs has the key that is missing here. */
	if (locked && cdc_data_dir_is_held(config->data_dir))
		return locked;
	rc = cdc_store_discard_unreadable(store, &n, err);
	if (!rc)
		(void)printf("%" PRIu64 " %s discarded that could not be read\n", n,
			     n == 1 ? "record" : "records");
	return rc;
}

static enum cdc_code act(struct cdc_store *store, const struct cdc_parked_filter *f, bool is_replay,
			 struct cdc_err *err)
{
	uint64_t n = 0;
	enum cdc_code rc = is_replay ? cdc_store_dead_replay(store, f, &n, err)
				     : cdc_store_dead_discard(store, f, &n, err);

	if (!rc)
		(void)printf("%" PRIu64 " %s %s\n", n, n == 1 ? "record" : "records",
			     is_replay ? "to be sent again" : "discarded");
	return rc;
}

enum verb { VERB_LIST, VERB_SHOW, VERB_REPLAY, VERB_DISCARD, VERB_NONE };

static enum verb verb_of(const char *text)
{
	static const char *const names[] = {"list", "show", "replay", "discard"};
	size_t i = 0;

	while (i < VERB_NONE && (!text || strcmp(text, names[i]) != 0))
		i++;
	return (enum verb)i;
}

/* What is printed for a command line that cannot be meant; NULL: nothing is wrong with it. */
static const char *mistake_of(const struct cdc_cli_args *args, enum verb verb)
{
	const bool has_filter =
		args->sync || args->table || args->key || args->id || args->since || args->until;

	if (verb == VERB_NONE)
		return "dead-letters knows list, show, replay and discard";
	if (args->operand_n && verb != VERB_SHOW)
		return "one argument too many; what is meant is said by --sync, --table, --key, "
		       "--id, --since and --until";
	if (verb == VERB_SHOW && !args->id && !args->operand_n)
		return "show needs the id of a record";
	if ((verb == VERB_REPLAY || verb == VERB_DISCARD) && !has_filter && !args->is_all &&
	    !args->is_unreadable)
		return "say which: by --sync, --table, --key, --id, --since, --until, or --all";
	if (args->is_parked && verb != VERB_LIST)
		return "--parked goes with list";
	if (args->is_unreadable && (verb != VERB_DISCARD || has_filter || args->is_all))
		return "--unreadable goes with discard, and with no other option";
	return NULL;
}

static int run(const struct cdc_cli_args *args, const struct cdc_config *config, enum verb verb)
{
	struct cdc_store *store = NULL;
	struct cdc_cli_args given = *args;
	struct cdc_parked_filter f;
	struct cdc_buf key;
	char id[CDC_ID_TEXT];
	struct cdc_err err;
	enum cdc_code rc;

	memset(&err, 0, sizeof(err));
	if (args->operand_n)
		given.id = args->operands[0];
	cdc_buf_init(&key, SIZE_MAX);
	if (!read_filter(&given, config, id, &key, &f)) {
		cdc_buf_clear(&key);
		return CDC_EXIT_USAGE;
	}
	rc = cdc_command_open(config, &store, &err);
	if (!rc)
		rc = cdc_store_unlock(store, config->master_key, &err);
	if (store && args->is_unreadable)
		rc = discard_unreadable(config, store, rc, &err);
	else if (!rc && verb == VERB_LIST)
		rc = list(args, store, &f, &err);
	else if (!rc && verb == VERB_SHOW)
		rc = show(args, config, store, &f, &err);
	else if (!rc)
		rc = act(store, &f, verb == VERB_REPLAY, &err);
	if (rc)
		cdc_cli_complain(&err);
	cdc_store_close(store);
	cdc_buf_clear(&key);
	return rc ? CDC_EXIT_FAILED : CDC_EXIT_DONE;
}

int cdc_cli_dead_letters(const struct cdc_cli_args *args)
{
	const enum verb verb = verb_of(args->subject);
	const char *mistake = mistake_of(args, verb);
	struct cdc_config *config;
	int code = CDC_EXIT_USAGE;

	if (mistake) {
		(void)fprintf(stderr, "walpost: %s\n", mistake);
		return CDC_EXIT_USAGE;
	}
	(void)umask(077);
	config = cdc_cli_load(args, &code);
	if (!config)
		return code;
	code = run(args, config, verb);
	cdc_config_free(config);
	return code;
}
