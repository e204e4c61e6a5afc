/* test_contract_local.c - the embedded buffer keeps the contract of buffers. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/contract/buffer_contract.h"

struct place {
	char dir[64];
};

static void drop(void *arg)
{
	struct place *p = arg;
	DIR *d = p->dir[0] ? opendir(p->dir) : NULL;

	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			(void)unlinkat(dirfd(d), e->d_name, 0);
	}
	if (d)
		(void)closedir(d);
	if (p->dir[0])
		(void)rmdir(p->dir);
	p->dir[0] = '\0';
}

static bool fresh(void *arg, struct cdc_buffer_settings *ret)
{
	struct place *p = arg;

	(void)snprintf(p->dir, sizeof(p->dir), "/tmp/walpost-contract-XXXXXX");
	if (!mkdtemp(p->dir))
		return false;
	*ret = (struct cdc_buffer_settings){.dir = p->dir,
					    .slot = "contract",
					    .max_bytes = 1u << 30,
					    .retention_ms = 3600000,
					    .on_full = CDC_ON_FULL_STOP};
	return true;
}

int main(void)
{
	struct place place = {.dir = ""};
	const struct contract_hooks hooks = {
		.arg = &place,
		.fresh = fresh,
		.drop = drop,
		.is_one_stream = true,
		.has_budget = true,
		.is_exclusive = true,
	};

	return buffer_contract_run(&cdc_buffer_local, &hooks);
}
