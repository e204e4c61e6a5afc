/* A secret for a webhook's signing_secrets. */
#include <stdio.h>
#include <string.h>

#include "cdc/base/crypto.h"
#include "cdc/cli/cli.h"
#include "sinks/webhook/sign.h"

int cdc_cli_webhook_secret(const struct cdc_cli_args *args)
{
	char secret[SINK_WEBHOOK_SECRET_TEXT], public[SINK_WEBHOOK_SECRET_TEXT];
	struct cdc_err err;

	memset(&err, 0, sizeof(err));
	if (sink_webhook_secret_new(args->is_ed25519, secret, public, &err)) {
		cdc_cli_complain(&err);
		return CDC_EXIT_FAILED;
	}
	(void)puts(secret);
	cdc_wipe(secret, sizeof(secret));
	if (public[0])
		(void)puts(public);
	if (fflush(stdout) == 0)
		return CDC_EXIT_DONE;
	(void)fputs("walpost: the secret could not be written\n", stderr);
	return CDC_EXIT_FAILED;
}
