#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include "cdc/cli/cli.h"

/* Memory that threads gave back stays small: few arenas, and large blocks go back to the system. */
static void tame_heap(void)
{
	(void)mallopt(M_ARENA_MAX, 2);
	(void)mallopt(M_MMAP_THRESHOLD, 128 << 10);
	(void)mallopt(M_TRIM_THRESHOLD, 256 << 10);
}

/* Whoever starts us with a closed standard stream gets no line of the log into one of our files. */
static void fill_standard_streams(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		(void)close(fd);
}

int main(int argc, char **argv)
{
	fill_standard_streams();
	tame_heap();
	return cdc_cli_main(argc, argv);
}
