/*
 * hosts.h - the servers that a connection may be made to.
 *
 * "db1,db2:5433,[::1]:5434": names, addresses or directories of Unix sockets, each
 * with a port of its own or the connection's.  With more than one, the primary
 * among them is read, whichever it is at the moment.
 *
 * Threads: pure.  Layer: source (base).
 */
#ifndef CDC_SOURCE_HOSTS_H
#define CDC_SOURCE_HOSTS_H

#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"

#define CDC_HOSTS_MAX  8
#define CDC_HOST_BYTES 254 /* a name has 253 at most */

struct cdc_host {
	char name[CDC_HOST_BYTES]; /* without brackets */
	uint16_t port;
};

/* Fills hosts[0..*ret_n), at least one.  port: of those that name none, 1 to 65535.  CDC_CONFIG:
 * the text is no such list. */
enum cdc_code cdc_hosts_parse(const char *text, uint64_t port, struct cdc_host hosts[CDC_HOSTS_MAX],
			      size_t *ret_n, struct cdc_err *err) CDC_CHECK;

#endif
