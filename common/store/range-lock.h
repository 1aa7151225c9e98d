/* SPDX-License-Identifier: BSD-2-Clause */
/* range-lock.h - locks on ranges of blocks of one disk, in four modes.
 *
 *                          excludes  SHARED  WRITE  QUIESCE  EXCLUSIVE
 *   SHARED     uses mappings            -      -       -         x
 *   WRITE      makes blocks dirty       -      -       x         x
 *   QUIESCE    keeps writers off        -      x       x         x
 *   EXCLUSIVE  changes mappings         x      x       x         x
 *
 * Whatever uses a mapping (read miss, fill, write-back, block status) holds its range SHARED from
 * before the map is looked up until the result is published or the I/O to the looked-up blocks has
 * ended; a WRITE likewise, in a mode of its own.  Whatever changes or frees mappings (TRIM,
 * WRITE_ZEROES, shrink, delete) holds it EXCLUSIVE from before the frames are dropped until the map
 * is changed and logged.  That is all that keeps a late fill from bringing back what is being
 * deallocated (Linux: mapping->invalidate_lock, Documentation/filesystems/locking.rst).
 *
 * What moves mappings or shares them must have all that is dirty in its place before: it holds the
 * range QUIESCE while it is written back, which happens SHARED, and then upgrades: the granted
 * request becomes EXCLUSIVE, with nobody in between (Linux: the inode's lock, and invalidate_lock
 * inside it).  And what has moved mappings keeps writers off until that is durable, again QUIESCE:
 * until then the blocks' places are, after a power cut, those of other blocks.
 *
 * A cache hit takes no lock.  SHARED and WRITE holders never exclude each other.  First come, first
 * served: a waiting EXCLUSIVE holds back later SHARED requests on its range.  But what QUIESCE
 * excludes does not stand in that line; it stands beside, until the QUIESCE was released or
 * upgraded, and comes to the line's end then.  Otherwise a SHARED request behind it would wait for
 * the holder of the QUIESCE, and he for write-back, which may be what that request is for.  So:
 *
 *   a SHARED request never waits, not even by way of others, for a QUIESCE.
 *
 * range_lock_try does not queue: it is for optional populators.
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

enum range_mode { RANGE_SHARED, RANGE_WRITE, RANGE_QUIESCE, RANGE_EXCLUSIVE };

#define RANGE_MODES 4

struct range_lock {
  pthread_mutex_t mutex;
  struct list line[RANGE_MODES];   /* requests, granted and waiting; order is told by arrival */
  struct list beside;              /* not in line: excluded by a QUIESCE; in order of arrival */
  uint64_t arrivals;
  _Atomic uint64_t waits;          /* requests that had to wait, for stat; */
  _Atomic uint64_t wait_ns;        /* and how long, all together */
};

/* [first, last], blocks, both included. */
struct range_request {
  uint64_t first;
  uint64_t last;
  enum range_mode mode;        /* that it has or wants */
  bool is_granted;             /* read it under the lock, or after being woken */
  bool is_upgrading;           /* holds QUIESCE, waits for EXCLUSIVE */
  uint64_t arrival;            /* its place in line */
  uint64_t waits_since;        /* monotonic clock, ns */
  unsigned blockers;           /* requests in line that it waits for; 0 = granted */
  struct waiter *waiter;       /* woken when granted; NULL: range_lock_try's */
  struct range_lock *lock;
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

/* A granted QUIESCE request becomes EXCLUSIVE without being let go: it keeps its place in line, so
 * it waits for nobody but for those who hold its range SHARED, or came for that before itself; who
 * comes later waits for it.  True: granted now.  False: WAITER will be handed back by the release
 * that grants it; until then it is QUIESCE still.  Not to be released before. */
bool range_lock_upgrade (struct range_lock *lock, struct range_request *request,
                         struct waiter *waiter);

/* A granted EXCLUSIVE request becomes QUIESCE without being let go: readers come in, and writers that
 * stand in line for it stand beside from now on. */
void range_lock_downgrade (struct range_lock *lock, struct range_request *request,
                           struct list *wake);

/* Ends a granted request; those that it held back are appended to WAKE. */
void range_lock_release (struct range_lock *lock, struct range_request *request,
                         struct list *wake);

/* For CHECKs of the op that has made REQUEST: it holds [first, last] in this mode, or in one that
 * excludes as much.  Takes no mutex. */
bool range_request_holds (const struct range_request *request, const struct range_lock *lock,
                          uint64_t first, uint64_t last, enum range_mode mode);

/* For CHECKs: somebody holds [first, last] in this mode, or in one that excludes as much. */
bool range_lock_is_held (struct range_lock *lock, uint64_t first, uint64_t last,
                         enum range_mode mode);

#endif
