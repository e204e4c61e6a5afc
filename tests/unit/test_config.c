/* walpost.yaml: what is right is read whole, what is wrong is named with its line, and no secret is
 * ever shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cdc/base/buf.h"
#include "cdc/config/value.h"
#include "sinks/webhook/webhook.h"
#include "tests/unit/config_tables.h"

#define SECRET "hunter2-hunter2"

/* --- loading ------------------------------------------------------------------------ */

struct loaded {
	struct cdc_connection_type types[TYPES_MAX];
	struct cdc_config *config;
	enum cdc_code rc;
	struct cdc_err err;
	unsigned mistake_n;
	struct cdc_buf mistakes; /* lines */
};

static void take_mistake(void *arg, const char *text)
{
	struct loaded *l = arg;

	l->mistake_n++;
	cdc_buf_puts(&l->mistakes, text);
	cdc_buf_putc(&l->mistakes, '\n');
}

static const char *text_of(struct loaded *l)
{
	cdc_buf_put(&l->mistakes, "", 1);
	l->mistakes.len--;
	return (const char *)l->mistakes.data;
}

static void load_bytes(struct loaded *l, const char *path, const char *text, size_t len)
{
	struct cdc_config_tables tables;

	memset(l, 0, sizeof(*l));
	cdc_buf_init(&l->mistakes, 1 << 20);
	tables = config_tables(l->types);
	l->rc = cdc_config_parse(path, text, len, &tables, take_mistake, l, &l->config, &l->err);
	if (l->rc) {
		assert_null(l->config);
		assert_int_equal(l->err.code, l->rc);
	} else {
		assert_int_equal(l->mistake_n, 0);
	}
	assert_null(strstr(text_of(l), SECRET));
	assert_null(strstr(l->err.msg, SECRET));
}

static void unload(struct loaded *l)
{
	cdc_config_free(l->config);
	cdc_buf_clear(&l->mistakes);
}

/* text loads; the caller unloads. */
static struct cdc_config *load(struct loaded *l, const char *text)
{
	load_bytes(l, "walpost.yaml", text, strlen(text));
	if (l->rc)
		fail_msg("refused:\n%s%s", text_of(l), text);
	return l->config;
}

/* text is refused with exactly these lines. */
static void refuse(const char *text, const char *lines)
{
	struct loaded l;

	load_bytes(&l, "walpost.yaml", text, strlen(text));
	assert_string_equal(text_of(&l), lines);
	assert_int_equal(l.rc, CDC_CONFIG);
	/* The first is the error's text. */
	assert_memory_equal(lines, l.err.msg, strlen(l.err.msg));
	unload(&l);
}

#define PROBE_HEAD "connections:\n  p:\n    type: probe\n    configuration:\n      "
/* A destination for it, and a sync. */
#define PROBE_TAIL                                                                                 \
	"  to: {type: webhook, configuration: {url: 'http://h'}}\n"                                \
	"bulk_syncs: {s: {source_connection: p, destination_connection: to}}\n"
#define NO_SYNC                                                                                    \
	"must be set: at least one sync, as in bulk_syncs: {NAME: {source_connection: NAME, "      \
	"destination_connection: NAME}}\n"

static struct probe *load_probe(struct loaded *l, const char *keys)
{
	char text[1024];

	(void)snprintf(text, sizeof(text), PROBE_HEAD "%s\n" PROBE_TAIL, keys);
	return load(l, text)->connections[0].settings;
}

/* keys, from line 5 on, are refused with one mistake. */
static void refuse_probe(const char *keys, const char *mistake)
{
	char text[1024], line[512];

	(void)snprintf(text, sizeof(text), PROBE_HEAD "%s\n" PROBE_TAIL, keys);
	(void)snprintf(line, sizeof(line), "walpost.yaml:5: connections.p.configuration%s%s\n",
		       mistake[0] == ':' ? "" : ".", mistake);
	refuse(text, line);
}

static void write_file(const char *path, const char *bytes, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_true(write(fd, bytes, n) == (ssize_t)n);
	(void)close(fd);
}

/* --- values ------------------------------------------------------------------------- */

static void what_is_left_out_has_its_default(void **state)
{
	struct loaded l;
	struct probe *p = load_probe(&l, "flag: true");

	(void)state;
	assert_string_equal(p->text, "abc");
	assert_null(p->url);
	assert_null(p->secret);
	assert_int_equal(p->number, 5);
	assert_int_equal(p->any, 0);
	assert_int_equal(p->bytes, 1 << 20);
	assert_int_equal(p->wait_ms, 15000);
	assert_true(p->flag);
	assert_int_equal(p->choice, 1);
	assert_int_equal(p->set, 3);
	assert_int_equal(p->texts.n, 2);
	assert_string_equal(p->texts.items[1], "y");
	assert_int_equal(p->pairs.n, 0);
	assert_null(p->group.inner);
	assert_int_equal(p->group.depth, 3);
	assert_string_equal(l.config->data_dir, "./walpost-data");
	assert_string_equal(l.config->listen, "127.0.0.1:5100");
	assert_int_equal(l.config->log_level, CDC_LOG_INFO);
	assert_int_equal(l.config->log_format, CDC_LOG_LOGFMT);
	assert_int_equal(l.config->retention_ms, 86400000);
	assert_true(l.config->max_bytes == UINT64_C(10) << 30);
	assert_int_equal(l.config->on_full, 0);
	unload(&l);
}

static void every_kind_of_value_is_read(void **state)
{
	struct loaded l;
	struct probe *p = load_probe(&l, "text: '12345678'\n"
					 "      url: HTTPS://[::1]:80/x?y=z\n"
					 "      secret: s\n"
					 "      number: 65535\n"
					 "      any: 18446744073709551615\n"
					 "      bytes: 512KiB\n"
					 "      wait: 5m\n"
					 "      flag: false\n"
					 "      choice: red\n"
					 "      set: [green]\n"
					 "      texts: [a, 'b c', \"d\\n\"]\n"
					 "      secrets: []\n"
					 "      pairs: [{name: n, value: v}, {name: m, value: w}]\n"
					 "      headers: [{name: X-A, value: b}]\n"
					 "      group: {inner: i, depth: 9}\n"
					 "      fixed: red");

	(void)state;
	assert_string_equal(p->text, "12345678");
	assert_string_equal(p->url, "HTTPS://[::1]:80/x?y=z");
	assert_string_equal(p->secret, "s");
	assert_int_equal(p->number, 65535);
	assert_true(p->any == UINT64_MAX);
	assert_int_equal(p->bytes, 512 << 10);
	assert_int_equal(p->wait_ms, 300000);
	assert_false(p->flag);
	assert_int_equal(p->choice, 0);
	assert_int_equal(p->set, 2);
	assert_int_equal(p->texts.n, 3);
	assert_string_equal(p->texts.items[2], "d\n");
	assert_int_equal(p->secrets.n, 0);
	assert_int_equal(p->pairs.n, 2);
	assert_string_equal(p->pairs.items[1].name, "m");
	assert_string_equal(p->pairs.items[1].value, "w");
	assert_string_equal(p->headers.items[0].value, "b");
	assert_string_equal(p->group.inner, "i");
	assert_int_equal(p->group.depth, 9);
	unload(&l);
}

static void a_wrong_value_is_named_with_its_range(void **state)
{
	static const struct {
		const char *keys, *mistake;
	} cases[] = {
		{"text: a", "text: \"a\" is shorter than 2 bytes (allowed: 2 to 8 bytes)"},
		{"text: 123456789",
		 "text: \"123456789\" is longer than 8 bytes (allowed: 2 to 8 bytes)"},
		{"text: \"a\\0b\"", "text: \"a\" contains a NUL (allowed: 2 to 8 bytes)"},
		{"text: [a]", "text: a list is not a single value (allowed: 2 to 8 bytes)"},
		{"text: {a: b}",
		 "text: a group of keys is not a single value (allowed: 2 to 8 bytes)"},
		{"url: ftp://x", "url: the value (secret) is not a url that begins with http:// or "
				 "https:// (allowed: 0 to 4096 bytes)"},
		{"url: 'http://'",
		 "url: the value (secret) is not a url that begins with http:// or "
		 "https:// (allowed: 0 to 4096 bytes)"},
		{"url: 'http://h:99999/'", "url: the value (secret) has a port that is not from 1 "
					   "to 65535 (allowed: 0 to 4096 bytes)"},
		{"url: 'https://me:1@[::1]:0?a'",
		 "url: the value (secret) has a port that is not from 1 to 65535 "
		 "(allowed: 0 to 4096 bytes)"},
		{"url: 'http://me:word/'", "url: the value (secret) has a port that is not from 1 "
					   "to 65535 (allowed: 0 to 4096 bytes)"},
		{"number: 0", "number: \"0\" is below 1 (allowed: 1 to 65535)"},
		{"number: 65536", "number: \"65536\" is above 65535 (allowed: 1 to 65535)"},
		{"number: -1", "number: \"-1\" is not a whole number (allowed: 1 to 65535)"},
		{"number: 1.5", "number: \"1.5\" is not a whole number (allowed: 1 to 65535)"},
		{"number: ''", "number: \"\" is not a whole number (allowed: 1 to 65535)"},
		{"number: 0x10", "number: \"0x10\" is not a whole number (allowed: 1 to 65535)"},
		{"any: 18446744073709551616", "any: \"18446744073709551616\" is too large"},
		{"bytes: 1023", "bytes: \"1023\" is below 1KiB (allowed: 1KiB to 1GiB)"},
		{"bytes: 1025MiB", "bytes: \"1025MiB\" is above 1GiB (allowed: 1KiB to 1GiB)"},
		{"bytes: 1MB", "bytes: \"1MB\" has an unknown unit (known: KiB, MiB, GiB, TiB) "
			       "(allowed: 1KiB to 1GiB)"},
		{"bytes: 99999999999TiB",
		 "bytes: \"99999999999TiB\" is too large (allowed: 1KiB to 1GiB)"},
		{"wait: 15", "wait: \"15\" needs a unit (ms, s, m, h, d) (allowed: 100ms to 5m)"},
		{"wait: 0", "wait: \"0\" is below 100ms (allowed: 100ms to 5m)"},
		{"wait: 301s", "wait: \"301s\" is above 5m (allowed: 100ms to 5m)"},
		{"flag: yes", "flag: \"yes\" is neither true nor false (allowed: true, false)"},
		{"choice: blue", "choice: \"blue\" is not known (allowed: red, green)"},
		{"set: red", "set: \"red\" is not a list (allowed: red, green)"},
		{"set: [red, blue]", "set[1]: \"blue\" is not known (allowed: red, green)"},
		{"set: [red, red]", "set[1]: \"red\" is there twice (allowed: red, green)"},
		{"texts: []", "texts: a list is too short (allowed: 1 to 3 entries)"},
		{"texts: [a, b, c, d]", "texts: a list is too long (allowed: 1 to 3 entries)"},
		{"texts: [a, '']", "texts[1]: must not be empty"},
		{"texts: [a, [b]]",
		 "texts[1]: a list is not a single value (allowed: 0 to 4096 bytes)"},
		{"pairs: {a: b}", "pairs: a group of keys is not a list (allowed: 0 to 2 entries)"},
		{"pairs: [{name: n}]", "pairs[0].value: must be set (allowed: 0 to 4096 bytes)"},
		{"pairs: [{name: n, value: v, x: y}]",
		 "pairs[0].x: unknown key (allowed: name, value)"},
		{"pairs: [a]", "pairs[0]: \"a\" is not a group of keys"},
		{"group: {}", "group.inner: must be set (allowed: 0 to 4096 bytes)"},
		{"group: {inner: ''}", "group.inner: must not be empty"},
		{"group: {inner: a, depth: x}", "group.depth: \"x\" is not a whole number"},
		{"group: a", "group: \"a\" is not a group of keys"},
		{"numbre: 1", "numbre: unknown key; did you mean \"number\"?"},
		{"secret_fil: 1", "secret_fil: unknown key; did you mean \"secret_file\"?"},
		{"something: 1",
		 "something: unknown key (allowed: text, url, secret, number, any, bytes, wait, "
		 "flag, choice, set, texts, secrets, pairs, headers, group)"},
		{"later: 1", "later: known, but this version cannot honour it yet; remove it"},
		{"fixed: green",
		 "fixed: \"green\" is known, but this version cannot honour it yet (allowed: red)"},
		{"fixed: blue", "fixed: \"blue\" is not known (allowed: red)"},
		{"fixed: [red]", "fixed: a list is known, but this version cannot honour it yet "
				 "(allowed: red)"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refuse_probe(cases[i].keys, cases[i].mistake);
}

static void a_value_is_shown_cut_and_clean(void **state)
{
	(void)state;
	refuse_probe("choice: \"a\\x1b[31m\\nb\"",
		     "choice: \"a?[31m?b\" is not known (allowed: red, green)");
	/* 59 bytes, then a character of two. */
	refuse_probe(
		"choice: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaéé",
		"choice: \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...\" is "
		"not known (allowed: red, green)");
}

static void all_mistakes_are_told_up_to_fifty(void **state)
{
	struct loaded l;
	char text[8192] = "connections:\n  p: {type: probe}\n";

	(void)state;
	refuse("connections:\n"
	       "  a: {type: probe, configuration: {number: 0, wait: 1}}\n"
	       "  b: {type: needy}\n"
	       "  c: {type: prob}\n"
	       "  d: {}\n"
	       "buffer: {max_bytes: 1}\n"
	       "bulk_syncs: {}\n",
	       "walpost.yaml:6: buffer.max_bytes: \"1\" is below 16MiB (allowed: 16MiB to 64TiB)\n"
	       "walpost.yaml:2: connections.a.configuration.number: \"0\" is below 1 (allowed: 1 "
	       "to "
	       "65535)\n"
	       "walpost.yaml:2: connections.a.configuration.wait: \"1\" needs a unit (ms, s, m, h, "
	       "d) (allowed: 100ms to 5m)\n"
	       "walpost.yaml:3: connections.b.configuration.must: must be set (allowed: 0 to 9 "
	       "bytes)\n"
	       "walpost.yaml:3: connections.b.configuration.set: must be set (allowed: red, "
	       "green)\n"
	       "walpost.yaml:4: connections.c.type: \"prob\" is not a known type (allowed: "
	       "postgresql, probe, needy, webhook)\n"
	       "walpost.yaml:5: connections.d.type: must be set (allowed: 0 to 63 bytes)\n"
	       "walpost.yaml:7: bulk_syncs: " NO_SYNC);
	for (int i = 0; i < 60; i++)
		(void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "key%d: 1\n", i);
	load_bytes(&l, "walpost.yaml", text, strlen(text));
	assert_int_equal(l.rc, CDC_CONFIG);
	assert_int_equal(l.mistake_n, 50);
	unload(&l);
}

/* --- secrets and the environment ---------------------------------------------------- */

static void the_environment_is_put_into_values(void **state)
{
	struct loaded l;
	struct probe *p;

	(void)state;
	assert_int_equal(setenv("TEST_WORD", "w0rd", 1), 0);
	assert_int_equal(setenv("TEST_YAML", "[a, b]: {c", 1), 0);
	assert_int_equal(unsetenv("TEST_NONE"), 0);
	p = load_probe(&l, "text: a${TEST_WORD}b\n"
			   "      secret: '$${x}$$'\n"
			   "      texts: ['${TEST_YAML}', '$', '$TEST_WORD']\n"
			   "      number: 1 # ${TEST_NONE} in a comment is nothing");
	assert_string_equal(p->text, "aw0rdb");
	assert_string_equal(p->secret, "${x}$$");
	assert_string_equal(p->texts.items[0], "[a, b]: {c");
	assert_string_equal(p->texts.items[1], "$");
	assert_string_equal(p->texts.items[2], "$TEST_WORD");
	unload(&l);
	refuse_probe("text: ${TEST_NONE}", "text: the environment variable TEST_NONE is not set");
	refuse_probe("text: ${TEST WORD}",
		     "text: \"${\" must be followed by the name of an environment variable and "
		     "\"}\" (write \"$${\" for the characters themselves)");
	refuse_probe("text: '${'",
		     "text: \"${\" must be followed by the name of an environment variable and "
		     "\"}\" (write \"$${\" for the characters themselves)");
}

static void what_came_from_the_environment_is_never_shown(void **state)
{
	(void)state;
	assert_int_equal(setenv("TEST_SECRET", SECRET, 1), 0);
	refuse_probe("number: '${TEST_SECRET}'",
		     "number: \"${TEST_SECRET}\" is not a whole number (allowed: 1 to 65535)");
	refuse_probe("secret: '${TEST_SECRET}'",
		     "secret: the value (secret) is longer than 8 bytes (allowed: 0 to 8 bytes)");
	refuse_probe("fixed: '${TEST_SECRET}'",
		     "fixed: \"${TEST_SECRET}\" is not known (allowed: red)");
	refuse_probe("url: '${TEST_SECRET}'",
		     "url: the value (secret) is not a url that begins with http:// or https:// "
		     "(allowed: 0 to 4096 bytes)");
}

static void a_secret_is_never_shown(void **state)
{
	(void)state;
	refuse_probe("secret: " SECRET,
		     "secret: the value (secret) is longer than 8 bytes (allowed: 0 to 8 bytes)");
	refuse_probe("secrets: " SECRET, "secrets: the value (secret) is not a list");
	refuse_probe("secrets: [[" SECRET "]]",
		     "secrets[0]: a list is not a single value (allowed: 0 to 4096 bytes)");
	refuse_probe("headers: [{name: a, value: [" SECRET "]}]",
		     "headers[0].value: a list is not a single value (allowed: 0 to 4096 bytes)");
	refuse_probe("secret: \"" SECRET "\\0\"",
		     "secret: the value (secret) contains a NUL (allowed: 0 to 8 bytes)");
	refuse_probe("url: 'http://me:" SECRET "@h x/'",
		     "url: the value (secret) is not a url that begins with http:// or https:// "
		     "(allowed: 0 to 4096 bytes)");
	refuse_probe("url: 'htps://h/x?token=" SECRET "'",
		     "url: the value (secret) is not a url that begins with http:// or https:// "
		     "(allowed: 0 to 4096 bytes)");
	refuse_probe("url: [" SECRET "]",
		     "url: a list is not a single value (allowed: 0 to 4096 bytes)");
	refuse_probe("headers: " SECRET, "headers: the value (secret) is not a list");
}

static void a_secret_may_lie_in_a_file(void **state)
{
	struct loaded l;
	struct probe *p;
	char dir[] = "/tmp/test_config.XXXXXX", path[64], text[512], big[65538];
	struct cdc_config *c;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/s", dir);
	write_file(path, "one\r\n", 5);
	(void)snprintf(text, sizeof(text),
		       "data_dir: ./d\n" PROBE_HEAD "secret_file: ./s\n      secrets_file: %s\n"
		       "      headers: [{name: n, value_file: s}]\n" PROBE_TAIL,
		       path);
	(void)snprintf(path, sizeof(path), "%s/walpost.yaml", dir);
	load_bytes(&l, path, text, strlen(text));
	if (l.rc)
		fail_msg("%s", text_of(&l));
	c = l.config;
	p = c->connections[0].settings;
	assert_string_equal(p->secret, "one");
	assert_int_equal(p->secrets.n, 1);
	assert_string_equal(p->secrets.items[0], "one");
	assert_string_equal(p->headers.items[0].value, "one");
	(void)snprintf(path, sizeof(path), "%s/d", dir);
	assert_string_equal(c->data_dir, path);
	unload(&l);

	(void)snprintf(path, sizeof(path), "%s/s", dir);
	(void)snprintf(text, sizeof(text), "secret_file: %s\n      secret: x", path);
	refuse_probe(text, "secret_file: secret is given as well; keep one of the two");
	(void)snprintf(text, sizeof(text), "secret_file: %s", path);
	write_file(path, SECRET, strlen(SECRET));
	refuse_probe(text,
		     "secret: the value (secret) is longer than 8 bytes (allowed: 0 to 8 bytes)");
	memset(big, 'x', sizeof(big));
	write_file(path, big, sizeof(big));
	(void)snprintf(big, sizeof(big),
		       "secret_file: cannot read the file \"%s\": longer than 64KiB", path);
	refuse_probe(text, big);
	(void)unlink(path);
	(void)snprintf(big, sizeof(big),
		       "secret_file: cannot read the file \"%s\": No such file or directory", path);
	refuse_probe(text, big);
	assert_int_equal(mkfifo(path, 0600), 0);
	(void)snprintf(big, sizeof(big),
		       "secret_file: cannot read the file \"%s\": not a regular file", path);
	refuse_probe(text, big);
	(void)unlink(path);
	(void)rmdir(dir);
	refuse_probe("text_file: x", "text_file: unknown key (allowed: text, url, secret, number, "
				     "any, bytes, wait, flag, choice, set, texts, secrets, pairs, "
				     "headers, group)");
}

/* --- the text ----------------------------------------------------------------------- */

#define NOTHING                                                                                    \
	"walpost.yaml:1: connections: must be set: at least one connection\n"                      \
	"walpost.yaml:1: bulk_syncs: " NO_SYNC

static void what_is_not_yaml_is_named_with_its_line(void **state)
{
	static const struct {
		const char *text, *mistake;
	} cases[] = {
		{"a: b\nc: [d\n", "walpost.yaml:3: not YAML: did not find expected ',' or ']', "
				  "while parsing a flow sequence (begun in line 2)\n"},
		{"\n\ta: b\n", "walpost.yaml:2: not YAML: found character that cannot start any "
			       "token, while scanning for the next token (begun in line 2)\n"},
		{"log: {level: info}\nlog: {}\n",
		 "walpost.yaml:2: the key \"log\" was given before, in line 1\n"},
		{"log: &a {level: info}\n",
		 "walpost.yaml:1: anchors (&name) are not accepted; write the value out\n"},
		{"log: *a\n",
		 "walpost.yaml:1: aliases (*name) are not accepted; write the value out\n"},
		{"log: !x a\n", "walpost.yaml:1: tags (!name) are not accepted\n"},
		{"[a]: b\n", "walpost.yaml:1: a key must be a text\n"},
		{"'': b\n", "walpost.yaml:1: a key must be a text of 1 to 256 bytes\n"},
		{"log: {}\n---\nlog: {}\n",
		 "walpost.yaml:2: a second document begins here; one file is one\n"},
		{"listen: \xff\n", "walpost.yaml:1: not text in UTF-8: invalid leading UTF-8 octet "
				   "(byte 8)\n"},
		{"a\n", "walpost.yaml:1: \"a\" is not a group of keys\n"},
		{"- a\n", "walpost.yaml:1: a list is not a group of keys\n"},
		{"", NOTHING},
		{"# nothing\n", NOTHING},
		{"null\n", NOTHING},
		{"connections: {}\n", NOTHING},
		{"\xef\xbb\xbf---\nlog: *a\n",
		 "walpost.yaml:2: aliases (*name) are not accepted; write the value out\n"},
		{"connections: [a]\nbulk_syncs: [b]\n",
		 "walpost.yaml:1: connections: a list is not a group of keys\n"
		 "walpost.yaml:2: bulk_syncs: a list is not a group of keys\n"},
		{"connections:\nbulk_syncs:\n", NOTHING},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refuse(cases[i].text, cases[i].mistake);
}

static void a_file_has_limits(void **state)
{
	struct loaded l;
	struct cdc_buf b;

	(void)state;
	cdc_buf_init(&b, 8 << 20);
	cdc_buf_puts(&b, "listen: ");
	for (int i = 0; i < 70; i++)
		cdc_buf_putc(&b, '[');
	cdc_buf_put(&b, "", 1);
	refuse((const char *)b.data,
	       "walpost.yaml:1: listen"
	       "[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]"
	       "[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]"
	       "[0][0][0][0][0][0][0][0]: nested too deeply (allowed: up to 64 levels)\n");
	cdc_buf_reset(&b, 0);
	cdc_buf_puts(&b, "connections:\n");
	for (int i = 0; i < 1001; i++)
		cdc_buf_printf(&b, "  c%d: {type: probe}\n", i);
	cdc_buf_puts(&b, "bulk_syncs:\n");
	for (int i = 0; i < 1001; i++)
		cdc_buf_printf(&b, "  s%d: {}\n", i);
	cdc_buf_put(&b, "", 1);
	refuse((const char *)b.data,
	       "walpost.yaml:1: connections: 1001 are too many (allowed: up to 1000)\n"
	       "walpost.yaml:1003: bulk_syncs: 1001 are too many (allowed: up to 1000)\n");
	cdc_buf_reset(&b, 0);
	for (size_t i = 0; i < (4u << 20) + 1; i++)
		cdc_buf_putc(&b, '\n');
	load_bytes(&l, "walpost.yaml", (const char *)b.data, b.len);
	assert_string_equal(text_of(&l),
			    "walpost.yaml:1: the file is too large (allowed: up to 4MiB)\n");
	unload(&l);
	cdc_buf_clear(&b);
}

static void a_thousand_connections_and_syncs_load(void **state)
{
	struct loaded l;
	struct cdc_buf b;

	(void)state;
	cdc_buf_init(&b, 8 << 20);
	cdc_buf_puts(&b, "connections:\n  db: {type: postgresql, configuration: {hostname: h, "
			 "database: d, username: u}}\n");
	for (int i = 1; i < 1000; i++)
		cdc_buf_printf(&b, "  c%d: {type: webhook, configuration: {url: 'http://h/%d'}}\n",
			       i, i);
	cdc_buf_puts(&b, "bulk_syncs:\n");
	for (int i = 0; i < 1000; i++)
		cdc_buf_printf(&b, "  s%d: {source_connection: db, destination_connection: c%d}\n",
			       i, i % 999 + 1);
	load_bytes(&l, "walpost.yaml", (const char *)b.data, b.len);
	if (l.rc)
		fail_msg("%s", text_of(&l));
	assert_int_equal(l.config->connection_n, 1000);
	assert_int_equal(l.config->sync_n, 1000);
	unload(&l);
	cdc_buf_clear(&b);
}

/* --- the whole file ----------------------------------------------------------------- */

/* The file of the design, with what this version can honour. */
static const char whole[] =
	"data_dir: ./walpost-data\n"
	"listen: 127.0.0.1:5100\n"
	"log: {level: debug, format: json}\n"
	"buffer:\n"
	"  type: local\n"
	"  retention: 12h\n"
	"  max_bytes: 10GiB\n"
	"  on_full: suspend\n"
	"  confirm: buffered\n"
	"connections:\n"
	"  shop:\n"
	"    type: postgresql\n"
	"    configuration: {hostname: db, port: 5433, database: shop, username: walpost,\n"
	"                    password: \"${TEST_SECRET}\", ssl: true, change_detection: true,\n"
	"                    publication: walpost}\n"
	"  orders-api:\n"
	"    type: webhook\n"
	"    configuration:\n"
	"      url: https://api.example.com/hooks/orders\n"
	"      auth_method: header\n"
	"      header: {name: X-Api-Key, value: \"${TEST_SECRET}\"}\n"
	"bulk_syncs:\n"
	"  orders:\n"
	"    source_connection: shop\n"
	"    destination_connection: orders-api\n"
	"    mode: replicate\n"
	"    default_schedule: {frequency: continuous}\n"
	"    skip_initial_backfill: true\n"
	"    schemas:\n"
	"      - public.orders\n"
	"      - id: public.customers\n"
	"    source_configuration: {}\n"
	"    destination_configuration:\n"
	"      body: records\n"
	"      operations: [insert, update]\n"
	"      batch_size: 7\n"
	"      batch_bytes: 2MiB\n"
	"      linger: 5ms\n"
	"      concurrency: 3\n"
	"      order: sync\n"
	"      timeout: 20s\n";

static void the_file_of_the_design_loads(void **state)
{
	struct loaded l;
	struct cdc_config *c;
	const struct cdc_source_settings *source;
	const struct sink_webhook_connection *webhook;
	const struct sink_webhook_sync *to;
	const struct cdc_deliver_settings *how;

	(void)state;
	assert_int_equal(setenv("TEST_SECRET", SECRET, 1), 0);
	c = load(&l, whole);
	assert_string_equal(c->path, "walpost.yaml");
	assert_int_equal(c->log_level, CDC_LOG_DEBUG);
	assert_int_equal(c->log_format, CDC_LOG_JSON);
	assert_int_equal(c->retention_ms, 12 * 3600000);
	assert_int_equal(c->on_full, 1);
	assert_int_equal(c->connection_n, 2);
	assert_int_equal(c->connections[1].line, 16);
	source = c->connections[0].settings;
	assert_string_equal(source->hostname, "db");
	assert_int_equal(source->port, 5433);
	assert_string_equal(source->password, SECRET);
	assert_true(source->ssl);
	webhook = c->connections[1].settings;
	assert_string_equal(webhook->url, "https://api.example.com/hooks/orders");
	assert_int_equal(webhook->auth_method, SINK_WEBHOOK_AUTH_HEADER);
	assert_string_equal(webhook->header.value, SECRET);
	assert_int_equal(c->sync_n, 1);
	assert_ptr_equal(c->syncs[0].source, &c->connections[0]);
	assert_ptr_equal(c->syncs[0].destination, &c->connections[1]);
	assert_int_equal(c->syncs[0].schemas.n, 2);
	assert_string_equal(c->syncs[0].schemas.items[1], "public.customers");
	assert_null(c->syncs[0].replication_slot);
	how = c->syncs[0].delivery;
	assert_int_equal(how->operations, 3);
	assert_int_equal(how->batch_size, 7);
	assert_int_equal(how->batch_bytes, 2 << 20);
	assert_int_equal(how->linger_ms, 5);
	assert_int_equal(how->concurrency, 3);
	assert_int_equal(how->order, CDC_ORDER_SYNC);
	to = c->syncs[0].destination_settings;
	assert_int_equal(to->body, SINK_WEBHOOK_RECORDS);
	assert_int_equal(to->timeout_ms, 20000);
	unload(&l);
}

/* Ids are for ever, whatever else changes in the file: these were made by Python's uuid.uuid5. */
static void an_id_is_made_from_the_name_alone(void **state)
{
	struct loaded l;
	struct cdc_config *c;

	(void)state;
	assert_int_equal(setenv("TEST_SECRET", SECRET, 1), 0);
	c = load(&l, whole);
	assert_string_equal(c->connections[0].uuid, "727013c1-2052-5b59-8843-273ac71ca6a2");
	assert_string_equal(c->syncs[0].uuid, "32f05d4d-a46c-5e29-a98a-43c3531b6058");
	unload(&l);
}

#define TWO                                                                                        \
	"connections:\n"                                                                           \
	"  db: {type: postgresql, configuration: {hostname: h, database: d, username: u}}\n"       \
	"  to: {type: webhook, configuration: {url: 'http://h'}}\n"

#define TWO_AND_SYNC TWO "bulk_syncs: {s: {source_connection: db, destination_connection: to}}\n"

#define SYNC_HEAD                                                                                  \
	TWO "bulk_syncs:\n  s:\n    source_connection: db\n    destination_connection: to\n    "

#define KEY_HEX "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"

static void a_master_key_is_32_bytes_and_never_shown(void **state)
{
	static const char *const good[] = {
		KEY_HEX,
		"ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=",
		"ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8",
	};
	static const char *const bad[] = {
		"\"\"",
		"secret",
		KEY_HEX "0",
		"0x112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
		"ABEiM0RVZneImaq7zN3u_wARIjNEVWZ3iJmqu8zd7v8=",
		"ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7g==",
		"ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8AA==",
	};
	char text[1024];

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct loaded l;

		(void)snprintf(text, sizeof(text), "master_key: %s\n" TWO_AND_SYNC, good[i]);
		load_bytes(&l, "walpost.yaml", text, strlen(text));
		assert_int_equal(l.rc, CDC_OK);
		assert_string_equal(l.config->master_key, good[i]);
		unload(&l);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		(void)snprintf(text, sizeof(text), "master_key: %s\n" TWO_AND_SYNC, bad[i]);
		refuse(text, "walpost.yaml:1: master_key: is not a key (allowed: 32 bytes as 44 "
			     "characters of base64 or 64 of hex; `openssl rand -base64 32` makes "
			     "one)\n");
	}
	refuse("master_key: a\nmaster_key_file: b\n" TWO_AND_SYNC,
	       "walpost.yaml:2: master_key_file: master_key is given as well; keep one of the "
	       "two\n");
}

/* A key of the design, in its place, that this version cannot honour. */
static void keys_of_the_design_that_are_not_honoured_are_refused_by_name(void **state)
{
	static const struct {
		const char *keys, *mistake;
	} file[] = {
		{"models: {}", "models"},
		{"syncs: {}", "syncs"},
		{"epoch: 1", "epoch"},
		{"execution_window: 5m", "execution_window"},
		{"buffer: {kafka: {prefix: x}}", "buffer.kafka"},
	};
	static const struct {
		const char *keys, *mistake;
	} sync[] = {
		{"schemas: [{id: a.b, tracking_field: x}]", "schemas[0].tracking_field"},
		{"schemas: [{id: a.b, partition_key: x}]", "schemas[0].partition_key"},
		{"active: false", "active"},
		{"on_gap: resync", "on_gap"},
		{"name: Orders", "name"},
	};
	char text[1024], line[256];

	(void)state;
	for (size_t i = 0; i < sizeof(file) / sizeof(file[0]); i++) {
		(void)snprintf(text, sizeof(text), "%s\n" TWO_AND_SYNC, file[i].keys);
		(void)snprintf(line, sizeof(line),
			       "walpost.yaml:1: %s: known, but this version cannot honour it yet; "
			       "remove it\n",
			       file[i].mistake);
		refuse(text, line);
	}
	for (size_t i = 0; i < sizeof(sync) / sizeof(sync[0]); i++) {
		(void)snprintf(text, sizeof(text), SYNC_HEAD "%s\n", sync[i].keys);
		(void)snprintf(line, sizeof(line),
			       "walpost.yaml:8: bulk_syncs.s.%s: known, but this version cannot "
			       "honour it yet; remove it\n",
			       sync[i].mistake);
		refuse(text, line);
	}
	refuse("buffer: {type: kafka}\n" TWO_AND_SYNC,
	       "walpost.yaml:1: buffer.type: \"kafka\" is known, but this version cannot honour it "
	       "yet (allowed: local)\n");
	refuse("buffer: {confirm: delivered}\n" TWO_AND_SYNC,
	       "walpost.yaml:1: buffer.confirm: \"delivered\" is known, but this version cannot "
	       "honour it yet (allowed: buffered)\n");
	refuse(SYNC_HEAD "mode: snapshot\n",
	       "walpost.yaml:8: bulk_syncs.s.mode: \"snapshot\" is known, but this version cannot "
	       "honour it yet (allowed: replicate)\n");
	refuse(SYNC_HEAD "default_schedule: {frequency: daily}\n",
	       "walpost.yaml:8: bulk_syncs.s.default_schedule.frequency: \"daily\" is known, but "
	       "this version cannot honour it yet (allowed: continuous)\n");
}

static void columns_and_filters_are_read(void **state)
{
	struct loaded l;
	struct cdc_config *c;
	const struct cdc_select_table *t;

	(void)state;
	assert_int_equal(setenv("TEST_SECRET", SECRET, 1), 0);
	c = load(&l, SYNC_HEAD "obfuscation_key: \"${TEST_SECRET}-0123456789\"\n"
			       "    schemas:\n"
			       "      - public.a\n"
			       "      - id: shop.*\n"
			       "        filter_leaving: delete\n"
			       "        fields:\n"
			       "          - id\n"
			       "          - {id: phone, obfuscate: true, output_name: tel}\n"
			       "          - {id: mail, obfuscate: hash}\n"
			       "          - {id: m, obfuscate: mask}\n"
			       "          - {id: n, obfuscate: null}\n"
			       "          - {id: o, obfuscate: false}\n"
			       "          - {id: secret, enabled: false}\n"
			       "          - \"*\"\n"
			       "        filters:\n"
			       "          - {field_id: region, function: Equality, value: eu}\n"
			       "          - {field_id: n, function: Between, value: [1, 2.5]}\n"
			       "          - {field_id: gone, function: IsNull}\n"
			       "      - {id: shop.private, enabled: false}\n");
	assert_int_equal(c->syncs[0].schemas.n, 2);
	assert_int_equal(c->syncs[0].selection.n, 3);
	assert_string_equal(c->syncs[0].selection.obfuscation_key, SECRET "-0123456789");
	assert_null(cdc_selection_find(&c->syncs[0].selection, "shop.private", 12));
	assert_null(cdc_selection_find(&c->syncs[0].selection, "public.b", 8));
	assert_false(cdc_selection_is_plain(&c->syncs[0].selection));
	t = cdc_selection_find(&c->syncs[0].selection, "shop.x", 6);
	assert_ptr_equal(t, &c->syncs[0].selection.tables[1]);
	assert_int_equal(t->leaving, CDC_LEAVING_DELETE);
	assert_int_equal(t->field_n, 8);
	assert_string_equal(t->fields[1].output_name, "tel");
	assert_int_equal(t->fields[0].obfuscate, CDC_OBFUSCATE_NONE);
	assert_int_equal(t->fields[1].obfuscate, CDC_OBFUSCATE_HASH);
	assert_int_equal(t->fields[2].obfuscate, CDC_OBFUSCATE_HASH);
	assert_int_equal(t->fields[3].obfuscate, CDC_OBFUSCATE_MASK);
	assert_int_equal(t->fields[4].obfuscate, CDC_OBFUSCATE_NULL);
	assert_int_equal(t->fields[5].obfuscate, CDC_OBFUSCATE_NONE);
	assert_true(t->fields[6].is_left_out);
	assert_int_equal(t->filter_n, 3);
	assert_int_equal(t->filters[1].function, CDC_FILTER_BETWEEN);
	assert_string_equal(t->filters[1].values.items[1], "2.5");
	assert_int_equal(t->filters[2].values.n, 0);
	unload(&l);
}

#define TABLE "schemas: [{id: a.b, "
#define AT    "walpost.yaml:8: bulk_syncs.s.schemas[0]."

/* As GET /api/bulk/syncs/{id}/schemas gives them. */
static void columns_may_be_named_as_the_api_names_them(void **state)
{
	struct loaded l;
	const struct cdc_select_table *t;
	struct cdc_config *c;

	(void)state;
	c = load(&l, SYNC_HEAD "obfuscation_key: \"0123456789abcdef\"\n    " TABLE
			       "fields: [{id: a, obfuscated: true, output_name: a,"
			       " user_output_name: \"\"}, {id: b, obfuscated: false,"
			       " user_output_name: other}, {id: c, obfuscated: mask},"
			       " {id: d, obfuscated: null}, {id: e, obfuscate: hash, obfuscated: "
			       "true, output_name: f, user_output_name: f}]}]\n");
	t = &c->syncs[0].selection.tables[0];
	assert_int_equal(t->field_n, 5);
	assert_int_equal(t->fields[0].obfuscate, CDC_OBFUSCATE_HASH);
	assert_string_equal(t->fields[0].output_name, "a");
	assert_int_equal(t->fields[1].obfuscate, CDC_OBFUSCATE_NONE);
	assert_string_equal(t->fields[1].output_name, "other");
	assert_int_equal(t->fields[2].obfuscate, CDC_OBFUSCATE_MASK);
	assert_null(t->fields[2].output_name);
	assert_int_equal(t->fields[3].obfuscate, CDC_OBFUSCATE_NULL);
	assert_int_equal(t->fields[4].obfuscate, CDC_OBFUSCATE_HASH);
	assert_string_equal(t->fields[4].output_name, "f");
	unload(&l);
}

static void columns_and_filters_that_make_no_sense_are_refused(void **state)
{
	static const struct {
		const char *keys, *mistake;
	} cases[] = {
		{"fields: []",
		 "fields: empty; a list of columns is needed (leave the key out for every "
		 "column)"},
		{"fields: [id, id]", "fields: \"id\" is there twice"},
		{"fields: [a, {id: b, output_name: a}]",
		 "fields: \"a\" is there twice as a name in records"},
		{"fields: [{id: a, enabled: false}]",
		 "fields: no column is left; add \"*\" for all that are not listed"},
		{"fields: [{id: a, obfuscate: true}]",
		 "fields: a column is hashed; set obfuscation_key of the sync, a secret of 16 "
		 "bytes or "
		 "more"},
		{"fields: [{id: a, obfuscate: rot13}]",
		 "fields[0].obfuscate: \"rot13\" is not known (allowed: false, hash, mask, null, "
		 "true)"},
		{"fields: [{id: a, obfuscate: }]",
		 "fields[0].obfuscate: has no value (allowed: hash, mask, null, true, false)"},
		{"fields: [{id: a, hidden: true}]",
		 "fields[0].hidden: unknown key (allowed: id, enabled, obfuscate, output_name, "
		 "obfuscated, user_output_name)"},
		{"fields: [{id: a, obfuscated: }]",
		 "fields[0].obfuscated: has no value (allowed: hash, mask, null, true, false)"},
		{"fields: [{id: a, obfuscate: mask, obfuscated: null}]",
		 "fields[0].obfuscated: obfuscate says something else; keep one of the two"},
		{"fields: [{id: a, output_name: b, user_output_name: c}]",
		 "fields[0].user_output_name: output_name says something else; keep one of the "
		 "two"},
		{"fields: [a, {id: b, user_output_name: a}]",
		 "fields: \"a\" is there twice as a name in records"},
		{"fields: [{id: \"*\", output_name: x}]",
		 "fields[0].id: \"*\" stands for all other columns and has no output_name of its "
		 "own"},
		{"fields: [[a]]",
		 "fields[0]: a list is not a column (allowed: a name of 1 to 63 bytes, "
		 "or a group of keys with its id)"},
		{"filters: []",
		 "filters: empty; a list of filters is needed (leave the key out for "
		 "every row)"},
		{"filters: [x]", "filters[0]: \"x\" is not a group of keys"},
		{"filters: [{field_id: x, function: IsNull, value: 1}]",
		 "filters[0].value: IsNull takes no value"},
		{"filters: [{field_id: x, function: Equality}]",
		 "filters[0].value: Equality takes one value"},
		{"filters: [{field_id: x, function: Equality, value: [a, b]}]",
		 "filters[0].value: Equality takes one value"},
		{"filters: [{field_id: x, function: Equality, value: {a: b}}]",
		 "filters[0].value: a group of keys is no value (allowed: a text, or a list)"},
		{"filters: [{field_id: x, function: Between, value: 1}]",
		 "filters[0].value: Between takes a list of two values, the lowest and the "
		 "highest"},
		{"filters: [{field_id: x, function: OnOrAfter, value: 2024-02-30}]",
		 "filters[0].value: OnOrAfter needs a date or a time (allowed: as in 2024-02-29, "
		 "2024-02-29T12:30:00Z)"},
		{"filters: [{field_id: x, function: InTheLast, value: 48 hours ago}]",
		 "filters[0].value: InTheLast needs a span of time (allowed: a number and seconds, "
		 "minutes, hours, days, weeks, months or years, as in 48 hours)"},
		{"filters: [{field_id: x, function: RelativeOnOrAfter, value: 48h}]",
		 "filters[0].value: RelativeOnOrAfter needs a time relative to now (allowed: as in "
		 "48 "
		 "hours ago, 2 days from now, now)"},
		{"filters: [{field_id: x, function: StringLike, value: 'a\\'}]",
		 "filters[0].value: a pattern must not end with its escape, \\"},
		{"filters: [{field_id: x, function: StringOneOf}]",
		 "filters[0].value: StringOneOf takes a list of values"},
		{"filter_leaving: keep",
		 "filter_leaving: \"keep\" is not known (allowed: drop, delete)"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[1024], mistake[512];

		(void)snprintf(text, sizeof(text), SYNC_HEAD TABLE "%s}]\n", cases[i].keys);
		(void)snprintf(mistake, sizeof(mistake), AT "%s\n", cases[i].mistake);
		refuse(text, mistake);
	}
}

static void objects_that_do_not_fit_together_are_refused(void **state)
{
	static const struct {
		const char *text, *mistake;
	} cases[] = {
		{TWO "bulk_syncs:\n  s: {source_connection: dB, destination_connection: to}\n",
		 "walpost.yaml:5: bulk_syncs.s.source_connection: \"dB\" is not a connection of "
		 "this file; did you mean \"db\"?\n"},
		{TWO "bulk_syncs:\n  s: {source_connection: db, destination_connection: other}\n",
		 "walpost.yaml:5: bulk_syncs.s.destination_connection: \"other\" is not a "
		 "connection of this file\n"},
		{TWO "bulk_syncs:\n  s: {source_connection: to, destination_connection: db}\n",
		 "walpost.yaml:5: bulk_syncs.s.source_connection: \"to\" is a connection of type "
		 "webhook, which cannot be a source\n"
		 "walpost.yaml:5: bulk_syncs.s.destination_connection: \"db\" is a connection of "
		 "type postgresql, which cannot be a destination\n"},
		{TWO "bulk_syncs:\n  s: {}\n",
		 "walpost.yaml:5: bulk_syncs.s.source_connection: must be set (allowed: 0 to 63 "
		 "bytes)\n"
		 "walpost.yaml:5: bulk_syncs.s.destination_connection: must be set (allowed: 0 to "
		 "63 bytes)\n"},
		{TWO, "walpost.yaml:1: bulk_syncs: " NO_SYNC},
		{TWO "bulk_syncs: {}\n", "walpost.yaml:4: bulk_syncs: " NO_SYNC},
		{"connections:\n  a b: {type: probe}\nbulk_syncs: [x]\n",
		 "walpost.yaml:2: connections.a b: the name is not one (allowed: 1 to 63 letters, "
		 "digits, _ and -)\n"
		 "walpost.yaml:3: bulk_syncs: a list is not a group of keys\n"},
		{SYNC_HEAD "schemas: []\n",
		 "walpost.yaml:8: bulk_syncs.s.schemas: empty; a list of tables is needed (leave "
		 "the key out for every table of the publication)\n"},
		{SYNC_HEAD "schemas: [orders]\n",
		 "walpost.yaml:8: bulk_syncs.s.schemas[0]: \"orders\" is not a table's name "
		 "(allowed: schema.table, with * for any characters)\n"},
		{SYNC_HEAD "schemas: [{id: '*.*', enabled: false}]\n",
		 "walpost.yaml:8: bulk_syncs.s.schemas: no table is left; add \"*.*\" for all that "
		 "are not listed\n"},
		{SYNC_HEAD "schemas: [a.b, {id: a.b}]\n",
		 "walpost.yaml:8: bulk_syncs.s.schemas: \"a.b\" is there twice\n"},
		{SYNC_HEAD "source_configuration: {replication_slot: Bad}\n",
		 "walpost.yaml:8: bulk_syncs.s.source_configuration.replication_slot: \"Bad\" is "
		 "not a slot's name (allowed: 1 to 63 of a-z, 0-9 and _)\n"},
		{SYNC_HEAD "source_configuration: {replication_slot: x}\n"
			   "  t:\n    source_connection: db\n    destination_connection: to\n"
			   "    source_configuration: {replication_slot: x}\n",
		 "walpost.yaml:12: bulk_syncs.t.source_configuration.replication_slot: \"x\" is "
		 "the "
		 "slot of bulk_syncs.s already; each sync that names one needs its own\n"},
		{SYNC_HEAD "destination_configuration: {bodi: records}\n",
		 "walpost.yaml:8: bulk_syncs.s.destination_configuration.bodi: unknown key; did "
		 "you mean \"body\"?\n"},
		{SYNC_HEAD "destination_configuration: {timeout: 1ms, batch_size: 0}\n",
		 "walpost.yaml:8: bulk_syncs.s.destination_configuration.batch_size: \"0\" is "
		 "below "
		 "1 (allowed: 1 to 10000)\n"
		 "walpost.yaml:8: bulk_syncs.s.destination_configuration.timeout: \"1ms\" is below "
		 "100ms (allowed: 100ms to 10m)\n"},
		{"connections:\n"
		 "  db: {type: postgresql, configuration: {hostname: h, database: d, username: u,\n"
		 "       change_detection: false}}\n"
		 "  to: {type: webhook, configuration: {url: 'http://h'}}\n"
		 "bulk_syncs:\n  s: {source_connection: db, destination_connection: to}\n",
		 "walpost.yaml:3: connections.db.configuration.change_detection: set "
		 "change_detection: true, since a sync reads this connection\n"},
		{"listen: 5100\n" TWO_AND_SYNC,
		 "walpost.yaml:1: listen: \"5100\" is not an address to listen on (allowed: "
		 "ADDRESS:PORT, [IPV6-ADDRESS]:PORT, \"\" for none)\n"},
		{"listen: ::1:5100\n" TWO_AND_SYNC,
		 "walpost.yaml:1: listen: \"::1:5100\" is not an address to listen on (allowed: "
		 "ADDRESS:PORT, [IPV6-ADDRESS]:PORT, \"\" for none)\n"},
		{"listen: a:65536\n" TWO_AND_SYNC,
		 "walpost.yaml:1: listen: \"a:65536\" is not an address to listen on (allowed: "
		 "ADDRESS:PORT, [IPV6-ADDRESS]:PORT, \"\" for none)\n"},
		{"data_dir: ''\n" TWO_AND_SYNC,
		 "walpost.yaml:1: data_dir: \"\" is shorter than 1 bytes "
		 "(allowed: 1 to 4096 bytes)\n"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refuse(cases[i].text, cases[i].mistake);
}

/* The keys of a webhook's connection, from line 6 on; what is about all of them is told of line 5.
 */
static void an_auth_method_and_its_section_go_together(void **state)
{
	static const struct {
		const char *keys, *mistake;
	} cases[] = {
		{"auth_method: basic", ".auth_method: auth_method basic needs the key basic: "
				       "{username: NAME, password: PASSWORD}"},
		{"auth_method: header", ".auth_method: auth_method header needs the key header: "
					"{name: NAME, value: VALUE}"},
		{"auth_method: query", ".auth_method: auth_method query needs the key query: "
				       "[{name: NAME, value: VALUE}]"},
		{"auth_method: query\n      query: []",
		 ".auth_method: auth_method query needs the key query: "
		 "[{name: NAME, value: VALUE}]"},
		{"auth_method: polytomic_secret",
		 ".auth_method: auth_method polytomic_secret needs the key secret: SECRET"},
		{"auth_method: polytomic_secret\n      secret: ''",
		 ".auth_method: auth_method polytomic_secret needs the key secret: SECRET"},
		{"header: {name: X-Key, value: " SECRET "}",
		 ".header: header is given, but auth_method is none; set auth_method: header, or "
		 "remove header"},
		{"secret: " SECRET "\n      auth_method: basic\n      basic: {username: u}",
		 ".secret: secret is given, but auth_method is basic; set auth_method: "
		 "polytomic_secret, or remove secret"},
		{"basic: {username: u, password: " SECRET "}",
		 ".basic: basic is given, but auth_method is none; set auth_method: basic, or "
		 "remove basic"},
		{"query: [{name: n, value: " SECRET "}]",
		 ".query: query is given, but auth_method is none; set auth_method: query, or "
		 "remove query"},
		{"headers: [{name: 'X Y', value: " SECRET "}]",
		 ": headers: \"X Y\" is not a header's name"},
		{"auth_method: basic\n      basic: {username: 'a:b'}",
		 ": basic.username may not contain a colon"},
		{"headers: [{name: X-A, value: '" SECRET "{tabel}'}]",
		 ".headers: X-A: at byte 16: this is no placeholder; there are {schema}, "
		 "{table}, {operation}, {id}, {key.COLUMN}, {fields.COLUMN} and, where a column "
		 "may "
		 "be null or not there, {key.COLUMN|TEXT}; {{ and }} stand for braces"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[1024], line[512];

		(void)snprintf(text, sizeof(text),
			       "connections:\n"
			       "  db: {type: probe}\n"
			       "  to:\n    type: webhook\n    configuration:\n"
			       "      %s\n      url: 'http://h'\n"
			       "bulk_syncs: {s: {source_connection: db, destination_connection: "
			       "to}}\n",
			       cases[i].keys);
		(void)snprintf(line, sizeof(line),
			       "walpost.yaml:%d: connections.to.configuration%s\n",
			       cases[i].mistake[0] == ':' ? 5 : 6, cases[i].mistake);
		refuse(text, line);
	}
}

static void a_section_in_a_file_is_named_where_it_is(void **state)
{
	char path[] = "/tmp/test_config.XXXXXX", text[512];
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	(void)close(fd);
	write_file(path, SECRET "\n", strlen(SECRET) + 1);
	(void)snprintf(text, sizeof(text),
		       "connections:\n"
		       "  db: {type: probe}\n"
		       "  to:\n    type: webhook\n    configuration:\n"
		       "      url: 'http://h'\n      secret_file: %s\n"
		       "bulk_syncs: {s: {source_connection: db, destination_connection: to}}\n",
		       path);
	refuse(text, "walpost.yaml:7: connections.to.configuration.secret_file: secret is given, "
		     "but auth_method is none; set auth_method: polytomic_secret, or remove "
		     "secret\n");
	(void)unlink(path);
}

static void listening_is_turned_off_by_an_empty_text(void **state)
{
	static const char *const good[] = {"''", "0.0.0.0:0", "'[::1]:5100'", "localhost:65535"};
	struct loaded l;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		char text[512];

		(void)snprintf(text, sizeof(text), "listen: %s\n" TWO_AND_SYNC, good[i]);
		(void)load(&l, text);
		if (i == 0)
			assert_string_equal(l.config->listen, "");
		unload(&l);
	}
}

/* --- files -------------------------------------------------------------------------- */

static void a_file_is_loaded_or_its_absence_told(void **state)
{
	struct cdc_connection_type types[TYPES_MAX];
	const struct cdc_config_tables tables = config_tables(types);
	char path[] = "/tmp/test_config.XXXXXX";
	struct cdc_config *c = NULL;
	struct cdc_err err = {0};
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	(void)close(fd);
	write_file(path, TWO_AND_SYNC, strlen(TWO_AND_SYNC));
	assert_int_equal(cdc_config_load(path, &tables, NULL, NULL, &c, &err), CDC_OK);
	assert_string_equal(c->data_dir, "/tmp/walpost-data");
	cdc_config_free(c);
	c = NULL;
	write_file(path, "x: y\n", 5);
	assert_int_equal(cdc_config_load(path, &tables, NULL, NULL, &c, &err), CDC_CONFIG);
	assert_null(c);
	(void)unlink(path);
	assert_int_equal(cdc_config_load(path, &tables, NULL, NULL, &c, &err), CDC_MISSING);
	assert_non_null(strstr(err.msg, path));
	assert_true(err.remedy[0]);
	assert_int_equal(cdc_config_load("/tmp", &tables, NULL, NULL, &c, &err), CDC_IO);
	cdc_config_free(NULL);
}

/* --- the reference ------------------------------------------------------------------ */

/* The line of a key below a title, and that it has a type. */
static void expect_key(const char *page, const char *prefix, const char *key)
{
	char line[256];

	(void)snprintf(line, sizeof(line), "\n  %s%s ", prefix, key);
	if (!strstr(page, line))
		fail_msg("%s%s is not in the reference", prefix, key);
}

static void expect_keys(const char *page, const char *prefix, const struct cdc_opt *options)
{
	for (const struct cdc_opt *o = options; o && o->name; o++) {
		char inner[128];

		if (!o->help && o->type != CDC_OPT_GROUP)
			fail_msg("%s%s has no help", prefix, o->name);
		if (o->type != CDC_OPT_GROUP) {
			expect_key(page, prefix, o->name);
			continue;
		}
		(void)snprintf(inner, sizeof(inner), "%s%s.", prefix, o->name);
		expect_keys(page, inner, o->group);
	}
}

static void the_reference_has_every_key(void **state)
{
	struct cdc_connection_type types[TYPES_MAX];
	const struct cdc_config_tables tables = config_tables(types);
	char *page = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&page, &size);

	(void)state;
	assert_non_null(out);
	cdc_config_reference(&tables, out);
	(void)fclose(out);
	for (size_t i = 0; i < tables.type_n; i++) {
		expect_keys(page, "", types[i].options);
		expect_keys(page, "", types[i].sync_options);
		assert_non_null(strstr(page, types[i].name));
	}
	expect_keys(page, "", tables.delivery_options);
	expect_key(page, "", "data_dir");
	expect_key(page, "", "listen");
	expect_key(page, "log.", "level");
	expect_key(page, "buffer.", "max_bytes");
	expect_key(page, "", "connections");
	expect_key(page, "", "bulk_syncs");
	assert_non_null(
		strstr(page, "  bulk_syncs                         group     (required)\n"));
	expect_key(page, "", "source_connection");
	expect_key(page, "source_configuration.", "replication_slot");
	expect_key(page, "default_schedule.", "frequency");
	expect_key(page, "", "schemas");
	assert_non_null(strstr(page, "number"));
	assert_non_null(strstr(page, "1 to 65535"));
	assert_non_null(strstr(page, "Secret: secret_file: PATH"));
	for (const char *line = page; line && *line;) {
		const char *end = strchr(line, '\n');

		assert_non_null(end);
		/* No blanks at the end. */
		assert_true(end == line || end[-1] != ' ');
		line = end + 1;
	}
	free(page);
}

/* --- numbers with units ------------------------------------------------------------- */

static void numbers_are_read_and_written_with_their_units(void **state)
{
	char text[CDC_VALUE_TEXT];
	uint64_t v = 77;

	(void)state;
	assert_null(cdc_value_duration("0", &v));
	assert_int_equal(v, 0);
	assert_null(cdc_value_duration("213503982334d", &v));
	assert_string_equal(cdc_value_duration("213503982335d", &v), "is too large");
	assert_true(v == UINT64_C(213503982334) * 86400000);
	assert_null(cdc_value_size("16777215TiB", &v));
	assert_string_equal(cdc_value_size("16777216TiB", &v), "is too large");
	assert_non_null(cdc_value_size("1 MiB", &v));
	assert_non_null(cdc_value_size("MiB", &v));
	assert_non_null(cdc_value_uint("1 ", &v));
	assert_non_null(cdc_value_uint(" 1", &v));
	assert_non_null(cdc_value_uint("+1", &v));
	assert_string_equal(cdc_value_duration_text(0, text), "0ms");
	assert_string_equal(cdc_value_duration_text(1500, text), "1500ms");
	assert_string_equal(cdc_value_duration_text(48 * 3600000, text), "2d");
	assert_string_equal(cdc_value_size_text(0, text), "0");
	assert_string_equal(cdc_value_size_text(1023, text), "1023");
	assert_string_equal(cdc_value_size_text(3 << 20, text), "3MiB");
	assert_int_equal(cdc_value_guess("body", "body"), 0);
	assert_int_equal(cdc_value_guess("host", "hostname"), 1);
	assert_int_equal(cdc_value_guess("user", "username"), 1);
	assert_int_equal(cdc_value_guess("db", "database"), CDC_VALUE_NO_GUESS);
	assert_int_equal(cdc_value_guess("bodi", "body"), 2);
	assert_int_equal(cdc_value_guess("host", "port"), CDC_VALUE_NO_GUESS);
	assert_int_equal(cdc_value_guess("host", "hose"), 2);
	assert_int_equal(cdc_value_guess("numbre", "number"), 3);
	assert_int_equal(cdc_value_guess("nubmer", "something"), CDC_VALUE_NO_GUESS);
	assert_int_equal(cdc_value_distance("body", "bodi"), 1);
	assert_int_equal(cdc_value_distance("", "ab"), 2);
	assert_int_equal(cdc_value_distance("ab", "ba"), 2);
	assert_int_equal(cdc_value_distance("abc", "xyzw"), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_left_out_has_its_default),
		cmocka_unit_test(every_kind_of_value_is_read),
		cmocka_unit_test(a_wrong_value_is_named_with_its_range),
		cmocka_unit_test(a_value_is_shown_cut_and_clean),
		cmocka_unit_test(all_mistakes_are_told_up_to_fifty),
		cmocka_unit_test(the_environment_is_put_into_values),
		cmocka_unit_test(what_came_from_the_environment_is_never_shown),
		cmocka_unit_test(a_secret_is_never_shown),
		cmocka_unit_test(a_secret_may_lie_in_a_file),
		cmocka_unit_test(what_is_not_yaml_is_named_with_its_line),
		cmocka_unit_test(a_file_has_limits),
		cmocka_unit_test(a_thousand_connections_and_syncs_load),
		cmocka_unit_test(the_file_of_the_design_loads),
		cmocka_unit_test(an_id_is_made_from_the_name_alone),
		cmocka_unit_test(a_master_key_is_32_bytes_and_never_shown),
		cmocka_unit_test(keys_of_the_design_that_are_not_honoured_are_refused_by_name),
		cmocka_unit_test(objects_that_do_not_fit_together_are_refused),
		cmocka_unit_test(columns_and_filters_are_read),
		cmocka_unit_test(columns_may_be_named_as_the_api_names_them),
		cmocka_unit_test(columns_and_filters_that_make_no_sense_are_refused),
		cmocka_unit_test(an_auth_method_and_its_section_go_together),
		cmocka_unit_test(a_section_in_a_file_is_named_where_it_is),
		cmocka_unit_test(listening_is_turned_off_by_an_empty_text),
		cmocka_unit_test(a_file_is_loaded_or_its_absence_told),
		cmocka_unit_test(the_reference_has_every_key),
		cmocka_unit_test(numbers_are_read_and_written_with_their_units),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
