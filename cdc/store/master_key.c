#include "cdc/store/master_key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cdc/base/base64.h"
#include "cdc/base/crypto.h"

#define TEXT_MAX 128 /* a key and white space behind it */

static enum cdc_code fail(const char *path, struct cdc_err *err)
{
	int e = errno;

	return cdc_err_set(err, e == ENOSPC || e == EDQUOT ? CDC_FULL : CDC_IO, "%s: %s", path,
			   strerror(e));
}

static enum cdc_code read_text(const char *path, char text[TEXT_MAX + 1], struct cdc_err *err)
{
	/* O_NONBLOCK: a FIFO nobody writes to must not hold the start. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	ssize_t n;

	if (fd < 0 && errno == ENOENT)
		return cdc_err_set(err, CDC_MISSING, "%s: there is no such file", path);
	if (fd < 0)
		return fail(path, err);
	if (fstat(fd, &st) != 0 || (st.st_mode & 077 && fchmod(fd, st.st_mode & 0700) != 0)) {
		enum cdc_code rc = fail(path, err);

		(void)close(fd);
		return rc;
	}
	n = S_ISREG(st.st_mode) ? read(fd, text, TEXT_MAX) : 0;
	if (n < 0) {
		enum cdc_code rc = fail(path, err);

		(void)close(fd);
		return rc;
	}
	(void)close(fd);
	while (n > 0 && strchr(" \t\r\n", text[n - 1]))
		n--;
	text[n] = '\0';
	return CDC_OK;
}

enum cdc_code cdc_master_key_read(const char *path, uint8_t ret_key[CDC_SEAL_KEY_BYTES],
				  struct cdc_err *err)
{
	char text[TEXT_MAX + 1];
	enum cdc_code rc = read_text(path, text, err);
	bool is_key;

	if (rc)
		return rc;
	is_key = cdc_seal_key(text, ret_key);
	cdc_wipe(text, sizeof(text));
	if (is_key)
		return CDC_OK;
	(void)cdc_err_set(err, CDC_CONFIG,
			  "%s holds no master key (32 bytes as base64 or hex, on one line)", path);
	return cdc_err_remedy(err, "put back the file that was there; if it is lost, see the "
				   "README, \"The master key\"");
}

static enum cdc_code write_text(const char *path, const struct cdc_buf *text, struct cdc_err *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	enum cdc_code rc = CDC_OK;
	ssize_t n;

	if (fd < 0)
		return fail(path, err);
	n = write(fd, text->data, text->len);
	if (n >= 0 && (size_t)n < text->len) {
		errno = ENOSPC; /* so few bytes are cut by nothing else */
		n = -1;
	}
	if (n < 0 || fchmod(fd, 0600) != 0 || fsync(fd) != 0)
		rc = fail(path, err);
	(void)close(fd);
	return rc;
}

static enum cdc_code sync_folder(const char *path, struct cdc_err *err)
{
	const char *slash = strrchr(path, '/');
	char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	enum cdc_code rc = CDC_OK;

	if (fd < 0 || fsync(fd) != 0)
		rc = fail(path, err);
	if (fd >= 0)
		(void)close(fd);
	free(folder);
	return rc;
}

enum cdc_code cdc_master_key_make(const char *path, uint8_t ret_key[CDC_SEAL_KEY_BYTES],
				  struct cdc_err *err)
{
	struct cdc_buf text;
	char *unfinished = NULL;
	enum cdc_code rc = cdc_random(ret_key, CDC_SEAL_KEY_BYTES, err);

	if (rc)
		return rc;
	cdc_buf_init(&text, TEXT_MAX);
	cdc_base64_put(&text, ret_key, CDC_SEAL_KEY_BYTES);
	cdc_buf_putc(&text, '\n');
	if (text.failed || asprintf(&unfinished, "%s.new", path) < 0) {
		unfinished = NULL;
		rc = cdc_err_set(err, CDC_NOMEM, "out of memory");
	}
	if (!rc)
		rc = write_text(unfinished, &text, err);
	if (!rc && rename(unfinished, path) != 0)
		rc = fail(path, err);
	if (!rc)
		rc = sync_folder(path, err);
	if (text.data)
		cdc_wipe(text.data, text.cap);
	cdc_buf_clear(&text);
	free(unfinished);
	return rc;
}
