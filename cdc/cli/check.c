/*
 * `walpost check`: every preflight test, one line each, and what mends it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cdc/cli/cli.h"
#include "cdc/cli/data_dir.h"
#include "cdc/cli/feed.h"
#include "cdc/record/value.h"
#include "cdc/source/chosen.h"
#include "cdc/store/store.h"
#include "sinks/sink.h"

#define JSON_MAX (4u << 20) /* of the strings of one test, with room to spare */

struct tally {
	const char *subject; /* what the tests are about: "source shop" */
	bool is_json;
	size_t n, failed, warned;
};

/* {"name": "...", "name": "..."}, one test per line. */
static void print_json(const struct tally *t, const struct cdc_finding *f, const char *result)
{
	const char *const pairs[][2] = {{"subject", t->subject},
					{"test", f->name},
					{"result", result},
					{"text", f->text},
					{"remedy", f->verdict == CDC_PASS ? "" : f->remedy}};
	struct cdc_buf line;

	cdc_buf_init(&line, JSON_MAX);
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		cdc_buf_printf(&line, "%s\"%s\":", i ? "," : "{", pairs[i][0]);
		cdc_value_string(&line, pairs[i][1], strlen(pairs[i][1]));
	}
	cdc_buf_putc(&line, '}');
	(void)printf("%s\n%.*s", t->n ? "," : "", (int)line.len, (const char *)line.data);
	cdc_buf_clear(&line);
}

static void print_finding(void *arg, const struct cdc_finding *f)
{
	static const char *const words[] = {
		[CDC_PASS] = "ok  ", [CDC_WARN] = "warn", [CDC_FAIL] = "FAIL"};
	static const char *const results[] = {
		[CDC_PASS] = "ok", [CDC_WARN] = "warning", [CDC_FAIL] = "failed"};
	struct tally *t = arg;
	bool has_remedy = f->remedy[0] && f->verdict != CDC_PASS;

	if (t->is_json)
		print_json(t, f, results[f->verdict]);
	else
		(void)printf("%s  %s: %s: %s%s%s\n", words[f->verdict], t->subject, f->name,
			     f->text, has_remedy ? "; to mend it: " : "",
			     has_remedy ? f->remedy : "");
	t->n++;
	t->failed += f->verdict == CDC_FAIL;
	t->warned += f->verdict == CDC_WARN;
}

static void print_configuration(struct tally *t, const struct cdc_config *config)
{
	struct cdc_finding f = {.verdict = CDC_PASS, .name = "file"};

	(void)snprintf(f.text, sizeof(f.text), "%.200s: %zu connections, %zu syncs", config->path,
		       config->connection_n, config->sync_n);
	t->subject = "configuration";
	print_finding(t, &f);
}

static void print_verdict(const struct tally *t, bool is_config_only)
{
	if (t->is_json)
		(void)printf("\n],\"verdict\":\"%s\",\"tests_run\":%zu,\"warnings\":%zu,\"failed\":"
			     "%zu}\n",
			     t->failed   ? "failed"
			     : t->warned ? "warning"
					 : "ok",
			     t->n, t->warned, t->failed);
	else if (t->failed)
		(void)printf("\n%zu of %zu tests failed; `walpost run` would not deliver.\n",
			     t->failed, t->n);
	else if (t->warned)
		(void)printf("\nIt would work, with %zu warnings in %zu tests.\n", t->warned, t->n);
	else if (is_config_only)
		(void)printf("\nThe configuration is right; nothing else was tested.\n");
	else
		(void)printf("\nEverything is ready for `walpost run`: %zu tests passed.\n", t->n);
}

static void print_error(struct tally *t, enum cdc_verdict verdict, const char *name,
			const struct cdc_err *err)
{
	struct cdc_finding f = {.verdict = verdict};

	(void)snprintf(f.name, sizeof(f.name), "%s", name);
	(void)snprintf(f.text, sizeof(f.text), "%.*s", (int)sizeof(f.text) - 1, err->msg);
	(void)snprintf(f.remedy, sizeof(f.remedy), "%s", err->remedy);
	print_finding(t, &f);
}

/* Does data_dir hold what was read of this slot?  What cannot be opened is another test's to tell.
 */
static bool was_read(const struct cdc_config *config, const struct cdc_feed *feed)
{
	struct cdc_store *store = NULL;
	struct cdc_slot_row row;
	bool is_known;

	if (cdc_store_attach(config->data_dir, &store, NULL))
		return false;
	is_known = !cdc_store_slot_get(store, feed->connection->name, feed->slot, &row, NULL);
	cdc_store_close(store);
	return is_known;
}

static void check_source(const struct cdc_config *config, const struct cdc_feed *feed,
			 struct tally *t)
{
	struct cdc_source_plan plan = cdc_feed_plan(feed);
	char subject[128];

	(void)snprintf(subject, sizeof(subject), "source %s", feed->connection->name);
	t->subject = subject;
	plan.was_read = was_read(config, feed);
	cdc_source_preflight(&plan, print_finding, t);
}

/* The columns and rows of a sync that takes not all of them. */
static void check_selection(const struct cdc_sync *sync, struct tally *t)
{
	char subject[128];

	if (cdc_selection_is_plain(&sync->selection))
		return;
	(void)snprintf(subject, sizeof(subject), "sync %s", sync->name);
	t->subject = subject;
	cdc_chosen_check(sync->source->settings, &sync->selection, print_finding, t);
}

static void check_destination(const struct cdc_sync *sync, struct tally *t)
{
	const struct sink_ops *sink = sink_find(sync->destination->type->name);
	const struct sink_settings settings = {
		.connection = sync->destination->settings,
		.sync = sync->destination_settings,
		.sync_id = sync->uuid,
		.sync_name = sync->name,
		.concurrency = 1,
		.wake_fd = -1,
	};
	struct cdc_finding found = {.verdict = CDC_PASS, .name = "endpoint"};
	struct cdc_err err;
	char subject[128];
	void *state = NULL;
	enum cdc_code rc;

	memset(&err, 0, sizeof(err));
	(void)snprintf(subject, sizeof(subject), "sync %s", sync->name);
	t->subject = subject;
	rc = sink->open(&settings, &state, &err);
	if (!rc)
		rc = sink->probe(state, found.text, sizeof(found.text), &err);
	if (rc)
		print_error(t, rc == CDC_REJECTED ? CDC_WARN : CDC_FAIL, "endpoint", &err);
	else
		print_finding(t, &found);
	sink->close(state);
}

/* Can the folder be made and written, and is there room for the buffers?  A running walpost holds
 * it: fine, too. */
static void check_data_dir(const struct cdc_config *config, size_t feed_n, struct tally *t)
{
	struct cdc_finding found = {.verdict = CDC_PASS, .name = "data_dir"};
	struct cdc_err err;
	struct statvfs fs;
	bool was_there = access(config->data_dir, F_OK) == 0;
	uint64_t free_bytes, want = config->max_bytes * feed_n;
	enum cdc_code rc;
	int fd = -1;

	memset(&err, 0, sizeof(err));
	t->subject = "buffer";
	rc = cdc_data_dir_lock(config->data_dir, &fd, &err);
	if (rc && rc != CDC_HELD) {
		print_error(t, CDC_FAIL, "data_dir", &err);
		return;
	}
	if (statvfs(config->data_dir, &fs) == 0) {
		free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
		(void)snprintf(
			found.text, sizeof(found.text),
			"%s can be written%s, %llu MiB free, at most %llu MiB needed",
			config->data_dir, rc == CDC_HELD ? " (a running walpost holds it)" : "",
			(unsigned long long)(free_bytes >> 20), (unsigned long long)(want >> 20));
		if (free_bytes < want) {
			found.verdict = CDC_WARN;
			(void)snprintf(found.remedy, sizeof(found.remedy),
				       "free disk space, or set buffer.max_bytes so that it fits");
		}
	}
	print_finding(t, &found);
	if (fd >= 0)
		(void)close(fd);
	if (!was_there && fd >= 0) {
		/* check leaves nothing behind */
		char lock[4200];

		(void)snprintf(lock, sizeof(lock), "%s/lock", config->data_dir);
		(void)unlink(lock);
		(void)rmdir(config->data_dir);
	}
}

/* What is stored must be readable with the key that there is; one that is not there yet is made. */
static void check_master_key(const struct cdc_config *config, struct tally *t)
{
	struct cdc_finding found = {.verdict = CDC_PASS, .name = "master_key"};
	struct cdc_store *store = NULL;
	struct cdc_err err;

	memset(&err, 0, sizeof(err));
	t->subject = "state";
	if (cdc_store_attach(config->data_dir, &store, NULL))
		return; /* there is none yet */
	if (cdc_store_unlock(store, config->master_key, &err)) {
		print_error(t, CDC_FAIL, "master_key", &err);
	} else {
		(void)snprintf(found.text, sizeof(found.text), "what is parked in %s can be read",
			       config->data_dir);
		print_finding(t, &found);
	}
	cdc_store_close(store);
}

int cdc_cli_check(const struct cdc_cli_args *args)
{
	struct cdc_feed *feeds = NULL;
	struct cdc_config *config;
	struct tally t = {.is_json = args->is_json};
	struct cdc_err err;
	size_t feed_n = 0;
	int code = CDC_EXIT_FAILED;

	(void)umask(077);
	memset(&err, 0, sizeof(err));
	config = cdc_cli_load(args, &code);
	if (!config)
		return code;
	if (cdc_feeds_make(config, &feeds, &feed_n, &err)) {
		cdc_cli_complain(&err);
		cdc_config_free(config);
		return CDC_EXIT_USAGE;
	}
	if (t.is_json)
		(void)printf("{\"tests\":[");
	print_configuration(&t, config);
	if (!args->is_config_only) {
		for (size_t i = 0; i < feed_n; i++)
			check_source(config, &feeds[i], &t);
		for (size_t i = 0; i < config->sync_n; i++)
			check_selection(&config->syncs[i], &t);
		for (size_t i = 0; i < config->sync_n; i++)
			check_destination(&config->syncs[i], &t);
		check_data_dir(config, feed_n, &t);
		check_master_key(config, &t);
	}
	print_verdict(&t, args->is_config_only);
	cdc_feeds_free(feeds, feed_n);
	cdc_config_free(config);
	return t.failed ? CDC_EXIT_FAILED : CDC_EXIT_DONE;
}
