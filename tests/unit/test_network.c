/* Which addresses may be reached: every special range at both of its ends, and what opens it. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "sinks/http/network.h"

static struct sockaddr_storage address_of(const char *text)
{
	struct sockaddr_storage s;
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(443)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(443)};

	memset(&s, 0, sizeof(s));
	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
		memcpy(&s, &v4, sizeof(v4));
	else if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1)
		memcpy(&s, &v6, sizeof(v6));
	else
		fail_msg("%s", text);
	return s;
}

static const char *refuse(const struct sink_http_networks *n, const char *text)
{
	struct sockaddr_storage s = address_of(text);

	return sink_http_networks_refuse(n, (const struct sockaddr *)&s);
}

static struct sink_http_networks parse(const char *const *items, size_t n)
{
	struct sink_http_networks networks;

	assert_int_equal(sink_http_networks_parse(items, n, &networks, NULL), CDC_OK);
	return networks;
}

static const char *const special[] = {
	"0.0.0.0",
	"0.255.255.255",
	"10.0.0.0",
	"10.255.255.255",
	"100.64.0.0",
	"100.100.100.200",
	"100.127.255.255",
	"127.0.0.1",
	"127.255.255.255",
	"168.63.129.16",
	"169.254.0.0",
	"169.254.169.254",
	"169.254.255.255",
	"172.16.0.0",
	"172.31.255.255",
	"192.0.0.0",
	"192.0.0.192",
	"192.0.0.255",
	"192.0.2.1",
	"192.88.99.1",
	"192.168.0.0",
	"192.168.255.255",
	"198.18.0.0",
	"198.19.255.255",
	"198.51.100.7",
	"203.0.113.7",
	"224.0.0.1",
	"239.255.255.255",
	"240.0.0.1",
	"255.255.255.255",
	"::",
	"::1",
	"::2",
	"::7f00:1",
	"::ffff:127.0.0.1",
	"::ffff:10.1.2.3",
	"::ffff:169.254.169.254",
	"::ffff:0:127.0.0.1",
	"64:ff9b::127.0.0.1",
	"64:ff9b::10.1.2.3",
	"64:ff9b::169.254.169.254",
	"64:ff9b:1::1",
	"64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
	"100::1",
	"fc00::",
	"fd00:ec2::254",
	"fd20:ce::254",
	"fdff:ffff::1",
	"fe80::1",
	"febf::1",
	"fec0::1",
	"feff::1",
	"ff02::1",
	"2001::1",
	"2001:1ff::1",
	"2001:db8::1",
	"2002:7f00:1::",
	"3fff::1",
	"3fff:fff::1",
	"4000::1",
	"5f00::1",
	"1fff::1",
};
#define SPECIAL_N (sizeof(special) / sizeof(special[0]))

static const char *const common[] = {
	"1.0.0.0",        "9.255.255.255", "11.0.0.0",        "100.63.255.255",  "100.128.0.0",
	"126.0.0.1",      "128.0.0.1",     "168.63.129.15",   "169.253.255.255", "169.255.0.0",
	"172.15.255.255", "172.32.0.0",    "192.0.1.0",       "192.167.255.255", "192.169.0.0",
	"198.17.255.255", "198.20.0.0",    "223.255.255.255", "::ffff:1.1.1.1",  "64:ff9b::1.1.1.1",
	"2000::1",        "2001:200::1",   "2001:4860::8",    "2003::1",         "2a00::1",
	"3ffe::1",        "3fff:1000::1",
};

static void special_addresses_are_refused_unless_any_is_open(void **state)
{
	static const char *const any[] = {"any"}, *const public[] = {"public"};
	struct sink_http_networks open = parse(any, 1), closed = parse(public, 1);

	(void)state;
	for (size_t i = 0; i < SPECIAL_N; i++) {
		if (!refuse(&closed, special[i]))
			fail_msg("%s may be reached", special[i]);
		assert_null(refuse(&open, special[i]));
	}
	assert_string_equal(refuse(&closed, "169.254.169.254"),
			    "the address of a cloud's metadata service");
	assert_string_equal(refuse(&closed, "::ffff:127.0.0.1"), "a loopback address");
}

static void public_addresses_are_always_open(void **state)
{
	struct sink_http_networks closed = parse(NULL, 0);

	(void)state;
	for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++) {
		const char *what = refuse(&closed, common[i]);

		if (what)
			fail_msg("%s is %s", common[i], what);
	}
}

static void a_network_opens_its_addresses_and_no_others(void **state)
{
	static const char *const items[] = {"public", "10.1.0.0/15", "127.0.0.1", "fd00:1::/32",
					    "192.168.77.9/24"};
	struct sink_http_networks n = parse(items, 5);

	(void)state;
	assert_non_null(refuse(&n, "10.2.0.0"));
	assert_null(refuse(&n, "10.1.255.255"));
	assert_null(refuse(&n, "10.0.255.255"));
	assert_null(refuse(&n, "::ffff:10.1.0.1"));
	assert_null(refuse(&n, "64:ff9b::10.1.0.1"));
	assert_null(refuse(&n, "127.0.0.1"));
	assert_non_null(refuse(&n, "127.0.0.2"));
	assert_non_null(refuse(&n, "::1"));
	assert_null(refuse(&n, "fd00:1:ffff::1"));
	assert_non_null(refuse(&n, "fd00:2::1"));
	assert_null(refuse(&n, "192.168.77.255"));
	assert_non_null(refuse(&n, "192.168.78.0"));
}

static void all_of_one_family_is_not_the_other(void **state)
{
	static const char *const v6[] = {"::/0"}, *const v4[] = {"0.0.0.0/0"};
	struct sink_http_networks six = parse(v6, 1), four = parse(v4, 1);

	(void)state;
	assert_null(refuse(&six, "::1"));
	assert_null(refuse(&six, "fe80::1"));
	assert_non_null(refuse(&six, "127.0.0.1"));
	assert_non_null(refuse(&six, "::ffff:127.0.0.1"));
	assert_null(refuse(&four, "127.0.0.1"));
	assert_null(refuse(&four, "255.255.255.255"));
	assert_non_null(refuse(&four, "::1"));
}

static void an_address_that_is_none_is_refused(void **state)
{
	struct sink_http_networks closed = parse(NULL, 0);
	struct sockaddr local = {.sa_family = AF_UNIX};
	char text[SINK_HTTP_ADDRESS_TEXT];

	(void)state;
	assert_non_null(sink_http_networks_refuse(&closed, &local));
	sink_http_address_text(&local, text);
	assert_string_equal(text, "?");
}

static void texts_are_read_strictly(void **state)
{
	static const char *const bad[] = {"",
					  "Any",
					  "10.0.0.0/33",
					  "10.0.0.0/",
					  "10.0.0/8",
					  "10.0.0.0/-1",
					  "fd00::/129",
					  "fd00::/1x",
					  "localhost",
					  "10.0.0.0/0x8",
					  "/8",
					  "10.0.0.1 ",
					  "1.2.3.4/8/8",
					  "fd00:::1/8",
					  "10.0.0.0/0008"};
	const char *many[SINK_HTTP_NETWORKS + 1];
	struct sink_http_networks n;
	struct cdc_err err;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		memset(&err, 0, sizeof(err));
		if (sink_http_networks_parse(&bad[i], 1, &n, &err) != CDC_CONFIG)
			fail_msg("\"%s\" is taken", bad[i]);
		assert_non_null(strstr(err.msg, "allowed_networks"));
		assert_non_null(strstr(err.msg, bad[i]));
	}
	for (size_t i = 0; i <= SINK_HTTP_NETWORKS; i++)
		many[i] = "10.0.0.0/8";
	assert_int_equal(sink_http_networks_parse(many, SINK_HTTP_NETWORKS, &n, NULL), CDC_OK);
	assert_int_equal(n.n, SINK_HTTP_NETWORKS);
	assert_int_equal(sink_http_networks_parse(many, SINK_HTTP_NETWORKS + 1, &n, NULL),
			 CDC_CONFIG);
}

static void addresses_are_shown_as_they_are(void **state)
{
	static const char *const texts[][2] = {{"127.0.0.1", "127.0.0.1"},
					       {"::ffff:10.0.0.1", "10.0.0.1"},
					       {"fe80::1", "fe80::1"},
					       {"64:ff9b::a00:1", "64:ff9b::a00:1"}};
	char text[SINK_HTTP_ADDRESS_TEXT];

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct sockaddr_storage s = address_of(texts[i][0]);

		sink_http_address_text((const struct sockaddr *)&s, text);
		assert_string_equal(text, texts[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(special_addresses_are_refused_unless_any_is_open),
		cmocka_unit_test(public_addresses_are_always_open),
		cmocka_unit_test(a_network_opens_its_addresses_and_no_others),
		cmocka_unit_test(all_of_one_family_is_not_the_other),
		cmocka_unit_test(an_address_that_is_none_is_refused),
		cmocka_unit_test(texts_are_read_strictly),
		cmocka_unit_test(addresses_are_shown_as_they_are),
	};

	return cmocka_run_group_tests_name("network", tests, NULL, NULL);
}
