/*
 * err.h - the one error type of the whole program.
 *
 * The code is for the program, the text for a person, the class says what to
 * do; a caller never parses text.  A function that can fail returns an
 * enum cdc_code, is marked CDC_CHECK and takes a struct cdc_err as its last
 * parameter, which may be NULL and is untouched on success.
 *
 * Threads: a struct cdc_err belongs to its caller.
 * Layer: base (libc only).
 */
#ifndef CDC_BASE_ERR_H
#define CDC_BASE_ERR_H

#define CDC_CHECK     __attribute__((warn_unused_result))
#define CDC_FMT(f, a) __attribute__((format(printf, f, a)))

/* What the loop that meets the failure does about it. */
enum cdc_class {
	CDC_CLASS_NONE,   /* nothing failed */
	CDC_CLASS_RETRY,  /* may heal by itself: wait, try again */
	CDC_CLASS_REJECT, /* this input is refused; the next may be accepted */
	CDC_CLASS_FATAL,  /* will not heal by itself: stop and tell a person */
};

#define CDC_CODES(X)                                                                               \
	X(OK, "ok", CDC_CLASS_NONE)                                                                \
	X(STOPPED, "stopped", CDC_CLASS_NONE)      /* the stop flag was set while waiting */       \
	X(BUSY, "busy", CDC_CLASS_RETRY)           /* queue or budget full, nothing was taken */   \
	X(NOMEM, "out_of_memory", CDC_CLASS_RETRY) /* heap or a configured limit of memory */      \
	X(IO, "io", CDC_CLASS_RETRY)               /* network, disk, a server that went away */    \
	X(TIMEOUT, "timeout", CDC_CLASS_RETRY)                                                     \
	X(FULL, "full", CDC_CLASS_RETRY) /* disk full */                                           \
	X(HELD, "held", CDC_CLASS_RETRY) /* somebody else has the slot or the lock */              \
	X(REJECTED, "rejected", CDC_CLASS_REJECT)                                                  \
	X(LIMIT, "limit", CDC_CLASS_FATAL)     /* input above a limit; the text names it */        \
	X(PROTO, "protocol", CDC_CLASS_FATAL)  /* bytes that the format does not allow */          \
	X(CORRUPT, "corrupt", CDC_CLASS_FATAL) /* our own files are damaged */                     \
	X(CONFIG, "config", CDC_CLASS_FATAL)   /* file, server setting or privilege to change */   \
	X(AUTH, "auth", CDC_CLASS_FATAL)       /* wrong password, role refused */                  \
	X(MISSING, "missing", CDC_CLASS_FATAL) /* slot, publication, table, file not there */      \
	X(EPOCH, "epoch", CDC_CLASS_FATAL)     /* an older numbering than what is stored */        \
	X(GAP, "gap", CDC_CLASS_FATAL)         /* changes that can no longer be had */             \
	X(TROUBLE, "record_trouble", CDC_CLASS_FATAL) /* one record is refused while others pass   \
						       */

enum cdc_code {
#define X(code, name, class) CDC_##code,
	CDC_CODES(X)
#undef X
};

struct cdc_err {
	enum cdc_code code;
	char msg[768];    /* one sentence; truncated if longer; no secrets, no payload */
	char remedy[768]; /* the SQL to run or the setting to change, exact; may be empty */
};

/* The constant name of a code ("io"), for logs and metrics. */
const char *cdc_code_name(enum cdc_code code);

/* What to do about a code. */
enum cdc_class cdc_code_class(enum cdc_code code);

/* Fills err (if not NULL) and returns code, so that a function can `return cdc_err_set(...)`. */
enum cdc_code cdc_err_set(struct cdc_err *err, enum cdc_code code, const char *fmt, ...)
	CDC_FMT(3, 4);

/* Puts "fmt: " before the text that err already has; returns err's code (CDC_IO if err is NULL). */
enum cdc_code cdc_err_wrap(struct cdc_err *err, const char *fmt, ...) CDC_FMT(2, 3);

/* Sets the remedy of an error that is already filled; returns err's code (CDC_IO if NULL). */
enum cdc_code cdc_err_remedy(struct cdc_err *err, const char *fmt, ...) CDC_FMT(2, 3);

/*
 * A broken invariant of our own: prints the condition and aborts, in every
 * build.  A crash is safe here (at-least-once, durable positions); going on
 * with a broken invariant is not.
 */
#define CDC_ASSERT(cond)                                                                           \
	do {                                                                                       \
		if (__builtin_expect(!(cond), 0))                                                  \
			cdc_assert_failed(#cond, __FILE__, __LINE__);                              \
	} while (0)
_Noreturn void cdc_assert_failed(const char *cond, const char *file, int line);

/* A local that f(&local) releases on every path; ownership leaves through CDC_TAKE. */
#define CDC_AUTO(f) __attribute__((cleanup(f)))
#define CDC_TAKE(p)                                                                                \
	__extension__({                                                                            \
		__typeof__(p) cdc_taken = (p);                                                     \
		(p) = NULL;                                                                        \
		cdc_taken;                                                                         \
	})

#endif
