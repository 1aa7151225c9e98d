/* SPDX-License-Identifier: BSD-2-Clause */
/* space-groups.h - the groups of a store: bitmaps, and what is known about them without looking.
 *
 * Private to space.c, space-groups.c and space-shared.c, which tell of reservations, batches and
 * policy, of single groups, and of blocks with several owners.
 * All under the mutex of struct space.
 */
#ifndef LACUNA_SPACE_GROUPS_H
#define LACUNA_SPACE_GROUPS_H

#include <pthread.h>
#include <stdatomic.h>

#include "store/space.h"

/* Runs that were freed, or lost an owner, and whose batch is not released yet, in the order of
 * their batches. */
struct pending_run {
  uint64_t place;
  uint64_t length;
  uint64_t batch;
  bool is_unshared;            /* in use, but not private before that */
};

#define PENDING_RUNS 127

struct pending_chunk {
  struct pending_chunk *next;
  uint32_t first, count;       /* of runs not released yet: [first, count) */
  struct pending_run runs[PENDING_RUNS];
};

struct group {
  /* One bit per block: it is not free, or not for data at all.  NULL: the group is closed, which
   * it is only while all of its data is free, or none. */
  uint64_t *busy;
  uint64_t *held;              /* free, but the host still holds it; NULL: none, or, of a closed
                                  group, all if held_count is not 0 */
  uint64_t *nodes;             /* one bit per node in use; NULL: none */
  uint32_t free;               /* data blocks */
  uint32_t held_count;
  /* No free run (of held blocks) is longer than this; it may be shorter. */
  uint32_t longest, held_longest;
  uint32_t next;               /* where the last allocation ended */
  uint32_t nodes_used;
  bool is_refused;             /* the host refused a discard: not tried before something is freed */
};

/* A number for each run of blocks; all that are in none have the number `base`.  Neighbouring runs
 * have different ones.  Entries as those of a shared leaf (format.h). */
struct run_numbers {
  struct btree tree;
  uint32_t base;
  uint64_t blocks;             /* in runs */
};

#define STREAM_SLOTS 64
#define NO_GROUP UINT64_MAX

struct space {
  pthread_mutex_t mutex;       /* protects all below */
  struct space_geometry geometry;
  uint64_t group_count;        /* that there can ever be */
  struct group *groups;        /* those known by now, from 0 on; all further ones are free */
  uint64_t groups_known, groups_room;
  struct space_counts counts;  /* but for unsettled, shared and unshared */
  _Atomic uint64_t unsettled;  /* grows under the mutex, shrinks without */
  uint64_t opened_free;        /* free blocks in groups that have a bitmap; >= reserved */
  uint64_t open_hint;          /* no group below is closed and free */
  uint64_t streams[STREAM_SLOTS];  /* current group of each, NO_GROUP */
  uint64_t run_bound;          /* no known group has a longer free run */
  uint64_t discard_bound;      /* nor a longer held one that may be discarded */
  uint64_t discard_next;       /* where the last one that was discarded ended */
  uint64_t batch;              /* the current one */
  struct pending_chunk *pending_first, *pending_last;
  struct pending_chunk *pending_spare;   /* for when there is no memory */
  uint64_t node_hint;          /* no group below has a free node */
  uint64_t nodes_used;
  uint64_t end;
  bool has_logged;             /* that memory was short */
  struct run_numbers shared;   /* owners, where there are several */
  struct run_numbers unshared; /* batches that must be durable before a block is private */
  struct run_numbers seen;     /* opening: owners marked so far */
  bool is_shared_changed;      /* `shared` is not as written last */
  _Atomic uint64_t special;    /* runs in shared and unshared; changed under the mutex */
};

/* The group of a place, and where in it. */
static inline uint64_t
place_group (const struct space *space, uint64_t place)
{
  return place / space->geometry.group_blocks;
}

static inline uint32_t
place_in_group (const struct space *space, uint64_t place)
{
  return place & (space->geometry.group_blocks - 1);
}

/* The data of a group: its blocks from first to end. */
uint32_t group_data_first (const struct space *space, uint64_t number);
uint32_t group_data_end (const struct space *space, uint64_t number);

/* Whether a run lies within the data of one group. */
bool run_is_data (const struct space *space, uint64_t place, uint64_t length);

/* Makes group NUMBER known, and those before it; false: no memory. */
bool group_know (struct space *space, uint64_t number);
/* Gives a known group its bitmap; false: no memory. */
bool group_open (struct space *space, uint64_t number);
/* Takes the bitmap away if the group can do without. */
void group_close (struct space *space, uint64_t number);

/* Held ones from START on, at most MAX. */
uint32_t group_held_at (const struct space *space, uint64_t number, uint32_t start, uint32_t max);
/* Free blocks from START on, at most MAX; and those that are not. */
uint32_t group_free_at (const struct space *space, uint64_t number, uint32_t start, uint32_t max);
uint32_t group_busy_at (const struct space *space, uint64_t number, uint32_t start, uint32_t max);
/* Finds WANTED free blocks in a row, from where the last allocation ended, those that the host
 * holds first (or IS_HELD: only those).  False: there are not so many; `longest` is exact then. */
bool group_find (struct space *space, uint64_t number, uint32_t wanted, bool is_held,
                 uint32_t *start);

/* Free -> not free, and the other way (HELD: the host has space for it).  Counts free and held
 * only.  group_put: false: no memory. */
void group_take (struct space *space, uint64_t number, uint32_t start, uint32_t length);
bool group_put (struct space *space, uint64_t number, uint32_t start, uint32_t length, bool held);
/* Free blocks from START to END count as held. */
void group_hold (struct space *space, uint64_t number, uint32_t start, uint32_t end);
/* All of a group that is closed and free; needs no memory. */
void group_hold_all (struct space *space, uint64_t number);
/* Whether all of a run is free, or all of it not free. */
bool group_is_free (const struct space *space, uint64_t number, uint32_t start, uint32_t length);
bool group_is_busy (const struct space *space, uint64_t number, uint32_t start, uint32_t length);

/* Counts and CHECKs. */
void group_verify (const struct space *space, uint64_t number);

/* --- space-shared.c, under the mutex --- */
void shared_init (struct space *space, struct btree_pool *pool);
/* One owner less for each block; FREED and UNSHARED (may be NULL) as for space_table_release. */
void shared_release (struct space *space, uint64_t place, uint64_t length, space_run *freed,
                     space_run *unshared, void *arg);
/* Opening: a run that is marked is marked once more; false: no memory. */
bool seen_again (struct space *space, uint64_t place, uint64_t length);
/* A batch in which a run lost an owner began, or is durable. */
void unshared_change (struct space *space, uint64_t place, uint64_t length, int change);
void shared_verify (const struct space *space);

/* --- space.c --- */
/* A pending run of the current batch; false: no memory. */
bool pending_add (struct space *space, uint64_t place, uint64_t length, bool is_unshared);
/* A node's place is free. */
void node_release (struct space *space, uint64_t place);

#endif
