#include "sinks/webhook/target.h"

#include <stdlib.h>
#include <string.h>

#include "sinks/webhook/template.h"

#define URL_MAX     (16u << 10) /* more than servers take */
#define LINES_MAX   (64u << 10)
#define SCRATCH_MAX (64u << 10)

struct sink_webhook_target {
	struct sink_webhook_template *url;    /* NULL: the same for all */
	struct sink_webhook_template **lines; /* of headers */
	size_t line_n;
	unsigned needs;                    /* of all of them */
	const char *methods[CDC_OP_COUNT]; /* NULL: POST */
	struct cdc_buf here, scratch;      /* the url of the last put */
	struct cdc_buf first, other;       /* of together: all of the texts */
};

static const char *method_of(unsigned method)
{
	switch ((enum sink_webhook_method)method) {
	case SINK_WEBHOOK_METHOD_POST:
	case SINK_WEBHOOK_METHOD_DEFAULT:
		break;
	case SINK_WEBHOOK_METHOD_PUT:
		return "PUT";
	case SINK_WEBHOOK_METHOD_PATCH:
		return "PATCH";
	case SINK_WEBHOOK_METHOD_DELETE:
		return "DELETE";
	}
	return NULL;
}

/* Is one of them not POST? */
static bool set_methods(const struct sink_webhook_connection *c, const char **methods)
{
	const unsigned by_op[CDC_OP_COUNT] = {
		[CDC_OP_INSERT] = c->methods.insert,     [CDC_OP_UPDATE] = c->methods.update,
		[CDC_OP_DELETE] = c->methods.delete_row, [CDC_OP_TRUNCATE] = c->methods.truncate,
		[CDC_OP_READ] = c->methods.read,         [CDC_OP_MESSAGE] = c->methods.message,
		[CDC_OP_SCHEMA] = c->methods.schema,     [CDC_OP_BACKFILL] = c->method,
	};
	bool is_any = false;

	for (size_t i = 0; i < CDC_OP_COUNT; i++) {
		bool is_default = by_op[i] == SINK_WEBHOOK_METHOD_DEFAULT;

		methods[i] = method_of(is_default ? c->method : by_op[i]);
		is_any |= methods[i] != NULL;
	}
	return is_any;
}

void sink_webhook_target_free(struct sink_webhook_target *t)
{
	if (!t)
		return;
	sink_webhook_template_free(t->url);
	for (size_t i = 0; i < t->line_n; i++)
		sink_webhook_template_free(t->lines[i]);
	free(t->lines);
	cdc_buf_clear(&t->here);
	cdc_buf_clear(&t->scratch);
	cdc_buf_clear(&t->first);
	cdc_buf_clear(&t->other);
	free(t);
}

static enum cdc_code add_line(struct sink_webhook_target *t, const char *line, struct cdc_err *err)
{
	struct sink_webhook_template *made;
	enum cdc_code rc = sink_webhook_template_new(line, SINK_WEBHOOK_TEMPLATE_LINE, &made, err);

	if (rc)
		return err ? cdc_err_wrap(err, "%.*s", (int)strcspn(line, ":;"), line) : rc;
	t->needs |= sink_webhook_template_needs(made);
	t->lines[t->line_n++] = made;
	return CDC_OK;
}

/* *ret_key: what an error is about, which its text does not say. */
static enum cdc_code fill(struct sink_webhook_target *t, const struct sink_webhook_auth_parts *a,
			  const char **ret_key, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	*ret_key = "url";
	if (sink_webhook_template_is(a->url)) {
		rc = sink_webhook_template_new(a->url, SINK_WEBHOOK_TEMPLATE_URL, &t->url, err);
		if (rc)
			return rc;
		t->needs |= sink_webhook_template_needs(t->url);
	}
	*ret_key = "headers";
	t->lines = calloc(a->template_n + 1, sizeof(struct sink_webhook_template *));
	if (!t->lines)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for templates");
	for (size_t i = 0; !rc && i < a->template_n; i++)
		rc = add_line(t, a->templates[i], err);
	return rc;
}

static enum cdc_code make(const struct sink_webhook_connection *c,
			  const struct sink_webhook_auth_parts *a, const char **ret_key,
			  struct sink_webhook_target **ret, struct cdc_err *err)
{
	struct sink_webhook_target *t;
	const char *methods[CDC_OP_COUNT];
	bool has_methods = set_methods(c, methods);
	enum cdc_code rc;

	*ret = NULL;
	if (!has_methods && !a->template_n && !sink_webhook_template_is(a->url))
		return CDC_OK;
	t = calloc(1, sizeof(*t));
	if (!t)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for templates");
	memcpy(t->methods, methods, sizeof(methods));
	cdc_buf_init(&t->here, URL_MAX);
	cdc_buf_init(&t->scratch, SCRATCH_MAX);
	cdc_buf_init(&t->first, URL_MAX + LINES_MAX);
	cdc_buf_init(&t->other, URL_MAX + LINES_MAX);
	rc = fill(t, a, ret_key, err);
	if (rc) {
		sink_webhook_target_free(t);
		return rc;
	}
	*ret = t;
	return CDC_OK;
}

enum cdc_code sink_webhook_target_new(const struct sink_webhook_connection *c,
				      const struct sink_webhook_auth_parts *a,
				      struct sink_webhook_target **ret, struct cdc_err *err)
{
	const char *key = "url";
	enum cdc_code rc = make(c, a, &key, ret, err);

	return rc && err ? cdc_err_wrap(err, "%s", key) : rc;
}

enum cdc_code sink_webhook_target_check(const struct sink_webhook_connection *c,
					const struct sink_webhook_auth_parts *a,
					const char **ret_key, struct cdc_err *err)
{
	struct sink_webhook_target *t;
	const char *key = *ret_key;
	enum cdc_code rc = make(c, a, &key, &t, err);

	if (rc)
		*ret_key = key;
	else
		sink_webhook_target_free(t);
	return rc;
}

enum cdc_code sink_webhook_target_check_sync(const struct sink_webhook_connection *c,
					     const struct sink_plan *plan, const char **ret_key,
					     struct cdc_err *err)
{
	static const enum cdc_op without[] = {CDC_OP_TRUNCATE, CDC_OP_MESSAGE, CDC_OP_SCHEMA};
	struct sink_webhook_auth_parts parts;
	struct sink_webhook_target *t = NULL;
	enum cdc_code rc = sink_webhook_auth_make(c, &parts, NULL);

	/* What is wrong with the connection is said of the connection. */
	if (!rc) {
		rc = sink_webhook_target_new(c, &parts, &t, NULL);
		sink_webhook_auth_clear(&parts);
	}
	if (rc)
		return CDC_OK;
	*ret_key = "group";
	if (t && plan->is_grouped)
		rc = cdc_err_set(err, CDC_CONFIG,
				 "records of one transaction may differ in the placeholders of "
				 "url and headers, and in their methods, but go in one request; "
				 "use a connection without these, or remove group");
	else
		*ret_key = "operations";
	for (size_t i = 0; !rc && t && i < sizeof(without) / sizeof(without[0]); i++) {
		const char *op = cdc_op_name(without[i]);

		if (t->needs & SINK_WEBHOOK_NEEDS_COLUMN && plan->operations >> without[i] & 1)
			rc = cdc_err_set(err, CDC_CONFIG,
					 "url or headers of the destination have a placeholder for "
					 "a column, and %s records have none; take %s out of "
					 "operations, or give the placeholder a text for them: "
					 "{key.id|none}",
					 op, op);
	}
	if (!rc && t && t->needs & SINK_WEBHOOK_NEEDS_COLUMN &&
	    plan->operations >> CDC_OP_BACKFILL & 1) {
		*ret_key = "marks";
		rc = cdc_err_set(err, CDC_CONFIG,
				 "url or headers of the destination have a placeholder for a "
				 "column, and marks have none; remove marks, or give the "
				 "placeholder a text for them: {key.id|none}");
	}
	sink_webhook_target_free(t);
	return rc;
}

/* --- records ------------------------------------------------------------------------ */

static enum cdc_code put_line(const struct sink_webhook_template *line, struct cdc_view view,
			      struct cdc_buf *scratch, struct cdc_buf *lines, struct cdc_err *err)
{
	size_t from = lines->len, name;
	enum cdc_code rc = sink_webhook_template_put(line, view, scratch, lines, err);
	const char *text;

	if (rc)
		return rc;
	cdc_buf_putc(lines, '\0');
	if (lines->failed)
		return cdc_err_set(err, CDC_LIMIT,
				   "the headers would be too long with this record");
	text = (const char *)lines->data + from;
	name = strcspn(text, ":");
	/* A header without a value is "Name;" to libcurl. */
	if (text[name] && !text[name + 1 + strspn(text + name + 1, " \t")]) {
		lines->len = from + name;
		cdc_buf_put(lines, ";", 2);
	}
	return CDC_OK;
}

static enum cdc_code put_all(struct sink_webhook_target *t, struct cdc_view view,
			     struct cdc_buf *url, struct cdc_buf *lines, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	if (t->url) {
		rc = sink_webhook_template_put(t->url, view, &t->scratch, url, err);
		cdc_buf_putc(url, '\0');
		if (!rc && url->failed)
			rc = cdc_err_set(err, CDC_LIMIT,
					 "the url would be too long with this record");
	}
	for (size_t i = 0; !rc && i < t->line_n; i++)
		rc = put_line(t->lines[i], view, &t->scratch, lines, err);
	return rc;
}

enum cdc_code sink_webhook_target_put(struct sink_webhook_target *t, struct cdc_view view,
				      const char **ret_url, const char **ret_method,
				      struct cdc_buf *lines, struct cdc_err *err)
{
	enum cdc_code rc;

	cdc_buf_reset(&t->here, URL_MAX);
	rc = put_all(t, view, &t->here, lines, err);
	if (rc)
		return rc;
	*ret_url = t->url ? (const char *)t->here.data : NULL;
	*ret_method = t->methods[view.rec->op];
	return CDC_OK;
}

static bool is_same_table(struct cdc_view a, struct cdc_view b)
{
	const struct cdc_table_name *first = &a.batch->tables[a.rec->table];
	const struct cdc_table_name *other = &b.batch->tables[b.rec->table];

	return first == other || first->hash == other->hash;
}

size_t sink_webhook_target_together(struct sink_webhook_target *t, const struct cdc_view *views,
				    size_t n)
{
	size_t i = 1;

	cdc_buf_reset(&t->first, URL_MAX);
	if (n > 1 && t->needs & SINK_WEBHOOK_BY_ROW &&
	    put_all(t, views[0], &t->first, &t->first, NULL))
		return 1;
	for (; i < n; i++) {
		const struct cdc_record *first = views[0].rec, *rec = views[i].rec;

		if (t->methods[rec->op] != t->methods[first->op] ||
		    (t->needs & SINK_WEBHOOK_BY_OPERATION && rec->op != first->op) ||
		    (t->needs & SINK_WEBHOOK_BY_TABLE && !is_same_table(views[0], views[i])))
			break;
		if (!(t->needs & SINK_WEBHOOK_BY_ROW))
			continue;
		cdc_buf_reset(&t->other, URL_MAX);
		if (put_all(t, views[i], &t->other, &t->other, NULL) ||
		    t->other.len != t->first.len ||
		    memcmp(t->other.data, t->first.data, t->first.len) != 0)
			break;
	}
	return i;
}
