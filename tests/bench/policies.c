/* SPDX-License-Identifier: BSD-2-Clause */
/* policies.c - what the choice of who leaves the cache is worth: hit ratios of Lacuna's own cache (the
 * code that serves), of LRU, and of what nobody can do who does not know the future (Belady), on
 * the same patterns, for several sizes.
 *
 *   policies            patterns made here, always the same
 *   policies FILE...    recorded ones: a line for each read, its offset and its length in bytes
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "store/cache.h"

/* A pattern: blocks in the order in which they are read. */
struct trace {
  uint32_t *blocks;
  size_t count, room;
  uint32_t block_max;
};

static void
die (const char *what)
{
  fprintf (stderr, "policies: %s: %s\n", what, strerror (errno));
  exit (1);
}

static void *
allocate (size_t count, size_t size)
{
  void *memory = calloc (MAX (count, 1), size);

  if (memory == NULL)
    die ("memory");
  return memory;
}

static void
trace_add (struct trace *trace, uint64_t block)
{
  CHECK (block < UINT32_MAX);
  if (trace->count == trace->room) {
    trace->room = trace->room ? 2 * trace->room : 1024;
    trace->blocks = realloc (trace->blocks, trace->room * sizeof *trace->blocks);
    if (trace->blocks == NULL)
      die ("memory");
  }
  trace->blocks[trace->count++] = (uint32_t) block;
  trace->block_max = MAX (trace->block_max, (uint32_t) block);
}

/* --- patterns --- */

static uint64_t random_state;

static uint64_t
random_next (void)
{
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

static double
random_unit (void)
{
  return (double) (random_next () >> 11) / (double) (UINT64_C (1) << 53);
}

/* Blocks of a disk, the popular ones scattered over it. */
static uint64_t
scattered (uint64_t rank, uint64_t blocks)
{
  return rank * UINT64_C (0x9e3779b97f4a7c15) % blocks;
}

/* The K-th of BLOCKS is read as often as 1 / K^0.99, as good as: the distribution is inverted as if it
 * were continuous. */
static void
make_zipf (struct trace *trace)
{
  enum { BLOCKS = 1 << 18, READS = 2000000 };
  double most = pow (BLOCKS, 0.01);

  for (unsigned i = 0; i < READS; i++) {
    double rank = pow (1 + random_unit () * (most - 1), 100);

    trace_add (trace, scattered ((uint64_t) MIN (rank, BLOCKS - 1.0), BLOCKS));
  }
}

/* A guest with a working set of 64 MiB, four fifths of the reads in a fifth of it, while somebody
 * copies the disk of 1 GiB: for each read of the guest two of the copy, once through, then none. */
static void
make_copy (struct trace *trace)
{
  enum { BLOCKS = 1 << 18, SET = 1 << 14 };

  for (unsigned i = 0; i < 4 * SET + BLOCKS; i++) {
    bool is_popular = random_next () % 5 != 0;
    uint64_t rank = random_next () % (is_popular ? SET / 5 : SET);

    trace_add (trace, scattered (rank, BLOCKS));
    if (i >= 2 * SET && i - 2 * SET < BLOCKS / 2)
      for (unsigned k = 0; k < 2; k++)
        trace_add (trace, 2 * (i - 2 * SET) + k);
  }
}

/* Files of 16 to 256 blocks, which one is chosen as zipf says, read from end to end: a build, a boot. */
static void
make_files (struct trace *trace)
{
  enum { FILES = 2048, READS = 20000 };
  double most = pow (FILES, 0.2);

  for (unsigned i = 0; i < READS; i++) {
    uint64_t file = (uint64_t) pow (1 + random_unit () * (most - 1), 5);
    uint64_t length = 16 << scattered (file, 5);

    for (uint64_t k = 0; k < length; k++)
      trace_add (trace, file * 256 + k);
  }
}

/* Round and round, where LRU never hits. */
static void
make_loop (struct trace *trace)
{
  for (unsigned i = 0; i < 10 << 15; i++)
    trace_add (trace, i % (1 << 15));
}

static void
read_trace (struct trace *trace, const char *path)
{
  FILE *file = fopen (path, "r");
  uint64_t offset, length;

  if (file == NULL)
    die (path);
  while (fscanf (file, "%" SCNu64 "%" SCNu64 "%*[^\n]", &offset, &length) == 2)
    for (uint64_t at = offset / BLOCK_SIZE; length > 0 && at <= (offset + length - 1) / BLOCK_SIZE;
         at++)
      trace_add (trace, at);
  fclose (file);
}

/* --- policies: hits on a trace with so many frames --- */

static size_t
hits_of_lacuna (const struct trace *trace, uint32_t frames)
{
  struct arena arena = {
    .frame_count = frames,
    .frames_at_start = frames,
    .frames = allocate (frames, sizeof *arena.frames),
    /* Never touched: there is no content. */
    .data = aligned_alloc (BLOCK_SIZE, (size_t) frames * BLOCK_SIZE),
  };
  struct cache *cache = cache_create (&arena);
  struct cache_disk disk;
  size_t hits = 0;

  if (cache == NULL || arena.data == NULL)
    die ("memory");
  cache_disk_init (&disk, 1);
  for (size_t i = 0; i < trace->count; i++) {
    struct frame *frame = cache_get (cache, disk.id, trace->blocks[i]);
    struct list wake = LIST_INIT (wake);

    if (frame != NULL)
      hits++;
    else {
      CHECK (cache_fill_begin (cache, &disk, trace->blocks[i], cache_allocate (cache), &frame)
             == CACHE_YOURS);
      cache_fill_end (cache, frame, true, &wake);
    }
    cache_put (cache, frame);
  }
  cache_destroy (cache, true);
  free (arena.frames);
  free (arena.data);
  return hits;
}

/* A ring of blocks, 0 its head, by numbers that are blocks' plus one. */
static size_t
hits_of_lru (const struct trace *trace, uint32_t frames)
{
  uint32_t *before = allocate (trace->block_max + 2, sizeof *before);
  uint32_t *after = allocate (trace->block_max + 2, sizeof *after);
  bool *is_cached = allocate (trace->block_max + 2, sizeof *is_cached);
  uint32_t used = 0;
  size_t hits = 0;

  for (size_t i = 0; i < trace->count; i++) {
    uint32_t number = trace->blocks[i] + 1, leaving = number;

    hits += is_cached[number];
    if (!is_cached[number] && used == frames)
      leaving = before[0];
    used += !is_cached[number] && used < frames;
    if (is_cached[leaving]) {
      after[before[leaving]] = after[leaving];
      before[after[leaving]] = before[leaving];
      is_cached[leaving] = false;
    }
    before[number] = 0;
    after[number] = after[0];
    before[after[0]] = number;
    after[0] = number;
    is_cached[number] = true;
  }
  free (before);
  free (after);
  free (is_cached);
  return hits;
}

/* A heap of what is cached, the one that is read again last on top.  What was read again stands in it
 * several times; only the entry with its newest next read counts. */
struct next_read {
  size_t at;
  uint32_t block;
};

static void
heap_push (struct next_read *heap, size_t *count, struct next_read entry)
{
  size_t at = (*count)++;

  for (; at > 0 && heap[(at - 1) / 2].at < entry.at; at = (at - 1) / 2)
    heap[at] = heap[(at - 1) / 2];
  heap[at] = entry;
}

static struct next_read
heap_pop (struct next_read *heap, size_t *count)
{
  struct next_read top = heap[0], last = heap[--*count];
  size_t at = 0, child;

  while ((child = 2 * at + 1) < *count) {
    child += child + 1 < *count && heap[child + 1].at > heap[child].at;
    if (heap[child].at <= last.at)
      break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = last;
  return top;
}

/* Keeps what is read again soonest, and does not even take in what is read again later than all that
 * it has. */
static size_t
hits_of_ideal (const struct trace *trace, uint32_t frames)
{
  size_t *next = allocate (trace->count, sizeof *next);
  size_t *when = allocate (trace->block_max + 1, sizeof *when);
  bool *is_cached = allocate (trace->block_max + 1, sizeof *is_cached);
  struct next_read *heap = allocate (trace->count + 1, sizeof *heap);
  size_t hits = 0, count = 0;
  uint32_t used = 0;

  for (size_t i = 0; i <= trace->block_max; i++)
    when[i] = SIZE_MAX;
  for (size_t i = trace->count; i-- > 0;) {
    next[i] = when[trace->blocks[i]];
    when[trace->blocks[i]] = i;
  }
  for (size_t i = 0; i < trace->count; i++) {
    uint32_t block = trace->blocks[i];

    hits += is_cached[block];
    used += !is_cached[block];
    is_cached[block] = true;
    when[block] = next[i];
    heap_push (heap, &count, (struct next_read) { next[i], block });
    while (used > frames) {
      struct next_read last = heap_pop (heap, &count);

      if (!is_cached[last.block] || when[last.block] != last.at)
        continue;
      is_cached[last.block] = false;
      used--;
    }
  }
  free (next);
  free (when);
  free (is_cached);
  free (heap);
  return hits;
}

/* --- the table --- */

static size_t
count_blocks (const struct trace *trace)
{
  bool *is_read = allocate (trace->block_max + 1, sizeof *is_read);
  size_t count = 0;

  for (size_t i = 0; i < trace->count; i++) {
    count += !is_read[trace->blocks[i]];
    is_read[trace->blocks[i]] = true;
  }
  free (is_read);
  return count;
}

static void
report (const char *name, struct trace *trace)
{
  size_t blocks = count_blocks (trace);

  printf ("%s: %zu reads of %zu blocks\n", name, trace->count, blocks);
  printf ("  cache, of all blocks    Lacuna      LRU    ideal   hits, %% of the reads\n");
  for (unsigned share = 64; share >= 2; share /= 2) {
    uint32_t frames = (uint32_t) MAX (blocks / share, 64);
    double reads = (double) trace->count / 100;

    printf ("  1/%-2u  %10.1f MiB  %8.1f %8.1f %8.1f\n", share,
            (double) frames * BLOCK_SIZE / (1 << 20),
            (double) hits_of_lacuna (trace, frames) / reads,
            (double) hits_of_lru (trace, frames) / reads,
            (double) hits_of_ideal (trace, frames) / reads);
  }
  printf ("\n");
  free (trace->blocks);
}

int
main (int argc, char **argv)
{
  static const struct {
    const char *name;
    void (*make) (struct trace *trace);
  } patterns[] = {
    { "zipf 0.99", make_zipf },
    { "a working set, and a copy of the disk", make_copy },
    { "files, read from end to end", make_files },
    { "round and round", make_loop },
  };

  for (int i = 1; i < argc; i++) {
    struct trace trace = { 0 };

    read_trace (&trace, argv[i]);
    report (argv[i], &trace);
  }
  for (size_t i = 0; i < ARRAY_COUNT (patterns) && argc == 1; i++) {
    struct trace trace = { 0 };

    random_state = UINT64_C (0x2545f4914f6cdd1d);
    patterns[i].make (&trace);
    report (patterns[i].name, &trace);
  }
  return 0;
}
