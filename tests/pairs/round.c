/* SPDX-License-Identifier: BSD-2-Clause */
/* round.c - what the workers do at a site, and what is made of it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "pairs.h"

#define READS_MAX 8             /* of who only reads, in a round */
#define CHASES_MAX 8            /* tries to get what is freed */

/* --- what the workers do --- */

/* Looks, beside others. */
static int
run_look (struct worker *worker, const struct act *act)
{
  uint64_t stamps[SITE_BLOCKS * BLOCK_SECTORS];
  struct run *run = worker->run;
  char text[64];
  int error = run_act (worker, act, stamps);

  for (uint64_t i = 0; i < act->length / SECTOR && error == 0; i++) {
    uint64_t sector = act->offset / SECTOR + i;

    if (!outcomes_allow (&run->outcomes, act->disk, sector, stamps[i]))
      run_fail (run, "disk %u sector %" PRIu64 " holds %s", act->disk, sector,
                stamp_print (stamps[i], text));
  }
  return error;
}

static void
wait_a_moment (struct worker *worker)
{
  unsigned spins = random_below (&worker->random, 4) == 0 ? 0
                                                          : random_below (&worker->random, 20000);

  for (volatile unsigned i = 0; i < spins; i++)
    continue;
}

static void
act (struct worker *worker)
{
  struct run *run = worker->run;
  const struct act *act = &run->acts[worker->role];
  bool looks = act->what == ACT_READ_AHEAD
               || (act->what == ACT_REQUEST
                   && (act->kind == REQUEST_READ || act->kind == REQUEST_BLOCK_STATUS));

  wait_a_moment (worker);
  worker->error = looks ? run_look (worker, act) : run_act (worker, act, NULL);
  if (worker->role == INVALIDATES)
    sem_post (&run->is_invalidated);
  atomic_fetch_sub (&run->acting, 1);
}

static void
read_beside (struct worker *worker)
{
  struct run *run = worker->run;

  for (unsigned i = 0; i < READS_MAX && atomic_load (&run->acting) > 0; i++) {
    uint64_t first = random_below (&worker->random, SITE_BLOCKS * BLOCK_SECTORS);
    uint64_t most = SITE_BLOCKS * BLOCK_SECTORS - first;
    struct act act = act_read (SUBJECT, site_offset (run) + first * SECTOR,
                               random_between (&worker->random, 1, most) * SECTOR);
    int error = run_look (worker, &act);

    if (error != 0 && !run->pair->invalidator->ends_blocks)
      run_fail (run, "a READ fails: %s", strerror (-error));
    wait_a_moment (worker);
  }
}

/* The other disk's block, on its way to its place as soon as it could be written. */
static void
chase (struct worker *worker)
{
  struct run *run = worker->run;
  const struct act *write = &run->acts[CHASES];
  uint64_t stamps[BLOCK_SECTORS];
  struct act read = act_read (CHASER, write->offset, write->length);
  char text[64];

  while (sem_wait (&run->is_invalidated) < 0)
    CHECK (errno == EINTR);
  worker->error = -ENOSPC;
  for (unsigned tries = 0; worker->error == -ENOSPC && tries < CHASES_MAX; tries++)
    worker->error = run_act (worker, write, NULL);
  if (worker->error != 0)
    return;
  run_write_back (run);
  if (run_act (worker, &read, stamps) != 0)
    run_fail (run, "a READ of the other disk fails");
  for (unsigned i = 0; i < BLOCK_SECTORS; i++)
    if ((stamps[i] & UINT32_MAX) != write->number)
      run_fail (run, "the other disk's sector holds %s", stamp_print (stamps[i], text));
}

/* Nothing of its own is left behind: what holds a range would keep others waiting. */
static void
take_part (struct worker *worker)
{
  switch (worker->role) {
  case INVALIDATES:
  case POPULATES:
    act (worker);
    break;
  case READS:
    read_beside (worker);
    break;
  default:
    chase (worker);
  }
  context_drain (worker->context);
}

void *
worker_main (void *arg)
{
  struct worker *worker = arg;
  uint64_t rounds = worker->run->sites;

  for (uint64_t i = 0; i < rounds; i++) {
    pthread_barrier_wait (&worker->run->barrier);
    take_part (worker);
    pthread_barrier_wait (&worker->run->barrier);
  }
  return NULL;
}

/* --- a round, as who invalidates leads it --- */

/* A block that the disk still has must be what one of the ends says. */
static void
settle_block (struct worker *worker, unsigned disk, uint64_t block)
{
  struct run *run = worker->run;
  uint64_t stamps[BLOCK_SECTORS];
  struct act act = act_read (disk, BLOCKS (block), BLOCKS (1));
  char text[64];
  int error;

  if (!run->model.disks[disk].exists || block >= run->model.disks[disk].blocks)
    return;
  error = run_act (worker, &act, stamps);
  if (error != 0)
    run_fail (run, "reading disk %u block %" PRIu64 ": %s", disk, block, strerror (-error));
  else if (!outcomes_settle (&run->outcomes, disk, block, stamps, &run->model))
    run_fail (run, "disk %u block %" PRIu64 " is left with %s", disk, block,
              stamp_print (stamps[0], text));
}

/* What may go wrong goes into the model's account; all else is a failure. */
static void
judge_error (struct run *run, enum role role)
{
  static const char *const names[] = {
    [INVALIDATES] = "the invalidator", [POPULATES] = "the populator", [CHASES] = "the other disk",
  };
  int error = run->workers[role].error;
  bool ends_blocks = role == POPULATES && run->pair->invalidator->ends_blocks;
  bool is_allowed = (error == -ENOSPC && (pair_is_scarce (run->pair) || ends_blocks))
                    || (ends_blocks && (error == -EINVAL || error == -ENOENT));

  if (error == 0) {
    model_apply (&run->model, &run->acts[role]);
    return;
  }
  run->refused++;
  if (!is_allowed)
    run_fail (run, "%s: %s", names[role], strerror (-error));
}

static void
prepare_acts (struct run *run)
{
  const struct pair *pair = run->pair;
  struct act *populate = &run->acts[POPULATES], *invalidate = &run->acts[INVALIDATES];
  uint64_t partner = run->site * BLOCK_SIZE, at = site_offset (run);

  *populate = pair->populator->act;
  populate->offset += at + BLOCKS (pair_block (pair));
  populate->target_offset = partner;
  *invalidate = pair->invalidator->act;
  invalidate->offset += invalidate->disk == PARTNER ? partner : at;
  invalidate->target_offset += at;
  populate->number = ++run->number;
  invalidate->number = ++run->number;
  /* What is freed can be used again when that is durable. */
  if (pair->place == PLACE_REUSE)
    invalidate->flags |= REQUEST_FUA;
  run->acts[CHASES] = act_write (run, CHASER, partner, BLOCKS (1));
}

struct act
site_write (const struct run *run)
{
  bool is_scarce = pair_is_scarce (run->pair);
  uint64_t first = is_scarce ? run->pair->invalidator->block : 1;

  return (struct act) REQUEST (.kind = REQUEST_WRITE, .disk = SUBJECT,
                               .offset = site_offset (run) + BLOCKS (first),
                               .length = BLOCKS (is_scarce ? 1 : 2), .number = run->site + 1);
}

/* Each site has a disk of its own: now it is this one's. */
static void
prepare_subject (struct run *run)
{
  struct act write = site_write (run);

  run->model.disks[SUBJECT] = (struct image) { .exists = true, .blocks = SITE_BLOCKS };
  model_apply (&run->model, &write);
}

/* The next round begins as this one did: the one block is free. */
static void
release_block (struct worker *worker)
{
  struct run *run = worker->run;
  struct act trims[] = {
    REQUEST (.kind = REQUEST_TRIM, .flags = REQUEST_FUA, .disk = SUBJECT,
             .offset = site_offset (run), .length = BLOCKS (SITE_BLOCKS)),
    REQUEST (.kind = REQUEST_TRIM, .flags = REQUEST_FUA, .disk = PARTNER,
             .offset = run->site * BLOCK_SIZE, .length = BLOCKS (1)),
    REQUEST (.kind = REQUEST_TRIM, .flags = REQUEST_FUA, .disk = CHASER,
             .offset = run->site * BLOCK_SIZE, .length = BLOCKS (1)),
  };

  for (unsigned i = 0; i < ARRAY_COUNT (trims); i++)
    CHECK (run_alone (worker, &trims[i]) == 0);
}

static void
make_dirty (struct worker *worker)
{
  struct run *run = worker->run;
  uint64_t block = site_offset (run) + BLOCKS (pair_block (run->pair));
  struct act write = act_write (run, SUBJECT, block, BLOCKS (1));
  int error = run_alone (worker, &write);

  if (error != 0 && !(error == -ENOSPC && pair_is_scarce (run->pair)))
    run_fail (run, "the WRITE before: %s", strerror (-error));
}

void
run_round (struct worker *worker)
{
  struct run *run = worker->run;
  const struct pair *pair = run->pair;
  uint64_t first = site_offset (run) / BLOCK_SIZE;

  if (pair_deletes (pair))
    prepare_subject (run);
  prepare_acts (run);
  if (pair->populator->needs_dirty || random_chance (&worker->random, 25))
    make_dirty (worker);
  outcomes_find (&run->outcomes, &run->model, &run->acts[POPULATES], &run->acts[INVALIDATES]);
  atomic_store (&run->acting, 2);
  pthread_barrier_wait (&run->barrier);
  take_part (worker);
  pthread_barrier_wait (&run->barrier);
  judge_error (run, INVALIDATES);
  judge_error (run, POPULATES);
  outcomes_fail (&run->outcomes, run->workers[POPULATES].error != 0,
                 run->workers[INVALIDATES].error != 0);
  /* One more: an insertion may have moved a block out of the site. */
  for (uint64_t block = first; block < first + SITE_BLOCKS + 1; block++)
    settle_block (worker, SUBJECT, block);
  settle_block (worker, PARTNER, run->site);
  if (pair->place == PLACE_REUSE)
    judge_error (run, CHASES);
  if (pair_begins_empty (pair))
    release_block (worker);
}
