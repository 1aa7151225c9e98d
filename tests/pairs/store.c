/* SPDX-License-Identifier: BSD-2-Clause */
/* store.c - the life of a store: made, opened, used in rounds, closed, checked, opened, read. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pairs.h"
#include "store/test-image.h"

#define META_BLOCKS 256
#define JOURNAL_HALF 64

static bool
open_store (struct run *run)
{
  struct store_options options = {
    .device = sim_device_create (run->image), .arena_path = "off",
    .cache_bytes = 96 * BLOCK_SIZE, .tail_bytes = 32 * KIB,
  };
  char *error = NULL;
  int result = store_open (&options, &run->store, &error);

  if (result < 0)
    run_fail (run, "opening: %s", error != NULL ? error : strerror (-result));
  free (error);
  return result == 0;
}

static void
close_store (struct run *run)
{
  char *error = NULL;
  int result = store_close (run->store, &error);

  if (result < 0)
    run_fail (run, "closing: %s", error != NULL ? error : strerror (-result));
  free (error);
}

static bool
make_store (struct run *run)
{
  const struct pair *pair = run->pair;
  uint64_t data = (pair_begins_empty (pair) ? 1 : run->sites)
                  + (pair_has_partner_data (pair) ? run->sites : 0);
  struct store_geometry geometry = {
    .group_blocks = 1024, .meta_blocks = META_BLOCKS, .journal_half_blocks = JOURNAL_HALF,
    .capacity = pair_is_scarce (pair) ? META_BLOCKS + 2 * JOURNAL_HALF + data : 0,
  };
  struct device *device = sim_device_create (run->image);
  uint8_t uuid[16] = { 0 };
  char *error = NULL;
  int result;

  memcpy (uuid, &run->store_number, sizeof run->store_number);
  result = store_init_device (device, &geometry, uuid, &error);
  device_close (device);
  if (result < 0)
    run_fail (run, "making the store: %s", error != NULL ? error : strerror (-result));
  free (error);
  return result == 0;
}

static void
make_disk (struct worker *worker, unsigned disk, uint64_t blocks)
{
  struct act create = { .disk = disk, .offset = BLOCKS (blocks) };
  int error = run_admin (worker, ADMIN_CREATE, &create);

  if (error != 0)
    run_fail (worker->run, "creating a disk: %s", strerror (-error));
  worker->run->model.disks[disk] = (struct image) { .exists = true, .blocks = blocks };
}

static void
sync_store (struct worker *worker)
{
  int error = run_admin (worker, ADMIN_SYNC, &(struct act) { 0 });

  if (error != 0)
    run_fail (worker->run, "syncing: %s", strerror (-error));
}

static void
write_site (struct worker *worker)
{
  struct run *run = worker->run;
  struct act partner = REQUEST (.kind = REQUEST_WRITE, .disk = PARTNER,
                                .offset = run->site * BLOCK_SIZE, .length = BLOCKS (1),
                                .number = SITES_MAX + run->site + 1);
  struct act write = site_write (run);
  int error = 0;

  if (pair_deletes (run->pair))
    make_disk (worker, SUBJECT, SITE_BLOCKS);
  if (!pair_begins_empty (run->pair))
    error = run_alone (worker, &write);
  if (error == 0 && pair_has_partner_data (run->pair))
    error = run_alone (worker, &partner);
  if (error != 0)
    run_fail (run, "the first WRITEs: %s", strerror (-error));
}

static void
open_contexts (struct run *run)
{
  for (unsigned i = 0; i < run->worker_count; i++) {
    run->workers[i].context = store_context_create (run->store);
    CHECK (run->workers[i].context != NULL);
  }
}

static void
close_contexts (struct run *run)
{
  for (unsigned i = 0; i < run->worker_count; i++)
    store_context_destroy (run->store, run->workers[i].context);
}

/* All that the rounds find, on the device, and nothing of it in the cache. */
static void
make_content (struct run *run)
{
  struct worker *worker = &run->workers[INVALIDATES];

  open_contexts (run);
  make_disk (worker, PARTNER, run->sites);
  make_disk (worker, CHASER, run->sites);
  if (!pair_deletes (run->pair))
    make_disk (worker, SUBJECT, run->sites * SITE_BLOCKS);
  for (run->site = 0; run->site < run->sites; run->site++)
    write_site (worker);
  sync_store (worker);
  close_contexts (run);
  close_store (run);
}

static void
run_rounds (struct run *run)
{
  struct worker *leader = &run->workers[INVALIDATES];
  struct store_info info;

  open_contexts (run);
  CHECK (pthread_barrier_init (&run->barrier, NULL, run->worker_count) == 0);
  for (unsigned i = 1; i < run->worker_count; i++)
    CHECK (pthread_create (&run->workers[i].thread, NULL, worker_main, &run->workers[i]) == 0);
  /* From the last one on: what moves or cuts off blocks leaves those before alone. */
  for (run->site = run->sites; run->site-- > 0;)
    run_round (leader);
  run->site = 0;
  for (unsigned i = 1; i < run->worker_count; i++)
    pthread_join (run->workers[i].thread, NULL);
  pthread_barrier_destroy (&run->barrier);
  sync_store (leader);
  store_get_info (run->store, &info);
  if (info.reserved != 0)
    run_fail (run, "%" PRIu64 " bytes are promised to nobody", info.reserved);
  close_contexts (run);
  close_store (run);
}

static void
check_image (struct run *run)
{
  /* The checker is one program's, and has memory of its own. */
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  char *text;
  int verdict;

  pthread_mutex_lock (&mutex);
  text = image_check_text (run->image, DEVICE_BLOCKS, false, &verdict);
  pthread_mutex_unlock (&mutex);
  if (verdict != CHECKER_CLEAN)
    run_fail (run, "the checker finds: %s", text);
  free (text);
}

/* All that the disks hold at the end, as they are opened again. */
static void
read_all (struct run *run)
{
  struct worker *worker = &run->workers[INVALIDATES];
  uint64_t stamps[BLOCK_SECTORS];
  char text[64], other[64];

  open_contexts (run);
  for (unsigned disk = 0; disk < DISKS; disk++)
    for (uint64_t block = 0; block < run->model.disks[disk].blocks; block++) {
      const uint64_t *expected = &run->model.disks[disk].stamps[block * BLOCK_SECTORS];
      struct act act = act_read (disk, BLOCKS (block), BLOCKS (1));
      int error = run_act (worker, &act, stamps);

      if (error != 0)
        run_fail (run, "in the end, disk %u block %" PRIu64 ": %s", disk, block, strerror (-error));
      for (unsigned i = 0; i < BLOCK_SECTORS && error == 0; i++)
        if (stamps[i] != expected[i])
          run_fail (run, "in the end, disk %u block %" PRIu64 " sector %u holds %s, not %s", disk,
                    block, i, stamp_print (stamps[i], text), stamp_print (expected[i], other));
    }
  close_contexts (run);
  close_store (run);
}

void
run_store (struct run *run)
{
  if (!make_store (run) || !open_store (run))
    return;
  make_content (run);
  if (run->is_failed || !open_store (run))
    return;
  run_rounds (run);
  check_image (run);
  if (open_store (run))
    read_all (run);
}
