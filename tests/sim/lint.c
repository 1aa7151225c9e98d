/* SPDX-License-Identifier: BSD-2-Clause */
/* lint.c - see lint.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "lint.h"
#include "store/space-groups.h"
#include "store/store-internal.h"

#define FLUSHES_MAX 16

struct lint {
  struct world *world;
  uint64_t blocks;
  uint64_t *written;            /* per block: when its last write ended; 0: none */
  bool *in_flight;              /* per block: a write is */
  bool *has_old;                /* per block: before that it had durable data of the same owner */
  uint64_t clock;
  uint64_t durable;             /* what was written before this is */
  struct { const struct io *io; uint64_t begun; } flushes[FLUSHES_MAX];
};

struct lint *
lint_create (struct world *world)
{
  struct lint *lint = calloc (1, sizeof *lint);

  CHECK (lint != NULL);
  lint->world = world;
  lint->blocks = world->options.device_blocks_max;
  lint->written = calloc (lint->blocks, sizeof *lint->written);
  lint->in_flight = calloc (lint->blocks, sizeof *lint->in_flight);
  lint->has_old = calloc (lint->blocks, sizeof *lint->has_old);
  CHECK (lint->written != NULL && lint->in_flight != NULL && lint->has_old != NULL);
  return lint;
}

void
lint_destroy (struct lint *lint)
{
  if (lint == NULL)
    return;
  free (lint->written);
  free (lint->in_flight);
  free (lint->has_old);
  free (lint);
}

static bool
is_durable (const struct lint *lint, uint64_t place)
{
  return !lint->in_flight[place] && lint->written[place] <= lint->durable;
}

static bool
are_durable (const struct lint *lint, uint64_t place, uint64_t length)
{
  for (uint64_t i = 0; i < length; i++)
    if (!is_durable (lint, place + i))
      return false;
  return true;
}

/* --- the rules --- */

static uint64_t
journal_place (const struct lint *lint)
{
  return lint->world->options.geometry.meta_blocks;
}

static uint64_t
journal_end_place (const struct lint *lint)
{
  return journal_place (lint) + 2 * lint->world->options.geometry.journal_half_blocks;
}

/* Whether any of a run is free, or pending. */
static bool
is_given_up (const struct space *space, uint64_t place, uint64_t length)
{
  if (!group_is_busy (space, place_group (space, place), place_in_group (space, place), length))
    return true;
  for (const struct pending_chunk *chunk = space->pending_first; chunk; chunk = chunk->next)
    for (uint32_t i = chunk->first; i < chunk->count; i++) {
      const struct pending_run *run = &chunk->runs[i];

      if (!run->is_unshared && run->place < place + length && place < run->place + run->length)
        return true;
    }
  return false;
}

struct search {
  uint64_t place, length;
  bool is_written;              /* extents in this state only */
};

static int
find_overlap (void *arg, const struct extent *extent)
{
  const struct search *search = arg;

  return extent->place < search->place + search->length
         && search->place < extent->place + extent->length
         && (extent->state == EXTENT_WRITTEN || !search->is_written);
}

static bool
is_mapped (struct store *store, uint64_t place, uint64_t length, bool is_written)
{
  struct search search = { place, length, is_written };

  list_for_each (link, &store->disks)
    if (extent_map_check (&container_of (link, struct disk, link)->map, UINT64_MAX, find_overlap,
                          &search) != 0)
      return true;
  return false;
}

/* Whether blocks have durable data of their owner: a newer version may be on its way. */
static bool
have_data (const struct lint *lint, uint64_t place, uint64_t length)
{
  for (uint64_t i = 0; i < length; i++)
    if (!is_durable (lint, place + i) && !lint->has_old[place + i])
      return false;
  return true;
}

/* Whether a later item, up to END, replaces the mapping that ITEM tells of. */
static bool
is_replaced (const struct format_item *item, const uint8_t *end)
{
  uint64_t disk = from_le64 (item->disk), block = from_le64 (item->block);
  uint64_t length = from_le64 (item->length);

  for (const uint8_t *at = (const uint8_t *) item + from_le16 (item->bytes);
       at + sizeof *item <= end;) {
    const struct format_item *later = (const struct format_item *) at;
    enum format_item_kind kind = from_le16 (later->kind);
    uint64_t first = from_le64 (later->block);

    at += from_le16 (later->bytes);
    if (from_le64 (later->disk) != disk || kind == ITEM_DATA || kind == ITEM_RETIRE)
      continue;
    if ((kind != ITEM_MAP && kind != ITEM_UNMAP)
        || (first < block + length && block < first + from_le64 (later->length)))
      return true;
  }
  return false;
}

static void
judge_record (struct lint *lint, const struct io *io)
{
  const uint8_t *bytes = io->segments[0].iov_base;
  const struct format_record *record = (const struct format_record *) bytes;
  const uint8_t *end = bytes + sizeof *record + from_le32 (record->item_bytes);

  for (const uint8_t *at = bytes + sizeof *record; at + sizeof (struct format_item) <= end;) {
    const struct format_item *item = (const struct format_item *) at;
    uint64_t place = from_le64 (item->place), length = from_le64 (item->length);

    at += from_le16 (item->bytes);
    if (from_le16 (item->kind) == ITEM_MAP && from_le32 (item->flags) == EXTENT_WRITTEN
        && !have_data (lint, place, length) && !is_replaced (item, end))
      world_fail (lint->world, "L2: a record says that place %" PRIu64 "+%" PRIu64
                  " is written, and it is not durable", place, length);
  }
}

static void
judge_superblock (struct lint *lint, const struct io *io)
{
  const struct store_geometry *geometry = &lint->world->options.geometry;

  for (uint64_t group = 0; group < lint->blocks; group += geometry->group_blocks)
    for (uint64_t i = group == 0 ? SUPERBLOCK_COPIES : 0; i < geometry->meta_blocks; i++)
      if (group + i < lint->blocks && !is_durable (lint, group + i))
        world_fail (lint->world, "L5: a superblock is written before the node at %" PRIu64
                    " is durable", group + i);
  if (io->place % 2 == 1 && !is_durable (lint, io->place - 1))
    world_fail (lint->world, "L5: both copies of a superblock are written at once");
}

static void
judge_data (struct lint *lint, const struct io *io)
{
  struct store *store = lint->world->store;

  if (io->kind == IO_WRITE) {
    bool is_rewritten = store == NULL || is_mapped (store, io->place, io->length, true);

    /* A write goes to one extent, or to what is in none. */
    for (uint64_t i = 0; i < io->length; i++)
      lint->has_old[io->place + i]
        = is_rewritten && (lint->has_old[io->place + i] || is_durable (lint, io->place + i));
  }
  /* While it is being opened nobody knows yet what is in use. */
  if (store == NULL)
    return;
  if (io->kind == IO_DISCARD && is_mapped (store, io->place, io->length, false))
    world_fail (lint->world, "L3: place %" PRIu64 "+%" PRIu64 " is passed down and mapped",
                io->place, io->length);
  if (io->kind != IO_DISCARD && is_given_up (store->space, io->place, io->length))
    world_fail (lint->world, "%s: %s of place %" PRIu64 "+%" PRIu64 ", which was given up",
                io->kind == IO_WRITE ? "L1" : "L7", io->kind == IO_WRITE ? "a write" : "a read",
                io->place, io->length);
}

static void
judge (struct lint *lint, const struct io *io)
{
  const struct store_geometry *geometry = &lint->world->options.geometry;

  if (io->kind == IO_FLUSH)
    return;
  if (io->place % geometry->group_blocks >= geometry->meta_blocks
      && io->place >= journal_end_place (lint))
    judge_data (lint, io);
  else if (io->kind != IO_WRITE)
    return;
  else if (io->place < SUPERBLOCK_COPIES)
    judge_superblock (lint, io);
  else if (io->place >= journal_place (lint) && io->place < journal_end_place (lint))
    judge_record (lint, io);
}

void
lint_acknowledged (struct lint *lint)
{
  const struct commit *commit = &lint->world->store->commit;
  uint64_t half = journal_place (lint)
                  + commit->half * lint->world->options.geometry.journal_half_blocks;

  if (!are_durable (lint, half, commit->head))
    world_fail (lint->world, "L4: acknowledged, and the journal is not durable");
}

/* --- what goes on --- */

static void
note_flush (struct lint *lint, const struct io *io, bool is_completion)
{
  for (unsigned i = 0; i < FLUSHES_MAX; i++) {
    if (is_completion && lint->flushes[i].io == io) {
      if (io->error == 0)
        lint->durable = MAX (lint->durable, lint->flushes[i].begun);
      lint->flushes[i].io = NULL;
      return;
    }
    if (!is_completion && lint->flushes[i].io == NULL) {
      lint->flushes[i].io = io;
      lint->flushes[i].begun = lint->clock;
      return;
    }
  }
  CHECK (false);
}

static void
on_io (void *arg, const struct io *io, bool is_completion)
{
  struct lint *lint = arg;

  lint->clock++;
  if (!is_completion)
    judge (lint, io);
  if (io->kind == IO_FLUSH)
    note_flush (lint, io, is_completion);
  for (uint64_t i = 0; i < io->length && io->kind == IO_WRITE; i++) {
    lint->in_flight[io->place + i] = !is_completion;
    if (is_completion)
      lint->written[io->place + i] = lint->clock;
  }
}

void
lint_begin (struct lint *lint)
{
  memset (lint->written, 0, lint->blocks * sizeof *lint->written);
  memset (lint->in_flight, 0, lint->blocks * sizeof *lint->in_flight);
  memset (lint->has_old, 0, lint->blocks * sizeof *lint->has_old);
  memset (lint->flushes, 0, sizeof lint->flushes);
  lint->durable = 0;
  sim_set_trace (lint->world->image, on_io, lint);
}
