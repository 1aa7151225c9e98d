/* SPDX-License-Identifier: BSD-2-Clause */
/* fill.c - the slow path of READ, CACHE and partial WRITE: from a range of blocks to frames.
 *
 * The caller holds the range shared from before fill_start until after fill_finish: between the
 * look at the map and the publishing of the frames nothing can be deallocated.
 *
 * The index is asked before the map.  The other way round would be wrong: a block that is
 * dirty and not mapped yet may be written back, cleaned and evicted between the two looks, and
 * would be taken for a hole.
 *
 * Write-back may move a block meanwhile, for it shares the range: one that shares its place with
 * others, or cannot be written there; and the old place may be given away while it is being read.
 * But it moves what is dirty.  So where a block lies is looked up, or known not to have changed,
 * after its frame was put into the index; and if that frame has been replaced when the device
 * answers, what was read is not used.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "store/store-internal.h"

struct fill *
fill_acquire (struct store *store)
{
  struct list *link;
  struct fill *fill;

  pthread_mutex_lock (&store->fills_mutex);
  link = list_take (&store->fills);
  pthread_mutex_unlock (&store->fills_mutex);
  if (link != NULL)
    return container_of (link, struct fill, link);
  fill = calloc (1, sizeof *fill);
  if (fill != NULL)
    list_init (&fill->link);
  return fill;
}

void
fill_release (struct store *store, struct fill *fill)
{
  pthread_mutex_lock (&store->fills_mutex);
  list_append (&store->fills, &fill->link);
  pthread_mutex_unlock (&store->fills_mutex);
}

/* Begins or continues the io that reads block INDEX into FRAME from PLACE.  False: no more ios. */
static bool
fill_add_read (struct fill *fill, unsigned index, struct frame *frame, uint64_t place)
{
  struct op_io *io = &fill->ios[fill->io_count - (fill->io_count > 0)];
  bool continues = fill->io_count > 0 && fill->io_first[fill->io_count - 1] + io->io.length == index
                   && io->io.place + io->io.length == place;

  if (!continues) {
    if (fill->io_count == WINDOW_IOS)
      return false;
    io = &fill->ios[fill->io_count];
    fill->io_first[fill->io_count++] = index;
    io->io = (struct io) { .kind = IO_READ, .place = place, .segments = &fill->segments[index] };
  }
  fill->segments[index] = (struct iovec) { frame->data, BLOCK_SIZE };
  io->io.length++;
  io->io.segment_count++;
  return true;
}

/* Where block INDEX lies, which was at PLACE before its frame was put into the index. */
static uint64_t
fill_look_again (const struct fill *fill, struct disk *disk, unsigned index, uint64_t place)
{
  struct extent extent;

  if (atomic_load (&disk->placements) == fill->placements)
    return place;
  extent_map_lookup (&disk->map, fill->first + index, 1, &extent);
  CHECK (extent.state == EXTENT_WRITTEN);
  return extent.place;
}

/* A block that is mapped and written: takes it on.  False: no more ios, or no frame. */
static bool
fill_block (struct fill *fill, struct disk *disk, unsigned index, uint64_t place)
{
  struct cache *cache = disk->store->cache;
  struct frame *fresh = cache_allocate (cache), *frame;

  if (fresh == NULL)
    return false;
  switch (cache_fill_begin (cache, &disk->cache, fill->first + index, fresh, &frame)) {
  case CACHE_FOUND:
    fill->frames[index] = frame;
    fill->states[index] = FILL_KNOWN;
    cache_put (cache, fresh);
    return true;
  case CACHE_BUSY:
    fill->frames[index] = frame;
    fill->states[index] = FILL_BUSY;
    cache_put (cache, fresh);
    return true;
  case CACHE_YOURS:
    break;
  }
  place = fill_look_again (fill, disk, index, place);
  if (!fill_add_read (fill, index, fresh, place)) {
    struct list wake = LIST_INIT (wake);

    cache_fill_end (cache, fresh, false, &wake);
    cache_put (cache, fresh);
    op_wake_all (&wake);
    return false;
  }
  fill->frames[index] = fresh;
  fill->states[index] = FILL_MINE;
  return true;
}

unsigned
fill_start (struct fill *fill, struct op *op, struct disk *disk, uint64_t first,
            struct frame **frames, unsigned count, bool is_optional)
{
  struct cache *cache = disk->store->cache;
  unsigned index, taken = 0;

  CHECK (count >= 1 && count <= WINDOW_BLOCKS);
  CHECK (range_request_holds (&fill->range, &disk->range_lock, first, first + count - 1,
                              RANGE_SHARED));
  fill->first = first;
  fill->frames = frames;
  fill->io_count = 0;
  for (index = 0; index < count; index++) {
    fill->states[index] = FILL_KNOWN;
    if (frames[index] == FRAME_UNKNOWN) {
      struct frame *frame = cache_peek (cache, disk->id, first + index);

      if (frame != NULL)
        frames[index] = frame;
    }
  }
  fill->placements = atomic_load (&disk->placements);
  fill->extent_count
    = extent_map_scan (&disk->map, first, count, fill->extents, ARRAY_COUNT (fill->extents));
  for (unsigned e = 0; e < fill->extent_count && taken < count; e++) {
    const struct extent *extent = &fill->extents[e];

    for (uint64_t i = 0; i < extent->length && taken < count; i++) {
      index = extent->block + i - first;
      if (frames[index] == FRAME_UNKNOWN) {
        if (extent->state != EXTENT_WRITTEN)
          frames[index] = NULL;
        else if (!fill_block (fill, disk, index, extent->place + i)) {
          /* Admitted requests always find a frame; so it is the ios that are used up. */
          CHECK (is_optional || fill->io_count == WINDOW_IOS);
          goto full;
        }
      }
      taken++;
    }
  }
full:
  fill->count = taken;
  for (unsigned i = 0; i < fill->io_count; i++)
    op_submit (op, &fill->ios[i]);
  return taken;
}

int
fill_finish (struct fill *fill, struct store *store, struct list *wake)
{
  int error = 0;

  for (unsigned i = 0; i < fill->io_count; i++) {
    struct io *io = &fill->ios[i].io;

    if (io->error != 0)
      error = -EIO;
    for (unsigned j = 0; j < io->length; j++) {
      struct frame **frame = &fill->frames[fill->io_first[i] + j];

      if (!cache_fill_end (store->cache, *frame, io->error == 0, wake)) {
        cache_put (store->cache, *frame);
        *frame = FRAME_UNKNOWN;
      }
    }
  }
  fill->io_count = 0;
  return error;
}
