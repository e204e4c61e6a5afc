#include "cdc/base/clock.h"

#include <stdio.h>
#include <time.h>

uint64_t cdc_clock_mono_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

int64_t cdc_clock_wall_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

size_t cdc_time_format(int64_t wall_us, char ret_text[CDC_TIME_TEXT])
{
	int64_t us = wall_us % 1000000;
	time_t seconds;
	struct tm tm;
	int n;

	if (us < 0)
		us += 1000000;
	seconds = (time_t)((wall_us - us) / 1000000);
	(void)gmtime_r(&seconds, &tm);
	n = snprintf(ret_text, CDC_TIME_TEXT, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ",
		     tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		     (int)us);
	return n > 0 ? (size_t)n : 0;
}
