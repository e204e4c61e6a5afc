/*
 * wire.h - writes the messages of pgoutput, for tests of what reads them.
 *
 * Threads: any.
 */
#ifndef TESTS_UNIT_WIRE_H
#define TESTS_UNIT_WIRE_H

#include <stdint.h>
#include <string.h>

#include "cdc/base/buf.h"

static inline void wire_u8(struct cdc_buf *b, unsigned v)
{
	cdc_buf_putc(b, (char)v);
}

static inline void wire_u16(struct cdc_buf *b, unsigned v)
{
	wire_u8(b, v >> 8 & 255);
	wire_u8(b, v & 255);
}

static inline void wire_u32(struct cdc_buf *b, uint32_t v)
{
	wire_u16(b, v >> 16);
	wire_u16(b, v & 65535);
}

static inline void wire_u64(struct cdc_buf *b, uint64_t v)
{
	wire_u32(b, (uint32_t)(v >> 32));
	wire_u32(b, (uint32_t)v);
}

static inline void wire_text(struct cdc_buf *b, const char *s)
{
	cdc_buf_put(b, s, strlen(s) + 1);
}

static inline void wire_begin(struct cdc_buf *b, uint64_t commit_lsn, uint32_t xid)
{
	wire_u8(b, 'B');
	wire_u64(b, commit_lsn);
	wire_u64(b, 5);
	wire_u32(b, xid);
}

static inline void wire_commit(struct cdc_buf *b, uint64_t commit_lsn, uint64_t end_lsn)
{
	wire_u8(b, 'C');
	wire_u8(b, 0);
	wire_u64(b, commit_lsn);
	wire_u64(b, end_lsn);
	wire_u64(b, 5);
}

/* A relation of int4 columns; names: one letter each, upper case: part of the identity. */
static inline void wire_relation(struct cdc_buf *b, uint32_t relid, const char *name, char identity,
				 const char *columns)
{
	wire_u8(b, 'R');
	wire_u32(b, relid);
	wire_text(b, "public");
	wire_text(b, name);
	wire_u8(b, (unsigned char)identity);
	wire_u16(b, (unsigned)strlen(columns));
	for (; *columns; columns++) {
		const char text[] = {(char)(*columns | 32), '\0'};

		wire_u8(b, *columns < 'a');
		wire_text(b, text);
		wire_u32(b, 23);
		wire_u32(b, UINT32_MAX);
	}
}

/* One value per letter: a digit, 'n' null, 'u' unchanged. */
static inline void wire_tuple(struct cdc_buf *b, char marker, const char *values)
{
	wire_u8(b, (unsigned char)marker);
	wire_u16(b, (unsigned)strlen(values));
	for (; *values; values++) {
		if (*values == 'n' || *values == 'u') {
			wire_u8(b, (unsigned char)*values);
			continue;
		}
		wire_u8(b, 't');
		wire_u32(b, 1);
		wire_u8(b, (unsigned char)*values);
	}
}

static inline void wire_insert(struct cdc_buf *b, uint32_t relid, const char *row)
{
	wire_u8(b, 'I');
	wire_u32(b, relid);
	wire_tuple(b, 'N', row);
}

/* marker 0: without an old row. */
static inline void wire_update(struct cdc_buf *b, uint32_t relid, char marker, const char *old,
			       const char *row)
{
	wire_u8(b, 'U');
	wire_u32(b, relid);
	if (marker)
		wire_tuple(b, marker, old);
	wire_tuple(b, 'N', row);
}

static inline void wire_delete(struct cdc_buf *b, uint32_t relid, char marker, const char *old)
{
	wire_u8(b, 'D');
	wire_u32(b, relid);
	wire_tuple(b, marker, old);
}

static inline void wire_truncate(struct cdc_buf *b, uint32_t n, const uint32_t *relids,
				 unsigned flags)
{
	wire_u8(b, 'T');
	wire_u32(b, n);
	wire_u8(b, flags);
	for (uint32_t i = 0; i < n; i++)
		wire_u32(b, relids[i]);
}

static inline void wire_message(struct cdc_buf *b, unsigned flags, uint64_t lsn, const char *prefix,
				const char *bytes)
{
	wire_u8(b, 'M');
	wire_u8(b, flags);
	wire_u64(b, lsn);
	wire_text(b, prefix);
	wire_u32(b, (uint32_t)strlen(bytes));
	cdc_buf_puts(b, bytes);
}

#endif
