/* SPDX-License-Identifier: BSD-2-Clause */
/* op-flush.c - FLUSH: all that was acknowledged on this disk, on any connection, is
 * durable after it.  Stands for:
 *
 *   note what has been published; if that is more than a record should hold, let
 *     the keeper write it to its place;
 *   join the next record, with what is left of it and all items
 *
 * Nothing is written where nothing was changed since the last one.
 */
#include <errno.h>

#include "base/check.h"
#include "store/store-internal.h"

enum flush_stage {
  FLUSH_START,
  FLUSH_COMMIT,
  FLUSH_END,
};

static enum op_next
flush_start (struct request *request)
{
  struct op *op = &request->op;
  struct disk *disk = request->disk;
  struct store *store = disk->store;

  op_count (op, COUNTER_FLUSHES, 1);
  if (store_is_failed (store)) {
    op->error = -EIO;
    return OP_DONE;
  }
  request->version = cache_version (store->cache);
  /* The frames first: write-back logs an item, and then cleans the frame. */
  if (atomic_load (&disk->cache.fresh_count) == 0
      && atomic_load (&disk->last_position) <= journal_start (&store->journal)
      && !atomic_load (&disk->has_write_error))
    return OP_DONE;
  request->fill = fill_acquire (store);
  if (request->fill == NULL) {
    op->error = -ENOMEM;
    return OP_DONE;
  }
  request->fill->writeback.error = 0;
  op->stage = FLUSH_COMMIT;
  if (atomic_load (&disk->cache.fresh_count) <= commit_small_blocks (store)
      && !atomic_load (&disk->has_write_error))
    return OP_MORE;
  request->fill->writeback
    = (struct writeback_request) { .disk = disk, .version = request->version };
  op_expect (op);
  keeper_write_back (store, &request->fill->writeback, op);
  return OP_WAIT;
}

static enum op_next
flush_commit (struct request *request)
{
  struct op *op = &request->op;

  op->stage = FLUSH_END;
  request->fill->commit
    = (struct commit_request) { .disk = request->disk, .version = request->version };
  op_expect (op);
  commit_join (request->disk->store, &request->fill->commit, op);
  return OP_WAIT;
}

static enum op_next
flush_end (struct request *request)
{
  request->op.error = request->fill->writeback.error != 0 ? request->fill->writeback.error
                                                           : request->fill->commit.error;
  fill_release (request->disk->store, request->fill);
  request->fill = NULL;
  return OP_DONE;
}

enum op_next
op_flush_step (struct op *op)
{
  struct request *request = container_of (op, struct request, op);

  switch ((enum flush_stage) op->stage) {
  case FLUSH_START:
    return flush_start (request);
  case FLUSH_COMMIT:
    return flush_commit (request);
  case FLUSH_END:
    return flush_end (request);
  }
  CHECK (false);
}
