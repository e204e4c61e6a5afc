#include "cdc/pipeline/parked.h"

#include <stdlib.h>

#define CAP_MIN 64

void cdc_parked_clear(struct cdc_parked *p)
{
	free(p->keys);
	free(p->wakes);
	free(p->ids);
	free(p->was_read);
	*p = (struct cdc_parked){0};
}

/* 0 stands for a free place. */
static uint64_t stored(uint64_t hash)
{
	return hash ? hash : 1;
}

static size_t place_of(const struct cdc_parked_key *keys, size_t cap, uint64_t hash)
{
	size_t i = hash & (cap - 1);

	while (keys[i].hash && keys[i].hash != hash)
		i = (i + 1) & (cap - 1);
	return i;
}

struct cdc_parked_key *cdc_parked_find(const struct cdc_parked *p, uint64_t hash)
{
	struct cdc_parked_key *key;

	if (p->n == 0)
		return NULL;
	key = &p->keys[place_of(p->keys, p->cap, stored(hash))];
	return key->hash ? key : NULL;
}

static bool grow(struct cdc_parked *p)
{
	size_t cap = p->cap ? p->cap * 2 : CAP_MIN;
	struct cdc_parked_wake *wakes = reallocarray(p->wakes, cap / 2, sizeof(*wakes));
	struct cdc_parked_key *grown;

	if (!wakes)
		return false;
	p->wakes = wakes;
	grown = calloc(cap, sizeof(*grown));
	if (!grown)
		return false;
	for (size_t i = 0; i < p->cap; i++) {
		if (p->keys[i].hash)
			grown[place_of(grown, cap, p->keys[i].hash)] = p->keys[i];
	}
	free(p->keys);
	p->keys = grown;
	p->cap = cap;
	return true;
}

/* --- wakes -------------------------------------------------------------------------- */

static void put_wake(struct cdc_parked *p, size_t at, struct cdc_parked_wake wake)
{
	p->wakes[at] = wake;
	p->keys[place_of(p->keys, p->cap, wake.hash)].place = at;
}

/* In place of the one that is there. */
static void sift(struct cdc_parked *p, size_t at, struct cdc_parked_wake wake)
{
	while (at && p->wakes[(at - 1) / 2].at_us > wake.at_us) {
		put_wake(p, at, p->wakes[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	for (;;) {
		size_t child = at * 2 + 1;

		if (child + 1 < p->n && p->wakes[child + 1].at_us < p->wakes[child].at_us)
			child++;
		if (child >= p->n || p->wakes[child].at_us >= wake.at_us)
			break;
		put_wake(p, at, p->wakes[child]);
		at = child;
	}
	put_wake(p, at, wake);
}

void cdc_parked_wake(struct cdc_parked *p, const struct cdc_parked_key *key, int64_t at_us)
{
	sift(p, key->place, (struct cdc_parked_wake){.at_us = at_us, .hash = key->hash});
}

struct cdc_parked_key *cdc_parked_first(const struct cdc_parked *p, int64_t *ret_at_us)
{
	if (p->n == 0)
		return NULL;
	*ret_at_us = p->wakes[0].at_us;
	return cdc_parked_find(p, p->wakes[0].hash);
}

/* --- keys --------------------------------------------------------------------------- */

enum cdc_code cdc_parked_add(struct cdc_parked *p, uint64_t hash, uint64_t table_hash,
			     struct cdc_parked_key **ret, struct cdc_err *err)
{
	struct cdc_parked_key *key = cdc_parked_find(p, hash);

	if (key) {
		*ret = key;
		return CDC_OK;
	}
	if (p->n >= CDC_PARKED_KEYS_MAX) {
		(void)cdc_err_set(err, CDC_LIMIT,
				  "%d keys are parked, and no more are kept; the sync sends only "
				  "what is parked until there are less, and skips nothing",
				  CDC_PARKED_KEYS_MAX);
		return cdc_err_remedy(err, "make the endpoint accept these records, or leave what "
					   "it refuses out of the sync and start walpost again");
	}
	if ((p->n + 1) * 2 > p->cap && !grow(p))
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a parked key");
	key = &p->keys[place_of(p->keys, p->cap, stored(hash))];
	*key = (struct cdc_parked_key){
		.hash = stored(hash), .table_hash = table_hash, .place = p->n};
	p->wakes[p->n++] = (struct cdc_parked_wake){.at_us = INT64_MAX, .hash = key->hash};
	*ret = key;
	return CDC_OK;
}

void cdc_parked_remove(struct cdc_parked *p, uint64_t hash)
{
	struct cdc_parked_key *key = cdc_parked_find(p, hash);
	size_t hole, i, place;

	if (!key)
		return;
	place = key->place;
	hole = (size_t)(key - p->keys);
	/* What a search would no longer find behind the hole moves into it. */
	for (i = (hole + 1) & (p->cap - 1); p->keys[i].hash; i = (i + 1) & (p->cap - 1)) {
		size_t home = p->keys[i].hash & (p->cap - 1);

		if (((i - home) & (p->cap - 1)) >= ((i - hole) & (p->cap - 1))) {
			p->keys[hole] = p->keys[i];
			hole = i;
		}
	}
	p->keys[hole] = (struct cdc_parked_key){0};
	p->n--;
	/* The last one takes its place. */
	if (place < p->n)
		sift(p, place, p->wakes[p->n]);
}

bool cdc_parked_has_before(const struct cdc_parked *p, uint64_t table_hash, const struct cdc_id *id)
{
	for (size_t i = 0; p->n && i < p->cap; i++) {
		const struct cdc_parked_key *key = &p->keys[i];

		if (key->hash && key->table_hash == table_hash &&
		    (key->unwritten || cdc_id_cmp(&key->head, id) < 0))
			return true;
	}
	return false;
}

void cdc_parked_set_head(struct cdc_parked_key *key, const struct cdc_park_head *head)
{
	bool is_same = cdc_id_cmp(&key->head, &head->id) == 0;

	if (!is_same) {
		key->suspect = (struct cdc_suspect){0};
		key->failed_at = 0;
		key->misses = 0;
		key->tried_us = 0;
		key->must_be_alone = false;
	}
	key->head = head->id;
	key->attempts = head->attempts;
	key->step = head->step;
	/* What proved nothing is not in the store: its wait goes on.  So does one that was cut. */
	if (!is_same || (head->next_us != key->stored_us &&
			 ((!key->misses && !key->must_be_alone) || key->due_us < head->next_us)))
		key->due_us = head->next_us;
	key->stored_us = head->next_us;
}

static void forget_ids(struct cdc_parked *p)
{
	free(p->ids);
	free(p->was_read);
	p->ids = NULL;
	p->was_read = NULL;
	p->id_n = 0;
}

enum cdc_code cdc_parked_set_ids(struct cdc_parked *p, struct cdc_id *ids, size_t n,
				 struct cdc_err *err)
{
	forget_ids(p);
	p->ids = ids;
	if (n == 0)
		return CDC_OK;
	p->was_read = calloc(n, sizeof(*p->was_read));
	if (!p->was_read) {
		forget_ids(p);
		return cdc_err_set(err, CDC_NOMEM, "out of memory for parked records");
	}
	p->id_n = n;
	return CDC_OK;
}

static int compare(const void *a, const void *b)
{
	return cdc_id_cmp(a, b);
}

/* Its place among the ids, or id_n. */
static size_t find_id(const struct cdc_parked *p, const struct cdc_id *id)
{
	const struct cdc_id *found =
		p->id_n ? bsearch(id, p->ids, p->id_n, sizeof(*p->ids), compare) : NULL;

	return found ? (size_t)(found - p->ids) : p->id_n;
}

bool cdc_parked_had(const struct cdc_parked *p, const struct cdc_id *id)
{
	return find_id(p, id) < p->id_n;
}

bool cdc_parked_meet(struct cdc_parked *p, const struct cdc_id *id)
{
	size_t at = find_id(p, id);

	if (at == p->id_n)
		return false;
	p->was_read[at] = true;
	return true;
}

bool cdc_parked_is_ahead(const struct cdc_parked *p, const struct cdc_id *id)
{
	size_t at = find_id(p, id);

	return at < p->id_n && !p->was_read[at] && cdc_id_cmp(id, &p->passed) > 0;
}

void cdc_parked_pass(struct cdc_parked *p, const struct cdc_id *checkpoint)
{
	p->passed = *checkpoint;
	if (p->id_n && cdc_id_cmp(checkpoint, &p->ids[p->id_n - 1]) >= 0)
		forget_ids(p);
}

static bool counts(struct cdc_parked_key *key, const struct cdc_attempt *a)
{
	bool has_accepted = a->accepted_begun > key->failed_at;

	if (a->result->is_never_record)
		return false;
	if (key->attempts)
		return !a->result->is_transient || has_accepted || a->is_urgent;
	if (!cdc_suspect_fail(&key->suspect, a->result,
			      &(struct cdc_suspect_rule){.at = a->at,
							 .accepted_begun = a->accepted_begun,
							 .attempts = a->attempts,
							 .after_ms = a->after_ms,
							 .now_ms = a->now_ms}))
		return false;
	key->attempts = key->suspect.failures - 1;
	return true;
}

enum cdc_attempt_verdict cdc_parked_judge(struct cdc_parked_key *key, const struct cdc_attempt *a)
{
	bool was_known = key->attempts != 0;
	bool is_counted = counts(key, a);

	key->failed_at = a->at;
	if (!is_counted) {
		key->misses += key->misses < 16;
		return CDC_ATTEMPT_NOTHING;
	}
	key->misses = 0;
	key->attempts++;
	key->step += was_known;
	return key->step >= a->steps ? CDC_ATTEMPT_DEAD : CDC_ATTEMPT_AGAIN;
}
