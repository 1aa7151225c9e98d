/* SPDX-License-Identifier: BSD-2-Clause */
/* op-status.c - BLOCK_STATUS: which parts of a range are holes, data, or zeros with
 * space.  Stands for:
 *
 *   lock the range shared; lay the dirty blocks over the map; unlock
 *
 * A dirty block is data, whether the map shows a hole, zeros or data.  Dirty blocks are asked for
 * before the map is: what the cache does not report any more is in the map by then (write-back
 * changes the map before it settles the frame).  Neighbours of one kind are told as one.  An answer
 * may cover less than was asked (proto.md, NBD_CMD_BLOCK_STATUS), so the work is bounded:
 * STATUS_EXTENTS_MAX extents of the map per answer.
 */
#include <errno.h>

#include "base/check.h"
#include "store/store-internal.h"

enum status_stage {
  STATUS_LOCK,
  STATUS_LOOK,
};

/* Extents of the map that one request walks. */
#define STATUS_EXTENTS_MAX 65536

/* The next dirty block is looked for so far ahead (1 GiB) by counters, one per MiB; and where there
 * is none, among all that is dirty, whatever the distance, but only so many times in one
 * request. */
#define STATUS_NEAR_BLOCKS (UINT64_C (1) << 18)
#define STATUS_SCANS_MAX 16

static enum op_next
status_lock (struct request *request)
{
  struct op *op = &request->op;
  uint64_t first = request_first_block (request);

  op_count (op, COUNTER_BLOCK_STATUSES, 1);
  CHECK (request->extent_max > 0);
  request->fill = fill_acquire (request->disk->store);
  if (request->fill == NULL) {
    op->error = -ENOMEM;
    return OP_DONE;
  }
  op->stage = STATUS_LOOK;
  op_expect (op);
  if (!range_lock_acquire (&request->disk->range_lock, &request->fill->range, first,
                           first + request_block_count (request) - 1, RANGE_SHARED, &op->waiter))
    return OP_WAIT;
  op_wake (op);
  return OP_MORE;
}

/* Adds [request->at, to), blocks, to the answer; false: it is full. */
static bool
status_add (struct request *request, uint64_t to, uint32_t flags)
{
  uint64_t from = MAX (request->at * BLOCK_SIZE, request->offset);
  uint64_t end = MIN (to * BLOCK_SIZE, request->offset + request->length);
  struct status_extent *last = &request->extents[request->extent_count];

  if (request->extent_count > 0 && last[-1].flags == flags)
    last[-1].length += end - from;
  else if (request->extent_count < request->extent_max) {
    *last = (struct status_extent) { .length = end - from, .flags = flags };
    request->extent_count++;
  }
  else
    return false;
  request->at = to;
  return true;
}

/* Adds EXTENT; false: the answer is full. */
static bool
status_add_extent (struct request *request, const struct extent *extent)
{
  static const uint32_t flags[] = {
    [EXTENT_HOLE] = STATUS_HOLE | STATUS_ZERO,
    [EXTENT_UNWRITTEN] = STATUS_ZERO,
    [EXTENT_WRITTEN] = 0,
  };
  struct extent part = *extent;
  uint64_t end = extent->block + extent->length;

  if (extent->state == EXTENT_HOLE || (request->flags & REQUEST_TELL_SHARED) == 0)
    return status_add (request, end, flags[extent->state]);
  for (; part.block < end; part.block += part.length, part.place += part.length) {
    bool is_shared;

    part.length = end - part.block;
    is_shared = store_needs_space (request->disk->store, &part);
    if (!status_add (request, part.block + part.length,
                     flags[extent->state] | (is_shared ? STATUS_SHARED : 0)))
      return false;
  }
  return true;
}

/* Adds what the map says of [request->at, to); false: the answer is full, or enough was done. */
static bool
status_add_map (struct request *request, uint64_t to, unsigned *budget)
{
  struct fill *fill = request->fill;

  while (request->at < to) {
    unsigned count = extent_map_scan (&request->disk->map, request->at, to - request->at,
                                      fill->extents, ARRAY_COUNT (fill->extents));

    for (unsigned e = 0; e < count; e++)
      if (!status_add_extent (request, &fill->extents[e]))
        return false;
    if (*budget <= count)
      return false;
    *budget -= count;
  }
  return true;
}

/* The first run of dirty blocks in [request->at, end): where, and how long; 0: none before
 * *RUN, which is END unless *SCANS are used up. */
static uint64_t
status_find_dirty (struct request *request, uint64_t end, unsigned *scans, uint64_t *run)
{
  struct disk *disk = request->disk;
  struct cache *cache = disk->store->cache;
  uint64_t near = MIN (end, request->at + STATUS_NEAR_BLOCKS), length = 0;

  *run = end;
  if (atomic_load (&disk->cache.dirty_count) == 0
      || cache_find_dirty (cache, &disk->cache, request->at, near - request->at, run, &length))
    return length;
  *run = near;
  if (near == end || (*scans)-- == 0)
    return 0;
  if (!cache_find_dirty (cache, &disk->cache, near, end - near, run, &length))
    *run = end;
  return length;
}

static enum op_next
status_look (struct request *request)
{
  struct disk *disk = request->disk;
  uint64_t end = request_first_block (request) + request_block_count (request);
  unsigned budget = STATUS_EXTENTS_MAX, scans = STATUS_SCANS_MAX;
  struct list wake = LIST_INIT (wake);
  bool goes_on = true;

  request->at = request_first_block (request);
  CHECK (range_request_holds (&request->fill->range, &disk->range_lock, request->at, end - 1,
                              RANGE_SHARED));
  if (request->flags & REQUEST_ONE_EXTENT)
    request->extent_max = 1;
  while (goes_on && request->at < end) {
    uint64_t run, length = status_find_dirty (request, end, &scans, &run);

    goes_on = status_add_map (request, run, &budget);
    if (goes_on && length > 0)
      goes_on = status_add (request, run + length, 0);
    else if (run < end)
      goes_on = false;
  }
  range_lock_release (&disk->range_lock, &request->fill->range, &wake);
  op_wake_all (&wake);
  fill_release (disk->store, request->fill);
  request->fill = NULL;
  return OP_DONE;
}

enum op_next
op_status_step (struct op *op)
{
  struct request *request = container_of (op, struct request, op);

  switch ((enum status_stage) op->stage) {
  case STATUS_LOCK:
    return status_lock (request);
  case STATUS_LOOK:
    return status_look (request);
  }
  CHECK (false);
}
