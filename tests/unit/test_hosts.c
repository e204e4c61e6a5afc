/* The list of servers in a connection's hostname. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/source/hosts.h"

static void lists_of_hosts(void **state)
{
	static const struct {
		const char *text, *wanted;
	} cases[] = {
		{"db.example.com", "db.example.com 5432"},
		{"10.0.0.1", "10.0.0.1 5432"},
		{"db:6000", "db 6000"},
		{"a,b", "a 5432|b 5432"},
		{" a:1 ,\tb:65535", "a 1|b 65535"},
		{"::1", "::1 5432"},
		{"fe80::1%eth0", "fe80::1%eth0 5432"},
		{"[::1]", "::1 5432"},
		{"[::1]:7,[::2]", "::1 7|::2 5432"},
		{"/var/run/pg:5,a", "/var/run/pg:5 5432|a 5432"},
		{"@abstract:1", "@abstract:1 5432"},
		{"1,2,3,4,5,6,7,8", "1 5432|2 5432|3 5432|4 5432|5 5432|6 5432|7 5432|8 5432"},
	};
	struct cdc_host hosts[CDC_HOSTS_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char got[512] = "";
		size_t n, len = 0;

		assert_int_equal(cdc_hosts_parse(cases[i].text, 5432, hosts, &n, NULL), CDC_OK);
		for (size_t k = 0; k < n; k++)
			len += (size_t)snprintf(got + len, sizeof(got) - len, "%s%s %u",
						k ? "|" : "", hosts[k].name, hosts[k].port);
		assert_string_equal(got, cases[i].wanted);
	}
}

static void what_is_no_list_is_refused(void **state)
{
	static const char *const texts[] = {
		"",
		" ",
		"a,",
		",a",
		"a,,b",
		"a:",
		"a:0",
		"a:65536",
		"a:x",
		"a:+1",
		"a: 1",
		":5432",
		"[::1",
		"[::1]x",
		"[::1]:",
		"[]:1",
		"a:99999999999999999999",
		"1,2,3,4,5,6,7,8,9",
	};
	struct cdc_host hosts[CDC_HOSTS_MAX];
	char longest[CDC_HOST_BYTES + 1];
	struct cdc_err err;
	size_t n;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		assert_int_equal(cdc_hosts_parse(texts[i], 5432, hosts, &n, &err), CDC_CONFIG);
		assert_non_null(strstr(err.msg, "hostname"));
	}
	memset(longest, 'a', sizeof(longest));
	longest[CDC_HOST_BYTES] = '\0';
	assert_int_equal(cdc_hosts_parse(longest, 1, hosts, &n, &err), CDC_CONFIG);
	longest[CDC_HOST_BYTES - 1] = '\0';
	assert_int_equal(cdc_hosts_parse(longest, 1, hosts, &n, &err), CDC_OK);
	assert_string_equal(hosts[0].name, longest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_of_hosts),
		cmocka_unit_test(what_is_no_list_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
