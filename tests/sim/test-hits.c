/* SPDX-License-Identifier: BSD-2-Clause */
/* test-hits.c - a READ of cached blocks takes no lock and writes nothing shared but the frames'
 * pins: counted, not believed.  Every mutex and rwlock of the engine is counted here (ld --wrap)
 * while a million cached blocks are read; and its own counters must say that all were hits and
 * nobody waited.
 *
 * Whatever else is written: all that the engine allocates when it opens the store and the disk lies
 * apart, and may not be written to, but for the frames, while the blocks are read.  Who does so all
 * the same is counted, and let do it.  The keeper may; what it was let write to is protected again
 * every now and then.  The context is the reader's own.
 *
 * For what is charged for the requests in flight that is so because the context keeps a credit
 * (budget.h).  So: who waits for frames gets those of a credit, and a thread that rests has none.
 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "blocking.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/log.h"
#include "device/device-sim-internal.h"
#include "store/cache-internal.h"
#include "store/store-internal.h"
#include "store/test-counter.h"

#define BLOCKS 256
#define READ_BLOCKS 16
#define HITS 1000000
#define HITS_PROTECTED 10000        /* and then protected again */
#define PAGE 4096
#define APART_BYTES (256 * MIB)

static _Thread_local bool is_counting, is_apart;
static _Thread_local uint64_t taken;
static _Atomic uint64_t written;
static char *apart;
static size_t apart_used;
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

/* --- what is written --- */

void *__real_calloc (size_t count, size_t size);
void *__wrap_calloc (size_t count, size_t size);
void *__real_aligned_alloc (size_t alignment, size_t size);
void *__wrap_aligned_alloc (size_t alignment, size_t size);
void __real_free (void *memory);
void __wrap_free (void *memory);

/* Each on pages of its own, zeros; never given back. */
static void *
apart_allocate (size_t size)
{
  char *memory = apart + apart_used;

  apart_used += align_up (size, PAGE);
  CHECK (apart_used <= APART_BYTES);
  return memory;
}

void *
__wrap_calloc (size_t count, size_t size)
{
  return is_apart ? apart_allocate (count * size) : __real_calloc (count, size);
}

void *
__wrap_aligned_alloc (size_t alignment, size_t size)
{
  return is_apart ? apart_allocate (size) : __real_aligned_alloc (alignment, size);
}

void
__wrap_free (void *memory)
{
  if ((char *) memory < apart || (char *) memory >= apart + APART_BYTES)
    __real_free (memory);
}

static void
on_fault (int number, siginfo_t *info, void *frame)
{
  uintptr_t offset = (uintptr_t) info->si_addr - (uintptr_t) apart;

  (void) frame;
  if (offset >= APART_BYTES)
    signal (number, SIG_DFL);
  else
    mprotect (apart + align_down (offset, PAGE), PAGE, PROT_READ | PROT_WRITE);
  written += is_counting;
}

static void
apart_init (void)
{
  struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

  apart = mmap (NULL, APART_BYTES, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK (apart != MAP_FAILED);
  CHECK (sigaction (SIGSEGV, &action, NULL) == 0);
}

static void
apart_protect (const struct cache *cache)
{
  size_t frames_bytes = align_up (cache->frame_count * sizeof *cache->frames, PAGE);

  CHECK (mprotect (apart, apart_used, PROT_READ) == 0);
  CHECK (mprotect (cache->frames, frames_bytes, PROT_READ | PROT_WRITE) == 0);
}

static void
apart_release (void)
{
  CHECK (mprotect (apart, apart_used, PROT_READ | PROT_WRITE) == 0);
}

/* --- requests --- */

static void
run_request (struct context *context, struct disk *disk, enum request_kind kind, uint64_t block,
             uint64_t count)
{
  struct request request;

  request_init (&request, context, disk, kind, 0, block * BLOCK_SIZE, count * BLOCK_SIZE,
                request_is_done);
  if (kind == REQUEST_WRITE)
    request_admit_wait (&request);
  CHECK (request_run (&request) == 0);
  request_release (&request);
}

static bool
read_hits (struct store *store, struct context *context, struct disk *disk)
{
  uint64_t hits, misses, blocks = 0;

  /* The first one takes a credit. */
  run_request (context, disk, REQUEST_READ, 0, READ_BLOCKS);
  hits = store_counter (store, "hit_blocks");
  misses = store_counter (store, "miss_blocks");
  for (taken = 0; blocks < HITS; blocks += READ_BLOCKS) {
    if (blocks % HITS_PROTECTED == 0)
      apart_protect (store->cache);
    is_counting = true;
    run_request (context, disk, REQUEST_READ, blocks % (BLOCKS - READ_BLOCKS), READ_BLOCKS);
    is_counting = false;
  }
  apart_release ();
  hits = store_counter (store, "hit_blocks") - hits;
  misses = store_counter (store, "miss_blocks") - misses;
  printf ("%" PRIu64 " blocks read: %" PRIu64 " hits, %" PRIu64 " misses, %" PRIu64
          " locks taken, %" PRIu64 " waits, %" PRIu64 " shared pages written to\n", blocks, hits,
          misses, taken, store_counter (store, "range_lock_waits"), (uint64_t) written);
  return hits == blocks && misses == 0 && taken == 0
         && store_counter (store, "range_lock_waits") == 0
         && written == 0;
}

static _Atomic bool is_admitted;

static void
request_admitted (struct request *request)
{
  (void) request;
  atomic_store (&is_admitted, true);
}

/* A WRITE of another context needs all frames that may be in flight; CONTEXT, whose thread this is,
 * has some at hand. */
static bool
credit_comes_back (struct store *store, struct context *context, struct disk *disk)
{
  struct context *other = store_context_create (store);
  uint64_t all = store->cache->in_flight.max;
  uint64_t at_hand = store_counter (store, "cache_in_flight_frames");
  struct request request;
  bool is_ok;

  CHECK (other != NULL);
  request_init (&request, other, disk, REQUEST_WRITE, 0, 0, all * BLOCK_SIZE, request_is_done);
  request.admitted = request_admitted;
  is_ok = at_hand > 0 && !request_admit (&request);
  context_run (context);
  context_run (other);
  is_ok = is_ok && atomic_load (&is_admitted);
  printf ("%" PRIu64 " frames at hand, %s\n", at_hand,
          is_ok ? "given to who waited for them" : "not given back");
  if (!is_ok)
    exit (1);
  request_release (&request);
  store_context_destroy (store, other);

  run_request (context, disk, REQUEST_READ, 0, 1);
  is_ok = store_counter (store, "cache_in_flight_frames") > 0;
  context_wait (context, 0);
  return is_ok && store_counter (store, "cache_in_flight_frames") == 0;
}

static struct disk *
make_disk (struct store *store, struct context *context)
{
  struct admin admin;

  admin_init (&admin, context, store, ADMIN_CREATE, "disk", admin_is_done);
  admin.size = BLOCKS * BLOCK_SIZE;
  CHECK (admin_run (&admin) == 0);
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
  apart_init ();
  is_apart = true;
  CHECK (store_open (&options, &store, &error) == 0);
  is_apart = false;
  context = store_context_create (store);
  CHECK (context != NULL);
  op_enter_context (context);
  is_apart = true;
  disk = make_disk (store, context);
  is_apart = false;
  run_request (context, disk, REQUEST_WRITE, 0, BLOCKS);
  run_request (context, disk, REQUEST_READ, 0, BLOCKS);
  is_ok = read_hits (store, context, disk);
  is_ok = credit_comes_back (store, context, disk) && is_ok;
  disk_close (disk);
  context_drain (context);
  op_enter_context (NULL);
  store_context_destroy (store, context);
  CHECK (store_close (store, &error) == 0);
  sim_image_destroy (image);
  printf ("%s test-hits\n", is_ok ? "ok" : "FAIL");
  return is_ok ? 0 : 1;
}
