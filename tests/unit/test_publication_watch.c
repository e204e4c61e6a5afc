/* The last look at a publication as a text, which outlives the process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "cdc/source/publication_watch.h"

#define SYSTEM "7391234567890123456"
#define NAME   "it's\\tmine"
#define HEAD   "look 1 " SYSTEM " iudt\n" NAME "\n"
#define TABLES 130000

/* What is put again of what was recalled; the caller frees. */
static void recall(const char *text, struct cdc_buf *ret, size_t *ret_n)
{
	static char name[] = "it's\tmine";
	const struct cdc_source_settings settings = {.publication = name};
	const struct cdc_source_plan plan = {.settings = &settings};
	struct cdc_publication_watch w;

	cdc_publication_watch_init(&w, &plan);
	cdc_publication_watch_recall_look(&w, text);
	cdc_buf_init(ret, CDC_LOOK_TEXT_MAX);
	cdc_publication_watch_put_look(&w, ret);
	cdc_buf_putc(ret, '\0');
	assert_false(ret->failed);
	*ret_n = w.last.table_n;
	cdc_publication_watch_clear(&w);
}

static void is_put_as_it_was(const char *text, size_t tables)
{
	struct cdc_buf again;
	size_t n;

	recall(text, &again, &n);
	assert_int_equal(n, tables);
	assert_string_equal((const char *)again.data, text);
	cdc_buf_clear(&again);
}

static void a_look_is_recalled_as_it_was_put(void **state)
{
	(void)state;
	is_put_as_it_was("look 1 " SYSTEM " \n" NAME "\n", 0);
	is_put_as_it_was(HEAD, 0);
	is_put_as_it_was(HEAD
			 "16384\t16384\tpublic.t\tpublic.t\t\t\tr16390\n"
			 "4294967295\t16384\ts.\\t\\n\\\\n\ts.\xff\xfe 7\t-5\ta, b\tn1 r2/77\n",
			 2);
}

static void a_text_that_is_none_is_as_none(void **state)
{
	static const char *const texts[] = {
		"",
		"look 2 " SYSTEM " iudt\n" NAME "\n",
		"look 1 " SYSTEM " iudt",
		"look 1 " SYSTEM " iudt\n",
		"look 1 " SYSTEM " iudt\nanother\n16384\t16384\tt\tt\t\t\tr1\n",
		HEAD "16384\t16384\tt\tt\t\t\tr1",
		HEAD "16384\t16384\tt\tt\t\tr1\n",
		HEAD "16384\t16384\tt\tt\t\t\tr1\tr2\n",
		HEAD "16384\t16384\n",
		HEAD "\n",
		HEAD "\t16384\tt\tt\t\t\tr1\n",
		HEAD "-1\t16384\tt\tt\t\t\tr1\n",
		HEAD " 1\t16384\tt\tt\t\t\tr1\n",
		HEAD "4294967296\t16384\tt\tt\t\t\tr1\n",
		HEAD "99999999999999999999\t16384\tt\tt\t\t\tr1\n",
		HEAD "16384\t\n16384\tt\tt\t\t\tr1\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct cdc_buf again;
		size_t n;

		recall(texts[i], &again, &n);
		assert_int_equal(n, 0);
		assert_string_equal((const char *)again.data, "look 1  \n" NAME "\n");
		cdc_buf_clear(&again);
	}
}

/* The work grows with the text, not with its square. */
static void a_long_look_is_recalled_soon(void **state)
{
	const clock_t begun = clock();
	struct cdc_buf text;

	(void)state;
	cdc_buf_init(&text, CDC_LOOK_TEXT_MAX);
	cdc_buf_puts(&text, HEAD);
	for (unsigned i = 0; i < TABLES; i++)
		cdc_buf_printf(&text, "%u\t%u\tpublic.table%u\tpublic.table%u\t\t\tr%u\n",
			       16384 + 2 * i, 16384 + 2 * i, i, i, 16385 + 2 * i);
	cdc_buf_putc(&text, '\0');
	assert_false(text.failed);
	is_put_as_it_was((const char *)text.data, TABLES);
	assert_true((clock() - begun) / CLOCKS_PER_SEC < 3);
	cdc_buf_clear(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_look_is_recalled_as_it_was_put),
		cmocka_unit_test(a_text_that_is_none_is_as_none),
		cmocka_unit_test(a_long_look_is_recalled_soon),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
