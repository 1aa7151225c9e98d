/* SPDX-License-Identifier: BSD-2-Clause */
/* threads.c - the same engine from real threads, for ThreadSanitizer and its like.
 *
 * Sectors that are written carry the disk, their address, and the number of the change: whatever
 * else is found in one is foreign, or torn.  Parts of blocks are written, too.  Threads are held up
 * now and then at the steps that matter (delays.c).
 *
 * Each thread has a context and one request at a time; the keeper has its own thread.  The model is
 * one number per half of a block: a thread that changes halves notes in the model, before and after,
 * so that a READ knows which numbers each may have had meanwhile.  Numbers grow; 0 stands for zeros.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "device/device-sim.h"
#include "blocking.h"
#include "random.h"
#include "sim.h"
#include "store/store.h"

#define THREADS_MAX 16
#define DISKS 2
#define CLONE DISKS             /* a disk more, which only one thread touches */
#define CLONE_BLOCKS 64
#define CLONE_EVERY 25
#define DISK_BLOCKS 512
#define HALF (BLOCK_SIZE / 2)
#define HALVES(blocks) (2 * (blocks))
#define SECTOR 512
#define RECENT 256              /* values of a block that a READ may still see */

/* What a sector begins with, unless it is zero. */
struct tag {
  uint64_t number, disk, sector, sum;
};

/* The last values of half a block, and when (by the model's clock) each was begun and ended. */
struct value {
  uint64_t number;              /* 0: zeros */
  uint64_t begun, ended;        /* ended: UINT64_MAX while it is being written */
};
struct half {
  pthread_mutex_t mutex;
  struct value values[RECENT];
  unsigned count;
};

struct shared {
  struct store *store;
  struct half halves[DISKS][HALVES (DISK_BLOCKS)];
  _Atomic uint64_t clock;
  _Atomic bool is_failed;
  uint64_t ops;
};

struct worker {
  pthread_t thread;
  struct shared *shared;
  struct random random;
  struct context *context;
  struct request request;
  struct disk *disks[DISKS + 1];
  uint64_t errors;
  bool clones;
  uint64_t cloned[CLONE_BLOCKS];    /* what the last disk holds */
};

/* --- the model --- */

/* Those that ended before another ended value was begun cannot be seen by reads that begin later;
 * reads are short, so the oldest such one goes when room is needed. */
static void
model_begin (struct half *half, uint64_t number, uint64_t now)
{
  pthread_mutex_lock (&half->mutex);
  if (half->count == RECENT) {
    unsigned oldest = 0;

    for (unsigned i = 1; i < half->count; i++)
      if (half->values[i].ended < half->values[oldest].ended)
        oldest = i;
    half->values[oldest] = half->values[--half->count];
  }
  half->values[half->count++] = (struct value) { number, now, UINT64_MAX };
  pthread_mutex_unlock (&half->mutex);
}

static void
model_end (struct half *half, uint64_t number, uint64_t begun, uint64_t now, bool is_ok)
{
  pthread_mutex_lock (&half->mutex);
  for (unsigned i = 0; i < half->count; i++)
    if (half->values[i].number == number && half->values[i].begun == begun && is_ok)
      half->values[i].ended = now;
  pthread_mutex_unlock (&half->mutex);
}

static bool
model_allows (struct half *half, uint64_t number, uint64_t begun)
{
  bool allowed = false;

  pthread_mutex_lock (&half->mutex);
  for (unsigned i = 0; i < half->count && !allowed; i++) {
    bool is_over = false;

    if (half->values[i].number != number)
      continue;
    for (unsigned j = 0; j < half->count; j++)
      is_over |= half->values[i].ended < half->values[j].begun && half->values[j].ended < begun;
    allowed = !is_over;
  }
  pthread_mutex_unlock (&half->mutex);
  return allowed;
}

/* --- requests --- */

static struct tag
tag_make (uint64_t number, uint64_t disk, uint64_t sector)
{
  return (struct tag) { number, disk, sector, number ^ disk << 48 ^ sector << 20 };
}

static void
fill_payload (struct worker *worker, unsigned disk, uint64_t number)
{
  struct request *request = &worker->request;
  uint64_t sector = request->offset / SECTOR, bytes;
  struct iovec segments[16];

  for (uint64_t at = 0; at < request->length; at += bytes) {
    unsigned count = request_segments (request, at, segments, 16, &bytes);

    CHECK (count > 0);
    for (unsigned i = 0; i < count; i++)
      for (uint64_t from = 0; from < segments[i].iov_len; from += SECTOR, sector++) {
        struct tag tag = tag_make (number, disk, sector);

        memset ((uint8_t *) segments[i].iov_base + from, number & 0xff, SECTOR);
        memcpy ((uint8_t *) segments[i].iov_base + from, &tag, sizeof tag);
      }
  }
}

/* The number of the half at DATA, whose first sector is SECTOR; false: a sector of it is another
 * place's, or not the same change's. */
static bool
half_number (const uint8_t *data, unsigned disk, uint64_t sector, uint64_t *number)
{
  struct tag first, tag, zero = { 0 };

  memcpy (&first, data, sizeof first);
  *number = first.number;
  for (unsigned i = 0; i < HALF / SECTOR; i++) {
    struct tag expected = first.number != 0 ? tag_make (first.number, disk, sector + i) : zero;

    memcpy (&tag, data + i * SECTOR, sizeof tag);
    if (memcmp (&tag, &expected, sizeof tag) != 0)
      return false;
  }
  return true;
}

static void
judge_payload (struct worker *worker, unsigned disk, uint64_t begun)
{
  struct request *request = &worker->request;
  uint64_t bytes, half = request->offset / HALF;
  struct iovec segments[16];

  for (uint64_t at = 0; at < request->length; at += bytes) {
    unsigned count = request_segments (request, at, segments, 16, &bytes);

    for (unsigned i = 0; i < count; i++)
      for (uint64_t from = 0; from < segments[i].iov_len; from += HALF, half++) {
        uint64_t number;
        bool is_whole = half_number ((uint8_t *) segments[i].iov_base + from, disk,
                                     half * (HALF / SECTOR), &number);

        if (is_whole && model_allows (&worker->shared->halves[disk][half], number, begun))
          continue;
        printf ("FAIL threads: disk %u half block %" PRIu64 " holds %" PRIu64 "%s\n", disk, half,
                number, is_whole ? "" : ", torn or foreign");
        atomic_store (&worker->shared->is_failed, true);
        return;
      }
  }
}

static void
draw_request (struct worker *worker, unsigned *disk, enum request_kind *kind, unsigned *flags,
              uint64_t *half, uint64_t *count)
{
  static const enum request_kind kinds[] = {
    REQUEST_READ, REQUEST_READ, REQUEST_READ, REQUEST_WRITE, REQUEST_WRITE, REQUEST_WRITE,
    REQUEST_TRIM, REQUEST_WRITE_ZEROES, REQUEST_FLUSH, REQUEST_CACHE, REQUEST_BLOCK_STATUS,
  };
  struct random *random = &worker->random;

  *disk = random_below (random, DISKS);
  *kind = kinds[random_below (random, ARRAY_COUNT (kinds))];
  *flags = *kind != REQUEST_READ && random_chance (random, 5) ? REQUEST_FUA : 0;
  if (*kind == REQUEST_WRITE_ZEROES && random_chance (random, 50))
    *flags |= REQUEST_NO_HOLE;
  *half = random_below (random, HALVES (random_chance (random, 50) ? 16 : DISK_BLOCKS));
  *count = random_between (random, 1, HALVES (random_chance (random, 10) ? 64 : 8));
  /* TRIM leaves parts of blocks alone; most others are of whole ones. */
  if (*kind == REQUEST_TRIM || random_chance (random, 60)) {
    *half = align_down (*half, HALVES (1));
    *count = align_up (*count, HALVES (1));
  }
  *count = MIN (*count, HALVES (DISK_BLOCKS) - *half);
}

static void
run_request (struct worker *worker)
{
  struct shared *shared = worker->shared;
  struct request *request = &worker->request;
  struct status_extent extents[8];
  enum request_kind kind;
  unsigned disk, flags;
  uint64_t half, count, begun, number = 0;
  bool is_change;

  draw_request (worker, &disk, &kind, &flags, &half, &count);
  is_change = kind == REQUEST_WRITE || kind == REQUEST_TRIM || kind == REQUEST_WRITE_ZEROES;
  request_init (request, worker->context, worker->disks[disk], kind, flags,
                kind == REQUEST_FLUSH ? 0 : half * HALF,
                kind == REQUEST_FLUSH ? 0 : count * HALF, request_is_done);
  request->extents = extents;
  request->extent_max = ARRAY_COUNT (extents);
  begun = atomic_fetch_add (&shared->clock, 1) + 1;
  if (kind == REQUEST_WRITE) {
    number = begun;
    request_admit_wait (request);
    fill_payload (worker, disk, number);
  }
  for (uint64_t i = 0; is_change && i < count; i++)
    model_begin (&shared->halves[disk][half + i], number, begun);
  worker->errors += request_run (request) != 0;
  for (uint64_t i = 0; is_change && i < count; i++)
    model_end (&shared->halves[disk][half + i], number, begun,
               atomic_fetch_add (&shared->clock, 1) + 1, request->op.error == 0);
  if (kind == REQUEST_READ && request->op.error == 0)
    judge_payload (worker, disk, begun);
  request_release (request);
}

/* --- clones --- */

/* What the last disk holds, to NUMBERS. */
static void
read_clone (struct worker *worker, uint64_t numbers[CLONE_BLOCKS])
{
  struct request *request = &worker->request;
  struct iovec segment;
  uint64_t bytes;

  request_init (request, worker->context, worker->disks[CLONE], REQUEST_READ, 0, 0,
                CLONE_BLOCKS * BLOCK_SIZE, request_is_done);
  worker->errors += request_run (request) != 0;
  for (unsigned i = 0; i < CLONE_BLOCKS && request->op.error == 0; i++) {
    CHECK (request_segments (request, i * BLOCK_SIZE, &segment, 1, &bytes) == 1);
    memcpy (&numbers[i], segment.iov_base, 8);
  }
  request_release (request);
}

/* A range of some disk appears in the last: it holds what that had at a moment of the cloning, and
 * it has held, until now, what was cloned before. */
static void
run_clone (struct worker *worker)
{
  struct shared *shared = worker->shared;
  unsigned source = random_below (&worker->random, DISKS);
  uint64_t from = random_below (&worker->random, 2) * CLONE_BLOCKS / 4, begun;
  uint64_t numbers[CLONE_BLOCKS] = { 0 };
  struct admin admin;

  read_clone (worker, numbers);
  if (memcmp (numbers, worker->cloned, sizeof numbers) != 0) {
    printf ("FAIL threads: a clone has changed\n");
    atomic_store (&shared->is_failed, true);
  }
  begun = atomic_fetch_add (&shared->clock, 1) + 1;
  admin_init (&admin, worker->context, shared->store, ADMIN_CLONE, source == 0 ? "disk0" : "disk1",
              admin_is_done);
  strcpy (admin.new_name, "disk2");
  admin.offset = from * BLOCK_SIZE;
  admin.length = CLONE_BLOCKS * BLOCK_SIZE;
  worker->errors += admin_run (&admin) != 0;
  read_clone (worker, worker->cloned);
  for (unsigned i = 0; i < CLONE_BLOCKS; i++)
    if (!model_allows (&shared->halves[source][HALVES (from + i)], worker->cloned[i], begun)) {
      printf ("FAIL threads: the clone of disk %u block %" PRIu64 " holds %" PRIu64 "\n", source,
              from + i, worker->cloned[i]);
      atomic_store (&shared->is_failed, true);
    }
}

static void *
worker_main (void *arg)
{
  struct worker *worker = arg;

  for (uint64_t i = 0; i < worker->shared->ops && !atomic_load (&worker->shared->is_failed); i++) {
    if (worker->clones && i % CLONE_EVERY == 0)
      run_clone (worker);
    run_request (worker);
  }
  return NULL;
}

/* --- one run --- */

static bool
create_disks (struct shared *shared)
{
  struct context *context = store_context_create (shared->store);
  bool is_ok = context != NULL;

  for (unsigned d = 0; d < DISKS + 1 && is_ok; d++) {
    struct admin admin;
    char name[16];

    snprintf (name, sizeof name, "disk%u", d);
    admin_init (&admin, context, shared->store, ADMIN_CREATE, name, admin_is_done);
    admin.size = DISK_BLOCKS * BLOCK_SIZE;
    is_ok = admin_run (&admin) == 0;
    for (unsigned h = 0; h < HALVES (DISK_BLOCKS) && d < DISKS; h++) {
      shared->halves[d][h].count = 1;
      pthread_mutex_init (&shared->halves[d][h].mutex, NULL);
    }
  }
  if (context != NULL)
    store_context_destroy (shared->store, context);
  return is_ok;
}

static uint64_t
run_workers (struct shared *shared, unsigned count, uint64_t seed)
{
  struct worker *workers = calloc (count, sizeof *workers);
  uint64_t errors = 0;

  CHECK (workers != NULL);
  for (unsigned i = 0; i < count; i++) {
    struct worker *worker = &workers[i];

    worker->shared = shared;
    worker->random.state = seed * 1000 + i;
    worker->clones = i == 0;
    worker->context = store_context_create (shared->store);
    CHECK (worker->context != NULL);
    for (unsigned d = 0; d < DISKS + 1; d++) {
      char name[16];

      snprintf (name, sizeof name, "disk%u", d);
      worker->disks[d] = disk_open (shared->store, name);
      CHECK (worker->disks[d] != NULL);
    }
    CHECK (pthread_create (&worker->thread, NULL, worker_main, worker) == 0);
  }
  for (unsigned i = 0; i < count; i++)
    pthread_join (workers[i].thread, NULL);
  for (unsigned i = 0; i < count; i++) {
    errors += workers[i].errors;
    /* What reads ahead for its own sake may still run. */
    while (workers[i].context->queue->in_flight > 0)
      context_run (workers[i].context);
    context_run (workers[i].context);
    for (unsigned d = 0; d < DISKS + 1; d++)
      disk_close (workers[i].disks[d]);
    store_context_destroy (shared->store, workers[i].context);
  }
  free (workers);
  return errors;
}

static bool
run_store (unsigned count, uint64_t seed, uint64_t ops, uint64_t *errors)
{
  struct store_geometry geometry = { .group_blocks = 1024, .meta_blocks = 64,
                                     .journal_half_blocks = 128 };
  struct sim_options sim = { .seed = seed, .length = 64, .length_max = 8192, .is_threaded = true };
  struct sim_image *image = sim_image_create (&sim);
  struct store_options options = { .arena_path = "off", .cache_bytes = 1024 * BLOCK_SIZE,
                                   .tail_bytes = 64 * KIB };
  struct shared *shared = calloc (1, sizeof *shared);
  uint8_t uuid[16] = "threads";
  struct device *device = sim_device_create (image);
  char *error = NULL;
  bool is_ok;
  int result;

  CHECK (shared != NULL);
  result = store_init_device (device, &geometry, uuid, &error);
  device_close (device);
  options.device = sim_device_create (image);
  if (result == 0)
    result = store_open (&options, &shared->store, &error);
  if (result < 0) {
    printf ("FAIL threads: %s (%s)\n", strerror (-result), error != NULL ? error : "");
    return false;
  }
  shared->ops = ops;
  is_ok = create_disks (shared);
  if (is_ok)
    *errors += run_workers (shared, count, seed);
  is_ok = is_ok && !atomic_load (&shared->is_failed);
  result = store_close (shared->store, &error);
  if (result < 0) {
    printf ("FAIL threads: closing: %s (%s)\n", strerror (-result), error != NULL ? error : "");
    is_ok = false;
  }
  free (error);
  free (shared);
  sim_image_destroy (image);
  return is_ok;
}

int
threads_run (unsigned count, uint64_t seed, uint64_t runs, uint64_t ops)
{
  uint64_t errors = 0;

  count = MIN (count, THREADS_MAX);
  delays_switch (true);
  for (uint64_t i = 0; i < runs; i++)
    if (!run_store (count, seed + i, ops, &errors)) {
      printf ("  replay (threads are not repeatable): sim --threads %u --seed %" PRIu64
              " --ops %" PRIu64 "\n", count, seed + i, ops);
      return 1;
    }
  printf ("%s threads: %" PRIu64 " runs of %u threads, %" PRIu64 " requests each, %" PRIu64
          " errors\n", errors > 0 ? "FAIL" : "ok", runs, count, ops, errors);
  return errors > 0;
}
