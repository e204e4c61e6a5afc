/*
 * cursor.h - bounds-checked reader over untrusted big-endian bytes.
 *
 * The error is sticky: after the first short read every getter returns zero
 * (or an empty run) and moves nothing.  A decoder therefore reads a whole
 * message straight down and asks once, at the end, whether it was all there.
 * Before using a *length or count* it just read, it must still ask.
 *
 * Threads: a cursor belongs to its caller; the bytes must outlive it.
 * Layer: base (libc only).
 */
#ifndef CDC_BASE_CURSOR_H
#define CDC_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cdc_cursor {
	const uint8_t *at, *end;
	bool is_short; /* a getter asked for more than was left */
};

static inline struct cdc_cursor cdc_cursor_over(const void *bytes, size_t n)
{
	const uint8_t *at = bytes;

	return (struct cdc_cursor){.at = at, .end = at ? at + n : at};
}

static inline size_t cdc_cursor_left(const struct cdc_cursor *c)
{
	return (size_t)(c->end - c->at);
}

/* The next n bytes, or NULL (sticky) when fewer are left.  n may be 0. */
static inline const uint8_t *cdc_cursor_bytes(struct cdc_cursor *c, size_t n)
{
	const uint8_t *at = c->at;

	if (c->is_short || n > cdc_cursor_left(c)) {
		c->is_short = true;
		return NULL;
	}
	c->at += n;
	return at;
}

static inline uint8_t cdc_cursor_u8(struct cdc_cursor *c)
{
	const uint8_t *p = cdc_cursor_bytes(c, 1);

	return p ? *p : 0;
}

static inline uint16_t cdc_cursor_u16(struct cdc_cursor *c)
{
	const uint8_t *p = cdc_cursor_bytes(c, 2);
	uint16_t v = 0;

	if (p)
		memcpy(&v, p, 2);
	return __builtin_bswap16(v);
}

static inline uint32_t cdc_cursor_u32(struct cdc_cursor *c)
{
	const uint8_t *p = cdc_cursor_bytes(c, 4);
	uint32_t v = 0;

	if (p)
		memcpy(&v, p, 4);
	return __builtin_bswap32(v);
}

static inline uint64_t cdc_cursor_u64(struct cdc_cursor *c)
{
	const uint8_t *p = cdc_cursor_bytes(c, 8);
	uint64_t v = 0;

	if (p)
		memcpy(&v, p, 8);
	return __builtin_bswap64(v);
}

/* A NUL-terminated string inside the bytes, never NULL: "" when the NUL is missing (sticky). */
static inline const char *cdc_cursor_cstr(struct cdc_cursor *c)
{
	size_t left = cdc_cursor_left(c);
	const uint8_t *nul = c->is_short || left == 0 ? NULL : memchr(c->at, 0, left);
	const char *s = (const char *)c->at;

	if (!nul) {
		c->is_short = true;
		return "";
	}
	c->at = nul + 1;
	return s;
}

#endif
