/*
 * compress.h - lz4 and zstd behind one small interface, and a checksum.
 *
 * Bytes go in whole and come out whole: what is compressed here is a chunk of a
 * known size.  What does not shrink is stored as it is, so the format that was
 * really used comes back and must be kept beside the bytes, like their raw size.
 *
 * Encodings are the same for what travels: a whole body as one gzip or zstd stream.
 *
 * Threads: a compressor and an encoder belong to their caller; the functions without one are free
 * for any thread.
 * Layer: base (liblz4, libzstd, zlib).
 */
#ifndef CDC_BASE_COMPRESS_H
#define CDC_BASE_COMPRESS_H

#include <stddef.h>
#include <stdint.h>

#include "cdc/base/buf.h"
#include "cdc/base/err.h"

/* Stored in files: the numbers never change. */
enum cdc_compress_format {
	CDC_COMPRESS_NONE = 0,
	CDC_COMPRESS_LZ4 = 1,
	CDC_COMPRESS_ZSTD = 2, /* level 1 */
};

struct cdc_compressor;

/* Working memory for one format, kept from chunk to chunk; NULL when the heap is exhausted. */
struct cdc_compressor *cdc_compressor_new(enum cdc_compress_format format);
void cdc_compressor_free(struct cdc_compressor *c);

/*
 * Appends the compressed bytes to out (len below 2 GiB).  *ret_format: the
 * compressor's, or CDC_COMPRESS_NONE when that is not larger.  CDC_NOMEM: out is
 * full or the heap is exhausted; out is then as before but for its failed flag.
 */
enum cdc_code cdc_compress(struct cdc_compressor *c, const void *bytes, size_t len,
			   struct cdc_buf *out, enum cdc_compress_format *ret_format,
			   struct cdc_err *err) CDC_CHECK;

/*
 * Appends exactly raw_len bytes to out.  The bytes may come from a damaged file:
 * an unknown format, or anything that does not give raw_len bytes, is
 * CDC_CORRUPT; CDC_NOMEM as above.
 */
enum cdc_code cdc_decompress(unsigned format, const void *bytes, size_t len, size_t raw_len,
			     struct cdc_buf *out, struct cdc_err *err) CDC_CHECK;

/* How a body is compressed that others read: the Content-Encoding of HTTP. */
enum cdc_encoding {
	CDC_ENCODING_NONE,
	CDC_ENCODING_GZIP, /* RFC 1952, the fastest level */
	CDC_ENCODING_ZSTD, /* RFC 8878, level 1 */
};

struct cdc_encoder;

/* Working memory for one encoding, not NONE, kept from body to body; NULL when the heap is
 * exhausted. */
struct cdc_encoder *cdc_encoder_new(enum cdc_encoding encoding);
void cdc_encoder_free(struct cdc_encoder *e); /* NULL is fine */

/* Appends the encoded bytes to out (len below 2 GiB).  CDC_LIMIT: they pass out's maximum.
 * CDC_NOMEM. */
enum cdc_code cdc_encode(struct cdc_encoder *e, const void *bytes, size_t len, struct cdc_buf *out,
			 struct cdc_err *err) CDC_CHECK;

/* CRC-32 of the bytes: finds damage, not malice. */
uint32_t cdc_checksum(const void *bytes, size_t len);

#endif
