#include "cdc/base/compress.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <lz4.h>
#include <zlib.h>
#include <zstd.h>

#define ZSTD_LEVEL 1

struct cdc_compressor {
	enum cdc_compress_format format;
	ZSTD_CCtx *zstd;
	void *lz4;
};

struct cdc_compressor *cdc_compressor_new(enum cdc_compress_format format)
{
	struct cdc_compressor *c = calloc(1, sizeof(*c));
	bool is_sound = c != NULL;

	if (is_sound)
		c->format = format;
	if (is_sound && format == CDC_COMPRESS_LZ4)
		is_sound = (c->lz4 = malloc((size_t)LZ4_sizeofState())) != NULL;
	if (is_sound && format == CDC_COMPRESS_ZSTD)
		is_sound = (c->zstd = ZSTD_createCCtx()) != NULL;
	if (is_sound)
		return c;
	cdc_compressor_free(c);
	return NULL;
}

void cdc_compressor_free(struct cdc_compressor *c)
{
	if (!c)
		return;
	(void)ZSTD_freeCCtx(c->zstd);
	free(c->lz4);
	free(c);
}

/* The compressed size, or 0: it did not shrink below room bytes. */
static size_t shrink(struct cdc_compressor *c, const void *bytes, size_t len, uint8_t *to,
		     size_t room)
{
	size_t n;
	int m;

	switch (c->format) {
	case CDC_COMPRESS_LZ4:
		m = LZ4_compress_fast_extState(c->lz4, bytes, (char *)to, (int)len, (int)room, 1);
		return m > 0 ? (size_t)m : 0;
	case CDC_COMPRESS_ZSTD:
		n = ZSTD_compressCCtx(c->zstd, to, room, bytes, len, ZSTD_LEVEL);
		return ZSTD_isError(n) ? 0 : n;
	case CDC_COMPRESS_NONE:
		break;
	}
	return 0;
}

enum cdc_code cdc_compress(struct cdc_compressor *c, const void *bytes, size_t len,
			   struct cdc_buf *out, enum cdc_compress_format *ret_format,
			   struct cdc_err *err)
{
	uint8_t *to = cdc_buf_reserve(out, len ? len : 1);
	size_t n;

	CDC_ASSERT(len < INT_MAX);
	if (!to)
		return cdc_err_set(err, CDC_NOMEM, "out of memory to compress %zu bytes", len);
	n = shrink(c, bytes, len, to, len);
	*ret_format = n ? c->format : CDC_COMPRESS_NONE;
	if (n)
		out->len += n;
	else
		cdc_buf_put(out, bytes, len);
	return CDC_OK;
}

enum cdc_code cdc_decompress(unsigned format, const void *bytes, size_t len, size_t raw_len,
			     struct cdc_buf *out, struct cdc_err *err)
{
	uint8_t *to;
	bool is_sound = false;

	if (raw_len >= INT_MAX || len >= INT_MAX)
		return cdc_err_set(err, CDC_CORRUPT, "compressed bytes claim an impossible size");
	to = cdc_buf_reserve(out, raw_len ? raw_len : 1);
	if (!to)
		return cdc_err_set(err, CDC_NOMEM, "out of memory to decompress %zu bytes",
				   raw_len);
	if (format == CDC_COMPRESS_NONE) {
		is_sound = len == raw_len;
		if (is_sound && len)
			memcpy(to, bytes, len);
	} else if (format == CDC_COMPRESS_LZ4) {
		is_sound = LZ4_decompress_safe(bytes, (char *)to, (int)len, (int)raw_len) ==
			   (int)raw_len;
	} else if (format == CDC_COMPRESS_ZSTD) {
		is_sound = ZSTD_decompress(to, raw_len, bytes, len) == raw_len;
	}
	if (!is_sound)
		return cdc_err_set(err, CDC_CORRUPT, "compressed bytes are damaged");
	out->len += raw_len;
	return CDC_OK;
}

/* --- encodings ---------------------------------------------------------------------- */

#define GZIP_WINDOW (15 + 16) /* zlib: the largest window, with gzip's head and tail */
#define GZIP_MEMORY 8         /* zlib's default */

struct cdc_encoder {
	ZSTD_CCtx *zstd; /* NULL: gzip */
	z_stream gzip;
};

struct cdc_encoder *cdc_encoder_new(enum cdc_encoding encoding)
{
	struct cdc_encoder *e = calloc(1, sizeof(*e));
	bool is_sound = false;

	if (!e)
		return NULL;
	switch (encoding) {
	case CDC_ENCODING_GZIP:
		is_sound = deflateInit2(&e->gzip, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW,
					GZIP_MEMORY, Z_DEFAULT_STRATEGY) == Z_OK;
		break;
	case CDC_ENCODING_ZSTD:
		is_sound = (e->zstd = ZSTD_createCCtx()) != NULL;
		break;
	case CDC_ENCODING_NONE:
		break;
	}
	if (is_sound)
		return e;
	free(e);
	return NULL;
}

void cdc_encoder_free(struct cdc_encoder *e)
{
	if (!e)
		return;
	if (e->zstd)
		(void)ZSTD_freeCCtx(e->zstd);
	else
		(void)deflateEnd(&e->gzip);
	free(e);
}

/* The encoded size, at most room; 0: it did not fit. */
static size_t encode(struct cdc_encoder *e, const void *bytes, size_t len, uint8_t *to, size_t room)
{
	z_stream *z = &e->gzip;

	if (e->zstd) {
		size_t n = ZSTD_compressCCtx(e->zstd, to, room, bytes, len, ZSTD_LEVEL);

		return ZSTD_isError(n) ? 0 : n;
	}
	/* It is not written to, but the type does not say so. */
	memcpy(&z->next_in, &bytes, sizeof(bytes));
	z->avail_in = (uInt)len;
	z->next_out = to;
	z->avail_out = (uInt)room;
	return deflate(z, Z_FINISH) == Z_STREAM_END ? room - z->avail_out : 0;
}

enum cdc_code cdc_encode(struct cdc_encoder *e, const void *bytes, size_t len, struct cdc_buf *out,
			 struct cdc_err *err)
{
	size_t room, n;
	uint8_t *to;

	CDC_ASSERT(len < INT_MAX);
	/* Before it is asked for its bound, which is wrong while a stream has ended. */
	if (!e->zstd)
		(void)deflateReset(&e->gzip);
	room = e->zstd ? ZSTD_compressBound(len) : deflateBound(&e->gzip, (uLong)len);
	if (room > out->max - out->len)
		room = out->max - out->len;
	to = cdc_buf_reserve(out, room);
	if (!to)
		return cdc_err_set(err, CDC_NOMEM, "out of memory to compress %zu bytes", len);
	n = encode(e, bytes, len, to, room);
	if (!n)
		return cdc_err_set(err, CDC_LIMIT, "%zu bytes do not fit when compressed", len);
	out->len += n;
	return CDC_OK;
}

uint32_t cdc_checksum(const void *bytes, size_t len)
{
	return (uint32_t)crc32_z(0, bytes, len);
}
