/*
 * power_vfs.h - an SQLite VFS under which the power can fail.
 *
 * It stands before the default VFS and keeps, of every database, WAL and
 * journal, what a disk would hold that only xSync makes safe.  At a cut each
 * sector that was written since the last sync of its file is kept or lost by
 * chance, alone, whatever was written before or after it; so is every change of
 * a file's length, a new name, and the deletion of a WAL.  After it nothing can
 * be read or written until the surviving state is put in place.  A sync that is
 * made to fail keeps some sectors and forgets the others for ever, as Linux
 * does: a later sync does not save them, writing them again does.
 *
 * Threads: any.
 */
#ifndef TESTS_CONTRACT_POWER_VFS_H
#define TESTS_CONTRACT_POWER_VFS_H

#include <stdbool.h>
#include <stdint.h>

struct power_vfs;

enum power_fault {
	POWER_WELL,
	POWER_NO_SPACE,  /* writes fail, what they wrote in part is there */
	POWER_NO_GROWTH, /* writes fail that make a file longer */
	POWER_NO_SYNC,
};

/* Registered under the name, which outlives it.  NULL: no memory. */
struct power_vfs *power_vfs_new(const char *name, uint64_t seed);
/* Every file is closed. */
void power_vfs_free(struct power_vfs *v);

/* The power fails at the n-th write, sync, truncation or deletion from now on; 0: it does not. */
void power_vfs_cut_after(struct power_vfs *v, uint64_t n);
void power_vfs_cut(struct power_vfs *v); /* now */
bool power_vfs_is_cut(struct power_vfs *v);
/* The power is back: every file becomes what survived.  All of them are closed.  False: it could
 * not be written. */
bool power_vfs_restore(struct power_vfs *v);

void power_vfs_fault(struct power_vfs *v, enum power_fault fault);

#endif
