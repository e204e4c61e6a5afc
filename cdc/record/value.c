#include "cdc/record/value.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "cdc/record/array.h"
#include "cdc/record/composite.h"
#include "cdc/record/hstore.h"
#include "cdc/record/utf8.h"

#define ONES      UINT64_C(0x0101010101010101)
#define HIGH_BITS (ONES * 0x80)
#define ESCAPED   6 /* longest form of one byte: \u001f */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte of a word is its lowest");

static inline bool is_plain(unsigned char c)
{
	return c >= 0x20 && c != '"' && c != '\\';
}

/* The high bit of the lowest byte of v that is below n (1 to 128) is set, and none below it;
 * a borrow may set bits above. */
static inline uint64_t bytes_below(uint64_t v, uint64_t n)
{
	return (v - ONES * n) & ~v & HIGH_BITS;
}

size_t cdc_value_plain(const char *text, size_t len)
{
	size_t at = 0;

#ifdef __SSE2__
	const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'),
		      control = _mm_set1_epi8(0x1f);

	for (; len - at >= 16; at += 16) {
		__m128i v;
		int mask;

		memcpy(&v, text + at, sizeof(v));
		mask = _mm_movemask_epi8(_mm_or_si128(
			_mm_cmpeq_epi8(_mm_min_epu8(v, control), v),
			_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, backslash))));
		if (mask)
			return at + (size_t)__builtin_ctz((unsigned)mask);
	}
#endif
	for (; len - at >= 8; at += 8) {
		uint64_t v, found;

		memcpy(&v, text + at, sizeof(v));
		found = bytes_below(v, 0x20) | bytes_below(v ^ ONES * '"', 1) |
			bytes_below(v ^ ONES * '\\', 1);
		if (found)
			return at + (size_t)__builtin_ctzll(found) / 8;
	}
	while (at < len && is_plain((unsigned char)text[at]))
		at++;
	return at;
}

static size_t digits(const char *text, size_t at, size_t len)
{
	while (at < len && text[at] >= '0' && text[at] <= '9')
		at++;
	return at;
}

/* RFC 8259 section 6. */
size_t cdc_value_number(const char *text, size_t len)
{
	size_t first = len && text[0] == '-', at = digits(text, first, len), tail;

	if (at == first)
		return 0;
	if (text[first] == '0')
		at = first + 1;
	if (at < len && text[at] == '.') {
		tail = digits(text, at + 1, len);
		if (tail == at + 1)
			return at;
		at = tail;
	}
	if (at < len && (text[at] == 'e' || text[at] == 'E')) {
		first = at + 1;
		if (first < len && (text[first] == '+' || text[first] == '-'))
			first++;
		tail = digits(text, first, len);
		if (tail > first)
			at = tail;
	}
	return at;
}

/* The letter behind the backslash, or 0: the byte has no short form. */
static inline char short_form(unsigned char c)
{
	switch (c) {
	case '\b':
		return 'b';
	case '\f':
		return 'f';
	case '\n':
		return 'n';
	case '\r':
		return 'r';
	case '\t':
		return 't';
	case '"':
	case '\\':
		return (char)c;
	default:
		return 0;
	}
}

static char *put_escaped(char *to, unsigned char c)
{
	char letter = short_form(c);

	*to++ = '\\';
	if (letter) {
		*to++ = letter;
		return to;
	}
	memcpy(to, "u00", 3);
	to[3] = "0123456789abcdef"[c >> 4];
	to[4] = "0123456789abcdef"[c & 15];
	return to + 5;
}

static size_t escaped_len(const char *text, size_t len)
{
	size_t n = len;

	for (size_t at = cdc_value_plain(text, len); at < len;
	     at += 1 + cdc_value_plain(text + at + 1, len - at - 1))
		n += short_form((unsigned char)text[at]) ? 1 : ESCAPED - 1;
	return n;
}

static char *escape(char *to, const char *text, size_t len)
{
	size_t at = 0;

	for (;;) {
		size_t n = cdc_value_plain(text + at, len - at);

		memcpy(to, text + at, n);
		to += n;
		at += n;
		if (at == len)
			return to;
		to = put_escaped(to, (unsigned char)text[at++]);
	}
}

/* Room for the text, escaped, and extra bytes.  Counts only when the worst case does not fit, so
 * that a value fits whenever its own bytes do. */
static inline char *escape_room(struct cdc_buf *out, const char *text, size_t len, size_t extra)
{
	const size_t left = out->cap - out->len;

	if (!out->failed && left >= extra && len <= (left - extra) / ESCAPED)
		return (char *)out->data + out->len;
	return (char *)cdc_buf_reserve(out, escaped_len(text, len) + extra);
}

void cdc_value_escape(struct cdc_buf *out, const char *text, size_t len)
{
	char *to = len ? escape_room(out, text, len, 0) : NULL;

	if (to)
		out->len += (size_t)(escape(to, text, len) - to);
}

void cdc_value_string(struct cdc_buf *out, const char *text, size_t len)
{
	char *to = escape_room(out, text, len, 2), *end = to;

	if (!to)
		return;
	*end++ = '"';
	if (len)
		end = escape(end, text, len);
	*end++ = '"';
	out->len += (size_t)(end - to);
}

static inline void put(struct cdc_buf *out, const char *bytes, size_t n)
{
	uint8_t *to = cdc_value_room(out, n);

	if (to) {
		memcpy(to, bytes, n);
		out->len += n;
	}
}

/* The end of the "+00" that lacks its minutes, or 0. */
static size_t short_zone_end(const char *text, size_t len)
{
	size_t end = len >= 3 && memcmp(text + len - 3, " BC", 3) == 0 ? len - 3 : len;

	if (end >= 3 && (text[end - 3] == '+' || text[end - 3] == '-') &&
	    digits(text, end - 2, end) == end)
		return end;
	return 0;
}

/*
 * "2020-01-02 03:04:05.6+00 BC" becomes "2020-01-02T03:04:05.6+00:00 BC": dates
 * in JSON are XSD's, whose offset always has minutes.  Infinity has no space.
 */
static void write_timestamp(struct cdc_buf *out, const char *text, size_t len, bool has_zone)
{
	const char *space = len ? memchr(text, ' ', len) : NULL;
	size_t date, zone;

	if (!space) {
		cdc_value_string(out, text, len);
		return;
	}
	date = (size_t)(space - text);
	text = space + 1;
	len -= date + 1;
	zone = has_zone ? short_zone_end(text, len) : 0;
	put(out, "\"", 1);
	cdc_value_escape(out, space - date, date);
	put(out, "T", 1);
	cdc_value_escape(out, text, zone ? zone : len);
	if (zone) {
		put(out, ":00", 3);
		cdc_value_escape(out, text + zone, len - zone);
	}
	put(out, "\"", 1);
}

bool cdc_value_write(struct cdc_buf *out, const struct cdc_type *type, const char *text, size_t len)
{
	switch (type->kind) {
	case CDC_KIND_TEXT:
		cdc_value_string(out, text, len);
		return true;
	case CDC_KIND_NUMBER:
		if (len && cdc_value_number(text, len) == len)
			put(out, text, len);
		else
			cdc_value_string(out, text, len);
		return true;
	case CDC_KIND_BOOL:
		if (len != 1 || (*text != 't' && *text != 'f'))
			return false;
		if (*text == 't')
			put(out, "true", 4);
		else
			put(out, "false", 5);
		return true;
	case CDC_KIND_JSON:
		if (len == 0)
			return false;
		put(out, text, len);
		return true;
	case CDC_KIND_TIMESTAMP:
	case CDC_KIND_TIMESTAMPTZ:
		write_timestamp(out, text, len, type->kind == CDC_KIND_TIMESTAMPTZ);
		return true;
	case CDC_KIND_ARRAY:
		return cdc_array_write(out, type, text, len);
	case CDC_KIND_HSTORE:
		return cdc_hstore_write(out, text, len);
	case CDC_KIND_COMPOSITE:
		cdc_composite_write(out, type, text, len);
		return true;
	}
	return false;
}

static void write_bytes(struct cdc_buf *out, const char *text, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	char *to;

	put(out, "{\"$bytes\":\"\\\\x", 14);
	to = (char *)cdc_value_room(out, 2 * len);
	for (size_t i = 0; to && i < len; i++) {
		*to++ = hex[(unsigned char)text[i] >> 4];
		*to++ = hex[(unsigned char)text[i] & 15];
	}
	if (to)
		out->len += 2 * len;
	put(out, "\"}", 2);
}

bool cdc_value_column(struct cdc_buf *out, const struct cdc_type *type, const char *text,
		      size_t len)
{
	if (cdc_utf8_valid(text, len) == len)
		return cdc_value_write(out, type, text, len);
	write_bytes(out, text, len);
	return true;
}

void cdc_value_name(struct cdc_buf *out, const char *name, size_t len)
{
	cdc_buf_putc(out, '"');
	for (size_t at = 0; at < len;) {
		size_t n = cdc_utf8_valid(name + at, len - at);

		cdc_value_escape(out, name + at, n);
		at += n;
		if (at < len) {
			cdc_buf_puts(out, "\xef\xbf\xbd");
			at++;
		}
	}
	cdc_buf_putc(out, '"');
}
