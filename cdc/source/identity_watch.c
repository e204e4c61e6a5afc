#include "cdc/source/identity_watch.h"

#include <stdio.h>

#include "cdc/base/buf.h"
#include "cdc/source/pgconn.h"
#include "cdc/source/quote.h"

#define SCHEMA_VERSION 150000 /* the first with FOR TABLES IN SCHEMA */

/*
 * Members, and below them the partitions, which are what an UPDATE writes to; each
 * by the member that it is published with.
 */
static const char begin[] =
	"WITH RECURSIVE p AS (SELECT oid, puballtables FROM pg_catalog.pg_publication "
	"WHERE (pubupdate OR pubdelete) AND pubname = ";
static const char members[] =
	"), m AS (SELECT r.prrelid AS oid FROM pg_catalog.pg_publication_rel r "
	"JOIN p ON r.prpubid = p.oid "
	"UNION SELECT c.oid FROM p, pg_catalog.pg_class c WHERE p.puballtables "
	"AND c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384";
static const char of_schemas[] =
	" UNION SELECT c.oid FROM pg_catalog.pg_publication_namespace n JOIN p ON n.pnpubid = "
	"p.oid JOIN pg_catalog.pg_class c ON c.relnamespace = n.pnnspid WHERE c.relkind = 'r' "
	"AND c.relpersistence = 'p'";
static const char end[] =
	"), t AS (SELECT m.oid AS member, m.oid AS oid FROM m "
	"UNION SELECT t.member, i.inhrelid FROM t JOIN pg_catalog.pg_inherits i ON i.inhparent = "
	"t.oid JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE c.relispartition) "
	"SELECT DISTINCT ON (mn.nspname, mc.relname) "
	"pg_catalog.concat(mn.nspname, '.', mc.relname), "
	"pg_catalog.format('%I.%I', mn.nspname, mc.relname), "
	"pg_catalog.format('%I.%I', n.nspname, c.relname) "
	"FROM t JOIN pg_catalog.pg_class c ON c.oid = t.oid "
	"JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
	"JOIN pg_catalog.pg_class mc ON mc.oid = t.member "
	"JOIN pg_catalog.pg_namespace mn ON mn.oid = mc.relnamespace "
	"WHERE c.relkind = 'r' AND (c.relreplident = 'n' OR (c.relreplident IN ('d', 'i') "
	"AND NOT EXISTS (SELECT FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid "
	"AND x.indisvalid AND x.indimmediate "
	"AND CASE c.relreplident WHEN 'd' THEN x.indisprimary ELSE x.indisreplident END))) "
	"ORDER BY mn.nspname, mc.relname, n.nspname, c.relname";

void cdc_identity_sql(int version, const char *publication, char ret_sql[CDC_IDENTITY_SQL_MAX])
{
	struct cdc_buf name;
	const char *text;

	cdc_buf_init(&name, 256);
	cdc_quote_text(&name, publication);
	text = cdc_quote_end(&name);
	(void)snprintf(ret_sql, CDC_IDENTITY_SQL_MAX, "%s%s%s%s%s LIMIT %d", begin,
		       text ? text : "''", members, version >= SCHEMA_VERSION ? of_schemas : "",
		       end, CDC_HURT_MAX);
	cdc_buf_clear(&name);
}

void cdc_identity_read(const PGresult *answer, struct cdc_hurt_report *ret)
{
	const int rows = PQntuples(answer);

	ret->n = 0;
	for (int i = 0; i < rows && ret->n < CDC_HURT_MAX; i++) {
		struct cdc_hurt_table *t = &ret->tables[ret->n++];

		(void)snprintf(t->name, sizeof(t->name), "%s", cdc_pgconn_text(answer, i, 0));
		(void)snprintf(t->sql_name, sizeof(t->sql_name), "%s",
			       cdc_pgconn_text(answer, i, 1));
		(void)snprintf(t->hurt_sql_name, sizeof(t->hurt_sql_name), "%s",
			       cdc_pgconn_text(answer, i, 2));
	}
}
