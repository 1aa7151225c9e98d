/* SPDX-License-Identifier: BSD-2-Clause */
/* range-lock.c - see range-lock.h.
 *
 * Each request counts those in line that it waits for; it is granted when there are none left.
 * That is first come, first served without any search for whom to grant: a release walks the
 * requests that it excluded and takes itself off their counts.  Requests are few (one or two per
 * op that has missed the cache), so lists do, one per mode: modes that do not exclude each other
 * never look at each other's.
 *
 * That nobody waits for a QUIESCE in line is what makes a release simple, too: whom does it hold
 * back?  All that are not granted, overlap it and exclude its mode.  They all came later, but for
 * an upgrade, which waits for SHARED holders whenever they came.
 */
#include "base/check.h"
#include "base/clock.h"
#include "store/order.h"
#include "store/range-lock.h"

#define BIT(mode) (1u << (mode))

/* The modes that each excludes; symmetric. */
static const unsigned excluded[RANGE_MODES] = {
  [RANGE_SHARED] = BIT (RANGE_EXCLUSIVE),
  [RANGE_WRITE] = BIT (RANGE_QUIESCE) | BIT (RANGE_EXCLUSIVE),
  [RANGE_QUIESCE] = BIT (RANGE_WRITE) | BIT (RANGE_QUIESCE) | BIT (RANGE_EXCLUSIVE),
  [RANGE_EXCLUSIVE] = BIT (RANGE_SHARED) | BIT (RANGE_WRITE) | BIT (RANGE_QUIESCE)
                      | BIT (RANGE_EXCLUSIVE),
};

static bool
excludes (enum range_mode mode, enum range_mode other)
{
  return excluded[mode] & BIT (other);
}

/* Holding HELD is as good as holding MODE. */
static bool
satisfies (enum range_mode held, enum range_mode mode)
{
  return (excluded[mode] & ~excluded[held]) == 0;
}

static struct range_request *
request_of (struct list *link)
{
  return container_of (link, struct range_request, link);
}

static enum order_hold
hold_of (enum range_mode mode)
{
  return mode == RANGE_QUIESCE ? HOLDS_QUIESCE : HOLDS_RANGE;
}

/* REQUEST is not held in this mode any more. */
static void
hold_ends (const struct range_request *request, enum range_mode mode)
{
  if (request->waiter)
    order_drop (request->waiter, hold_of (mode));
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

/* Requests in line, granted or waiting, that exclude a new one at its end. */
static unsigned
count_blockers (struct range_lock *lock, uint64_t first, uint64_t last, enum range_mode mode)
{
  unsigned count = 0;

  for (enum range_mode other = 0; other < RANGE_MODES; other++)
    if (excludes (mode, other))
      count += count_overlaps (&lock->line[other], first, last);
  return count;
}

/* Whether the request must stand beside the line. */
static bool
is_beside (struct range_lock *lock, uint64_t first, uint64_t last, enum range_mode mode)
{
  return excludes (mode, RANGE_QUIESCE)
         && count_overlaps (&lock->line[RANGE_QUIESCE], first, last) > 0;
}

/* To the end of the line; how many it waits for. */
static unsigned
line_join (struct range_lock *lock, struct range_request *request)
{
  request->arrival = lock->arrivals++;
  request->blockers = count_blockers (lock, request->first, request->last, request->mode);
  request->is_granted = request->blockers == 0;
  list_append (&lock->line[request->mode], &request->link);
  return request->blockers;
}

/* Among those who do so already: in order of arrival. */
static void
stand_beside (struct range_lock *lock, struct range_request *request)
{
  struct list *next = lock->beside.next;

  while (next != &lock->beside && request_of (next)->arrival < request->arrival)
    next = next->next;
  list_insert_before (&request->link, next);
}

/* The time is for stat alone: nothing depends on it. */
static void
wait_begins (struct range_lock *lock, struct range_request *request)
{
  atomic_fetch_add_explicit (&lock->waits, 1, memory_order_relaxed);
  request->waits_since = clock_ns ();
}

/* REQUEST was granted after it had to wait: to be woken. */
static void
wait_ends (struct range_lock *lock, struct range_request *request, struct list *wake)
{
  atomic_fetch_add_explicit (&lock->wait_ns, clock_ns () - request->waits_since,
                             memory_order_relaxed);
  list_append (wake, &request->waiter->link);
}

void
range_lock_init (struct range_lock *lock)
{
  CHECK (pthread_mutex_init (&lock->mutex, NULL) == 0);
  for (enum range_mode mode = 0; mode < RANGE_MODES; mode++)
    list_init (&lock->line[mode]);
  list_init (&lock->beside);
  lock->arrivals = 0;
  atomic_init (&lock->waits, 0);
  atomic_init (&lock->wait_ns, 0);
}

void
range_lock_destroy (struct range_lock *lock)
{
  for (enum range_mode mode = 0; mode < RANGE_MODES; mode++)
    CHECK (list_is_empty (&lock->line[mode]));
  CHECK (list_is_empty (&lock->beside));
  pthread_mutex_destroy (&lock->mutex);
}

bool
range_lock_acquire (struct range_lock *lock, struct range_request *request, uint64_t first,
                    uint64_t last, enum range_mode mode, struct waiter *waiter)
{
  bool is_granted = false;

  CHECK (first <= last && waiter);
  order_wait (waiter, WAITS_FOR_RANGE);
  order_take (waiter, hold_of (mode));
  *request = (struct range_request) {
    .first = first,
    .last = last,
    .mode = mode,
    .waiter = waiter,
    .lock = lock,
  };
  pthread_mutex_lock (&lock->mutex);
  if (is_beside (lock, first, last, mode)) {
    request->arrival = lock->arrivals++;
    stand_beside (lock, request);
  }
  else
    is_granted = line_join (lock, request) == 0;
  if (!is_granted)
    wait_begins (lock, request);
  pthread_mutex_unlock (&lock->mutex);
  /* Not request->is_granted: from here on a release may grant and end it. */
  return is_granted;
}

bool
range_lock_try (struct range_lock *lock, struct range_request *request, uint64_t first,
                uint64_t last, enum range_mode mode)
{
  bool is_free;

  CHECK (first <= last);
  pthread_mutex_lock (&lock->mutex);
  is_free = count_blockers (lock, first, last, mode) == 0;
  if (is_free) {
    *request
      = (struct range_request) { .first = first, .last = last, .mode = mode, .lock = lock };
    line_join (lock, request);
  }
  pthread_mutex_unlock (&lock->mutex);
  return is_free;
}

/* The QUIESCE, or whatever kept them beside the line, has gone. */
static void
line_admit (struct range_lock *lock, struct list *wake)
{
  list_for_each_safe (link, &lock->beside) {
    struct range_request *request = request_of (link);

    if (is_beside (lock, request->first, request->last, request->mode))
      continue;
    list_remove (&request->link);
    if (line_join (lock, request) == 0)
      wait_ends (lock, request, wake);
  }
}

bool
range_lock_upgrade (struct range_lock *lock, struct range_request *request, struct waiter *waiter)
{
  struct list wake = LIST_INIT (wake);
  bool is_granted;

  CHECK (waiter);
  order_wait (waiter, WAITS_FOR_UPGRADE);
  hold_ends (request, RANGE_QUIESCE);
  order_take (waiter, HOLDS_RANGE);
  pthread_mutex_lock (&lock->mutex);
  CHECK (request->is_granted && request->mode == RANGE_QUIESCE);
  list_remove (&request->link);
  request->mode = RANGE_EXCLUSIVE;
  request->waiter = waiter;
  list_append (&lock->line[RANGE_EXCLUSIVE], &request->link);
  list_for_each (link, &lock->line[RANGE_SHARED]) {
    struct range_request *shared = request_of (link);

    if (!is_overlap (shared, request->first, request->last))
      continue;
    if (shared->is_granted || shared->arrival < request->arrival)
      request->blockers++;
    else
      shared->blockers++;
  }
  is_granted = request->is_granted = request->blockers == 0;
  request->is_upgrading = !is_granted;
  if (!is_granted)
    wait_begins (lock, request);
  line_admit (lock, &wake);
  /* They all overlap this one. */
  CHECK (list_is_empty (&wake));
  pthread_mutex_unlock (&lock->mutex);
  return is_granted;
}

/* GONE no longer excludes those of MODE that wait for it: all that overlap, if it was granted. */
static void
unblock (struct range_lock *lock, enum range_mode mode, const struct range_request *gone,
         bool was_granted, struct list *wake)
{
  list_for_each (link, &lock->line[mode]) {
    struct range_request *request = request_of (link);

    if (!is_overlap (request, gone->first, gone->last)
        || (!was_granted && request->arrival < gone->arrival))
      continue;
    CHECK (request->blockers > 0);
    CHECK (request->arrival > gone->arrival
           || (request->is_upgrading && gone->mode == RANGE_SHARED));
    if (--request->blockers > 0)
      continue;
    request->is_granted = true;
    request->is_upgrading = false;
    wait_ends (lock, request, wake);
  }
}

/* REQUEST, which waits in line or holds, is in line no more. */
static void
line_leave (struct range_lock *lock, struct range_request *request, struct list *wake)
{
  bool was_granted = request->is_granted;

  list_remove (&request->link);
  request->is_granted = false;
  for (enum range_mode mode = 0; mode < RANGE_MODES; mode++)
    if (excludes (request->mode, mode))
      unblock (lock, mode, request, was_granted, wake);
}

/* Those who wait in line for a QUIESCE that has not been there before. */
static void
line_dismiss (struct range_lock *lock, const struct range_request *quiesce, struct list *wake)
{
  for (enum range_mode mode = 0; mode < RANGE_MODES; mode++) {
    if (!excludes (mode, RANGE_QUIESCE))
      continue;
    list_for_each_safe (link, &lock->line[mode]) {
      struct range_request *request = request_of (link);

      if (request == quiesce || !is_overlap (request, quiesce->first, quiesce->last))
        continue;
      line_leave (lock, request, wake);
      request->blockers = 0;
      stand_beside (lock, request);
    }
  }
}

void
range_lock_downgrade (struct range_lock *lock, struct range_request *request, struct list *wake)
{
  hold_ends (request, RANGE_EXCLUSIVE);
  if (request->waiter)
    order_take (request->waiter, HOLDS_QUIESCE);
  pthread_mutex_lock (&lock->mutex);
  CHECK (request->is_granted && request->mode == RANGE_EXCLUSIVE);
  list_remove (&request->link);
  unblock (lock, RANGE_SHARED, request, true, wake);
  request->mode = RANGE_QUIESCE;
  list_append (&lock->line[RANGE_QUIESCE], &request->link);
  line_dismiss (lock, request, wake);
  line_admit (lock, wake);
  pthread_mutex_unlock (&lock->mutex);
}

void
range_lock_release (struct range_lock *lock, struct range_request *request, struct list *wake)
{
  hold_ends (request, request->mode);
  pthread_mutex_lock (&lock->mutex);
  CHECK (request->is_granted && !list_is_empty (&request->link));
  line_leave (lock, request, wake);
  if (request->mode == RANGE_QUIESCE)
    line_admit (lock, wake);
  pthread_mutex_unlock (&lock->mutex);
}

bool
range_request_holds (const struct range_request *request, const struct range_lock *lock,
                     uint64_t first, uint64_t last, enum range_mode mode)
{
  enum range_mode held = request->is_upgrading ? RANGE_QUIESCE : request->mode;

  return (request->is_granted || request->is_upgrading) && request->lock == lock
         && satisfies (held, mode) && request->first <= first && last <= request->last;
}

bool
range_lock_is_held (struct range_lock *lock, uint64_t first, uint64_t last, enum range_mode mode)
{
  bool is_held = false;

  pthread_mutex_lock (&lock->mutex);
  for (enum range_mode line = 0; line < RANGE_MODES; line++)
    list_for_each (link, &lock->line[line])
      is_held |= range_request_holds (request_of (link), lock, first, last, mode);
  pthread_mutex_unlock (&lock->mutex);
  return is_held;
}
