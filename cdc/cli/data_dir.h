/*
 * data_dir.h - the folder of buffers and state, and its lock.
 *
 * One process works with a data_dir at a time; the lock is the kernel's and goes
 * with the process.
 *
 * Threads: main.  Layer: cli.
 */
#ifndef CDC_CLI_DATA_DIR_H
#define CDC_CLI_DATA_DIR_H

#include <stdbool.h>

#include "cdc/base/err.h"

/* CDC_CONFIG: there is something that is not a folder. */
enum cdc_code cdc_data_dir_check(const char *path, struct cdc_err *err) CDC_CHECK;

/* Creates the folder (mode 0700) if it is missing and locks it.  *ret_fd holds the lock until
 * closed. CDC_HELD names the process that has it. */
enum cdc_code cdc_data_dir_lock(const char *path, int *ret_fd, struct cdc_err *err) CDC_CHECK;

/* Does a process hold the lock now?  Takes it for less than a moment when none does, which a
 * process that wants it waits out. */
bool cdc_data_dir_is_held(const char *path);

/* Is the folder no longer the one that was locked?  What is written then, nobody finds again. */
bool cdc_data_dir_is_gone(const char *path, int fd);

#endif
