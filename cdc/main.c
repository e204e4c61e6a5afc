#include <malloc.h>

#include "cdc/cli/cli.h"

/* Memory that threads gave back stays small: few arenas, and large blocks go back to the system. */
static void tame_heap(void)
{
	(void)mallopt(M_ARENA_MAX, 2);
	(void)mallopt(M_MMAP_THRESHOLD, 128 << 10);
	(void)mallopt(M_TRIM_THRESHOLD, 256 << 10);
}

int main(int argc, char **argv)
{
	tame_heap();
	return cdc_cli_main(argc, argv);
}
