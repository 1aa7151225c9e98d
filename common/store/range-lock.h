/* SPDX-License-Identifier: BSD-2-Clause */
/* range-lock.h - shared and exclusive locks on ranges of blocks of one disk.
 *
 * Whatever uses a mapping (read miss, fill, reservation, write-back, block
 * status) holds its range shared from before the map is looked up until the
 * result is published or the I/O to the looked-up blocks has ended.  Whatever
 * changes or frees mappings (TRIM, WRITE_ZEROES, shrink, delete) holds it exclusive from
 * before the frames are dropped until the map is changed and logged.  That is
 * all that keeps a late fill from bringing back what is being deallocated (Linux:
 * mapping->invalidate_lock, Documentation/filesystems/locking.rst).
 *
 * A cache hit takes no lock.  Shared holders never exclude each other.  First
 * come, first served: a waiting exclusive holds back later shared requests on its
 * range.  range_lock_try does not queue: it is for optional populators.
 *
 * Nothing here blocks a thread.  A request that must wait is queued; release moves
 * what became granted onto the caller's list of waiters, to be woken after the
 * call.  The request lives inside the op that makes it: the lock allocates nothing
 * and cannot fail.  Safe from any thread; the mutex inside is a leaf.
 */
#ifndef LACUNA_RANGE_LOCK_H
#define LACUNA_RANGE_LOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/waiter.h"

enum range_mode { RANGE_SHARED, RANGE_EXCLUSIVE };

struct range_lock {
  pthread_mutex_t mutex;
  struct list shared;          /* shared requests, granted and waiting, in order of arrival */
  struct list exclusive;       /* exclusive ones */
  uint64_t arrivals;
  _Atomic uint64_t waits;      /* requests that had to wait, for stat */
};

/* [first, last], blocks, both included. */
struct range_request {
  uint64_t first;
  uint64_t last;
  enum range_mode mode;
  bool is_granted;             /* read it under the lock, or after being woken */
  uint64_t arrival;
  unsigned blockers;           /* earlier requests that exclude this one; 0 = granted */
  struct waiter *waiter;       /* woken when granted */
  struct list link;
};

void range_lock_init (struct range_lock *lock);
/* Nobody may hold or wait. */
void range_lock_destroy (struct range_lock *lock);

/* Fills REQUEST.  True: granted now.  False: queued, WAITER will be handed back by the
 * release that grants it. */
bool range_lock_acquire (struct range_lock *lock, struct range_request *request,
                         uint64_t first, uint64_t last, enum range_mode mode,
                         struct waiter *waiter);

/* As acquire, but gives up where it would have to wait: false, nothing queued. */
bool range_lock_try (struct range_lock *lock, struct range_request *request,
                     uint64_t first, uint64_t last, enum range_mode mode);

/* Ends a granted request; those that it held back are appended to WAKE. */
void range_lock_release (struct range_lock *lock, struct range_request *request,
                         struct list *wake);

/* For CHECKs: somebody holds a granted request of this mode (EXCLUSIVE also
 * satisfies SHARED) that covers all of [first, last]. */
bool range_lock_is_held (struct range_lock *lock, uint64_t first, uint64_t last,
                         enum range_mode mode);

#endif
