/* SPDX-License-Identifier: BSD-2-Clause */
/* journal.h - the tail: items of changes that are not on the device yet, in the arena.
 *
 * Every change of a map or of a disk is an item (format.h), appended to the tail within the gate,
 * before the change itself.  A *position* counts item bytes since the store was made.  What lies
 * between tail_start and tail_end is in the arena only; a record (commit.c) takes it to the device.
 * A checkpoint does not: its nodes have what the items say of the maps, but an UNMAP or a RETIRE
 * among them may void DATA of a record that is there already (checkpoint.c).
 *
 * Room is reserved before any range is locked, so that an append cannot fail: journal_reserve
 * queues the op if the tail is full, and the keeper makes room.  Ops have half of it; the third
 * quarter is write-back's, since ops that have their room may be waiting for one that waits for
 * write-back (range-lock.h, QUIESCE); the last one a checkpoint's, which must never wait for a
 * commit, since a commit may wait for the checkpoint.
 *
 * Any thread; the mutex inside is a leaf.  No I/O here.
 */
#ifndef LACUNA_JOURNAL_H
#define LACUNA_JOURNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/waiter.h"
#include "store/arena.h"
#include "store/format.h"

/* The most bytes one item can take. */
#define JOURNAL_ITEM_MAX                                                                           \
  align_up (sizeof (struct format_item) + sizeof (struct format_item_disk), 8)
#define JOURNAL_RANGE_ITEM sizeof (struct format_item)

struct journal {
  pthread_mutex_t mutex;
  struct arena *arena;
  uint64_t reserved;            /* bytes promised to ops that have not appended yet */
  struct list waiters;          /* struct journal_waiter, first come first served */
  bool is_wanted;               /* somebody waits for room: the keeper must commit */
  bool is_closed;               /* there will be no more room */
};

struct journal_waiter {
  struct waiter *waiter;
  uint64_t bytes;
  bool is_refused;              /* by journal_close: nothing is reserved */
  struct list link;
};

void journal_init (struct journal *journal, struct arena *arena);
void journal_destroy (struct journal *journal);

/* True: BYTES are reserved.  False: REQUEST waits; its waiter is handed back by the journal_advance
 * that makes room, and has them then.  In both cases, unless it is_refused. */
bool journal_reserve (struct journal *journal, uint64_t bytes, struct journal_waiter *request,
                      struct waiter *waiter);
/* The store has failed: who waits for room, and who comes later and finds none, is refused. */
void journal_close (struct journal *journal, struct list *wake);
/* For the keeper, which does not queue: from the third quarter too, with ALL from the last one.
 * False: not there. */
bool journal_reserve_keeper (struct journal *journal, uint64_t bytes, bool all);
/* Gives back what was reserved and not appended. */
void journal_unreserve (struct journal *journal, uint64_t bytes, struct list *wake);

/* Appends one item (kind, flags, disk, block, length, place; with EXTRA bytes after it), out of
 * what was reserved.  Within the gate.  Returns the position after it. */
uint64_t journal_append (struct journal *journal, enum format_item_kind kind, uint32_t flags,
                         uint64_t disk, uint64_t block, uint64_t length, uint64_t place,
                         const void *extra, size_t extra_bytes);

uint64_t journal_start (struct journal *journal);     /* positions before are on the device */
uint64_t journal_end (struct journal *journal);
/* More than three eighths of the tail are in use or promised, or somebody waits; and a commit would
 * help. */
bool journal_is_pressed (struct journal *journal);

/* Copies items [from, to) out of the ring. */
void journal_copy (struct journal *journal, uint64_t from, uint64_t to, void *bytes);

/* All before POSITION is on the device now. */
void journal_advance (struct journal *journal, uint64_t position, struct list *wake);

#endif
