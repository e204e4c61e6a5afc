#include "tests/contract/power_vfs.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cdc/base/err.h"

#define SECTOR 512
#define NODES  16

struct image {
	unsigned char *bytes;
	size_t len, cap;
};

/* Something that was done to a file and is not safe yet. */
struct op {
	uint64_t at;          /* where; or the new length */
	unsigned char *bytes; /* NULL: a truncation */
	size_t len;
};

struct node {
	char *path; /* NULL: free */
	bool is_there, is_named;
	struct image safe; /* what was synced */
	struct op *ops;
	size_t op_n, op_cap;
	uint64_t size;  /* as the program sees it */
	bool has_ghost; /* a file of this name whose deletion is not safe */
	struct image ghost;
	bool survives; /* after a cut: what is left */
	struct image left;
};

struct power_vfs {
	sqlite3_vfs vfs; /* first */
	sqlite3_vfs *real;
	pthread_mutex_t mu;
	struct node nodes[NODES]; /* guarded by mu, like all below */
	uint64_t random, ops_left;
	bool is_cut;
	enum power_fault fault;
};

struct file {
	sqlite3_file base; /* first */
	struct power_vfs *v;
	struct node *node;  /* NULL: nobody minds */
	bool has_name_sync; /* its first sync also syncs the folder, as the default VFS does */
	sqlite3_file real[];
};

/* --- images ------------------------------------------------------------------------- */

static void image_clear(struct image *i)
{
	free(i->bytes);
	*i = (struct image){.len = 0};
}

static void image_resize(struct image *i, size_t len)
{
	if (len > i->cap) {
		i->cap = 2 * len;
		i->bytes = realloc(i->bytes, i->cap);
		CDC_ASSERT(i->bytes);
	}
	if (len > i->len)
		memset(i->bytes + i->len, 0, len - i->len);
	i->len = len;
}

static void image_put(struct image *i, uint64_t at, const unsigned char *bytes, size_t len)
{
	if (len == 0)
		return;
	if (at + len > i->len)
		image_resize(i, (size_t)at + len);
	memcpy(i->bytes + at, bytes, len);
}

static void image_copy(struct image *to, const struct image *from)
{
	to->len = 0;
	image_put(to, 0, from->bytes, from->len);
}

/* --- chance ------------------------------------------------------------------------- */

static uint64_t chance(struct power_vfs *v)
{
	uint64_t x = v->random += 0x9e3779b97f4a7c15u;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* keep: of 8 how many sectors survive. */
static void put_sectors(struct power_vfs *v, struct image *i, const struct op *op, unsigned keep)
{
	for (size_t done = 0; done < op->len;) {
		size_t n = SECTOR - (size_t)((op->at + done) % SECTOR);

		if (n > op->len - done)
			n = op->len - done;
		if (chance(v) % 8 < keep)
			image_put(i, op->at + done, op->bytes + done, n);
		done += n;
	}
	/* The length may be there without the bytes. */
	if (chance(v) % 8 < keep && op->at + op->len > i->len)
		image_resize(i, (size_t)op->at + op->len);
}

static void apply(struct power_vfs *v, struct image *i, const struct op *op, unsigned keep)
{
	if (op->bytes)
		put_sectors(v, i, op, keep);
	else if (chance(v) % 8 < keep)
		image_resize(i, (size_t)op->at);
}

static void forget_ops(struct node *n)
{
	for (size_t i = 0; i < n->op_n; i++)
		free(n->ops[i].bytes);
	n->op_n = 0;
}

/* With mu held: what of every file is on the disk at this moment. */
static void cut(struct power_vfs *v)
{
	v->is_cut = true;
	for (size_t k = 0; k < NODES; k++) {
		struct node *n = &v->nodes[k];
		/* From nothing to everything, and all between. */
		const unsigned keep = (unsigned)(chance(v) % 9);

		if (!n->path)
			continue;
		n->survives = n->is_there;
		image_copy(&n->left, &n->safe);
		for (size_t i = 0; i < n->op_n; i++)
			apply(v, &n->left, &n->ops[i], keep);
		if (!n->is_named && chance(v) % 2) {
			n->survives = n->has_ghost;
			image_copy(&n->left, &n->ghost);
		}
		forget_ops(n);
	}
}

/* With mu held: one step nearer to the cut; true: nothing is done any more. */
static bool is_dead(struct power_vfs *v)
{
	if (!v->is_cut && v->ops_left && --v->ops_left == 0)
		cut(v);
	return v->is_cut;
}

/* --- nodes -------------------------------------------------------------------------- */

static struct node *node_of(struct power_vfs *v, const char *path, bool may_make)
{
	struct node *n = NULL;

	for (size_t i = 0; i < NODES; i++) {
		if (v->nodes[i].path && strcmp(v->nodes[i].path, path) == 0)
			return &v->nodes[i];
		if (!n && !v->nodes[i].path)
			n = &v->nodes[i];
	}
	if (!may_make)
		return NULL;
	CDC_ASSERT(n);
	n->path = strdup(path);
	CDC_ASSERT(n->path);
	return n;
}

static void node_clear(struct node *n)
{
	forget_ops(n);
	free(n->ops);
	free(n->path);
	image_clear(&n->safe);
	image_clear(&n->ghost);
	image_clear(&n->left);
	memset(n, 0, sizeof(*n));
}

static void note(struct node *n, uint64_t at, const void *bytes, size_t len)
{
	struct op *op;

	if (n->op_n == n->op_cap) {
		n->op_cap = n->op_cap ? 2 * n->op_cap : 64;
		n->ops = reallocarray(n->ops, n->op_cap, sizeof(*n->ops));
		CDC_ASSERT(n->ops);
	}
	op = &n->ops[n->op_n++];
	*op = (struct op){.at = at, .len = len};
	if (bytes) {
		op->bytes = malloc(len ? len : 1);
		CDC_ASSERT(op->bytes);
		memcpy(op->bytes, bytes, len);
		if (at + len > n->size)
			n->size = at + len;
	} else {
		n->size = at;
	}
}

/* Every name of the folder is safe. */
static void name_all(struct power_vfs *v)
{
	for (size_t i = 0; i < NODES; i++) {
		v->nodes[i].is_named = true;
		v->nodes[i].has_ghost = false;
		image_clear(&v->nodes[i].ghost);
	}
}

/* --- the methods of a file ---------------------------------------------------------- */

static struct file *file_of(sqlite3_file *f)
{
	return (struct file *)f;
}

static int file_close(sqlite3_file *f)
{
	return file_of(f)->real->pMethods ? file_of(f)->real->pMethods->xClose(file_of(f)->real)
					  : SQLITE_OK;
}

static int file_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at)
{
	if (power_vfs_is_cut(file_of(f)->v))
		return SQLITE_IOERR_READ;
	return file_of(f)->real->pMethods->xRead(file_of(f)->real, to, n, at);
}

/* With mu held. */
static int write_now(struct file *f, const void *bytes, int n, sqlite3_int64 at)
{
	struct power_vfs *v = f->v;
	bool grows = (uint64_t)at + (uint64_t)n > f->node->size;
	bool has_no_space = v->fault == POWER_NO_SPACE || (v->fault == POWER_NO_GROWTH && grows);
	int rc;

	if (has_no_space)
		n /= 2;
	note(f->node, (uint64_t)at, bytes, (size_t)n);
	if (is_dead(v))
		return SQLITE_IOERR_WRITE;
	rc = f->real->pMethods->xWrite(f->real, bytes, n, at);
	return has_no_space ? SQLITE_FULL : rc;
}

static int file_write(sqlite3_file *base, const void *bytes, int n, sqlite3_int64 at)
{
	struct file *f = file_of(base);
	int rc = SQLITE_IOERR_WRITE;

	if (!f->node)
		return f->real->pMethods->xWrite(f->real, bytes, n, at);
	(void)pthread_mutex_lock(&f->v->mu);
	if (!f->v->is_cut)
		rc = write_now(f, bytes, n, at);
	(void)pthread_mutex_unlock(&f->v->mu);
	return rc;
}

static int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
	struct file *f = file_of(base);
	int rc = SQLITE_IOERR_TRUNCATE;

	if (!f->node)
		return f->real->pMethods->xTruncate(f->real, size);
	(void)pthread_mutex_lock(&f->v->mu);
	if (!f->v->is_cut) {
		note(f->node, (uint64_t)size, NULL, 0);
		if (!is_dead(f->v))
			rc = f->real->pMethods->xTruncate(f->real, size);
	}
	(void)pthread_mutex_unlock(&f->v->mu);
	return rc;
}

/* With mu held. */
static int sync_now(struct file *f)
{
	struct power_vfs *v = f->v;
	struct node *n = f->node;
	unsigned keep = v->fault == POWER_NO_SYNC ? (unsigned)(chance(v) % 8) : 8;

	for (size_t i = 0; i < n->op_n; i++)
		apply(v, &n->safe, &n->ops[i], keep);
	forget_ops(n);
	if (v->fault == POWER_NO_SYNC)
		return SQLITE_IOERR_FSYNC;
	if (f->has_name_sync)
		name_all(v);
	f->has_name_sync = false;
	return SQLITE_OK;
}

static int file_sync(sqlite3_file *base, int flags)
{
	struct file *f = file_of(base);
	int rc = SQLITE_IOERR_FSYNC;

	(void)flags;
	if (!f->node)
		return SQLITE_OK;
	(void)pthread_mutex_lock(&f->v->mu);
	if (!is_dead(f->v))
		rc = sync_now(f);
	(void)pthread_mutex_unlock(&f->v->mu);
	return rc;
}

static int file_size(sqlite3_file *f, sqlite3_int64 *ret)
{
	return file_of(f)->real->pMethods->xFileSize(file_of(f)->real, ret);
}

static int file_lock(sqlite3_file *f, int level)
{
	return file_of(f)->real->pMethods->xLock(file_of(f)->real, level);
}

static int file_unlock(sqlite3_file *f, int level)
{
	return file_of(f)->real->pMethods->xUnlock(file_of(f)->real, level);
}

static int file_check_lock(sqlite3_file *f, int *ret)
{
	return file_of(f)->real->pMethods->xCheckReservedLock(file_of(f)->real, ret);
}

static int file_control(sqlite3_file *f, int op, void *arg)
{
	return file_of(f)->real->pMethods->xFileControl(file_of(f)->real, op, arg);
}

static int file_sector(sqlite3_file *f)
{
	(void)f;
	return SECTOR;
}

static int file_traits(sqlite3_file *f)
{
	(void)f;
	return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static int file_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **ret)
{
	return file_of(f)->real->pMethods->xShmMap(file_of(f)->real, page, size, extend, ret);
}

static int file_shm_lock(sqlite3_file *f, int at, int n, int flags)
{
	return file_of(f)->real->pMethods->xShmLock(file_of(f)->real, at, n, flags);
}

static void file_shm_barrier(sqlite3_file *f)
{
	file_of(f)->real->pMethods->xShmBarrier(file_of(f)->real);
}

static int file_shm_unmap(sqlite3_file *f, int is_deleted)
{
	return file_of(f)->real->pMethods->xShmUnmap(file_of(f)->real, is_deleted);
}

static const sqlite3_io_methods methods = {
	.iVersion = 2, /* no memory map: every byte passes here */
	.xClose = file_close,
	.xRead = file_read,
	.xWrite = file_write,
	.xTruncate = file_truncate,
	.xSync = file_sync,
	.xFileSize = file_size,
	.xLock = file_lock,
	.xUnlock = file_unlock,
	.xCheckReservedLock = file_check_lock,
	.xFileControl = file_control,
	.xSectorSize = file_sector,
	.xDeviceCharacteristics = file_traits,
	.xShmMap = file_shm_map,
	.xShmLock = file_shm_lock,
	.xShmBarrier = file_shm_barrier,
	.xShmUnmap = file_shm_unmap,
};

/* --- the methods of the VFS --------------------------------------------------------- */

static struct power_vfs *power_of(sqlite3_vfs *vfs)
{
	return (struct power_vfs *)vfs;
}

static int vfs_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *base, int flags,
		    int *ret_flags)
{
	const int minded = SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL;
	struct power_vfs *v = power_of(vfs);
	struct file *f = file_of(base);
	int rc = SQLITE_CANTOPEN;

	f->base.pMethods = NULL;
	f->v = v;
	f->node = NULL;
	(void)pthread_mutex_lock(&v->mu);
	if (!v->is_cut)
		rc = v->real->xOpen(v->real, path, f->real, flags, ret_flags);
	if (rc == SQLITE_OK && path && (flags & minded)) {
		f->node = node_of(v, path, true);
		if (!f->node->is_there) {
			f->node->is_there = true;
			f->node->is_named = (flags & SQLITE_OPEN_MAIN_DB) != 0;
			f->node->size = 0;
		}
		f->has_name_sync = !(flags & SQLITE_OPEN_MAIN_DB) && !f->node->is_named;
	}
	(void)pthread_mutex_unlock(&v->mu);
	if (rc == SQLITE_OK)
		f->base.pMethods = &methods;
	return rc;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *path, int sync_folder)
{
	struct power_vfs *v = power_of(vfs);
	struct node *n;
	int rc = SQLITE_IOERR_DELETE;
	size_t len = strlen(path);
	bool is_wal = len > 4 && strcmp(path + len - 4, "-wal") == 0;

	(void)pthread_mutex_lock(&v->mu);
	n = node_of(v, path, false);
	if (!is_dead(v)) {
		rc = v->real->xDelete(v->real, path, sync_folder);
		if (rc == SQLITE_OK && n) {
			if (is_wal && n->is_named && !sync_folder) {
				n->has_ghost = true;
				image_copy(&n->ghost, &n->safe);
			}
			/* The folder itself is synced by others where it matters. */
			n->is_named = !n->has_ghost;
			n->is_there = false;
			n->size = 0;
			image_resize(&n->safe, 0);
			forget_ops(n);
		}
	}
	(void)pthread_mutex_unlock(&v->mu);
	return rc;
}

static int vfs_access(sqlite3_vfs *vfs, const char *path, int flags, int *ret)
{
	return power_of(vfs)->real->xAccess(power_of(vfs)->real, path, flags, ret);
}

static int vfs_full_path(sqlite3_vfs *vfs, const char *path, int n, char *ret)
{
	return power_of(vfs)->real->xFullPathname(power_of(vfs)->real, path, n, ret);
}

static int vfs_random(sqlite3_vfs *vfs, int n, char *ret)
{
	return power_of(vfs)->real->xRandomness(power_of(vfs)->real, n, ret);
}

static int vfs_sleep(sqlite3_vfs *vfs, int us)
{
	return power_of(vfs)->real->xSleep(power_of(vfs)->real, us);
}

static int vfs_time(sqlite3_vfs *vfs, double *ret)
{
	return power_of(vfs)->real->xCurrentTime(power_of(vfs)->real, ret);
}

static int vfs_error(sqlite3_vfs *vfs, int n, char *ret)
{
	return power_of(vfs)->real->xGetLastError(power_of(vfs)->real, n, ret);
}

/* --- outside ------------------------------------------------------------------------ */

struct power_vfs *power_vfs_new(const char *name, uint64_t seed)
{
	struct power_vfs *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->real = sqlite3_vfs_find(NULL);
	v->random = seed;
	(void)pthread_mutex_init(&v->mu, NULL);
	v->vfs = (sqlite3_vfs){
		.iVersion = 1,
		.szOsFile = (int)sizeof(struct file) + v->real->szOsFile,
		.mxPathname = v->real->mxPathname,
		.zName = name,
		.xOpen = vfs_open,
		.xDelete = vfs_delete,
		.xAccess = vfs_access,
		.xFullPathname = vfs_full_path,
		.xRandomness = vfs_random,
		.xSleep = vfs_sleep,
		.xCurrentTime = vfs_time,
		.xGetLastError = vfs_error,
	};
	CDC_ASSERT(sqlite3_vfs_register(&v->vfs, 0) == SQLITE_OK);
	return v;
}

void power_vfs_free(struct power_vfs *v)
{
	if (!v)
		return;
	(void)sqlite3_vfs_unregister(&v->vfs);
	for (size_t i = 0; i < NODES; i++)
		node_clear(&v->nodes[i]);
	(void)pthread_mutex_destroy(&v->mu);
	free(v);
}

void power_vfs_cut_after(struct power_vfs *v, uint64_t n)
{
	(void)pthread_mutex_lock(&v->mu);
	v->ops_left = n;
	(void)pthread_mutex_unlock(&v->mu);
}

void power_vfs_cut(struct power_vfs *v)
{
	(void)pthread_mutex_lock(&v->mu);
	if (!v->is_cut)
		cut(v);
	(void)pthread_mutex_unlock(&v->mu);
}

bool power_vfs_is_cut(struct power_vfs *v)
{
	bool is_cut;

	(void)pthread_mutex_lock(&v->mu);
	is_cut = v->is_cut;
	(void)pthread_mutex_unlock(&v->mu);
	return is_cut;
}

static bool put_back(struct node *n)
{
	FILE *f;
	bool is_good;

	(void)unlink(n->path);
	if (!n->survives)
		return true;
	f = fopen(n->path, "wb");
	if (!f)
		return false;
	is_good = n->left.len == 0 || fwrite(n->left.bytes, 1, n->left.len, f) == n->left.len;
	return fclose(f) == 0 && is_good;
}

bool power_vfs_restore(struct power_vfs *v)
{
	bool is_good = true;

	(void)pthread_mutex_lock(&v->mu);
	CDC_ASSERT(v->is_cut);
	for (size_t i = 0; i < NODES; i++) {
		struct node *n = &v->nodes[i];
		char *shm;

		if (!n->path)
			continue;
		is_good &= put_back(n);
		n->is_there = n->survives;
		n->is_named = true;
		n->has_ghost = false;
		n->size = n->survives ? n->left.len : 0;
		image_copy(&n->safe, &n->left);
		if (!n->survives)
			n->safe.len = 0;
		if (asprintf(&shm, "%s-shm", n->path) < 0)
			continue;
		(void)unlink(shm);
		free(shm);
	}
	v->is_cut = false;
	v->ops_left = 0;
	v->fault = POWER_WELL;
	(void)pthread_mutex_unlock(&v->mu);
	return is_good;
}

void power_vfs_fault(struct power_vfs *v, enum power_fault fault)
{
	(void)pthread_mutex_lock(&v->mu);
	v->fault = fault;
	(void)pthread_mutex_unlock(&v->mu);
}
