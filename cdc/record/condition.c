#include "cdc/record/condition.h"

#include <stdlib.h>
#include <string.h>

#include "cdc/record/decimal.h"
#include "cdc/record/moment.h"
#include "cdc/record/scan.h"
#include "cdc/record/text.h"

#define NESTED_MAX 8 /* PostgreSQL's arrays have up to six dimensions */

/* What a value is compared with, and what else it may be. */
struct operand {
	const char *text;
	size_t len;
	bool is_number, is_moment, is_span;
	struct cdc_decimal number;
	struct cdc_moment moment;
	struct cdc_span_of_time span; /* what it adds to now */
};

struct cdc_condition {
	enum cdc_filter_function function;
	size_t n;
	struct operand operands[];
};

enum order { LESS, SAME, MORE, NEITHER };

/* --- making ------------------------------------------------------------------------- */

enum takes { NOTHING, ONE, TWO, MANY };

struct rule {
	enum takes takes;
	enum { ANY, MOMENT, LAST, RELATIVE, PATTERN } kind;
};

static struct rule rule_of(enum cdc_filter_function f)
{
	switch (f) {
	case CDC_FILTER_IS_NULL:
	case CDC_FILTER_IS_NOT_NULL:
	case CDC_FILTER_TRUE:
	case CDC_FILTER_FALSE:
	case CDC_FILTER_COUNT:
		return (struct rule){.takes = NOTHING};
	case CDC_FILTER_BETWEEN:
		return (struct rule){.takes = TWO};
	case CDC_FILTER_STRING_ONE_OF:
	case CDC_FILTER_STRING_NOT_ONE_OF:
		return (struct rule){.takes = MANY};
	case CDC_FILTER_ON_OR_AFTER:
	case CDC_FILTER_ON_OR_BEFORE:
		return (struct rule){.takes = ONE, .kind = MOMENT};
	case CDC_FILTER_IN_THE_LAST:
		return (struct rule){.takes = ONE, .kind = LAST};
	case CDC_FILTER_RELATIVE_ON_OR_BEFORE:
	case CDC_FILTER_RELATIVE_ON_OR_AFTER:
		return (struct rule){.takes = ONE, .kind = RELATIVE};
	case CDC_FILTER_STRING_LIKE:
	case CDC_FILTER_STRING_NOT_LIKE:
		return (struct rule){.takes = ONE, .kind = PATTERN};
	case CDC_FILTER_EQUALITY:
	case CDC_FILTER_INEQUALITY:
	case CDC_FILTER_GREATER_THAN:
	case CDC_FILTER_GREATER_THAN_EQUAL:
	case CDC_FILTER_LESS_THAN:
	case CDC_FILTER_LESS_THAN_EQUAL:
	case CDC_FILTER_STRING_CONTAINS:
	case CDC_FILTER_STRING_STARTS_WITH:
	case CDC_FILTER_STRING_ENDS_WITH:
	case CDC_FILTER_STRING_DOES_NOT_CONTAIN:
	case CDC_FILTER_STRING_DOES_NOT_START_WITH:
	case CDC_FILTER_STRING_DOES_NOT_END_WITH:
	case CDC_FILTER_ARRAY_CONTAINS:
	case CDC_FILTER_ARRAY_DOES_NOT_CONTAIN:
	case CDC_FILTER_STRING_MATCHES_TRIMMED:
		return (struct rule){.takes = ONE};
	}
	return (struct rule){.takes = NOTHING};
}

static bool ends_in_escape(const char *pattern)
{
	size_t n = 0;

	for (const char *at = pattern + strlen(pattern); at > pattern && at[-1] == '\\'; at--)
		n++;
	return n % 2;
}

static enum cdc_code check_value(const struct cdc_select_filter *f, const struct rule *rule,
				 struct cdc_err *err)
{
	const char *name = cdc_filter_function_name((enum cdc_filter_function)f->function);
	struct cdc_span_of_time span;
	struct cdc_moment moment;
	const char *value = f->values.items[0];

	switch (rule->kind) {
	case ANY:
		return CDC_OK;
	case MOMENT:
		if (cdc_moment_parse(value, strlen(value), &moment))
			return CDC_OK;
		return cdc_err_set(err, CDC_CONFIG,
				   "%s needs a date or a time (allowed: as in 2024-02-29, "
				   "2024-02-29T12:30:00Z)",
				   name);
	case LAST:
		if (cdc_moment_parse_span(value, false, &span))
			return CDC_OK;
		return cdc_err_set(err, CDC_CONFIG,
				   "%s needs a span of time (allowed: a number and seconds, "
				   "minutes, hours, days, weeks, months or years, as in 48 hours)",
				   name);
	case RELATIVE:
		if (cdc_moment_parse_span(value, true, &span))
			return CDC_OK;
		return cdc_err_set(
			err, CDC_CONFIG,
			"%s needs a time relative to now (allowed: as in 48 hours ago, 2 "
			"days from now, now)",
			name);
	case PATTERN:
		if (!ends_in_escape(value))
			return CDC_OK;
		return cdc_err_set(err, CDC_CONFIG, "a pattern must not end with its escape, \\");
	}
	return CDC_OK;
}

enum cdc_code cdc_condition_check(const struct cdc_select_filter *filter, struct cdc_err *err)
{
	const struct rule rule = rule_of((enum cdc_filter_function)filter->function);
	const char *name = cdc_filter_function_name((enum cdc_filter_function)filter->function);
	const size_t n = filter->values.n;

	switch (rule.takes) {
	case NOTHING:
		return n == 0 ? CDC_OK : cdc_err_set(err, CDC_CONFIG, "%s takes no value", name);
	case ONE:
		if (n != 1)
			return cdc_err_set(err, CDC_CONFIG, "%s takes one value", name);
		break;
	case TWO:
		if (n != 2)
			return cdc_err_set(err, CDC_CONFIG,
					   "%s takes a list of two values, the lowest and the "
					   "highest",
					   name);
		break;
	case MANY:
		if (n == 0)
			return cdc_err_set(err, CDC_CONFIG, "%s takes a list of values", name);
		break;
	}
	return check_value(filter, &rule, err);
}

enum cdc_code cdc_condition_new(const struct cdc_select_filter *filter, struct cdc_condition **ret,
				struct cdc_err *err)
{
	const size_t n = filter->values.n;
	struct cdc_condition *c;
	enum cdc_code rc = cdc_condition_check(filter, err);

	if (rc)
		return rc;
	c = calloc(1, sizeof(*c) + n * sizeof(c->operands[0]));
	if (!c)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a filter");
	c->function = (enum cdc_filter_function)filter->function;
	c->n = n;
	for (size_t i = 0; i < n; i++) {
		struct operand *o = &c->operands[i];

		o->text = filter->values.items[i];
		o->len = strlen(o->text);
		o->is_number = cdc_decimal_parse(o->text, o->len, &o->number);
		o->is_moment = cdc_moment_parse(o->text, o->len, &o->moment);
		o->is_span = cdc_moment_parse_span(o->text, c->function != CDC_FILTER_IN_THE_LAST,
						   &o->span);
	}
	*ret = c;
	return CDC_OK;
}

void cdc_condition_free(struct cdc_condition *c)
{
	free(c);
}

/* --- comparing ---------------------------------------------------------------------- */

static enum order order_of(int order)
{
	return order < 0 ? LESS : order > 0 ? MORE : SAME;
}

static enum order compare_bytes(struct cdc_text a, struct cdc_text b)
{
	const int order = memcmp(a.at, b.at, a.len < b.len ? a.len : b.len);

	return order ? order_of(order) : order_of((a.len > b.len) - (a.len < b.len));
}

static enum order compare(const char *json, struct cdc_span value, const struct operand *o,
			  struct cdc_buf *scratch)
{
	const struct cdc_text other = {o->text, o->len};
	struct cdc_decimal number;
	struct cdc_moment moment;
	struct cdc_text text;

	switch (json[value.off]) {
	case '"':
		text = cdc_text_of(json, value, scratch);
		if (o->is_number && cdc_decimal_parse(text.at, text.len, &number) && number.special)
			return order_of(cdc_decimal_cmp(&number, &o->number));
		if (o->is_moment && cdc_moment_parse(text.at, text.len, &moment))
			return order_of(cdc_moment_cmp(&moment, &o->moment));
		return compare_bytes(text, other);
	case '{':
	case '[':
		return compare_bytes((struct cdc_text){json + value.off, value.len}, other) == SAME
			       ? SAME
			       : NEITHER;
	case 't':
	case 'f':
		if ((o->len != 4 || memcmp(o->text, "true", 4) != 0) &&
		    (o->len != 5 || memcmp(o->text, "false", 5) != 0))
			return NEITHER;
		return compare_bytes((struct cdc_text){json + value.off, value.len}, other);
	default:
		if (!o->is_number || !cdc_decimal_parse(json + value.off, value.len, &number))
			return NEITHER;
		return order_of(cdc_decimal_cmp(&number, &o->number));
	}
}

static bool is_one_of(const struct cdc_condition *c, const char *json, struct cdc_span value,
		      struct cdc_buf *scratch)
{
	for (size_t i = 0; i < c->n; i++) {
		if (compare(json, value, &c->operands[i], scratch) == SAME)
			return true;
	}
	return false;
}

/* --- texts -------------------------------------------------------------------------- */

static bool starts_with(struct cdc_text t, const struct operand *o)
{
	return t.len >= o->len && memcmp(t.at, o->text, o->len) == 0;
}

static bool ends_with(struct cdc_text t, const struct operand *o)
{
	return t.len >= o->len && memcmp(t.at + t.len - o->len, o->text, o->len) == 0;
}

static bool contains(struct cdc_text t, const struct operand *o)
{
	return o->len == 0 || memmem(t.at, t.len, o->text, o->len) != NULL;
}

static struct cdc_text trim(struct cdc_text t)
{
	static const char space[] = " \t\n\r\f\v";

	while (t.len && memchr(space, t.at[0], sizeof(space) - 1)) {
		t.at++;
		t.len--;
	}
	while (t.len && memchr(space, t.at[t.len - 1], sizeof(space) - 1))
		t.len--;
	return t;
}

/* Behind the character that begins at `at`. */
static const char *behind(const char *at, const char *end)
{
	at++;
	while (at < end && ((unsigned char)*at & 0xc0) == 0x80)
		at++;
	return at;
}

static bool is_like(struct cdc_text t, const struct operand *o)
{
	const char *at = t.at, *end = t.at + t.len, *p = o->text, *stop = o->text + o->len;
	const char *star = NULL, *taken = NULL; /* behind the last %, and what it took up to */

	for (;;) {
		if (p < stop && *p == '%') {
			star = ++p;
			taken = at;
		} else if (p < stop && at < end && *p == '_') {
			p++;
			at = behind(at, end);
		} else if (p < stop && at < end && *(*p == '\\' ? p + 1 : p) == *at) {
			p += *p == '\\' ? 2 : 1;
			at++;
		} else if (p == stop && at == end) {
			return true;
		} else if (star && taken < end) {
			taken = behind(taken, end);
			p = star;
			at = taken;
		} else {
			return false;
		}
	}
}

/* --- arrays ------------------------------------------------------------------------- */

static bool has_element(const struct operand *o, const char *json, struct cdc_span array,
			struct cdc_buf *scratch, int depth)
{
	struct cdc_scan s;
	struct cdc_member m;

	cdc_scan_begin(&s, json, (size_t)array.off + array.len, array);
	while (cdc_scan_next(&s, &m)) {
		const struct cdc_span value = cdc_text_trim(json, m.value);

		if (json[value.off] == '[') {
			if (depth < NESTED_MAX && has_element(o, json, value, scratch, depth + 1))
				return true;
		} else if (json[value.off] != 'n' && compare(json, value, o, scratch) == SAME) {
			return true;
		}
	}
	return false;
}

/* --- times -------------------------------------------------------------------------- */

/* The order of a value that is a date or a time, and a moment. */
static enum order compare_moment(const char *json, struct cdc_span value,
				 const struct cdc_moment *other, struct cdc_buf *scratch)
{
	struct cdc_moment moment;
	struct cdc_text text;

	if (json[value.off] != '"')
		return NEITHER;
	text = cdc_text_of(json, value, scratch);
	if (!cdc_moment_parse(text.at, text.len, &moment))
		return NEITHER;
	return order_of(cdc_moment_cmp(&moment, other));
}

static enum order compare_relative(const struct cdc_condition *c, const char *json,
				   struct cdc_span value, int64_t now_us, struct cdc_buf *scratch)
{
	const struct cdc_moment other = cdc_moment_add(cdc_moment_of(now_us), c->operands[0].span);

	return compare_moment(json, value, &other, scratch);
}

static bool is_in_the_last(const struct cdc_condition *c, const char *json, struct cdc_span value,
			   int64_t now_us, struct cdc_buf *scratch)
{
	const struct cdc_span_of_time back = {.months = -c->operands[0].span.months,
					      .us = -c->operands[0].span.us};
	const struct cdc_moment now = cdc_moment_of(now_us), first = cdc_moment_add(now, back);
	const enum order with_first = compare_moment(json, value, &first, scratch);
	const enum order with_now = compare_moment(json, value, &now, scratch);

	return (with_first == SAME || with_first == MORE) && (with_now == SAME || with_now == LESS);
}

/* --- all of it ---------------------------------------------------------------------- */

static bool is_text_met(const struct cdc_condition *c, struct cdc_text t)
{
	const struct operand *o = &c->operands[0];
	const struct cdc_text other = {o->text, o->len};

	switch (c->function) {
	case CDC_FILTER_STRING_CONTAINS:
		return contains(t, o);
	case CDC_FILTER_STRING_DOES_NOT_CONTAIN:
		return !contains(t, o);
	case CDC_FILTER_STRING_STARTS_WITH:
		return starts_with(t, o);
	case CDC_FILTER_STRING_DOES_NOT_START_WITH:
		return !starts_with(t, o);
	case CDC_FILTER_STRING_ENDS_WITH:
		return ends_with(t, o);
	case CDC_FILTER_STRING_DOES_NOT_END_WITH:
		return !ends_with(t, o);
	case CDC_FILTER_STRING_LIKE:
		return is_like(t, o);
	case CDC_FILTER_STRING_NOT_LIKE:
		return !is_like(t, o);
	default: /* the one that is left */
		return compare_bytes(trim(t), trim(other)) == SAME;
	}
}

static bool is_value_met(const struct cdc_condition *c, const char *json, struct cdc_span value,
			 int64_t now_us, struct cdc_buf *scratch)
{
	const struct operand *o = c->operands;
	enum order order;

	switch (c->function) {
	case CDC_FILTER_IS_NULL:
	case CDC_FILTER_COUNT:
		return false;
	case CDC_FILTER_IS_NOT_NULL:
		return true;
	case CDC_FILTER_TRUE:
		return json[value.off] == 't';
	case CDC_FILTER_FALSE:
		return json[value.off] == 'f';
	case CDC_FILTER_EQUALITY:
	case CDC_FILTER_STRING_ONE_OF:
		return is_one_of(c, json, value, scratch);
	case CDC_FILTER_INEQUALITY:
	case CDC_FILTER_STRING_NOT_ONE_OF:
		return !is_one_of(c, json, value, scratch);
	case CDC_FILTER_GREATER_THAN:
		return compare(json, value, o, scratch) == MORE;
	case CDC_FILTER_GREATER_THAN_EQUAL:
		order = compare(json, value, o, scratch);
		return order == MORE || order == SAME;
	case CDC_FILTER_LESS_THAN:
		return compare(json, value, o, scratch) == LESS;
	case CDC_FILTER_LESS_THAN_EQUAL:
		order = compare(json, value, o, scratch);
		return order == LESS || order == SAME;
	case CDC_FILTER_BETWEEN:
		order = compare(json, value, &o[0], scratch);
		if (order != MORE && order != SAME)
			return false;
		order = compare(json, value, &o[1], scratch);
		return order == LESS || order == SAME;
	case CDC_FILTER_ON_OR_AFTER:
		order = compare_moment(json, value, &o->moment, scratch);
		return order == MORE || order == SAME;
	case CDC_FILTER_ON_OR_BEFORE:
		order = compare_moment(json, value, &o->moment, scratch);
		return order == LESS || order == SAME;
	case CDC_FILTER_RELATIVE_ON_OR_AFTER:
		order = compare_relative(c, json, value, now_us, scratch);
		return order == MORE || order == SAME;
	case CDC_FILTER_RELATIVE_ON_OR_BEFORE:
		order = compare_relative(c, json, value, now_us, scratch);
		return order == LESS || order == SAME;
	case CDC_FILTER_IN_THE_LAST:
		return is_in_the_last(c, json, value, now_us, scratch);
	case CDC_FILTER_ARRAY_CONTAINS:
		return json[value.off] == '[' && has_element(o, json, value, scratch, 0);
	case CDC_FILTER_ARRAY_DOES_NOT_CONTAIN:
		return json[value.off] == '[' && !has_element(o, json, value, scratch, 0);
	case CDC_FILTER_STRING_CONTAINS:
	case CDC_FILTER_STRING_STARTS_WITH:
	case CDC_FILTER_STRING_ENDS_WITH:
	case CDC_FILTER_STRING_DOES_NOT_CONTAIN:
	case CDC_FILTER_STRING_DOES_NOT_START_WITH:
	case CDC_FILTER_STRING_DOES_NOT_END_WITH:
	case CDC_FILTER_STRING_LIKE:
	case CDC_FILTER_STRING_NOT_LIKE:
	case CDC_FILTER_STRING_MATCHES_TRIMMED:
		return is_text_met(c, cdc_text_of(json, value, scratch));
	}
	return false;
}

bool cdc_condition_is_met(const struct cdc_condition *c, const char *json, struct cdc_span value,
			  int64_t now_us, struct cdc_buf *scratch)
{
	const struct cdc_span v = cdc_text_trim(json, value);

	if (v.len == 0)
		return false;
	if (json[v.off] == 'n')
		return c->function == CDC_FILTER_IS_NULL;
	return is_value_met(c, json, v, now_us, scratch);
}
