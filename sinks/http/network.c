#include "sinks/http/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define V4_BITS 96 /* in front of an IPv4 address that is written as IPv6 */

struct special {
	uint8_t bytes[16];
	unsigned bits;
	const char *what;
};

/* The first that holds an address says what it is. */
static const struct special v4_specials[] = {
	{{0}, 8, "an unspecified address"},
	{{10}, 8, "a private address"},
	{{100, 64}, 10, "an address of a shared network"},
	{{127}, 8, "a loopback address"},
	{{168, 63, 129, 16}, 32, "the address of a cloud's metadata service"},
	{{169, 254, 169, 254}, 32, "the address of a cloud's metadata service"},
	{{169, 254}, 16, "a link-local address"},
	{{172, 16}, 12, "a private address"},
	{{192, 0, 0, 192}, 32, "the address of a cloud's metadata service"},
	{{192, 0, 0}, 24, "a reserved address"},
	{{192, 0, 2}, 24, "an address of documentation"},
	{{192, 88, 99}, 24, "a reserved address"},
	{{192, 168}, 16, "a private address"},
	{{198, 18}, 15, "an address of benchmarks"},
	{{198, 51, 100}, 24, "an address of documentation"},
	{{203, 0, 113}, 24, "an address of documentation"},
	{{224}, 4, "a multicast address"},
	{{240}, 4, "a reserved address"},
};

static const struct special v6_specials[] = {
	{{0}, 128, "an unspecified address"},
	{{[15] = 1}, 128, "a loopback address"},
	{{0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, 0x54},
	 128,
	 "the address of a cloud's metadata service"},
	{{0xfd, 0x20, 0x00, 0xce, [14] = 0x02, 0x54},
	 128,
	 "the address of a cloud's metadata service"},
	{{0xfc}, 7, "a private address"},
	{{0xfe, 0x80}, 10, "a link-local address"},
	{{0xfe, 0xc0}, 10, "a private address"},
	{{0xff}, 8, "a multicast address"},
	{{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48, "an address of a local translation"},
	{{0x20, 0x01}, 23, "a reserved address"},
	{{0x20, 0x01, 0x0d, 0xb8}, 32, "an address of documentation"},
	{{0x20, 0x02}, 16, "an address of a tunnel"},
	{{0x3f, 0xff}, 20, "an address of documentation"},
};

/* ::ffff:0:0/96 and 64:ff9b::/96. */
static const uint8_t mapped[16] = {[10] = 0xff, 0xff};
static const uint8_t translated[16] = {0x00, 0x64, 0xff, 0x9b};

static bool holds(const uint8_t *network, unsigned bits, const uint8_t *address)
{
	unsigned whole = bits / 8, rest = bits % 8;

	if (memcmp(network, address, whole) != 0)
		return false;
	return rest == 0 || (network[whole] ^ address[whole]) >> (8 - rest) == 0;
}

static const char *find(const struct special *specials, size_t n, const uint8_t *address)
{
	for (size_t i = 0; i < n; i++) {
		if (holds(specials[i].bytes, specials[i].bits, address))
			return specials[i].what;
	}
	return NULL;
}

static bool is_v4(const uint8_t *address)
{
	return holds(mapped, V4_BITS, address);
}

/* What is special about it; NULL: it is public. */
static const char *judge(const uint8_t *address)
{
	const char *what;

	if (is_v4(address))
		return find(v4_specials, sizeof(v4_specials) / sizeof(v4_specials[0]),
			    address + V4_BITS / 8);
	what = find(v6_specials, sizeof(v6_specials) / sizeof(v6_specials[0]), address);
	/* Global addresses are all in 2000::/3. */
	return what || address[0] >> 5 == 1 ? what : "a reserved address";
}

static bool is_open(const struct sink_http_networks *n, const uint8_t *address)
{
	for (size_t i = 0; i < n->n; i++) {
		/* ::/0 is all of IPv6, and nothing of IPv4. */
		if (holds(n->items[i].bytes, n->items[i].bits, address) &&
		    (n->items[i].bits >= V4_BITS || !is_v4(address)))
			return true;
	}
	return false;
}

/* IPv4 addresses in their mapped form; false: neither IPv4 nor IPv6. */
static bool get(const struct sockaddr *to, uint8_t ret[16])
{
	if (to->sa_family == AF_INET) {
		struct sockaddr_in v4;

		memcpy(&v4, to, sizeof(v4));
		memcpy(ret, mapped, 16);
		memcpy(ret + V4_BITS / 8, &v4.sin_addr, 4);
		return true;
	}
	if (to->sa_family == AF_INET6) {
		struct sockaddr_in6 v6;

		memcpy(&v6, to, sizeof(v6));
		memcpy(ret, &v6.sin6_addr, 16);
		return true;
	}
	return false;
}

const char *sink_http_networks_refuse(const struct sink_http_networks *n, const struct sockaddr *to)
{
	uint8_t address[16];

	if (n->is_any)
		return NULL;
	if (!get(to, address))
		return "an address of no known kind";
	if (is_open(n, address))
		return NULL;
	if (holds(translated, V4_BITS, address)) {
		memcpy(address, mapped, V4_BITS / 8);
		if (is_open(n, address))
			return NULL;
	}
	return judge(address);
}

void sink_http_address_text(const struct sockaddr *to, char ret_text[SINK_HTTP_ADDRESS_TEXT])
{
	uint8_t address[16];
	bool is_known = get(to, address);

	if (!is_known || !inet_ntop(is_v4(address) ? AF_INET : AF_INET6,
				    is_v4(address) ? address + V4_BITS / 8 : address, ret_text,
				    SINK_HTTP_ADDRESS_TEXT))
		(void)snprintf(ret_text, SINK_HTTP_ADDRESS_TEXT, "?");
}

/* --- reading ------------------------------------------------------------------------ */

/* Decimal digits only, at most max. */
static bool read_bits(const char *text, unsigned max, unsigned *ret)
{
	unsigned v = 0;

	if (!*text || strlen(text) > 3)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		v = v * 10 + (unsigned)(*text - '0');
	}
	*ret = v;
	return v <= max;
}

/* "10.0.0.0/8", "fd00::1"; bits behind the network's own are left out. */
static bool read_network(const char *text, struct sink_http_network *ret)
{
	size_t len = strcspn(text, "/");
	char address[SINK_HTTP_ADDRESS_TEXT];
	unsigned max, bits;

	if (len >= sizeof(address))
		return false;
	memcpy(address, text, len);
	address[len] = '\0';
	memcpy(ret->bytes, mapped, 16);
	if (inet_pton(AF_INET, address, ret->bytes + V4_BITS / 8) == 1)
		max = 32;
	else if (inet_pton(AF_INET6, address, ret->bytes) == 1)
		max = 128;
	else
		return false;
	bits = max;
	if (text[len] && !read_bits(text + len + 1, max, &bits))
		return false;
	ret->bits = bits + 128 - max;
	return true;
}

enum cdc_code sink_http_networks_parse(const char *const *items, size_t n,
				       struct sink_http_networks *ret, struct cdc_err *err)
{
	struct sink_http_networks found = {0};

	if (n > SINK_HTTP_NETWORKS)
		return cdc_err_set(err, CDC_CONFIG, "allowed_networks: %zu are too many (up to %d)",
				   n, SINK_HTTP_NETWORKS);
	for (size_t i = 0; i < n; i++) {
		if (strcmp(items[i], "any") == 0)
			found.is_any = true;
		else if (strcmp(items[i], "public") == 0)
			continue;
		else if (read_network(items[i], &found.items[found.n]))
			found.n++;
		else
			return cdc_err_set(err, CDC_CONFIG,
					   "allowed_networks: \"%.100s\" is not any, public, an "
					   "address, or a network such as 10.0.0.0/8 or fd00::/8",
					   items[i]);
	}
	*ret = found;
	return CDC_OK;
}
