/*
 * log.h - one line = one event = typed fields.
 *
 *   LOG_WARN(log, "sink_retry", KV("sync", name), KV("attempt", n), KV_ERR(&err));
 *   ts=2026-01-01T00:00:00.000000Z level=warn event=sink_retry comp=deliver sync=orders ...
 *
 * The event is a constant to grep and alert on; what varies is a field.  A
 * field's type follows its value; texts are quoted so that a hostile string
 * cannot forge a line or a field.  Nothing is evaluated when the level is off.
 * Only thread loops (cdc/pipeline, cdc/api, cdc/cli) log; all else returns errors.
 * Never logged: row values, keys, headers, URLs with credentials, secrets.
 *
 * Threads: any; one line is one write(2) to standard error.
 * Layer: base (libc only).
 */
#ifndef CDC_BASE_LOG_H
#define CDC_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"

enum cdc_log_level { CDC_LOG_DEBUG, CDC_LOG_INFO, CDC_LOG_WARN, CDC_LOG_ERROR };
enum cdc_log_format { CDC_LOG_LOGFMT, CDC_LOG_JSON };

/* Plain data, copied freely: each component has its own with its name. */
struct cdc_log {
	enum cdc_log_level level; /* lines below it are not written */
	enum cdc_log_format format;
	const char *comp; /* a constant: "capture", "deliver", "main" */
	int fd;
};

struct cdc_kv {
	const char *name;
	enum { CDC_KV_TEXT, CDC_KV_INT, CDC_KV_UINT, CDC_KV_REAL, CDC_KV_BOOL, CDC_KV_ERROR } kind;
	union {
		const char *text;
		int64_t i;
		uint64_t u;
		double real;
		bool b;
		const struct cdc_err *err;
	} v;
};

static inline struct cdc_kv cdc_kv_text(const char *name, const char *v)
{
	return (struct cdc_kv){.name = name, .kind = CDC_KV_TEXT, .v = {.text = v}};
}
static inline struct cdc_kv cdc_kv_int(const char *name, int64_t v)
{
	return (struct cdc_kv){.name = name, .kind = CDC_KV_INT, .v = {.i = v}};
}
static inline struct cdc_kv cdc_kv_uint(const char *name, uint64_t v)
{
	return (struct cdc_kv){.name = name, .kind = CDC_KV_UINT, .v = {.u = v}};
}
static inline struct cdc_kv cdc_kv_real(const char *name, double v)
{
	return (struct cdc_kv){.name = name, .kind = CDC_KV_REAL, .v = {.real = v}};
}
static inline struct cdc_kv cdc_kv_bool(const char *name, bool v)
{
	return (struct cdc_kv){.name = name, .kind = CDC_KV_BOOL, .v = {.b = v}};
}
static inline struct cdc_kv cdc_kv_err(const struct cdc_err *err)
{
	return (struct cdc_kv){.name = "code", .kind = CDC_KV_ERROR, .v = {.err = err}};
}

#define KV(name, value)                                                                            \
	_Generic((value),                                                                          \
		char *: cdc_kv_text,                                                               \
		const char *: cdc_kv_text,                                                         \
		bool: cdc_kv_bool,                                                                 \
		double: cdc_kv_real,                                                               \
		int: cdc_kv_int,                                                                   \
		long: cdc_kv_int,                                                                  \
		long long: cdc_kv_int,                                                             \
		default: cdc_kv_uint)(name, value)
#define KV_ERR(err) cdc_kv_err(err)

/* Writes one line; use the macros. */
void cdc_log_write(const struct cdc_log *log, enum cdc_log_level level, const char *event,
		   const struct cdc_kv *fields, size_t n);

#define CDC_LOG_AT(log, lvl, event, ...)                                                           \
	do {                                                                                       \
		const struct cdc_log *cdc_l = (log);                                               \
		if (cdc_l->level <= (lvl)) {                                                       \
			const struct cdc_kv cdc_f[] = {__VA_ARGS__};                               \
			cdc_log_write(cdc_l, (lvl), (event), cdc_f,                                \
				      sizeof(cdc_f) / sizeof(cdc_f[0]));                           \
		}                                                                                  \
	} while (0)

/* Each takes at least one field. */
#define LOG_DEBUG(log, event, ...) CDC_LOG_AT(log, CDC_LOG_DEBUG, event, __VA_ARGS__)
#define LOG_INFO(log, event, ...)  CDC_LOG_AT(log, CDC_LOG_INFO, event, __VA_ARGS__)
#define LOG_WARN(log, event, ...)  CDC_LOG_AT(log, CDC_LOG_WARN, event, __VA_ARGS__)
#define LOG_ERROR(log, event, ...) CDC_LOG_AT(log, CDC_LOG_ERROR, event, __VA_ARGS__)

/* A repeated failure is logged at attempts 1, 2, 4, 8...; attempt counts from 1. */
static inline bool cdc_log_is_due(uint64_t attempt)
{
	return attempt != 0 && (attempt & (attempt - 1)) == 0;
}

#endif
