#include "cdc/base/stop.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cdc/base/clock.h"

int cdc_event_new(void)
{
	return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

void cdc_event_signal(int fd)
{
	const uint64_t one = 1;

	/* EAGAIN means that it is readable already. */
	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

bool cdc_event_drain(int fd)
{
	uint64_t n;

	return read(fd, &n, sizeof(n)) == sizeof(n);
}

enum cdc_code cdc_stop_init(struct cdc_stop *s, struct cdc_err *err)
{
	atomic_init(&s->is_set, false);
	s->fd = cdc_event_new();
	if (s->fd < 0)
		return cdc_err_set(err, CDC_IO, "eventfd: %s", strerror(errno));
	return CDC_OK;
}

void cdc_stop_clear(struct cdc_stop *s)
{
	if (s->fd >= 0)
		(void)close(s->fd);
	s->fd = -1;
}

void cdc_stop_set(struct cdc_stop *s)
{
	atomic_store(&s->is_set, true);
	cdc_event_signal(s->fd);
}

bool cdc_stop_is_set(const struct cdc_stop *s)
{
	return atomic_load_explicit(&s->is_set, memory_order_relaxed);
}

bool cdc_stop_wait(const struct cdc_stop *s, uint64_t wait_ms)
{
	uint64_t end = cdc_clock_mono_ms() + wait_ms;

	while (!cdc_stop_is_set(s)) {
		uint64_t now = cdc_clock_mono_ms();
		struct pollfd p = {.fd = s->fd, .events = POLLIN};

		if (now >= end)
			break;
		(void)poll(&p, 1, end - now > INT_MAX ? INT_MAX : (int)(end - now));
	}
	return cdc_stop_is_set(s);
}
