/*
 * network.h - which addresses requests may go to.
 *
 * A name can be made to resolve to anything, also to what only this machine or its
 * network is meant to reach: the loopback interface, a private network, a cloud's
 * metadata service.  So it is the address that is judged, each time one is about to
 * be connected to.  Public addresses may always be reached; others where they are
 * opened.
 *
 * Rules: IANA's special-purpose address registries (RFC 6890 and what extends it)
 * and the metadata services of the large clouds.  An IPv4 address in an IPv6 one
 * (mapped, RFC 4291; translated, RFC 6052) is judged as the IPv4 address that it is.
 *
 * Threads: pure.  Layer: sinks (base).
 */
#ifndef SINK_HTTP_NETWORK_H
#define SINK_HTTP_NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "cdc/base/err.h"

#define SINK_HTTP_NETWORKS     64
#define SINK_HTTP_ADDRESS_TEXT 46

struct sink_http_network {
	uint8_t bytes[16]; /* IPv4 as ::ffff:a.b.c.d */
	unsigned bits;     /* of the 128 that count */
};

/* What is open beside public addresses; all zero: nothing. */
struct sink_http_networks {
	bool is_any;
	size_t n;
	struct sink_http_network items[SINK_HTTP_NETWORKS];
};

/*
 * Reads `any`, `public` (which opens nothing), addresses and networks such as
 * 10.0.0.0/8 and fd00::/8.  CDC_CONFIG: one is none of these, or more than
 * SINK_HTTP_NETWORKS; the text names it.
 */
enum cdc_code sink_http_networks_parse(const char *const *items, size_t n,
				       struct sink_http_networks *ret,
				       struct cdc_err *err) CDC_CHECK;

/* NULL: the address may be reached.  Else what it is: "a loopback address". */
const char *sink_http_networks_refuse(const struct sink_http_networks *n,
				      const struct sockaddr *to);

/* The address as text, without its port. */
void sink_http_address_text(const struct sockaddr *to, char ret_text[SINK_HTTP_ADDRESS_TEXT]);

#endif
