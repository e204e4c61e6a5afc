#include "cdc/cli/data_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cdc/base/buf.h"

#define TRIES  5
#define TRY_MS 20

/* The number that the holder wrote into the lock file, or 0. */
static long holder_of(int fd)
{
	char text[32] = "";

	if (pread(fd, text, sizeof(text) - 1, 0) < 0)
		return 0;
	return strtol(text, NULL, 10);
}

/* With its NUL; the caller asks whether it failed, and clears it. */
static void put_lock_path(struct cdc_buf *file, const char *path)
{
	cdc_buf_init(file, 8192);
	cdc_buf_printf(file, "%s/lock", path);
	cdc_buf_put(file, "", 1);
}

/* Somebody may only be looking whether it is held. */
static bool take_lock(int fd)
{
	for (int i = 0; i < TRIES; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return true;
		if (errno != EWOULDBLOCK)
			return false;
		(void)poll(NULL, 0, TRY_MS);
	}
	return false;
}

bool cdc_data_dir_is_held(const char *path)
{
	struct cdc_buf file;
	bool is_held = false;
	int fd;

	put_lock_path(&file, path);
	fd = file.failed ? -1 : open((const char *)file.data, O_RDWR | O_CLOEXEC);
	cdc_buf_clear(&file);
	if (fd < 0)
		return false;
	is_held = flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
	(void)close(fd);
	return is_held;
}

enum cdc_code cdc_data_dir_check(const char *path, struct cdc_err *err)
{
	struct stat st;

	if (stat(path, &st) != 0 || S_ISDIR(st.st_mode))
		return CDC_OK;
	(void)cdc_err_set(err, CDC_CONFIG, "data_dir %s is not a folder", path);
	return cdc_err_remedy(err, "set data_dir to a folder, or move away what is there");
}

enum cdc_code cdc_data_dir_lock(const char *path, int *ret_fd, struct cdc_err *err)
{
	struct cdc_buf file;
	char pid[32];
	int fd, len;
	enum cdc_code rc;

	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		int e = errno;

		(void)cdc_err_set(err, CDC_CONFIG, "data_dir %s cannot be created: %s", path,
				  strerror(e));
		return cdc_err_remedy(err, "create its parent folder, or set data_dir to a folder "
					   "that this user may write");
	}
	rc = cdc_data_dir_check(path, err);
	if (rc)
		return rc;
	put_lock_path(&file, path);
	if (file.failed) {
		cdc_buf_clear(&file);
		return cdc_err_set(err, CDC_CONFIG, "data_dir is too long");
	}
	fd = open((const char *)file.data, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	cdc_buf_clear(&file);
	if (fd < 0) {
		int e = errno;

		(void)cdc_err_set(err, CDC_CONFIG, "data_dir %s cannot be written: %s", path,
				  strerror(e));
		return cdc_err_remedy(
			err, "let this user write the folder, or set data_dir to another one");
	}
	if (!take_lock(fd)) {
		long pid_of_holder = holder_of(fd);

		(void)close(fd);
		(void)cdc_err_set(err, CDC_HELD,
				  "another walpost (process %ld) works with data_dir %s",
				  pid_of_holder, path);
		return cdc_err_remedy(err,
				      "stop it, or give this one a data_dir and slots of its own");
	}
	len = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)len, 0) < 0) {
		/* A full disk: the lock holds all the same, only its holder is not named. */
	}
	*ret_fd = fd;
	return CDC_OK;
}

bool cdc_data_dir_is_gone(const char *path, int fd)
{
	struct cdc_buf file;
	struct stat locked, found;
	bool is_gone;

	put_lock_path(&file, path);
	is_gone = !file.failed && fstat(fd, &locked) == 0 &&
		  (stat((const char *)file.data, &found) < 0
			   ? errno == ENOENT
			   : found.st_ino != locked.st_ino || found.st_dev != locked.st_dev);
	cdc_buf_clear(&file);
	return is_gone;
}
