#include "tests/receiver/rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int decision_status(const struct decision *d)
{
	switch (d->action) {
	case ACTION_ANSWER:
	case ACTION_HALF:
	case ACTION_SLOW:
	case ACTION_HUGE:
	case ACTION_HEAD:
	case ACTION_PART:
		return d->status;
	case ACTION_CLOSE:
	case ACTION_RESET:
	case ACTION_HANG:
	case ACTION_STALL:
		break;
	}
	return 0;
}

static void clear(struct rules *r)
{
	for (size_t i = 0; i < r->n; i++) {
		free(r->items[i].match);
		free(r->items[i].path);
		free(r->items[i].retry_after);
		free(r->items[i].location);
		free(r->items[i].body);
	}
	free(r->items);
	*r = (struct rules){0};
}

static char *decode(const char *at, size_t n)
{
	char *text = malloc(n + 1), *to = text;

	for (size_t i = 0; text && i < n; i++) {
		unsigned byte;

		if (at[i] == '%' && i + 2 < n + 0 + 1 && sscanf(at + i + 1, "%2x", &byte) == 1) {
			*to++ = (char)byte;
			i += 2;
		} else {
			*to++ = at[i];
		}
	}
	if (text)
		*to = '\0';
	return text;
}

static bool set_action(struct rule *rule, const char *value)
{
	static const char *const names[] = {"answer", "close", "reset",      "half",      "hang",
					    "slow",   "huge",  "stall-read", "huge-head", "part"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(names[i], value) == 0) {
			rule->action = (enum action)i;
			return true;
		}
	}
	return false;
}

/* Takes the value over. */
static bool set(struct rule *rule, const char *key, char *value, uint64_t now_ms)
{
	char **texts[] = {&rule->match, &rule->path, &rule->retry_after, &rule->location,
			  &rule->body};
	static const char *const text_keys[] = {"match", "path", "retry_after", "location", "body"};
	uint64_t *numbers[] = {&rule->every, &rule->skip, &rule->count, &rule->seed,
			       &rule->delay_ms};
	static const char *const number_keys[] = {"every", "skip", "count", "seed", "delay_ms"};
	bool is_known = true;

	for (size_t i = 0; i < 5; i++) {
		if (strcmp(key, text_keys[i]) == 0) {
			free(*texts[i]);
			*texts[i] = value;
			return true;
		}
		if (strcmp(key, number_keys[i]) == 0) {
			*numbers[i] = strtoull(value, NULL, 10);
			free(value);
			return true;
		}
	}
	if (strcmp(key, "status") == 0)
		rule->status = atoi(value);
	else if (strcmp(key, "p") == 0)
		rule->p = atof(value);
	else if (strcmp(key, "for_ms") == 0)
		rule->end_ms = now_ms + strtoull(value, NULL, 10);
	else if (strcmp(key, "action") == 0)
		is_known = set_action(rule, value);
	else
		is_known = false;
	free(value);
	return is_known;
}

static bool parse_line(struct rule *rule, const char *line, size_t len, uint64_t now_ms)
{
	size_t at = 0;

	*rule = (struct rule){.status = 200, .p = 1};
	while (at < len) {
		size_t end = at, equals;
		char key[32];

		while (end < len && line[end] != ' ')
			end++;
		for (equals = at; equals < end && line[equals] != '=';)
			equals++;
		if (end > at) {
			if (equals == end || equals - at >= sizeof(key))
				return false;
			memcpy(key, line + at, equals - at);
			key[equals - at] = '\0';
			if (!set(rule, key, decode(line + equals + 1, end - equals - 1), now_ms))
				return false;
		}
		at = end + 1;
	}
	return true;
}

bool rules_parse(struct rules *r, const char *body, size_t len, uint64_t now_ms, char *text,
		 size_t size)
{
	struct rules fresh = {0};

	for (size_t at = 0, end; at < len; at = end + 1) {
		struct rule *grown;

		for (end = at; end < len && body[end] != '\n' && body[end] != '\r';)
			end++;
		if (end == at)
			continue;
		grown = realloc(fresh.items, (fresh.n + 1) * sizeof(*grown));
		if (!grown)
			abort();
		fresh.items = grown;
		if (!parse_line(&fresh.items[fresh.n++], body + at, end - at, now_ms)) {
			(void)snprintf(text, size, "not a rule: %.*s\n", (int)(end - at),
				       body + at);
			clear(&fresh);
			return false;
		}
	}
	clear(r);
	*r = fresh;
	return true;
}

/* The same seed gives the same decisions. */
static bool falls(struct rule *rule)
{
	rule->seed = rule->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (double)(rule->seed >> 33) / (double)(1u << 31) < rule->p;
}

static bool takes(struct rule *rule, const char *path, const char *body, size_t len,
		  uint64_t now_ms)
{
	if (rule->path && strncmp(path, rule->path, strlen(rule->path)) != 0)
		return false;
	if (rule->match && !memmem(body, len, rule->match, strlen(rule->match)))
		return false;
	if (rule->end_ms && now_ms >= rule->end_ms)
		return false;
	rule->seen++;
	if (rule->seen <= rule->skip || (rule->count && rule->taken >= rule->count))
		return false;
	if (rule->every && (rule->seen - rule->skip) % rule->every != 0)
		return false;
	if (rule->p < 1 && !falls(rule))
		return false;
	rule->taken++;
	return true;
}

struct decision rules_decide(struct rules *r, const char *path, const char *body, size_t len,
			     uint64_t now_ms)
{
	for (size_t i = 0; i < r->n; i++) {
		struct rule *rule = &r->items[i];

		if (rule->action != ACTION_STALL && takes(rule, path, body, len, now_ms))
			return (struct decision){
				.action = rule->action,
				.status = rule->status,
				.delay_ms = rule->delay_ms,
				.retry_after = rule->retry_after,
				.location = rule->location,
				.body = rule->body,
				.match = rule->match,
			};
	}
	return (struct decision){.action = ACTION_ANSWER, .status = 200};
}

bool rules_stall(struct rules *r, const char *path, uint64_t now_ms)
{
	if (strncmp(path, "/_", 2) == 0)
		return false;
	for (size_t i = 0; i < r->n; i++) {
		if (r->items[i].action == ACTION_STALL && takes(&r->items[i], path, "", 0, now_ms))
			return true;
	}
	return false;
}
