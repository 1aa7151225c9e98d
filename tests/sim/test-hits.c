/* SPDX-License-Identifier: BSD-2-Clause */
/* test-hits.c - a READ of cached blocks takes no lock: counted, not believed.  Every mutex, rwlock
 * and condition of the engine is counted here (ld --wrap) while a million cached blocks are read;
 * and its own counters must say that all were hits and nobody waited.
 *
 * What is not counted are atomic words.  By reading the path there are, besides the frame's pin,
 * two shared ones per request, whatever its length: what is in flight is charged, and given back.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/log.h"
#include "device/device-sim-internal.h"
#include "store/store.h"

#define BLOCKS 256
#define READ_BLOCKS 16
#define HITS 1000000

static _Thread_local bool is_counting;
static _Thread_local uint64_t taken;
static struct sim_image *image;     /* whose own mutex does not count: it stands for the kernel */

#define COUNTED(name, type)                                                                        \
  int __real_##name (type *lock);                                                                  \
  int __wrap_##name (type *lock);                                                                  \
  int __wrap_##name (type *lock)                                                                   \
  {                                                                                                \
    taken += is_counting && (void *) lock != (void *) &image->mutex;                               \
    return __real_##name (lock);                                                                   \
  }

COUNTED (pthread_mutex_lock, pthread_mutex_t)
COUNTED (pthread_mutex_trylock, pthread_mutex_t)
COUNTED (pthread_rwlock_rdlock, pthread_rwlock_t)
COUNTED (pthread_rwlock_wrlock, pthread_rwlock_t)

static _Atomic bool is_done;

static void
request_done (struct request *request)
{
  (void) request;
  atomic_store (&is_done, true);
}

static void
admin_done (struct admin *admin)
{
  (void) admin;
  atomic_store (&is_done, true);
}

static void
run_request (struct context *context, struct disk *disk, enum request_kind kind, uint64_t block,
             uint64_t count)
{
  struct request request;

  request_init (&request, context, disk, kind, 0, block * BLOCK_SIZE, count * BLOCK_SIZE,
                request_done);
  atomic_store (&is_done, false);
  if (kind == REQUEST_WRITE)
    CHECK (request_admit (&request));
  request_start (&request);
  context_run_until (context, &is_done);
  CHECK (request.op.error == 0);
  request_release (&request);
}

static uint64_t
counter (struct store *store, const char *name)
{
  struct store_counter counters[64];
  size_t count = store_get_counters (store, counters, ARRAY_COUNT (counters));

  for (size_t i = 0; i < count; i++)
    if (strcmp (counters[i].name, name) == 0)
      return counters[i].value;
  CHECK (false);
}

static bool
read_hits (struct store *store, struct context *context, struct disk *disk)
{
  uint64_t hits = counter (store, "hit_blocks"), misses = counter (store, "miss_blocks"), blocks = 0;

  for (taken = 0; blocks < HITS; blocks += READ_BLOCKS) {
    is_counting = true;
    run_request (context, disk, REQUEST_READ, blocks % (BLOCKS - READ_BLOCKS), READ_BLOCKS);
    is_counting = false;
  }
  hits = counter (store, "hit_blocks") - hits;
  misses = counter (store, "miss_blocks") - misses;
  printf ("%" PRIu64 " blocks read: %" PRIu64 " hits, %" PRIu64 " misses, %" PRIu64
          " locks taken, %" PRIu64 " waits\n", blocks, hits, misses, taken,
          counter (store, "range_lock_waits"));
  return hits == blocks && misses == 0 && taken == 0 && counter (store, "range_lock_waits") == 0;
}

static struct disk *
make_disk (struct store *store, struct context *context)
{
  struct admin admin;

  admin_init (&admin, context, store, ADMIN_CREATE, "disk", admin_done);
  admin.size = BLOCKS * BLOCK_SIZE;
  atomic_store (&is_done, false);
  admin_start (&admin);
  context_run_until (context, &is_done);
  CHECK (admin.op.error == 0);
  return disk_open (store, "disk");
}

int
main (void)
{
  struct store_geometry geometry = { .group_blocks = 1024, .meta_blocks = 64,
                                     .journal_half_blocks = 128 };
  struct sim_options sim = { .seed = 1, .length = 64, .length_max = 8192, .is_threaded = true };
  struct store_options options = { .arena_path = "off", .cache_bytes = 2048 * BLOCK_SIZE,
                                   .tail_bytes = 64 * KIB };
  struct device *device;
  struct context *context;
  struct store *store;
  struct disk *disk;
  uint8_t uuid[16] = "hits";
  char *error = NULL;
  bool is_ok;

  image = sim_image_create (&sim);
  device = sim_device_create (image);
  CHECK (store_init_device (device, &geometry, uuid, &error) == 0);
  device_close (device);
  options.device = sim_device_create (image);
  CHECK (store_open (&options, &store, &error) == 0);
  context = store_context_create (store);
  CHECK (context != NULL);
  disk = make_disk (store, context);
  run_request (context, disk, REQUEST_WRITE, 0, BLOCKS);
  run_request (context, disk, REQUEST_READ, 0, BLOCKS);
  is_ok = read_hits (store, context, disk);
  disk_close (disk);
  context_drain (context);
  store_context_destroy (store, context);
  CHECK (store_close (store, &error) == 0);
  sim_image_destroy (image);
  printf ("%s test-hits\n", is_ok ? "ok" : "FAIL");
  return is_ok ? 0 : 1;
}
