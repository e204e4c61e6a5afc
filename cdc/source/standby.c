#include "cdc/source/standby.h"

#include <string.h>
#include <strings.h>

/* The next name of synchronous_standby_names; false: there is none.  Words of its grammar (FIRST,
 * ANY, numbers) come out as names, too: no slot of ours is called so. */
static bool next_name(const char **at, char *ret_name, size_t size)
{
	const char *s = *at + strspn(*at, " ,()\t\r\n\f\v");
	const bool is_quoted = *s == '"';
	size_t n = 0;

	if (!*s)
		return false;
	for (s += is_quoted; *s; s++) {
		if (is_quoted && *s == '"' && *++s != '"')
			break;
		if (!is_quoted && strchr(" ,()\t\r\n\f\v", *s))
			break;
		if (n + 1 < size)
			ret_name[n++] = *s;
	}
	ret_name[n] = '\0';
	*at = s;
	return true;
}

bool cdc_standby_is_named(const char *names, const char *application)
{
	char name[64];

	while (next_name(&names, name, sizeof(name))) {
		if (strcmp(name, "*") == 0 || strcasecmp(name, application) == 0)
			return true;
	}
	return false;
}

enum cdc_code cdc_standby_error(const char *where, const char *slot, const char *names,
				struct cdc_err *err)
{
	(void)cdc_err_set(err, CDC_CONFIG,
			  "%s: slot %s: synchronous_standby_names is '%s', which makes walpost a "
			  "synchronous standby: every commit of the application would wait for it",
			  where, slot, names);
	return cdc_err_remedy(err, "ALTER SYSTEM SET synchronous_standby_names = '...'; with the "
				   "names of the real standbys only ('' when there are none), then "
				   "SELECT pg_reload_conf();");
}
