#include "cdc/cli/cli.h"

int main(int argc, char **argv)
{
	return cdc_cli_main(argc, argv);
}
