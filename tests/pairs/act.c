/* SPDX-License-Identifier: BSD-2-Clause */
/* act.c - one act of a worker, from its beginning to its end. */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "pairs.h"
#include "../sim/blocking.h"
#include "store/store-internal.h"

/* A disk that can be deleted is one for each site. */
static const char *
disk_name (const struct run *run, unsigned disk, char name[32])
{
  if (disk == SUBJECT && pair_deletes (run->pair))
    snprintf (name, 32, "subject-%" PRIu64, run->site);
  else
    snprintf (name, 32, "%s", disk == SUBJECT ? "subject" : disk == PARTNER ? "partner" : "chaser");
  return name;
}

uint64_t
site_offset (const struct run *run)
{
  return pair_deletes (run->pair) ? 0 : run->site * BLOCKS (SITE_BLOCKS);
}

/* --- requests --- */

static void
fill_payload (struct worker *worker, const struct act *act)
{
  struct request *request = &worker->request;
  uint64_t sector = request->offset / SECTOR, bytes;
  struct iovec segments[16];

  for (uint64_t at = 0; at < request->length; at += bytes) {
    unsigned count = request_segments (request, at, segments, 16, &bytes);

    CHECK (count > 0);
    for (unsigned i = 0; i < count; i++)
      for (uint64_t from = 0; from < segments[i].iov_len; from += SECTOR)
        sector_fill ((uint8_t *) segments[i].iov_base + from, worker->run->store_number, act->disk,
                     sector++, act->number);
  }
}

/* What a READ found, to STAMPS. */
static void
read_stamps (struct worker *worker, const struct act *act, uint64_t *stamps)
{
  struct request *request = &worker->request;
  uint64_t sector = request->offset / SECTOR, bytes;
  struct iovec segments[16];

  worker->sectors += request->length / SECTOR;
  for (uint64_t at = 0; at < request->length; at += bytes) {
    unsigned count = request_segments (request, at, segments, 16, &bytes);

    CHECK (count > 0);
    for (unsigned i = 0; i < count; i++)
      for (uint64_t from = 0; from < segments[i].iov_len; from += SECTOR, sector++, stamps++)
        if (!sector_read ((uint8_t *) segments[i].iov_base + from, worker->run->store_number,
                          stamps))
          run_fail (worker->run, "disk %u sector %" PRIu64 " is torn, or another store's",
                    act->disk, sector);
  }
}

/* Likewise of BLOCK_STATUS, which knows zeros only. */
static void
status_stamps (struct worker *worker, uint64_t *stamps)
{
  struct request *request = &worker->request;
  uint64_t at = 0, end = 0;

  worker->sectors += request->length / SECTOR;
  for (uint64_t i = 0; i < request->length / SECTOR; i++)
    stamps[i] = STAMP_UNKNOWN;
  for (uint32_t i = 0; i < request->extent_count; i++) {
    end += request->extents[i].length / SECTOR;
    for (; at < end; at++)
      if (request->extents[i].flags & STATUS_ZERO)
        stamps[at] = 0;
  }
}

static int
run_request (struct worker *worker, const struct act *act, uint64_t *stamps)
{
  struct run *run = worker->run;
  struct request *request = &worker->request;
  struct status_extent extents[4];
  const char *why;
  char name[32];
  struct disk *disk = disk_open (run->store, disk_name (run, act->disk, name));
  int error = disk == NULL ? -ENOENT
                           : request_validate (disk, act->kind, act->flags, act->offset,
                                               act->length, &why);

  if (error == 0) {
    request_init (request, worker->context, disk, act->kind, act->flags, act->offset, act->length,
                  request_is_done);
    request->extents = extents;
    request->extent_max = ARRAY_COUNT (extents);
    request->stream = act->what == ACT_READ_AHEAD ? &worker->stream : NULL;
    if (act->kind == REQUEST_WRITE) {
      request_admit_wait (request);
      fill_payload (worker, act);
    }
    error = request_run (request);
    if (error == 0 && stamps != NULL && act->kind == REQUEST_BLOCK_STATUS)
      status_stamps (worker, stamps);
    else if (error == 0 && stamps != NULL)
      read_stamps (worker, act, stamps);
    request_release (request);
  }
  if (disk != NULL)
    disk_close (disk);
  return error;
}

/* --- write-back --- */

/* An op of the keeper's context, with no reference to a disk. */
struct kick {
  struct op op;
  struct store *store;
  sem_t is_done;
};

static enum op_next
kick_step (struct op *op)
{
  struct store *store = container_of (op, struct kick, op)->store;

  store->keeper.old_version = cache_version (store->cache);
  keeper_kick (store);
  return OP_DONE;
}

static void
kick_done (struct op *op)
{
  sem_post (&container_of (op, struct kick, op)->is_done);
}

void
run_write_back (struct run *run)
{
  struct kick kick = { .store = run->store };

  sem_init (&kick.is_done, 0, 0);
  op_init (&kick.op, run->store->keeper.context, "write-back", 0, kick_step, kick_done);
  op_start (&kick.op);
  while (sem_wait (&kick.is_done) < 0)
    CHECK (errno == EINTR);
  sem_destroy (&kick.is_done);
}

/* --- administrative ops --- */

int
run_admin (struct worker *worker, enum admin_kind kind, const struct act *act)
{
  struct run *run = worker->run;
  struct admin admin;
  char name[32];

  admin_init (&admin, worker->context, run->store, kind, disk_name (run, act->disk, name),
              admin_is_done);
  disk_name (run, act->target, admin.new_name);
  admin.size = act->offset;
  admin.may_shrink = true;
  admin.offset = act->offset;
  admin.length = act->length;
  admin.target_offset = act->target_offset;
  return admin_run (&admin);
}

/* As soon as nobody has it open. */
static int
run_delete (struct worker *worker, const struct act *act)
{
  int error;

  while ((error = run_admin (worker, ADMIN_DELETE, act)) == -EBUSY)
    sched_yield ();
  return error;
}

/* --- acts --- */

int
run_act (struct worker *worker, const struct act *act, uint64_t *stamps)
{
  worker->requests++;
  switch (act->what) {
  case ACT_REQUEST:
    return run_request (worker, act, stamps);
  case ACT_READ_AHEAD:
    worker->stream = (struct read_stream) { .next_offset = act->offset };
    return run_request (worker, act, stamps);
  case ACT_WRITE_BACK:
    run_write_back (worker->run);
    return 0;
  case ACT_RESIZE:
    return run_admin (worker, ADMIN_RESIZE, act);
  case ACT_DELETE:
    return run_delete (worker, act);
  case ACT_COLLAPSE:
    return run_admin (worker, ADMIN_COLLAPSE, act);
  case ACT_INSERT:
    return run_admin (worker, ADMIN_INSERT, act);
  case ACT_CLONE:
    return run_admin (worker, ADMIN_CLONE, act);
  }
  CHECK (false);
}

struct act
act_write (struct run *run, unsigned disk, uint64_t offset, uint64_t length)
{
  return (struct act) REQUEST (.kind = REQUEST_WRITE, .disk = disk, .offset = offset,
                               .length = length, .number = ++run->number);
}

struct act
act_read (unsigned disk, uint64_t offset, uint64_t length)
{
  return (struct act) REQUEST (.kind = REQUEST_READ, .disk = disk, .offset = offset,
                               .length = length);
}

int
run_alone (struct worker *worker, const struct act *act)
{
  int error = run_act (worker, act, NULL);

  if (error == 0)
    model_apply (&worker->run->model, act);
  return error;
}
