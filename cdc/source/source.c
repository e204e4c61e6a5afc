#include "cdc/source/source.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/clock.h"
#include "cdc/source/catalog.h"
#include "cdc/source/change.h"
#include "cdc/source/frame.h"
#include "cdc/source/identity_watch.h"
#include "cdc/source/lookup.h"
#include "cdc/source/pgconn.h"
#include "cdc/source/pgoutput.h"
#include "cdc/source/publication_watch.h"
#include "cdc/source/quote.h"
#include "cdc/source/server.h"
#include "cdc/source/slot_watch.h"
#include "cdc/source/standby.h"

#define KNOWN_MAX   (256u << 20) /* descriptions of 100,000 tables of 40 columns */
#define START_MS    10000
#define ASK_MS      4000 /* a server that has nothing to say is asked whether it is there */
#define STOP_MS     2000
#define HEARD_MS    500  /* one look at the socket per this time is exact enough */
#define SQL_MAX     2048 /* START_REPLICATION with two quoted names */
#define FRAMES      10000 /* empty transactions may come for minutes; the caller has a clock to keep */
#define AWAITED_MS  5000        /* the notice comes again every second while it is so */
#define WATCH_MS    5000        /* a busy server writes some hundred MiB of WAL in it */
#define LARGE_BYTES (16u << 20) /* of a message: worth a new connection to be rid of */
#define LARGE_MS    2000
#define TLS_RECORDS 4 /* reads that empty what TLS may hold back: a record is 16 KiB, a read 8 */

/* What the second connection is asked for beside the stream, one at a time. */
enum watched { WATCHED_NOTHING, WATCHED_SLOT, WATCHED_TABLES, WATCHED_PUBLICATION };

struct cdc_source {
	const struct cdc_source_plan *plan;
	struct cdc_pgconn *stream; /* the replication connection; NULL: closed */
	struct cdc_lookup lookup;
	struct cdc_server server;
	char slot[64]; /* the one to start on */
	struct cdc_catalog *catalog;
	struct pgo_decoder decoder;
	struct cdc_describer describer;
	struct cdc_text_map known; /* by table: the `fields` of its last schema record */
	struct cdc_changes changes;
	struct cdc_pings pings;
	cdc_lsn received_lsn;
	uint64_t heard_ms; /* monotonic: when bytes came last */
	bool has_large;    /* the open transaction brought a large message */
	cdc_lsn large_end; /* of what the last large message was part of; 0: there was none */
	uint64_t large_ms; /* monotonic: when it came */
	bool is_streaming;
	bool has_published;   /* made the publication, and nobody knows yet */
	enum watched watched; /* the question that is under way */
	uint64_t watch_ms;    /* monotonic: when the slot was asked for last */
	char watch_sql[CDC_SLOT_SQL_MAX];
	uint64_t tables_ms; /* the same of the tables' identities */
	char tables_sql[CDC_IDENTITY_SQL_MAX];
	uint64_t publication_ms; /* the same of the publication */
	struct cdc_publication_watch publication;
	/* What the stream is asked for; of the settings, or as it was before they changed. */
	char read_by[64]; /* the publication */
	bool has_messages;
	cdc_lsn until;  /* commit LSN of the last transaction to read; 0: there is none */
	bool is_at_end; /* it was read */
	char *held;     /* a frame of held_n bytes that did not fit into the batch; libpq's */
	size_t held_n;
};

enum cdc_code cdc_source_check_hosts(const struct cdc_source_settings *settings,
				     struct cdc_err *err)
{
	struct cdc_host hosts[CDC_HOSTS_MAX];
	size_t n;

	return cdc_hosts_parse(settings->hostname, settings->port, hosts, &n, err);
}

enum cdc_code cdc_source_new(const struct cdc_source_plan *plan, struct cdc_source **ret,
			     struct cdc_err *err)
{
	struct cdc_source *s = calloc(1, sizeof(*s));

	if (!s)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a source");
	s->plan = plan;
	pgo_init(&s->decoder);
	cdc_server_init(&s->server);
	cdc_lookup_init(&s->lookup, plan->settings, plan->slot, plan->stop);
	cdc_describer_init(&s->describer, &s->lookup);
	cdc_text_map_init(&s->known, KNOWN_MAX);
	cdc_publication_watch_init(&s->publication, plan);
	s->catalog = cdc_catalog_new(&s->lookup);
	if (!s->catalog) {
		cdc_source_free(s);
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a source");
	}
	cdc_catalog_set_describer(s->catalog, &s->describer);
	*ret = s;
	return CDC_OK;
}

static void close_stream(struct cdc_source *s)
{
	PQfreemem(s->held);
	s->held = NULL;
	cdc_pgconn_close(s->stream);
	s->stream = NULL;
	s->is_streaming = false;
}

void cdc_source_free(struct cdc_source *s)
{
	if (!s)
		return;
	close_stream(s);
	cdc_lookup_clear(&s->lookup);
	cdc_catalog_free(s->catalog);
	cdc_describer_clear(&s->describer);
	cdc_text_map_clear(&s->known);
	cdc_publication_watch_clear(&s->publication);
	cdc_server_clear(&s->server);
	pgo_clear(&s->decoder);
	free(s);
}

/* --- connecting ------------------------------------------------------------------------ */

static enum cdc_code prepare(struct cdc_source *s, enum cdc_server_slot slot,
			     struct cdc_source_info *ret_info, struct cdc_err *err)
{
	enum cdc_code rc;

	close_stream(s);
	cdc_text_map_clear(&s->known);
	cdc_server_clear(&s->server);
	rc = cdc_pgconn_open_again(s->plan->settings, CDC_PGCONN_REPLICATION, s->plan->slot,
				   s->plan->stop, &s->lookup.hint, &s->stream, err);
	if (!rc)
		rc = cdc_server_prepare(&s->server, s->stream, s->plan, slot, s->slot, err);
	/* Told with the first success: only then is it written down whose it is. */
	s->has_published |= s->server.info.publication_was_created;
	s->server.info.publication_was_created = s->has_published;
	*ret_info = s->server.info;
	if (rc) {
		close_stream(s);
		return rc;
	}
	s->has_published = false;
	cdc_pgconn_hint(s->stream, &s->lookup.hint);
	return CDC_OK;
}

enum cdc_code cdc_source_connect(struct cdc_source *s, bool must_exist,
				 struct cdc_source_info *ret_info, struct cdc_err *err)
{
	return prepare(s, must_exist ? CDC_SERVER_SLOT_MUST_EXIST : CDC_SERVER_SLOT_ANY, ret_info,
		       err);
}

bool cdc_source_holds(const struct cdc_source *s, uint32_t timeline, cdc_lsn lsn, cdc_lsn *ret_end)
{
	return cdc_timelines_hold(&s->server.timelines, timeline, lsn, ret_end);
}

uint32_t cdc_source_timeline_at(const struct cdc_source *s, cdc_lsn lsn)
{
	return cdc_timelines_at(&s->server.timelines, lsn);
}

enum cdc_code cdc_source_know(struct cdc_source *s, struct cdc_view schema, struct cdc_err *err)
{
	size_t len;
	const char *table = cdc_view_table(schema, &len);

	if (cdc_text_map_put(&s->known, table, len, cdc_view_json(schema) + schema.rec->fields.off,
			     schema.rec->fields.len))
		return CDC_OK;
	return cdc_err_set(err, CDC_NOMEM, "out of memory for the descriptions of tables");
}

/* The replication grammar knows no backslash: only the quote itself is doubled. */
static void quote_literal(struct cdc_buf *out, const char *text)
{
	cdc_buf_putc(out, '\'');
	for (; *text; text++) {
		if (*text == '\'')
			cdc_buf_putc(out, '\'');
		cdc_buf_putc(out, *text);
	}
	cdc_buf_putc(out, '\'');
}

/* Publication names are a list of identifiers inside a literal: quoted twice. */
static void put_start(struct cdc_buf *out, const struct cdc_source *s, cdc_lsn lsn,
		      const char *publications)
{
	char at[CDC_LSN_TEXT];

	(void)cdc_lsn_format(lsn, at);
	cdc_buf_puts(out, "START_REPLICATION SLOT ");
	cdc_quote_name(out, s->slot);
	cdc_buf_puts(out, " LOGICAL ");
	cdc_buf_puts(out, at);
	cdc_buf_puts(out, " (\"proto_version\" '1', \"publication_names\" ");
	quote_literal(out, publications);
	if (s->has_messages)
		cdc_buf_puts(out, ", \"messages\" 'true'");
	cdc_buf_putc(out, ')');
}

static enum cdc_code start_stream(struct cdc_source *s, cdc_lsn lsn, struct cdc_err *err)
{
	struct cdc_buf names, sql;
	const char *publications;
	enum cdc_code rc;

	cdc_buf_init(&names, SQL_MAX);
	cdc_buf_init(&sql, SQL_MAX);
	cdc_quote_name(&names, s->read_by);
	publications = cdc_quote_end(&names);
	put_start(&sql, s, lsn, publications ? publications : "");
	rc = cdc_pgconn_run(s->stream, publications ? cdc_quote_end(&sql) : NULL, START_MS,
			    "starting the stream", err);
	cdc_buf_clear(&names);
	cdc_buf_clear(&sql);
	if (!rc && PQsetnonblocking(s->stream->pg, 1) != 0)
		rc = cdc_pgconn_failed(s->stream, NULL, "starting the stream", err);
	return rc;
}

static enum cdc_code begin(struct cdc_source *s, cdc_lsn lsn, unsigned generation,
			   struct cdc_err *err)
{
	enum cdc_code rc;

	CDC_ASSERT(s->stream && !s->is_streaming && generation <= 255);
	rc = start_stream(s, lsn, err);
	if (rc) {
		close_stream(s);
		return cdc_err_wrap(err, "slot %s", s->slot);
	}
	cdc_changes_begin(&s->changes, s->catalog, &s->server.timelines, lsn, generation);
	s->changes.known = &s->known;
	s->changes.prefixes = &s->plan->settings->message_prefixes;
	s->changes.max_record_bytes = s->plan->settings->max_record_bytes;
	s->pings = (struct cdc_pings){0};
	s->received_lsn = lsn;
	s->has_large = false;
	s->large_end = 0;
	s->heard_ms = cdc_clock_mono_ms();
	s->is_streaming = true;
	s->watch_ms = 0;
	s->tables_ms = cdc_clock_mono_ms(); /* they were looked at while connecting */
	s->publication_ms = 0;
	cdc_publication_watch_begin(&s->publication, s->server.info.server_version,
				    s->server.info.system_id);
	cdc_identity_sql(s->server.info.server_version, s->plan->settings->publication,
			 s->tables_sql);
	cdc_slot_sql(s->server.info.server_version, s->slot, PQbackendPID(s->stream->pg),
		     s->watch_sql);
	return CDC_OK;
}

enum cdc_code cdc_source_start(struct cdc_source *s, cdc_lsn lsn, unsigned generation,
			       struct cdc_err *err)
{
	(void)snprintf(s->read_by, sizeof(s->read_by), "%s", s->plan->settings->publication);
	s->has_messages = s->plan->settings->message_prefixes.n != 0;
	s->until = 0;
	s->is_at_end = false;
	return begin(s, lsn, generation, err);
}

/* False: what no program of this protocol wrote. */
static bool parse_numbering(const char *text, char ret_publication[64], bool *ret_has_messages)
{
	static const char *const before[] = {
		"proto_version=1 messages=off origin=any two_phase=off publication=",
		"proto_version=1 messages=on origin=any two_phase=off publication="};

	for (int i = 0; i < 2; i++) {
		const size_t n = strlen(before[i]);

		if (strncmp(text, before[i], n) != 0 || strlen(text + n) >= 64)
			continue;
		(void)snprintf(ret_publication, 64, "%s", text + n);
		*ret_has_messages = i == 1;
		return true;
	}
	return false;
}

enum cdc_code cdc_source_can_start_as(struct cdc_source *s, const char *numbering,
				      struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *answer = NULL;
	char publication[64];
	bool has_messages;
	struct cdc_buf sql;
	enum cdc_code rc;

	if (!parse_numbering(numbering, publication, &has_messages))
		return cdc_err_set(err, CDC_CONFIG, "it was read with other options: %s",
				   numbering);
	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(&sql, "SELECT FROM pg_catalog.pg_publication WHERE pubname = ");
	cdc_quote_text(&sql, publication);
	rc = cdc_lookup_ask(&s->lookup, cdc_quote_end(&sql), "looking for a publication", &answer,
			    err);
	cdc_buf_clear(&sql);
	if (rc || PQntuples(answer) == 1)
		return rc;
	return cdc_err_set(err, CDC_MISSING, "the publication %s, which it was read by, is gone",
			   publication);
}

enum cdc_code cdc_source_start_as(struct cdc_source *s, cdc_lsn lsn, unsigned generation,
				  const char *numbering, cdc_lsn until, struct cdc_err *err)
{
	const bool is_known = parse_numbering(numbering, s->read_by, &s->has_messages);

	CDC_ASSERT(is_known && until);
	s->until = until;
	s->is_at_end = false;
	return begin(s, lsn, generation, err);
}

enum cdc_code cdc_source_start_temporary(struct cdc_source *s, struct cdc_source_info *ret_info,
					 struct cdc_err *err)
{
	enum cdc_code rc = prepare(s, CDC_SERVER_SLOT_TEMPORARY, ret_info, err);

	return rc ? rc : cdc_source_start(s, ret_info->slot_start, 1, err);
}

/* --- the stream ------------------------------------------------------------------------ */

int cdc_source_fd(const struct cdc_source *s)
{
	return s->stream ? PQsocket(s->stream->pg) : -1;
}

short cdc_source_events(const struct cdc_source *s)
{
	/* Tries to send what is left of a status update; 1: there is still some. */
	if (s->stream && PQflush(s->stream->pg) == 1)
		return POLLIN | POLLOUT;
	return POLLIN;
}

uint64_t cdc_source_silent_ms(const struct cdc_source *s)
{
	return cdc_clock_mono_ms() - s->heard_ms;
}

static void take_keepalive(struct cdc_source *s, const struct cdc_frame *f,
			   struct cdc_source_read *ret)
{
	if (cdc_changes_idle(&s->changes, f->wal_end) && f->wal_end > ret->idle_lsn) {
		ret->idle_lsn = f->wal_end;
		s->is_at_end |= s->until && f->wal_end > s->until;
	}
	if (f->reply_requested) {
		ret->reply_requested = true;
		ret->is_stopping |= cdc_pings_note(&s->pings, f->wal_end, cdc_clock_mono_ms());
	}
}

/* What a large message was part of has ended: a transaction, or the message alone. */
static void note_large(struct cdc_source *s, const struct pgo_message *m)
{
	s->has_large = false;
	s->large_end = m->kind == PGO_COMMIT ? m->as.commit.end_lsn : m->as.message.lsn;
	s->large_ms = cdc_clock_mono_ms();
}

bool cdc_source_is_bloated(const struct cdc_source *s, cdc_lsn durable)
{
	return s->large_end && s->large_end <= durable && !s->has_large && !s->changes.is_open &&
	       cdc_clock_mono_ms() - s->large_ms >= LARGE_MS;
}

static enum cdc_code take_frame(struct cdc_source *s, const char *bytes, size_t n,
				struct cdc_batch *batch, struct cdc_source_read *ret,
				struct cdc_err *err)
{
	struct pgo_message m;
	struct cdc_frame f;
	enum cdc_code rc = cdc_frame_parse(bytes, n, &f, err);

	if (rc)
		return rc;
	if (f.wal_end > s->received_lsn)
		s->received_lsn = f.wal_end;
	if (f.kind == CDC_FRAME_KEEPALIVE) {
		take_keepalive(s, &f, ret);
		return CDC_OK;
	}
	rc = pgo_decode(&s->decoder, f.payload, f.len, &m, err);
	if (!rc)
		rc = cdc_changes_take(&s->changes, &m, f.start, batch, err);
	if (n >= LARGE_BYTES && rc != CDC_BUSY)
		s->has_large = true;
	if (!rc && s->has_large && !s->changes.is_open)
		note_large(s, &m);
	if (!rc && m.kind == PGO_COMMIT) {
		ret->transactions++;
		s->is_at_end |= s->until && m.as.commit.commit_lsn >= s->until;
		/* The transaction's own end says more from here on. */
		if (m.as.commit.end_lsn >= ret->idle_lsn)
			ret->idle_lsn = 0;
	}
	return rc;
}

/* What can be done about a change that the server cannot send; it would fail the same way again and
 * again.  PostgreSQL docs, appendix A. */
static void undecodable(const struct cdc_source *s, const char *state, struct cdc_err *err)
{
	const char *first =
		strncmp(state, "22", 2) == 0
			? "the server cannot convert a text to UTF-8; correct such rows, so that "
			  "it does not come again"
			: "update the server to its latest minor version, in case it is a mistake "
			  "of the server; else a row is larger than it can send (about 1 GB as "
			  "text, 500 MB of bytea)";

	(void)cdc_err_remedy(err,
			     "%s. Then the changes up to now have to be given up: with walpost "
			     "stopped, SELECT pg_replication_slot_advance('%s', "
			     "pg_current_wal_lsn()); and start afresh with an empty data_dir and "
			     "copy the tables once",
			     first, s->slot);
}

/* The publication was there when the slot was looked at, so it is gone since, or came later than
 * the change.  Making it again does not help: membership is that of the change's own time. */
static void missing_publication(const struct cdc_source *s, struct cdc_err *err)
{
	(void)cdc_err_remedy(err,
			     "changes made while it was not there cannot be read: see that "
			     "publication \"%s\" is there (CREATE PUBLICATION ...), then SELECT "
			     "pg_drop_replication_slot('%s'); and start afresh with an empty "
			     "data_dir and copy the tables once",
			     s->plan->settings->publication, s->slot);
}

/* The server ended the stream: in order when it shuts down, or with an error. */
static enum cdc_code ended(const struct cdc_source *s, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *result = PQgetResult(s->stream->pg);
	enum cdc_code rc;

	if (!result || PQresultStatus(result) != PGRES_FATAL_ERROR)
		return cdc_err_set(err, CDC_IO, "%s: the server ended the stream",
				   s->stream->where);
	rc = cdc_pgconn_failed(s->stream, result, "reading the stream", err);
	if (rc == CDC_MISSING)
		missing_publication(s, err);
	if (rc == CDC_PROTO)
		undecodable(s, cdc_pgconn_sqlstate(result), err);
	return rc;
}

/* PostgreSQL 18 only warns that it skips a publication that is not there: rows would be missing. */
static enum cdc_code check_publication(const struct cdc_source *s, struct cdc_err *err)
{
	if (!s->stream->skipped_publication[0])
		return CDC_OK;
	(void)cdc_err_set(err, CDC_MISSING, "%s: reading the stream: %s", s->stream->where,
			  s->stream->skipped_publication);
	missing_publication(s, err);
	return CDC_MISSING;
}

/* Notes that bytes wait in the socket, also those of a message that is not whole for long. */
static void note_heard(struct cdc_source *s)
{
	struct pollfd fd = {.fd = PQsocket(s->stream->pg), .events = POLLIN};
	uint64_t now_ms = cdc_clock_mono_ms();

	if (now_ms - s->heard_ms >= HEARD_MS && poll(&fd, 1, 0) == 1 && (fd.revents & POLLIN))
		s->heard_ms = now_ms;
}

/* The next frame, without waiting.  *ret_bytes NULL: the socket holds no whole one. */
static enum cdc_code next_frame(struct cdc_source *s, char **ret_bytes, size_t *ret_n,
				struct cdc_err *err)
{
	PGconn *pg = s->stream->pg;
	const int reads = PQsslInUse(pg) ? TLS_RECORDS : 1;

	for (int i = 0;; i++) {
		char *bytes = NULL;
		int n = PQgetCopyData(pg, &bytes, 1);

		if (n > 0) {
			*ret_bytes = bytes;
			*ret_n = (size_t)n;
			return CDC_OK;
		}
		if (n == -1)
			return ended(s, err);
		if (n < 0)
			return cdc_pgconn_failed(s->stream, NULL, "reading the stream", err);
		if (i == reads)
			break;
		note_heard(s);
		if (!PQconsumeInput(pg))
			return cdc_pgconn_failed(s->stream, NULL, "reading the stream", err);
	}
	*ret_bytes = NULL;
	return CDC_OK;
}

static enum cdc_code read_frames(struct cdc_source *s, struct cdc_batch *batch, size_t target_bytes,
				 size_t target_records, struct cdc_source_read *ret,
				 struct cdc_err *err)
{
	for (unsigned i = 0; !s->is_at_end && i < FRAMES && batch->json.len < target_bytes &&
			     batch->n < target_records;
	     i++) {
		char *bytes = s->held;
		size_t n = s->held_n;
		enum cdc_code rc = CDC_OK;

		s->held = NULL;
		if (!bytes)
			rc = next_frame(s, &bytes, &n, err);
		/* What comes behind the warning may lie above the rows that were skipped: it is not
		 * taken, so that nothing above them is ever confirmed. */
		if (!rc)
			rc = check_publication(s, err);
		if (rc) {
			PQfreemem(bytes);
			return rc;
		}
		if (!bytes) {
			ret->is_dry = true;
			break;
		}
		rc = take_frame(s, bytes, n, batch, ret, err);
		if (rc == CDC_BUSY) {
			s->held = bytes;
			s->held_n = n;
			return rc;
		}
		PQfreemem(bytes);
		if (rc || ret->is_stopping)
			return rc;
	}
	ret->is_dry |= s->is_at_end;
	return CDC_OK;
}

enum cdc_code cdc_source_read(struct cdc_source *s, struct cdc_batch *batch, size_t target_bytes,
			      size_t target_records, struct cdc_source_read *ret,
			      struct cdc_err *err)
{
	const struct cdc_catalog_oddities before = cdc_catalog_oddities(s->catalog);
	const uint64_t too_large = s->changes.too_large;
	struct cdc_catalog_oddities after;
	enum cdc_code rc;

	CDC_ASSERT(s->is_streaming);
	*ret = (struct cdc_source_read){0};
	rc = read_frames(s, batch, target_bytes, target_records, ret, err);
	after = cdc_catalog_oddities(s->catalog);
	ret->unknown_types = after.types - before.types;
	ret->odd_values = after.values - before.values;
	ret->unknown_type = after.type;
	ret->too_large = s->changes.too_large - too_large;
	ret->received_lsn = s->received_lsn;
	ret->epoch = s->changes.epoch;
	ret->is_at_end = s->is_at_end;
	if (rc && rc != CDC_BUSY)
		close_stream(s);
	return rc;
}

enum cdc_code cdc_source_status(struct cdc_source *s, cdc_lsn received, cdc_lsn flush,
				struct cdc_err *err)
{
	uint8_t frame[CDC_FRAME_STATUS];
	int rc;

	CDC_ASSERT(s->is_streaming);
	rc = PQflush(s->stream->pg);
	if (rc == 0) {
		cdc_frame_status(received, flush, cdc_clock_wall_us(),
				 cdc_source_silent_ms(s) > ASK_MS, frame);
		rc = PQputCopyData(s->stream->pg, (const char *)frame, sizeof(frame));
		if (rc == 1)
			rc = PQflush(s->stream->pg);
	}
	/* 1: the socket takes no more, so what is newer has to wait for the next call. */
	if (rc >= 0)
		return CDC_OK;
	(void)cdc_pgconn_failed(s->stream, NULL, "sending a status update", err);
	close_stream(s);
	return CDC_IO;
}

const char *cdc_source_awaited_standby(const struct cdc_source *s)
{
	const struct cdc_pgconn *c = s->stream;

	return c && c->awaited_ms && cdc_clock_mono_ms() - c->awaited_ms < AWAITED_MS
		       ? c->awaited_standby
		       : NULL;
}

bool cdc_source_is_leaving(struct cdc_source *s)
{
	return cdc_lookup_was_ended(&s->lookup);
}

/* --- ending ------------------------------------------------------------------------------ */

/* Throws away what comes until the server has ended the stream, too. */
static void drain(PGconn *pg, uint64_t deadline_ms)
{
	for (;;) {
		char *bytes = NULL;
		int n = PQgetCopyData(pg, &bytes, 1);
		uint64_t now_ms = cdc_clock_mono_ms();
		struct pollfd fd = {.fd = PQsocket(pg), .events = POLLIN};

		PQfreemem(bytes);
		if (n < 0 || now_ms >= deadline_ms)
			return;
		if (n > 0)
			continue;
		if (PQflush(pg) == 1)
			fd.events |= POLLOUT;
		if (poll(&fd, 1, (int)(deadline_ms - now_ms)) < 0 || !PQconsumeInput(pg))
			return;
	}
}

void cdc_source_stop(struct cdc_source *s, cdc_lsn flush)
{
	cdc_lsn received = s->received_lsn > flush ? s->received_lsn : flush;

	if (s->is_streaming && !cdc_source_status(s, received, flush, NULL) &&
	    PQputCopyEnd(s->stream->pg, NULL) == 1)
		drain(s->stream->pg, cdc_clock_mono_ms() + STOP_MS);
	close_stream(s);
	cdc_lookup_clear(&s->lookup);
	s->watched = WATCHED_NOTHING;
}

/* --- how the slot stands ----------------------------------------------------------------- */

/* The state shows only once the stream is under way; the names say before it what it will be.  A
 * standby that is read makes nobody wait. */
static enum cdc_code judge_report(const struct cdc_source *s, const struct cdc_slot_report *r,
				  struct cdc_err *err)
{
	if ((!r->sync_state[0] || strcmp(r->sync_state, "async") == 0) &&
	    (r->is_in_recovery || !cdc_standby_is_named(r->standby_names, s->plan->slot)))
		return CDC_OK;
	return cdc_standby_error(s->stream->where, s->plan->slot, r->standby_names, err);
}

/* Begins the question when it is due and no other is under way; goes on with it, CDC_BUSY until the
 * answer is there. */
static enum cdc_code ask(struct cdc_source *s, enum watched what, uint64_t *asked_ms,
			 const char *(*sql)(struct cdc_source *s), const char *doing,
			 PGresult **ret, struct cdc_err *err)
{
	const uint64_t now_ms = cdc_clock_mono_ms();
	const char *text;
	enum cdc_code rc;

	CDC_ASSERT(s->is_streaming);
	if (s->watched == WATCHED_NOTHING && (!*asked_ms || now_ms - *asked_ms >= WATCH_MS)) {
		*asked_ms = now_ms;
		text = sql(s);
		if (!text)
			return cdc_err_set(err, CDC_NOMEM, "out of memory for %s", doing);
		s->watched = what;
		cdc_lookup_begin(&s->lookup, text, doing);
	}
	if (s->watched != what)
		return CDC_BUSY;
	rc = cdc_lookup_step(&s->lookup, ret, err);
	if (rc != CDC_BUSY)
		s->watched = WATCHED_NOTHING;
	return rc;
}

static const char *slot_sql(struct cdc_source *s)
{
	return s->watch_sql;
}

enum cdc_code cdc_source_watch(struct cdc_source *s, struct cdc_slot_report *ret,
			       struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *answer = NULL;
	enum cdc_code rc = ask(s, WATCHED_SLOT, &s->watch_ms, slot_sql,
			       "reading how the slot stands", &answer, err);

	if (rc == CDC_CONFIG)
		return cdc_err_set(err, CDC_IO, "%s: the slot %s cannot be watched",
				   s->stream->where, s->slot);
	if (rc)
		return rc;
	cdc_slot_read(answer, s->plan->settings->wal_budget, ret);
	return judge_report(s, ret, err);
}

static const char *tables_sql(struct cdc_source *s)
{
	return s->tables_sql;
}

enum cdc_code cdc_source_watch_tables(struct cdc_source *s, struct cdc_hurt_report *ret,
				      struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *answer = NULL;
	enum cdc_code rc = ask(s, WATCHED_TABLES, &s->tables_ms, tables_sql,
			       "reading the tables' identities", &answer, err);

	if (!rc)
		cdc_identity_read(answer, ret);
	return rc;
}

bool cdc_source_asks_for(const struct cdc_source_plan *plan, const char *table)
{
	for (size_t i = 0; i < plan->table_n; i++) {
		if (cdc_pattern_matches(plan->tables[i], table, strlen(table)))
			return true;
	}
	return plan->table_n == 0;
}

static const char *publication_sql(struct cdc_source *s)
{
	return cdc_publication_watch_sql(&s->publication);
}

enum cdc_code cdc_source_watch_publication(struct cdc_source *s, cdc_publication_news_fn *fn,
					   void *arg, struct cdc_publication_report *ret,
					   struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *answer = NULL, *missing = NULL;
	const char *sql;
	enum cdc_code rc = ask(s, WATCHED_PUBLICATION, &s->publication_ms, publication_sql,
			       "reading the publication", &answer, err);

	if (rc)
		return rc;
	/* Seldom, and short: the stream waits for it. */
	sql = cdc_publication_watch_missing_sql(&s->publication, answer);
	if (sql)
		rc = cdc_lookup_ask(&s->lookup, sql, "reading what became of tables", &missing,
				    err);
	return rc ? rc
		  : cdc_publication_watch_take(&s->publication, answer, missing, fn, arg, ret, err);
}

void cdc_source_put_left(const struct cdc_source *s, struct cdc_buf *out)
{
	cdc_publication_watch_put_left(&s->publication, out);
}

void cdc_source_recall_left(struct cdc_source *s, const char *text)
{
	cdc_publication_watch_recall_left(&s->publication, text);
}

void cdc_source_put_look(const struct cdc_source *s, struct cdc_buf *out)
{
	cdc_publication_watch_put_look(&s->publication, out);
}

void cdc_source_recall_look(struct cdc_source *s, const char *text)
{
	cdc_publication_watch_recall_look(&s->publication, text);
}

enum cdc_code cdc_source_unpublish(struct cdc_source *s, const struct cdc_hurt_table *table,
				   struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *answer = NULL;
	struct cdc_buf sql;
	enum cdc_code rc;

	CDC_ASSERT(s->watched == WATCHED_NOTHING);
	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(&sql, "BEGIN; SET LOCAL lock_timeout = '1s'; ALTER PUBLICATION ");
	cdc_quote_name(&sql, s->plan->settings->publication);
	cdc_buf_printf(&sql, " DROP TABLE ONLY %s; COMMIT", table->sql_name);
	rc = cdc_lookup_ask(&s->lookup, cdc_quote_end(&sql),
			    "taking a table out of the publication", &answer, err);
	cdc_buf_clear(&sql);
	if (!rc)
		cdc_publication_watch_forget(&s->publication, table->name);
	return rc;
}

int cdc_source_watch_fd(const struct cdc_source *s)
{
	return cdc_lookup_fd(&s->lookup);
}

short cdc_source_watch_events(const struct cdc_source *s)
{
	return cdc_lookup_events(&s->lookup);
}
