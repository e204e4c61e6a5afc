/*
 * condition.h - whether the value of a column meets one filter, by its JSON.
 *
 * As in SQL, null meets nothing but IsNull: not Inequality, not StringNotLike.
 *
 * How values are compared: numbers digit by digit (decimal.h), with a value that is
 * a number; two dates or times as such (moment.h), whatever their form; all other
 * texts byte by byte.  What cannot be compared, a number with a word, is not equal
 * and neither above nor below.  Functions of strings look at the text of a value
 * that is none (12.50, true, the JSON of an array), and heed the case of letters.
 * ArrayContains looks for an element, also in the inner arrays of a nested one;
 * what is no array meets neither it nor its opposite.  StringLike is SQL's LIKE, with
 * \ as the escape.  StringMatchesTrimmed compares without the white space at both
 * ends.  Relative functions count from now_us; InTheLast ends there.
 *
 * Threads: a condition is constant.
 * Layer: record.
 */
#ifndef CDC_RECORD_CONDITION_H
#define CDC_RECORD_CONDITION_H

#include "cdc/base/buf.h"
#include "cdc/base/err.h"
#include "cdc/base/selection.h"
#include "cdc/record/batch.h"

struct cdc_condition;

/* The filter outlives the condition.  CDC_NOMEM; CDC_CONFIG as cdc_condition_check. */
enum cdc_code cdc_condition_new(const struct cdc_select_filter *filter, struct cdc_condition **ret,
				struct cdc_err *err) CDC_CHECK;
void cdc_condition_free(struct cdc_condition *c); /* NULL is fine */

/* CDC_CONFIG: the function takes another number of values, or values of another kind. */
enum cdc_code cdc_condition_check(const struct cdc_select_filter *filter,
				  struct cdc_err *err) CDC_CHECK;

/*
 * Does the value at span of json meet it?  now_us: microseconds since 1970.  scratch
 * is used for texts with escapes; without memory it fails, which is sticky, and the
 * answer means nothing.
 */
bool cdc_condition_is_met(const struct cdc_condition *c, const char *json, struct cdc_span value,
			  int64_t now_us, struct cdc_buf *scratch);

#endif
