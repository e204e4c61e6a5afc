/*
 * curl_floor - how many requests per second a bare libcurl-multi loop makes.
 *
 *   curl_floor URL BODY_FILE REQUESTS CONCURRENCY
 *
 * Posts the same body again and again, each of CONCURRENCY easy handles with one
 * request in flight on a connection that is kept.  Anything but 200 ends it with
 * code 1.  Prints one line of JSON.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_BODY = 16 << 20, MAX_HANDLES = 1024 };

struct run {
	CURLM *multi;
	unsigned long wanted, begun, done;
};

static size_t discard(char *data, size_t size, size_t n, void *arg)
{
	(void)data;
	(void)arg;
	return size * n;
}

static char *read_body(const char *path, size_t *ret_len)
{
	FILE *f = fopen(path, "rb");
	char *body = f ? malloc(MAX_BODY) : NULL;

	if (body)
		*ret_len = fread(body, 1, MAX_BODY, f);
	if (f)
		(void)fclose(f);
	return body;
}

static CURL *new_handle(const char *url, const char *body, size_t len, struct curl_slist *headers)
{
	CURL *easy = curl_easy_init();

	if (!easy)
		return NULL;
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(easy, CURLOPT_POST, 1L);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, discard);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	return easy;
}

/* Takes finished requests and begins the next one on the same handle. */
static int turn(struct run *r)
{
	CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(r->multi, &left))) {
		CURL *easy = msg->easy_handle;
		CURLcode result = msg->data.result;
		long status = 0;

		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		if (result != CURLE_OK || status != 200) {
			fprintf(stderr, "curl_floor: %s, status %ld\n", curl_easy_strerror(result),
				status);
			return -1;
		}
		r->done++;
		curl_multi_remove_handle(r->multi, easy);
		if (r->begun < r->wanted) {
			curl_multi_add_handle(r->multi, easy);
			r->begun++;
		}
	}
	return 0;
}

static int loop(struct run *r)
{
	int running;

	while (r->done < r->wanted) {
		if (curl_multi_perform(r->multi, &running) != CURLM_OK)
			return -1;
		if (turn(r))
			return -1;
		if (r->done < r->wanted &&
		    curl_multi_poll(r->multi, NULL, 0, 1000, NULL) != CURLM_OK)
			return -1;
	}
	return 0;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	struct run r = {0};
	struct curl_slist *headers = NULL;
	CURL *handles[MAX_HANDLES] = {0};
	size_t len = 0, n, i;
	double begin, took;
	char *body;
	int rc = 1;

	if (argc != 5) {
		fprintf(stderr, "usage: curl_floor URL BODY_FILE REQUESTS CONCURRENCY\n");
		return 2;
	}
	body = read_body(argv[2], &len);
	r.wanted = strtoul(argv[3], NULL, 10);
	n = strtoul(argv[4], NULL, 10);
	if (!body || !len || n < 1 || n > MAX_HANDLES) {
		fprintf(stderr, "curl_floor: bad body file or concurrency\n");
		free(body);
		return 2;
	}

	curl_global_init(CURL_GLOBAL_ALL);
	headers = curl_slist_append(NULL, "Content-Type: application/json");
	r.multi = curl_multi_init();
	begin = seconds();
	for (i = 0; i < n; i++) {
		handles[i] = new_handle(argv[1], body, len, headers);
		if (!handles[i])
			goto out;
		if (r.begun < r.wanted) {
			curl_multi_add_handle(r.multi, handles[i]);
			r.begun++;
		}
	}
	if (loop(&r))
		goto out;
	took = seconds() - begin;
	printf("{\"requests\": %lu, \"body_bytes\": %zu, \"seconds\": %.6f, "
	       "\"requests_per_second\": %.1f}\n",
	       r.done, len, took, (double)r.done / took);
	rc = 0;
out:
	for (i = 0; i < n; i++) {
		if (handles[i])
			curl_multi_remove_handle(r.multi, handles[i]);
		curl_easy_cleanup(handles[i]);
	}
	curl_multi_cleanup(r.multi);
	curl_slist_free_all(headers);
	curl_global_cleanup();
	free(body);
	return rc;
}
