#include "cdc/source/hosts.h"

#include <string.h>

#define BLANKS " \t"

/* Decimal, 1 to 65535, nothing else; 0: it is not. */
static uint16_t parse_port(const char *text, size_t len)
{
	uint32_t port = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9' || port > UINT16_MAX)
			return 0;
		port = port * 10 + (uint32_t)(text[i] - '0');
	}
	return port <= UINT16_MAX ? (uint16_t)port : 0;
}

/* Where the name ends and, behind a colon, the port begins (NULL: there is none). */
static const char *find_port(const char **text, size_t *len)
{
	const char *begin = *text, *end = begin + *len;
	const char *colon = memchr(begin, ':', *len);

	if (*begin == '/' || *begin == '@') /* the directory of a socket */
		return NULL;
	if (*begin == '[') {
		const char *bracket = memchr(begin, ']', *len);

		if (!bracket || (bracket + 1 < end && bracket[1] != ':'))
			return NULL;
		*text = begin + 1;
		*len = (size_t)(bracket - begin - 1);
		return bracket + 1 < end ? bracket + 2 : NULL;
	}
	/* More than one colon: an address of IPv6 without brackets. */
	if (!colon || memchr(colon + 1, ':', (size_t)(end - colon - 1)))
		return NULL;
	*len = (size_t)(colon - begin);
	return colon + 1;
}

/* One entry, blanks round it included. */
static enum cdc_code parse_one(const char *text, size_t len, uint64_t port, struct cdc_host *ret,
			       struct cdc_err *err)
{
	const char *name, *own, *end = text + len;

	while (text < end && strchr(BLANKS, *text))
		text++;
	while (end > text && strchr(BLANKS, end[-1]))
		end--;
	name = text;
	len = (size_t)(end - text);
	own = len ? find_port(&name, &len) : NULL;
	ret->port = own ? parse_port(own, (size_t)(end - own)) : (uint16_t)port;
	if (!len || len >= sizeof(ret->name) || *name == '[' || !ret->port)
		return cdc_err_set(err, CDC_CONFIG,
				   "hostname: '%.*s' is no host, HOST:PORT or [ADDRESS]:PORT",
				   (int)(end - text > 100 ? 100 : end - text), text);
	memcpy(ret->name, name, len);
	ret->name[len] = '\0';
	return CDC_OK;
}

enum cdc_code cdc_hosts_parse(const char *text, uint64_t port, struct cdc_host hosts[CDC_HOSTS_MAX],
			      size_t *ret_n, struct cdc_err *err)
{
	size_t n = 0;

	for (;; n++) {
		const size_t len = strcspn(text, ",");
		enum cdc_code rc;

		if (n == CDC_HOSTS_MAX)
			return cdc_err_set(err, CDC_CONFIG, "hostname: more than %d hosts",
					   CDC_HOSTS_MAX);
		rc = parse_one(text, len, port, &hosts[n], err);
		if (rc)
			return rc;
		if (!text[len])
			break;
		text += len + 1;
	}
	*ret_n = n + 1;
	return CDC_OK;
}
