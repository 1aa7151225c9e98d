/* SPDX-License-Identifier: BSD-2-Clause */
/* space.h - which blocks of the store are in use, and by how many owners.
 *
 * The store is divided into groups of `group_blocks`; the first `meta_blocks` of each are for
 * metadata nodes, the rest for data (format.h).  What is free is not on the device: it follows
 * from the maps, and is rebuilt from them when a store is opened, so that it can neither be
 * damaged nor disagree with them.
 *
 * Each extent that refers to a block is one of its *owners*.  Nearly all blocks have one; those
 * that a clone has given more stand in a table of runs, which is on the device (a B+tree, written
 * by checkpoints).  A block may be written in place by its owner if it is *private*: it has one
 * owner, and has it durably.  While a power cut could bring back another owner, who would then
 * find there what this one has written, it is not private; so the loss of an owner waits for its
 * batch as a freed block does.
 *
 * Life of a data block:  free -> (reserved, as a number only) -> used -> pending (freed in
 * memory, the freeing is not durable) -> free, but the host still holds space for it -> being
 * discarded (cannot be allocated) -> free.
 * Pending blocks belong to a batch; a batch is released when the record that holds its freeings
 * is durable.
 *
 * Thread-safe: one mutex inside, below which is only that of the pool of nodes.  No I/O, never
 * waits.  Memory: one bit per block (two where the host may hold space for free blocks) for groups
 * that are neither empty nor full; a few bytes per group; 16 bytes per run with several owners.
 * Blocks are numbered from the start of the store.
 */
#ifndef LACUNA_SPACE_H
#define LACUNA_SPACE_H

#include <stdbool.h>
#include <stdint.h>

#include "store/btree.h"

struct space;

struct space_geometry {
  uint64_t group_blocks;     /* power of 2 */
  uint64_t meta_blocks;      /* power of 2, at the start of each group: nodes, then their mirrors */
  uint64_t first_data;       /* data never lies below (superblocks, journal in group 0) */
  uint64_t capacity;         /* blocks, the most that may ever be used */
};

struct space_counts {        /* data blocks */
  uint64_t capacity;         /* that data can ever use */
  uint64_t free;             /* allocatable now */
  uint64_t reserved;         /* promised, out of free */
  uint64_t unsettled;        /* part of reserved of which some may come back at once */
  uint64_t used;             /* mapped, or about to be */
  uint64_t pending;          /* freed, not durable */
  uint64_t discarding;       /* being passed down */
  uint64_t undiscarded;      /* part of free that the host still holds */
  uint64_t shared;           /* part of used that has several owners */
  uint64_t unshared;         /* has lost owners, and not durably so */
  uint64_t withheld;         /* has no owner that is known, and is not to be used nevertheless */
};

/* POOL: for the table of shared runs, which is gone with it.  NULL: no memory. */
struct space *space_create (const struct space_geometry *geometry, struct btree_pool *pool);
void space_destroy (struct space *space);
void space_get_counts (struct space *space, struct space_counts *counts);

/* --- opening --- */
/* A run is in use; false if any of it already is, or is not data: two owners, damage. */
bool space_mark_used (struct space *space, uint64_t place, uint64_t length);
/* The same for a run of which some blocks may have been marked: these have one owner more.  False:
 * it is not data, or no memory. */
bool space_mark_shared (struct space *space, uint64_t place, uint64_t length);
/* After all have been marked: compares that with the table.  Where this has more owners it is
 * corrected, *CORRECTED blocks in all, unless owners MAY_LACK.  False: *WRONG has more than the table knows of; or there is
 * no memory (*WRONG is empty). */
struct space_owners {
  uint64_t place, length;
  uint32_t found, expected;    /* owners: marked, and as the table says */
};
bool space_check_owners (struct space *space, bool may_lack, uint64_t *corrected,
                         struct space_owners *wrong);
/* After that: all below END that is free is not to be used as long as the store is open.  False: no
 * memory. */
bool space_withhold (struct space *space, uint64_t end);
/* A metadata node (and its mirror) is in use; false as above. */
bool space_mark_node (struct space *space, uint64_t place);
/* After an unclean end nobody knows which free blocks the host still holds: all below END count
 * as held. */
void space_mark_undiscarded (struct space *space, uint64_t end);

/* --- promises --- */
/* Sets COUNT blocks aside.  0; -ENOSPC: not enough are free; -ENOMEM: there is no memory to keep
 * count of them.  Reserved blocks are always allocatable. */
int space_reserve (struct space *space, uint64_t count);
void space_unreserve (struct space *space, uint64_t count);
/* As space_reserve, of what may be more than is needed.  The caller finds that out within his step,
 * gives back what is too much, and then says that the promise is settled; who is refused meanwhile
 * has to wait for that (store_wait_space). */
int space_reserve_unsettled (struct space *space, uint64_t count);
void space_settle (struct space *space, uint64_t count);
/* For dirty blocks found at recovery, whose promise was given by an earlier process: never fails.
 * Mark what the maps use first. */
void space_reserve_again (struct space *space, uint64_t count);

/* --- data --- */
/* Turns up to WANTED reserved blocks into one used run: at GOAL if that is free (GOAL 0: no
 * wish), else in the disk's own current group (STREAM, a number per disk), in long free runs
 * first for long wishes.  Returns its length, >= 1 as long as the blocks were reserved. */
uint64_t space_allocate (struct space *space, uint64_t stream, uint64_t goal, uint64_t wanted,
                         uint64_t *place);
/* A run that was allocated and will not be mapped after all (a failed write): used -> reserved
 * again. */
void space_unallocate (struct space *space, uint64_t place, uint64_t length);
/* A run was unmapped by one of its owners.  Blocks that had no other: used -> pending, in the
 * current batch.  Cannot fail (without memory the run stays used until the store is opened again,
 * and is counted in log), given space_reserve_changes. */
void space_free (struct space *space, uint64_t place, uint64_t length);

/* Closes the current batch and returns its number; later frees belong to the next one. */
uint64_t space_close_batch (struct space *space);
/* All batches up to BATCH are durable: their blocks are free (undiscarded), or private. */
void space_release_batches (struct space *space, uint64_t batch);

/* --- owners --- */
/* The most nodes that the pool may be asked for by sharing (IS_SHARING) or freeing RUNS runs that
 * lie anywhere in the store, and all together over not many more runs of the table.  0 as long as
 * nothing is shared. */
uint64_t space_change_nodes (struct space *space, uint64_t runs, bool is_sharing);
/* Sets memory aside for it.  0 or -ENOMEM. */
int space_reserve_changes (struct space *space, uint64_t runs, bool is_sharing);
/* Runs of the table that a run lies over: what sharing or freeing it changes. */
uint64_t space_count_runs (struct space *space, uint64_t place, uint64_t length);
/* Each block of a run, which is used, has one owner more. */
void space_share (struct space *space, uint64_t place, uint64_t length);
/* Whether the block at PLACE, which is used, is private; *LENGTH: the most blocks to look at, and
 * then, of how many from PLACE on it is true.  Costs one load as long as nothing is shared.  No
 * block becomes less private than it was, but by space_share. */
bool space_is_private (struct space *space, uint64_t place, uint64_t *length);

/* Replay: the table only, before anything is marked.  FREED is told the runs that have lost their
 * only owner, UNSHARED those that have one left; under the mutex, must not call back. */
typedef void space_run (void *arg, uint64_t place, uint64_t length);
void space_table_share (struct space *space, uint64_t place, uint64_t length);
void space_table_release (struct space *space, uint64_t place, uint64_t length, space_run *freed,
                          space_run *unshared, void *arg);
/* A run lost owners, and that is not durable before the current batch is. */
void space_mark_unshared (struct space *space, uint64_t place, uint64_t length);

/* The table as a tree, to be loaded, visited and written. */
struct btree *space_shared_tree (struct space *space);
/* After btree_load of it: false if its entries make no sense. */
bool space_check_table (struct space *space);
/* Freezes it if it has changed since it was written last; true: frozen. */
bool space_freeze_shared (struct space *space);
/* btree_thaw, and gives back the places of the nodes that are not in use any more. */
void space_thaw_shared (struct space *space, bool written);

/* --- passing down --- */
/* Takes a run of up to MAX free blocks that the host still holds out of the free ones; 0: there
 * is none.
 * Prefers long runs. */
uint64_t space_discard_begin (struct space *space, uint64_t max, uint64_t *place);
/* The host has it back (or refused: OK false: it stays undiscarded, not to be tried again before
 * something is freed there). */
void space_discard_end (struct space *space, uint64_t place, uint64_t length, bool ok);

/* --- metadata nodes --- */
/* A place for a node (its mirror is place ^ (meta_blocks / 2)); 0: metadata is full. */
uint64_t space_allocate_node (struct space *space);
/* The superblock that no longer refers to it is durable: free at once. */
void space_free_node (struct space *space, uint64_t place);
uint64_t space_node_capacity (struct space *space);
uint64_t space_nodes_used (struct space *space);

/* The end of what is in use or has been: a file need not be longer (blocks). */
uint64_t space_end (struct space *space);

/* For tests: recounts all and CHECKs free + used + pending + discarding = capacity. */
void space_verify (struct space *space);

#endif
