/* SPDX-License-Identifier: BSD-2-Clause */
/* scheme.c - what the range lock costs those who read.
 *
 *   scheme [DIRECTORY]          where the store is made, and removed again; default /var/tmp
 *
 * One or two threads, each with a context, read single blocks at random, one at a time: hits, or
 * misses.  Variants of that take turns, round after round:
 *
 *   alone          nobody else
 *   other disk     one more thread trims and rewrites a range of another disk, as fast as it can:
 *                  what the processors and the device that are shared cost, whatever the locks
 *   range lock     the same on a distant range of the disk that is read
 *   rwlock alone   as alone, each request within one pthread_rwlock around the disk: READs share it
 *   rwlock         as range lock, within the rwlock: TRIM and WRITE have it to themselves
 *
 * The rwlock is this program's own, and the range lock is still taken below it; but then nobody
 * ever waits for that one.  As with the range lock, those who read wait behind one who waits to
 * write.  What is printed are medians of the rounds, of a clock that is read around each request;
 * ratios are those of one round, and then the median.  A reader that is kept waiting begins no
 * other request meanwhile, so long waits weigh little in percentiles: the rate of READs tells them.
 * Where about one in a hundred waits for a processor, p99 is one such wait, or none; how many they
 * are (slow: longer than half a millisecond) says more.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../sim/blocking.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "bench-store.h"
#include "store/test-counter.h"

#define READERS_MAX 2
#define ROUNDS 11
#define ROUND_MS 220

#define CACHE_BYTES (128 * MIB)
#define HOT_BLOCKS 8192         /* 32 MiB, read before hits are measured */
/* 512 MiB, each block once until all were read: by then it has long been replaced. */
#define COLD_BLOCKS 131072
#define COLD_STRIDE 80021       /* a prime */
#define DISTANT (1 * GIB)       /* where it is trimmed and rewritten, in pieces */
#define DISTANT_PIECES 16
#define PIECE_BYTES (1 * MIB)
#define DISK_BYTES (2 * GIB)

/* A histogram of times in ns: 128 buckets for each power of two, less than 1 % wide. */
#define SUBS 256
#define BUCKETS (SUBS * 30)
#define SLOW_NS 500000

enum disturbance { QUIET, OTHER_DISK, SAME_DISK };

static const struct variant {
  const char *name;
  enum disturbance disturbance;
  bool has_rwlock;
} variants[] = {
  { "alone", QUIET, false },
  { "other disk", OTHER_DISK, false },
  { "range lock", SAME_DISK, false },
  { "rwlock alone", QUIET, true },
  { "rwlock", SAME_DISK, true },
};

#define VARIANTS ARRAY_COUNT (variants)

static struct store *store;
static pthread_rwlock_t rwlock;
static _Atomic bool is_over;

struct client {
  pthread_t thread;
  const struct variant *variant;
  struct context *context;
  struct disk *disk;
  struct request request;
  bool hits;
  uint64_t random, at;          /* of hits; of misses: the next one of the lap */
  uint64_t count;
  uint64_t times[BUCKETS];
};

/* Of one variant in one round: RATE and REWRITTEN (pieces) are per second. */
struct result {
  double p50_us, p99_us, slow_share, rate, hit_share, rewritten;
};

/* --- times --- */

static unsigned
bucket_of (uint64_t ns)
{
  unsigned power = ns < SUBS ? 0 : 56 - (unsigned) __builtin_clzll (ns);

  return MIN (power * SUBS + (unsigned) (ns >> power), BUCKETS - 1);
}

/* The time that a share of all requests did not take longer than, in us. */
static double
percentile (const struct client *clients, unsigned count, double share)
{
  uint64_t all = 0, seen = 0;

  for (unsigned c = 0; c < count; c++)
    all += clients[c].count;
  for (unsigned i = 0; i < BUCKETS; i++) {
    for (unsigned c = 0; c < count; c++)
      seen += clients[c].times[i];
    if ((double) seen >= share * (double) all)
      return (double) ((uint64_t) (i % SUBS) << i / SUBS) / 1000;
  }
  return 0;
}

static double
slow_share (const struct client *clients, unsigned count)
{
  uint64_t all = 0, slow = 0;

  for (unsigned c = 0; c < count; c++) {
    all += clients[c].count;
    for (unsigned i = bucket_of (SLOW_NS); i < BUCKETS; i++)
      slow += clients[c].times[i];
  }
  return (double) slow / (double) MAX (all, 1);
}

/* --- requests --- */

/* As if it had come from a socket; before any lock is taken. */
static void
fill_payload (struct request *request)
{
  struct iovec segments[16];
  uint64_t bytes;

  for (uint64_t at = 0; at < request->length; at += bytes) {
    unsigned count = request_segments (request, at, segments, ARRAY_COUNT (segments), &bytes);

    CHECK (count > 0);
    for (unsigned i = 0; i < count; i++)
      memset (segments[i].iov_base, (int) (request->offset / PIECE_BYTES), segments[i].iov_len);
  }
}

static void
run_request (struct client *client, enum request_kind kind, uint64_t offset, uint64_t length)
{
  struct request *request = &client->request;
  bool has_rwlock = client->variant != NULL && client->variant->has_rwlock;

  request_init (request, client->context, client->disk, kind, 0, offset, length, request_is_done);
  if (kind == REQUEST_WRITE) {
    request_admit_wait (request);
    fill_payload (request);
  }
  if (has_rwlock && kind == REQUEST_READ)
    CHECK (pthread_rwlock_rdlock (&rwlock) == 0);
  else if (has_rwlock)
    CHECK (pthread_rwlock_wrlock (&rwlock) == 0);
  CHECK (request_run (request) == 0);
  if (has_rwlock)
    CHECK (pthread_rwlock_unlock (&rwlock) == 0);
  request_release (request);
}

static void
write_range (struct client *client, uint64_t offset, uint64_t length)
{
  for (uint64_t at = 0; at < length; at += PIECE_BYTES)
    run_request (client, REQUEST_WRITE, offset + at, PIECE_BYTES);
}

static uint64_t
next_block (struct client *client)
{
  if (client->hits) {
    client->random = client->random * 6364136223846793005 + 1442695040888963407;
    return (client->random >> 33) % HOT_BLOCKS;
  }
  client->at = (client->at + COLD_STRIDE) % COLD_BLOCKS;
  return HOT_BLOCKS + client->at;
}

static void *
reader_main (void *arg)
{
  struct client *client = arg;

  while (!atomic_load_explicit (&is_over, memory_order_relaxed)) {
    uint64_t offset = next_block (client) * BLOCK_SIZE, began = clock_ns ();

    run_request (client, REQUEST_READ, offset, BLOCK_SIZE);
    client->times[bucket_of (clock_ns () - began)]++;
    client->count++;
  }
  return NULL;
}

static void *
rewriter_main (void *arg)
{
  struct client *client = arg;

  for (; !atomic_load_explicit (&is_over, memory_order_relaxed); client->count++) {
    uint64_t offset = DISTANT + client->count % DISTANT_PIECES * PIECE_BYTES;

    run_request (client, REQUEST_TRIM, offset, PIECE_BYTES);
    run_request (client, REQUEST_WRITE, offset, PIECE_BYTES);
  }
  return NULL;
}

/* --- disks --- */

static void
run_admin (struct client *client, enum admin_kind kind, const char *name)
{
  struct admin admin;

  admin_init (&admin, client->context, store, kind, name, admin_is_done);
  admin.size = DISK_BYTES;
  CHECK (admin_run (&admin) == 0);
}

static void
client_open (struct client *client, const char *disk)
{
  client->context = store_context_create (store);
  CHECK (client->context != NULL);
  client->disk = disk_open (store, disk);
  CHECK (client->disk != NULL);
}

static void
client_close (struct client *client)
{
  disk_close (client->disk);
  context_drain (client->context);
  store_context_destroy (store, client->context);
}

static void
make_disks (void)
{
  struct client client = { .context = store_context_create (store) };

  CHECK (client.context != NULL);
  run_admin (&client, ADMIN_CREATE, "disk");
  run_admin (&client, ADMIN_CREATE, "other");
  store_context_destroy (store, client.context);
  client_open (&client, "disk");
  write_range (&client, 0, (HOT_BLOCKS + COLD_BLOCKS) * (uint64_t) BLOCK_SIZE);
  client_close (&client);
}

/* Nothing of the round before is left to be done, and what shall be hit is in the cache. */
static void
settle (bool hits)
{
  struct client client = { 0 };

  client_open (&client, "disk");
  run_admin (&client, ADMIN_SYNC, "");
  for (uint64_t block = 0; hits && block < HOT_BLOCKS; block++)
    run_request (&client, REQUEST_READ, block * BLOCK_SIZE, BLOCK_SIZE);
  client_close (&client);
}

/* --- measuring --- */

static struct result
measure (const struct variant *variant, bool hits, unsigned readers)
{
  static struct client clients[READERS_MAX + 1];
  static uint64_t lap;
  struct client *rewriter = &clients[READERS_MAX];
  struct timespec round = { .tv_nsec = ROUND_MS * 1000000L };
  struct result result = { 0 };
  double seconds;
  uint64_t began, hit, missed;

  settle (hits);
  hit = store_counter (store, "hit_blocks");
  missed = store_counter (store, "miss_blocks");
  memset (clients, 0, sizeof clients);
  atomic_store (&is_over, false);
  for (unsigned i = 0; i < readers; i++) {
    client_open (&clients[i], "disk");
    clients[i].hits = hits;
    clients[i].random = i + 1;
    clients[i].at = (lap + i * COLD_BLOCKS / 2) % COLD_BLOCKS;
    clients[i].variant = variant;
    CHECK (pthread_create (&clients[i].thread, NULL, reader_main, &clients[i]) == 0);
  }
  if (variant->disturbance != QUIET) {
    client_open (rewriter, variant->disturbance == SAME_DISK ? "disk" : "other");
    rewriter->variant = variant;
    CHECK (pthread_create (&rewriter->thread, NULL, rewriter_main, rewriter) == 0);
  }
  began = clock_ns ();
  nanosleep (&round, NULL);
  atomic_store (&is_over, true);
  seconds = (double) (clock_ns () - began) / 1e9;
  for (unsigned i = 0; i < readers; i++) {
    pthread_join (clients[i].thread, NULL);
    result.rate += (double) clients[i].count / seconds;
    lap = hits ? lap : clients[0].at;
    client_close (&clients[i]);
  }
  if (variant->disturbance != QUIET) {
    pthread_join (rewriter->thread, NULL);
    result.rewritten = (double) rewriter->count / seconds;
    client_close (rewriter);
  }
  hit = store_counter (store, "hit_blocks") - hit;
  missed = store_counter (store, "miss_blocks") - missed;
  result.hit_share = (double) hit / (double) MAX (hit + missed, 1);
  result.p50_us = percentile (clients, readers, 0.5);
  result.p99_us = percentile (clients, readers, 0.99);
  result.slow_share = slow_share (clients, readers);
  return result;
}

static int
compare_doubles (const void *a, const void *b)
{
  double left = *(const double *) a, right = *(const double *) b;

  return (left > right) - (left < right);
}

static double
median (double values[ROUNDS])
{
  qsort (values, ROUNDS, sizeof values[0], compare_doubles);
  return values[ROUNDS / 2];
}

static double
median_of (const struct result *results, size_t member)
{
  double values[ROUNDS];

  for (unsigned i = 0; i < ROUNDS; i++)
    memcpy (&values[i], (const char *) &results[i] + member, sizeof values[i]);
  return median (values);
}

/* What changes from round to round, the machine's, is in both. */
static double
median_ratio (const struct result *results, const struct result *others)
{
  double values[ROUNDS];

  for (unsigned i = 0; i < ROUNDS; i++)
    values[i] = results[i].p50_us / others[i].p50_us;
  return median (values);
}

static void
measure_all (bool hits, unsigned readers)
{
  struct result results[VARIANTS][ROUNDS];
  char title[32];

  for (unsigned round = 0; round < ROUNDS; round++)
    for (unsigned i = 0; i < VARIANTS; i++) {
      unsigned v = (round + i) % VARIANTS;

      results[v][round] = measure (&variants[v], hits, readers);
    }
  snprintf (title, sizeof title, "%s, %u thread%s", hits ? "hits" : "misses", readers,
            readers == 1 ? "" : "s");
  printf ("\n%-19s p50  of alone       p99    slow        READs     hits    rewritten\n", title);
  for (unsigned v = 0; v < VARIANTS; v++)
    printf (" %-13s %7.2f us  %6.3f %9.2f us %4.1f %% %9.0f/s %6.1f %% %6.0f MiB/s\n",
            variants[v].name,
            median_of (results[v], offsetof (struct result, p50_us)),
            median_ratio (results[v], results[0]),
            median_of (results[v], offsetof (struct result, p99_us)),
            median_of (results[v], offsetof (struct result, slow_share)) * 100,
            median_of (results[v], offsetof (struct result, rate)),
            median_of (results[v], offsetof (struct result, hit_share)) * 100,
            median_of (results[v], offsetof (struct result, rewritten)) * PIECE_BYTES / MIB);
  printf (" p50, range lock of other disk: %.3f\n", median_ratio (results[2], results[1]));
  fflush (stdout);
}

int
main (int argc, char **argv)
{
  pthread_rwlockattr_t attributes;
  char *error = NULL;

  store = bench_store_open ("scheme", argc > 1 ? argv[1] : NULL, CACHE_BYTES);
  if (store == NULL)
    return 1;
  pthread_rwlockattr_init (&attributes);
  pthread_rwlockattr_setkind_np (&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  pthread_rwlock_init (&rwlock, &attributes);
  make_disks ();
  for (unsigned readers = 1; readers <= READERS_MAX; readers++) {
    measure_all (true, readers);
    measure_all (false, readers);
  }
  pthread_rwlock_destroy (&rwlock);
  CHECK (store_close (store, &error) == 0);
  return 0;
}
