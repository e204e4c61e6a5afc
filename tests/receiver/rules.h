/* What becomes of a request, as POST /_control said (receiver.c has the language). */
#ifndef TESTS_RECEIVER_RULES_H
#define TESTS_RECEIVER_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum action {
	ACTION_ANSWER,
	ACTION_CLOSE,
	ACTION_RESET,
	ACTION_HALF,
	ACTION_HANG,
	ACTION_SLOW,
	ACTION_HUGE,
	ACTION_STALL,
	ACTION_HEAD,
	ACTION_PART,
};

/* The texts belong to the rules: valid until the next parse, NULL when not given. */
struct decision {
	enum action action;
	int status;
	uint64_t delay_ms;
	const char *retry_after, *location, *body;
	const char *match;
};

struct rule {
	char *match, *path, *retry_after, *location, *body;
	uint64_t every, skip, count, seed, delay_ms, end_ms, seen, taken;
	double p;
	int status;
	enum action action;
};

struct rules {
	struct rule *items;
	size_t n;
};

/* Takes the place of the rules so far; false: text says what is wrong, the rules are as before. */
bool rules_parse(struct rules *r, const char *body, size_t len, uint64_t now_ms, char *text,
		 size_t size);
struct decision rules_decide(struct rules *r, const char *path, const char *body, size_t len,
			     uint64_t now_ms);
/* Does a rule stop the reading of this request's body? */
bool rules_stall(struct rules *r, const char *path, uint64_t now_ms);

/* The status that the sender sees; 0: none. */
int decision_status(const struct decision *d);

#endif
