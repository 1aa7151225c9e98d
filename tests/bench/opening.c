/* SPDX-License-Identifier: BSD-2-Clause */
/* opening.c - how long it takes to open a store with very many extents, and what that takes in memory.
 *
 *   opening STORE [EXTENTS [make]]
 *
 * Makes STORE, a sparse file that must not be there, with one disk of EXTENTS extents (10^7) of one
 * block each, no two of which touch: 160 MB of nodes, in two copies, and no data.  The map is made in
 * memory, and written by the checkpoint of closing.  With "make" that is all, and the file stays (for
 * growth.py).  Then, each beginning with nothing of the file
 * cached:
 *
 *   read     the nodes' first copies are read, in the order of their places, in runs
 *   open     the store is opened to be read only, as it was closed
 *   recover  it is opened for writing, after a process that died with it open
 *
 * Beside the time is how much of it others had the processor for which this one was ready, as the kernel counts
 * that, and what processors have spent on it.  The file is removed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "store/store-internal.h"

static const char *path;

static double
now (clockid_t clock)
{
  struct timespec time;

  clock_gettime (clock, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

/* What something took.  READY: the time in which this thread could have run, and others did. */
struct lap {
  double wall, processor, ready;
};

static struct lap
lap_begin (void)
{
  FILE *file = fopen ("/proc/thread-self/schedstat", "re");
  unsigned long long ready = 0;

  if (file != NULL) {
    if (fscanf (file, "%*u %llu", &ready) != 1)
      ready = 0;
    fclose (file);
  }
  return (struct lap) { now (CLOCK_MONOTONIC), now (CLOCK_PROCESS_CPUTIME_ID), ready / 1e9 };
}

static void
lap_end (struct lap begun, const char *what)
{
  struct lap end = lap_begin ();

  printf ("%-8s %6.2f s, of which %6.2f s were others'; processor %6.2f s\n", what,
          end.wall - begun.wall, end.ready - begun.ready, end.processor - begun.processor);
}

static void
must (int code, const char *what, const char *why)
{
  if (code == 0)
    return;
  fprintf (stderr, "opening: %s: %s: %s\n", path, what, why != NULL ? why : strerror (-code));
  unlink (path);
  exit (1);
}

/* The file's pages are not in the host's cache any more. */
static void
forget_cached (void)
{
  int fd = open (path, O_RDWR | O_CLOEXEC);

  must (fd < 0 || fdatasync (fd) < 0 ? -errno : 0, "flushing it", NULL);
  posix_fadvise (fd, 0, 0, POSIX_FADV_DONTNEED);
  close (fd);
}

static struct store *
open_store (bool is_read_only)
{
  struct store_options options = {
    .path = path, .arena_path = "off", .cache_bytes = 64 * MIB, .is_read_only = is_read_only,
  };
  struct store *store;
  char *error = NULL;

  must (store_open (&options, &store, &error), "opening", error);
  return store;
}

static void
close_store (struct store *store)
{
  char *error = NULL;

  must (store_close (store, &error), "closing", error);
}

/* --- making it --- */

static void
ignore_admin (struct admin *admin)
{
  *(bool *) admin->owner = true;
}

static void
create_disk (struct store *store, uint64_t size)
{
  struct context *context = store_context_create (store);
  struct admin admin;
  bool is_done = false;

  CHECK (context != NULL);
  admin_init (&admin, context, store, ADMIN_CREATE, "disk", ignore_admin);
  admin.size = size;
  admin.owner = &is_done;
  admin_start (&admin);
  while (!is_done) {
    context_run (context);
    if (!is_done)
      context_wait (context, 100);
  }
  must (admin.op.error, "creating the disk", admin.message);
  store_context_destroy (store, context);
}

/* Data blocks of the store in order, over the meta areas and the journal. */
static uint64_t
next_place (const struct store *store, uint64_t place)
{
  uint64_t group = from_le64 (store->superblock.group_blocks);
  uint64_t meta = from_le64 (store->superblock.meta_blocks);
  uint64_t first = from_le64 (store->superblock.journal_place)
                   + JOURNAL_HALVES * from_le64 (store->superblock.journal_half_blocks);

  place = MAX (place, first);
  return place % group < meta ? place - place % group + meta : place;
}

static void
make (uint64_t extents)
{
  struct store *store;
  struct disk *disk;
  char *error = NULL;
  uint64_t place = 0;

  must (store_init (path, 0, false, &error), "making it", error);
  store = open_store (false);
  create_disk (store, 2 * extents * BLOCK_SIZE);
  disk = disk_open (store, "disk");
  for (uint64_t i = 0; i < extents; i++) {
    struct extent extent = { 2 * i, 1, next_place (store, place), EXTENT_UNWRITTEN };

    must (extent_map_reserve (&disk->map, 1), "mapping", NULL);
    CHECK (space_mark_used (store->space, extent.place, 1));
    extent_map_set (&disk->map, &extent, NULL, NULL);
    place = extent.place + 1;
  }
  atomic_store (&disk->is_changed, true);
  disk_close (disk);
  close_store (store);
}

/* --- measuring --- */

struct places {
  uint64_t *places;
  size_t count;
};

static void
add_place (void *arg, uint64_t place)
{
  struct places *places = arg;

  places->places[places->count++] = place;
}

static int
place_compare (const void *left, const void *right)
{
  uint64_t a = *(const uint64_t *) left, b = *(const uint64_t *) right;

  return a < b ? -1 : a > b;
}

static struct places
places_of (struct store *store)
{
  struct disk *disk = disk_open (store, "disk");
  struct places places = { malloc (disk->map.tree.node_count * sizeof (uint64_t)), 0 };

  CHECK (places.places != NULL);
  btree_visit_places (&disk->map.tree, add_place, &places);
  qsort (places.places, places.count, sizeof *places.places, place_compare);
  disk_close (disk);
  return places;
}

static void
read_places (const struct places *places)
{
  int fd = open (path, O_RDONLY | O_DIRECT | O_CLOEXEC);
  uint8_t *buffer = aligned_alloc (BLOCK_SIZE, MIB);
  struct lap begun;
  size_t count;

  if (fd < 0)
    fd = open (path, O_RDONLY | O_CLOEXEC);
  CHECK (fd >= 0 && buffer != NULL);
  forget_cached ();
  begun = lap_begin ();
  for (size_t at = 0; at < places->count; at += count) {
    for (count = 1; at + count < places->count && count < MIB / BLOCK_SIZE
                    && places->places[at + count] == places->places[at] + count;
         count++)
      continue;
    CHECK (pread (fd, buffer, count * BLOCK_SIZE, places->places[at] * BLOCK_SIZE)
           == (ssize_t) (count * BLOCK_SIZE));
  }
  lap_end (begun, "read");
  close (fd);
  free (buffer);
}

/* Resident memory of this process, bytes. */
static uint64_t
resident (void)
{
  FILE *file = fopen ("/proc/self/statm", "r");
  unsigned long pages = 0;

  CHECK (file != NULL && fscanf (file, "%*u %lu", &pages) == 1);
  fclose (file);
  return pages * (uint64_t) sysconf (_SC_PAGESIZE);
}

static struct store *
time_open (bool is_read_only, const char *what)
{
  struct lap begun;
  struct store *store;

  forget_cached ();
  begun = lap_begin ();
  store = open_store (is_read_only);
  lap_end (begun, what);
  return store;
}

int
main (int argc, char **argv)
{
  uint64_t extents = argc > 2 ? strtoull (argv[2], NULL, 0) : 10000000, before, after;
  struct places places;
  struct store *store;
  struct lap begun;

  if (argc < 2 || extents == 0 || (argc > 3 && strcmp (argv[3], "make") != 0)) {
    fprintf (stderr, "usage: opening STORE [EXTENTS [make]]\n");
    return 2;
  }
  path = argv[1];
  begun = lap_begin ();
  make (extents);
  lap_end (begun, "made");
  if (argc > 3)
    return 0;
  before = resident ();
  store = time_open (true, "open");
  after = resident ();
  printf ("memory   %6.1f bytes per extent for nodes, %.1f for all that opening took\n",
          (double) btree_pool_bytes (store->pool) / extents,
          (double) (after - MIN (before, after)) / extents);
  places = places_of (store);
  close_store (store);
  printf ("nodes    %zu, of %" PRIu64 " extents\n", places.count, extents);
  read_places (&places);
  store = open_store (false);
  store_abandon (store);
  close_store (time_open (false, "recover"));
  free (places.places);
  unlink (path);
  return 0;
}
