/* SPDX-License-Identifier: BSD-2-Clause */
/* range-lock.c - see range-lock.h.
 *
 * Each request counts the earlier ones that exclude it, granted or waiting; it is
 * granted when there are none left.  That is first come, first served without
 * any search for whom to grant: a release walks the later requests that it
 * excluded and takes itself off their counts.  Requests are few (one or two
 * per op that has missed the cache), so lists do; shared ones never look at each other.
 */
#include "base/check.h"
#include "store/range-lock.h"

static struct range_request *
request_of (struct list *link)
{
  return container_of (link, struct range_request, link);
}

static bool
is_overlap (const struct range_request *request, uint64_t first, uint64_t last)
{
  return request->first <= last && first <= request->last;
}

static unsigned
count_overlaps (struct list *requests, uint64_t first, uint64_t last)
{
  unsigned count = 0;

  list_for_each (link, requests)
    count += is_overlap (request_of (link), first, last);
  return count;
}

/* Requests, granted or waiting, that exclude a new one. */
static unsigned
count_blockers (struct range_lock *lock, uint64_t first, uint64_t last, enum range_mode mode)
{
  unsigned count = count_overlaps (&lock->exclusive, first, last);

  if (mode == RANGE_EXCLUSIVE)
    count += count_overlaps (&lock->shared, first, last);
  return count;
}

static void
request_add (struct range_lock *lock, struct range_request *request, uint64_t first,
             uint64_t last, enum range_mode mode, unsigned blockers, struct waiter *waiter)
{
  *request = (struct range_request) {
    .first = first,
    .last = last,
    .mode = mode,
    .is_granted = blockers == 0,
    .arrival = lock->arrivals++,
    .blockers = blockers,
    .waiter = waiter,
  };
  list_append (mode == RANGE_SHARED ? &lock->shared : &lock->exclusive, &request->link);
}

void
range_lock_init (struct range_lock *lock)
{
  CHECK (pthread_mutex_init (&lock->mutex, NULL) == 0);
  list_init (&lock->shared);
  list_init (&lock->exclusive);
  lock->arrivals = 0;
  atomic_init (&lock->waits, 0);
}

void
range_lock_destroy (struct range_lock *lock)
{
  CHECK (list_is_empty (&lock->shared) && list_is_empty (&lock->exclusive));
  pthread_mutex_destroy (&lock->mutex);
}

bool
range_lock_acquire (struct range_lock *lock, struct range_request *request, uint64_t first,
                    uint64_t last, enum range_mode mode, struct waiter *waiter)
{
  unsigned blockers;

  CHECK (first <= last && waiter);
  pthread_mutex_lock (&lock->mutex);
  blockers = count_blockers (lock, first, last, mode);
  request_add (lock, request, first, last, mode, blockers, waiter);
  if (blockers)
    atomic_fetch_add_explicit (&lock->waits, 1, memory_order_relaxed);
  pthread_mutex_unlock (&lock->mutex);
  /* Not request->is_granted: from here on a release may grant and end it. */
  return blockers == 0;
}

bool
range_lock_try (struct range_lock *lock, struct range_request *request, uint64_t first,
                uint64_t last, enum range_mode mode)
{
  bool is_free;

  CHECK (first <= last);
  pthread_mutex_lock (&lock->mutex);
  is_free = count_blockers (lock, first, last, mode) == 0;
  if (is_free)
    request_add (lock, request, first, last, mode, 0, NULL);
  pthread_mutex_unlock (&lock->mutex);
  return is_free;
}

/* RELEASED no longer excludes those of REQUESTS that came after it. */
static void
unblock (struct list *requests, const struct range_request *released, struct list *wake)
{
  list_for_each (link, requests) {
    struct range_request *request = request_of (link);

    if (!is_overlap (request, released->first, released->last))
      continue;
    CHECK (request->arrival > released->arrival && request->blockers > 0);
    if (--request->blockers > 0)
      continue;
    request->is_granted = true;
    list_append (wake, &request->waiter->link);
  }
}

void
range_lock_release (struct range_lock *lock, struct range_request *request, struct list *wake)
{
  pthread_mutex_lock (&lock->mutex);
  CHECK (request->is_granted && !list_is_empty (&request->link));
  list_remove (&request->link);
  request->is_granted = false;
  unblock (&lock->exclusive, request, wake);
  if (request->mode == RANGE_EXCLUSIVE)
    unblock (&lock->shared, request, wake);
  pthread_mutex_unlock (&lock->mutex);
}

static bool
is_covered (struct list *requests, uint64_t first, uint64_t last)
{
  list_for_each (link, requests) {
    const struct range_request *request = request_of (link);

    if (request->is_granted && request->first <= first && last <= request->last)
      return true;
  }
  return false;
}

bool
range_lock_is_held (struct range_lock *lock, uint64_t first, uint64_t last, enum range_mode mode)
{
  bool is_held;

  pthread_mutex_lock (&lock->mutex);
  is_held = is_covered (&lock->exclusive, first, last)
            || (mode == RANGE_SHARED && is_covered (&lock->shared, first, last));
  pthread_mutex_unlock (&lock->mutex);
  return is_held;
}
