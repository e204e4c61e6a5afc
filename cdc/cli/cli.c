#include "cdc/cli/cli.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cdc/pipeline/deliver.h"
#include "cdc/record/condition.h"
#include "cdc/source/source.h"
#include "sinks/sink.h"

#define SCHEMA_MAX        1000 /* --schema options of one call */
#define RESYNC_TABLES_MAX 500  /* tables of one call */

static const char usage[] =
	"walpost turns the write-ahead log of a PostgreSQL database into HTTP requests.\n"
	"\n"
	"  walpost run [-c FILE]                  capture and deliver until stopped\n"
	"  walpost check [-c FILE] [--config-only] [--json]\n"
	"                                         test source, destination and buffer; change "
	"nothing\n"
	"  walpost tail [CONNECTION] [-c FILE] [--schema public.orders ...]\n"
	"                                         print records as JSON lines, store nothing\n"
	"  walpost uninstall CONNECTION [-c FILE] [--force]\n"
	"                                         drop the slot and publication that walpost made\n"
	"  walpost status [-c FILE]               one screen: what runs, and what a sync waits "
	"for\n"
	"  walpost dead-letters list|show ID|replay|discard [--sync SYNC] [--table public.orders]\n"
	"                [--key JSON] [--id ID] [--since TIME] [--until TIME] [--all] [--json]\n"
	"                                         what was refused for good; list --parked: for "
	"now;\n"
	"                                         discard --unreadable: whose master key is lost\n"
	"  walpost attempts SYNC [--limit N] [--failed] [--json]\n"
	"                                         its last requests, when it has record_requests\n"
	"  walpost pause SYNC | resume SYNC       keep a sync's records in the buffer; go on\n"
	"  walpost replay SYNC --since TIME|ID    send changes again that are still in the buffer\n"
	"  walpost resync SYNC [TABLE ...]        copy the rows of its tables once more\n"
	"  walpost resync SYNC --gap              the same of all syncs of its slot, which is made "
	"anew:\n"
	"                                         when changes can no longer be had\n"
	"  walpost backfill pause SYNC | resume SYNC | status [SYNC]\n"
	"                                         stop copying; go on; show what was copied\n"
	"  walpost webhook-secret [--ed25519]     print a new secret for signing_secrets; with "
	"--ed25519\n"
	"                                         a private key, and the public key for the "
	"receiver\n"
	"  walpost config                         the reference of every key of the file\n"
	"  walpost version\n"
	"\n"
	"pause, resume, replay, resync and backfill reach the walpost that runs; when none does, "
	"they\n"
	"are done at its next start.\n"
	"FILE is walpost.yaml unless given.  Exit codes: 0 done, 1 failed, 2 wrong command line or "
	"file.\n";

static const struct command {
	const char *name;
	int (*run)(const struct cdc_cli_args *args);
	bool takes_subject;
	size_t operand_max; /* behind the subject */
} commands[] = {
	{.name = "run", .run = cdc_cli_run},
	{.name = "check", .run = cdc_cli_check},
	{.name = "tail", .run = cdc_cli_tail, .takes_subject = true},
	{.name = "uninstall", .run = cdc_cli_uninstall, .takes_subject = true},
	{.name = "status", .run = cdc_cli_status},
	{.name = "dead-letters",
	 .run = cdc_cli_dead_letters,
	 .takes_subject = true,
	 .operand_max = 1},
	{.name = "attempts", .run = cdc_cli_attempts, .takes_subject = true},
	{.name = "pause", .run = cdc_cli_pause, .takes_subject = true},
	{.name = "resume", .run = cdc_cli_resume, .takes_subject = true},
	{.name = "replay", .run = cdc_cli_replay, .takes_subject = true},
	{.name = "resync",
	 .run = cdc_cli_resync,
	 .takes_subject = true,
	 .operand_max = RESYNC_TABLES_MAX},
	{.name = "backfill", .run = cdc_cli_backfill, .takes_subject = true, .operand_max = 1},
	{.name = "webhook-secret", .run = cdc_cli_webhook_secret},
};

/* The commands that each option is for, where not all take it. */
static const struct {
	const char *option, *commands;
} uses[] = {
	{"config-only", " check "},
	{"json", " check dead-letters attempts "},
	{"schema", " tail "},
	{"force", " uninstall "},
	{"ed25519", " webhook-secret "},
	{"gap", " resync "},
	{"since", " dead-letters replay "},
	{"until", " dead-letters "},
	{"sync", " dead-letters "},
	{"table", " dead-letters "},
	{"key", " dead-letters "},
	{"id", " dead-letters "},
	{"all", " dead-letters "},
	{"parked", " dead-letters "},
	{"unreadable", " dead-letters "},
	{"limit", " attempts "},
	{"failed", " attempts "},
};

/* What a command would leave out of account was meant for something. */
static bool takes(const char *command, const char *option)
{
	char word[64];

	(void)snprintf(word, sizeof(word), " %s ", command);
	for (size_t i = 0; i < sizeof(uses) / sizeof(uses[0]); i++) {
		if (strcmp(uses[i].option, option) == 0)
			return strstr(uses[i].commands, word) != NULL;
	}
	return true;
}

/* Options without a letter. */
enum {
	OPT_SYNC = 256,
	OPT_TABLE,
	OPT_KEY,
	OPT_ID,
	OPT_SINCE,
	OPT_UNTIL,
	OPT_ALL,
	OPT_PARKED,
	OPT_UNREADABLE,
	OPT_LIMIT,
	OPT_FAILED,
};

#define SINK_TYPES_MAX 15
#define TYPES_MAX      (SINK_TYPES_MAX + 1)

/* Where the rows of every kind of connection lie: a sink's row is made from its registry entry. */
struct tables {
	struct cdc_connection_type types[TYPES_MAX];
	struct cdc_config_tables config;
};

/* Without TLS no certificate is looked at: who gives one believes to be protected. */
static enum cdc_code check_source(const void *settings, const char **ret_key, struct cdc_err *err)
{
	const struct cdc_source_settings *s = settings;
	enum cdc_code rc = cdc_source_check_hosts(s, err);

	*ret_key = "hostname";
	if (rc)
		return rc;
	*ret_key = s->ca_cert              ? "ca_cert"
		   : s->client_certificate ? "client_certificate"
		   : s->client_key         ? "client_key"
					   : NULL;
	if (s->ssl || !*ret_key)
		return CDC_OK;
	return cdc_err_set(err, CDC_CONFIG,
			   "%s is given, but ssl is false; set ssl: true, or remove %s", *ret_key,
			   *ret_key);
}

/* A sink knows nothing of the engine's settings but what a plan says. */
static enum cdc_code check_sync(const struct cdc_connection_type *type, const void *settings,
				const void *sync, const void *delivery, const char **ret_key,
				struct cdc_err *err)
{
	const struct sink_ops *sink = sink_find(type->name);
	const struct cdc_deliver_settings *d = delivery;
	const struct sink_plan plan = {.batch_size = d->batch_size,
				       .operations = cdc_deliver_operations(d),
				       .is_grouped = d->group == CDC_GROUP_TRANSACTION};
	enum cdc_code rc = cdc_deliver_check(d, ret_key, err);

	if (rc)
		return rc;
	return sink->check_sync ? sink->check_sync(settings, sync, &plan, ret_key, err) : CDC_OK;
}

static void make_tables(struct tables *t)
{
	size_t n = 0;

	t->types[n++] = (struct cdc_connection_type){
		.name = "postgresql",
		.is_source = true,
		.size = sizeof(struct cdc_source_settings),
		.options = cdc_source_options,
		.check = check_source,
	};
	for (size_t i = 0; sink_at(i); i++) {
		CDC_ASSERT(n < TYPES_MAX);
		t->types[n++] = (struct cdc_connection_type){
			.name = sink_at(i)->name,
			.is_sink = true,
			.size = sink_at(i)->connection_size,
			.options = sink_at(i)->connection_options,
			.check = sink_at(i)->check,
			.check_sync = check_sync,
			.sync_size = sink_at(i)->sync_size,
			.sync_options = sink_at(i)->sync_options,
		};
	}
	t->config = (struct cdc_config_tables){
		.types = t->types,
		.type_n = n,
		.delivery_size = sizeof(struct cdc_deliver_settings),
		.delivery_options = cdc_deliver_options,
		.filter_check = cdc_condition_check,
	};
}

static void print_mistake(void *arg, const char *text)
{
	(void)arg;
	(void)fprintf(stderr, "%s\n", text);
}

void cdc_cli_complain(const struct cdc_err *err)
{
	(void)fprintf(stderr, "walpost: %s\n", err->msg);
	if (err->remedy[0])
		(void)fprintf(stderr, "  to mend it: %s\n", err->remedy);
}

struct cdc_config *cdc_cli_load(const struct cdc_cli_args *args, int *ret_exit)
{
	struct cdc_config *config = NULL;
	struct cdc_err err;
	enum cdc_code rc;

	memset(&err, 0, sizeof(err));
	rc = cdc_config_load(args->config_path, args->tables, print_mistake, NULL, &config, &err);
	if (!rc)
		return config;
	if (rc != CDC_CONFIG)
		cdc_cli_complain(&err);
	*ret_exit = CDC_EXIT_USAGE;
	return NULL;
}

static int wrong(const char *what, const char *arg)
{
	(void)fprintf(stderr, "walpost: %s%s%s\n\n%s", what, arg ? ": " : "", arg ? arg : "",
		      usage);
	return CDC_EXIT_USAGE;
}

static int run_command(const struct command *command, int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"config-only", no_argument, NULL, 'o'},
		{"schema", required_argument, NULL, 's'},
		{"force", no_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{"json", no_argument, NULL, 'j'},
		{"ed25519", no_argument, NULL, 'e'},
		{"gap", no_argument, NULL, 'g'},
		{"sync", required_argument, NULL, OPT_SYNC},
		{"table", required_argument, NULL, OPT_TABLE},
		{"key", required_argument, NULL, OPT_KEY},
		{"id", required_argument, NULL, OPT_ID},
		{"since", required_argument, NULL, OPT_SINCE},
		{"until", required_argument, NULL, OPT_UNTIL},
		{"all", no_argument, NULL, OPT_ALL},
		{"parked", no_argument, NULL, OPT_PARKED},
		{"unreadable", no_argument, NULL, OPT_UNREADABLE},
		{"limit", required_argument, NULL, OPT_LIMIT},
		{"failed", no_argument, NULL, OPT_FAILED},
		{NULL, 0, NULL, 0},
	};
	const char *schemas[SCHEMA_MAX];
	struct tables tables;
	struct cdc_cli_args args = {
		.config_path = "walpost.yaml", .schemas = schemas, .tables = &tables.config};
	int c, at = -1;

	make_tables(&tables);
	while ((c = getopt_long(argc, argv, "c:h", options, &at)) != -1) {
		if (at >= 0 && !takes(command->name, options[at].name)) {
			(void)fprintf(stderr, "walpost: %s takes no --%s\n", command->name,
				      options[at].name);
			return CDC_EXIT_USAGE;
		}
		at = -1; /* a short one leaves it alone */
		switch (c) {
		case 'c':
			args.config_path = optarg;
			break;
		case 'o':
			args.is_config_only = true;
			break;
		case 'f':
			args.is_forced = true;
			break;
		case 'g':
			args.is_gap = true;
			break;
		case OPT_ALL:
			args.is_all = true;
			break;
		case OPT_PARKED:
			args.is_parked = true;
			break;
		case OPT_UNREADABLE:
			args.is_unreadable = true;
			break;
		case OPT_LIMIT:
			args.limit = optarg;
			break;
		case OPT_FAILED:
			args.is_failed = true;
			break;
		case OPT_SYNC:
			args.sync = optarg;
			break;
		case OPT_TABLE:
			args.table = optarg;
			break;
		case OPT_KEY:
			args.key = optarg;
			break;
		case OPT_ID:
			args.id = optarg;
			break;
		case OPT_SINCE:
			args.since = optarg;
			break;
		case OPT_UNTIL:
			args.until = optarg;
			break;
		case 'j':
			args.is_json = true;
			break;
		case 'e':
			args.is_ed25519 = true;
			break;
		case 's':
			if (args.schema_n == SCHEMA_MAX)
				return wrong("too many --schema options", NULL);
			schemas[args.schema_n++] = optarg;
			break;
		case 'h':
			(void)fputs(usage, stdout);
			return CDC_EXIT_DONE;
		default: /* getopt has said what is wrong */
			return CDC_EXIT_USAGE;
		}
	}
	if (optind < argc && command->takes_subject)
		args.subject = argv[optind++];
	args.operands = (const char *const *)&argv[optind];
	while (optind < argc && args.operand_n < command->operand_max) {
		args.operand_n++;
		optind++;
	}
	if (optind < argc)
		return wrong("one argument too many", argv[optind]);
	return command->run(&args);
}

static int print_reference(void)
{
	struct tables tables;

	make_tables(&tables);
	cdc_config_reference(&tables.config, stdout);
	return ferror(stdout) ? CDC_EXIT_FAILED : CDC_EXIT_DONE;
}

int cdc_cli_main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;

	if (!name)
		return wrong("a command is missing", NULL);
	if (argc > 2 && (strcmp(name, "version") == 0 || strcmp(name, "config") == 0))
		return wrong("one argument too many", argv[2]);
	if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
		(void)fputs(usage, stdout);
		return CDC_EXIT_DONE;
	}
	if (strcmp(name, "version") == 0 || strcmp(name, "--version") == 0) {
		(void)puts("walpost " WALPOST_VERSION);
		return CDC_EXIT_DONE;
	}
	if (strcmp(name, "config") == 0)
		return print_reference();
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(name, commands[i].name) == 0)
			return run_command(&commands[i], argc - 1, argv + 1);
	}
	return wrong("unknown command", name);
}
