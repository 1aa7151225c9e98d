/* SPDX-License-Identifier: BSD-2-Clause */
/* promise.c - what a write is promised when it is accepted, so that write-back and checkpoint cannot
 * run out: blocks in the store, on the host's file system, and places for nodes.
 *
 * A checkpoint writes new nodes beside those that the device has, and must keep these until its
 * superblock is durable.  So half of the places is the most that maps may ever need: then there is
 * room for all of them to be written anew, even if each has changed.  How many they are is known;
 * how many more the blocks that are dirty and without a place will make of them is not, before they
 * are in the maps.  What they can is bounded: each insertion splits two nodes, seldom more; and a
 * node that was split is half empty, so many insertions in the same splits do not split it again.
 * That bound is far from what happens, so where it is in the way write-back comes first, and what
 * it has left is counted.
 */
#include <errno.h>

#include "base/check.h"
#include "store/store-internal.h"

/* --- nodes --- */

static uint64_t
node_count (struct store *store)
{
  return btree_pool_present (store->pool) + atomic_load (&store->disk_count);
}

/* So many that changes of UNPLACED blocks may make of COUNT nodes. */
static uint64_t
node_growth (uint64_t count, uint64_t unplaced)
{
  return MIN (2 * unplaced, count + unplaced / (LEAF_ENTRIES / 4));
}

/* How many there may be in the end, for USE. */
static uint64_t
node_limit (struct store *store, enum node_use use)
{
  uint64_t places = space_node_capacity (store->space), limit = places / 2;

  switch (use) {
  case NODES_FOR_HOLES:
    break;
  case NODES_FOR_DATA:
    limit -= places / 32 + 2;
    break;
  case NODES_FOR_DISKS:
    limit -= places / 8 + 2;
    break;
  }
  return limit;
}

enum node_room
store_node_room (struct store *store, uint64_t more, uint64_t blocks, enum node_use use)
{
  uint64_t limit = node_limit (store, use), unplaced, count;
  struct space_counts counts;

  /* Mostly there is room whatever is dirty. */
  count = node_count (store) + more;
  if (count + node_growth (count, store->arena->frame_count + blocks) <= limit)
    return NODES_FIT;
  /* In the order in which a block is promised, being placed, and mapped, so that none is missed. */
  space_get_counts (store->space, &counts);
  unplaced = counts.reserved + atomic_load (&store->placing);
  count = node_count (store) + more;
  if (count + node_growth (count, unplaced + blocks) <= limit)
    return NODES_FIT;
  return unplaced > 0 && count + node_growth (count, blocks) <= limit ? NODES_FIT_LATER
                                                                      : NODES_DO_NOT_FIT;
}

enum op_next
store_wait_nodes (struct store *store, struct writeback_request *request, struct op *op)
{
  *request = (struct writeback_request) { .version = cache_version (store->cache) };
  op_expect (op);
  keeper_write_back (store, request, op);
  return OP_WAIT;
}

/* --- blocks --- */

/* Blocks of the host's file system that a sparse file must leave alone: its journal and nodes, and
 * what others write between two looks, have to fit too. */
#define STORE_HOST_MARGIN (16 * MIB / BLOCK_SIZE)

void
store_look_at_host (struct store *store)
{
  uint64_t free = device_host_free (store->device);
  struct space_counts counts;

  if (free == UINT64_MAX) {
    atomic_store (&store->host_room, INT64_MAX / 2);
    return;
  }
  /* What is promised already will be taken.  What is free here and not passed down yet is left out:
   * after a crash nobody knows what of it the host still holds. */
  space_get_counts (store->space, &counts);
  atomic_store (&store->host_room, (int64_t) (free / BLOCK_SIZE)
                                     - (int64_t) (counts.reserved + STORE_HOST_MARGIN));
}

static unsigned
percent_of (uint64_t taken, uint64_t left)
{
  return left == 0 ? 100 : MIN (99, (double) taken * 100 / ((double) taken + left));
}

unsigned
store_full_percent (struct store *store)
{
  int64_t host = atomic_load (&store->host_room);
  struct space_counts counts;
  uint64_t taken, nodes, limit;
  unsigned percent = 0;

  space_get_counts (store->space, &counts);
  taken = counts.used + counts.reserved;
  if (from_le64 (store->superblock.capacity) != 0)
    percent = percent_of (taken, counts.free - MIN (counts.free, counts.reserved)
                                   + counts.pending + counts.discarding);
  nodes = node_count (store);
  limit = node_limit (store, NODES_FOR_DATA);
  percent = MAX (percent, percent_of (nodes, limit - MIN (nodes, limit)));
  if (host < INT64_MAX / 4)
    percent = MAX (percent, percent_of (taken, MAX (host, 0)));
  return percent;
}

int
store_promise (struct store *store, uint64_t count)
{
  int error = 0;

  if (count == 0)
    return 0;
  if (store_node_room (store, 0, count, NODES_FOR_DATA) != NODES_FIT)
    return -ENOSPC;
  if (atomic_fetch_sub (&store->host_room, count) < (int64_t) count)
    error = -ENOSPC;
  if (error == 0)
    error = space_reserve_unsettled (store->space, count);
  if (error != 0)
    atomic_fetch_add (&store->host_room, count);
  return error;
}

void
store_settle (struct store *store, uint64_t count, uint64_t left)
{
  if (left > 0) {
    space_unreserve (store->space, left);
    atomic_fetch_add (&store->host_room, left);
  }
  if (count > 0)
    space_settle (store->space, count);
}

enum op_next
store_wait_space (struct store *store, uint64_t count, unsigned *waits, struct fill *fill,
                  struct op *op)
{
  enum node_room nodes = store_node_room (store, 0, count, NODES_FOR_DATA);
  int64_t host = atomic_load (&store->host_room);
  struct space_counts counts;

  if (nodes == NODES_FIT_LATER && fill->writeback.error == 0)
    return store_wait_nodes (store, &fill->writeback, op);
  if (nodes != NODES_FIT)
    return OP_DONE;
  space_get_counts (store->space, &counts);
  if (counts.free >= counts.reserved + count && host >= (int64_t) count)
    return OP_MORE;
  if (counts.unsettled > 0 && counts.free + counts.unsettled >= counts.reserved + count
      && host + (int64_t) counts.unsettled >= (int64_t) count)
    return OP_YIELD;
  if ((counts.pending == 0 && counts.discarding == 0 && counts.unshared == 0)
      || *waits == SPACE_WAITS_MAX)
    return OP_DONE;
  ++*waits;
  op_expect (op);
  if (counts.pending == 0 && counts.unshared == 0 && keeper_wait_discard (store, &op->waiter))
    return OP_WAIT;
  fill->commit = (struct commit_request) { .disk = NULL };
  commit_join (store, &fill->commit, op);
  return OP_WAIT;
}

bool
store_needs_space (struct store *store, struct extent *extent)
{
  return extent->state == EXTENT_HOLE
         || !space_is_private (store->space, extent->place, &extent->length);
}
