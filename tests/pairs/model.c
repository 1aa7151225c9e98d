/* SPDX-License-Identifier: BSD-2-Clause */
/* model.c - what sectors tell, and what two acts may make of disks; see pairs.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "pairs.h"

/* --- sectors --- */

struct tag {
  uint64_t store, disk, sector, number;
};

static uint64_t
stamp_make (uint64_t disk, uint64_t sector, uint64_t number)
{
  return disk << 60 | sector << 32 | number;
}

const char *
stamp_print (uint64_t stamp, char buffer[64])
{
  if (stamp == 0)
    snprintf (buffer, 64, "zeros");
  else
    snprintf (buffer, 64, "WRITE %" PRIu64 " to disk %" PRIu64 " sector %" PRIu64,
              stamp & UINT32_MAX, stamp >> 60, stamp >> 32 & 0xfffffff);
  return buffer;
}

/* The tag again and again, to the sector's end. */
void
sector_fill (uint8_t *sector, uint64_t store, unsigned disk, uint64_t at, uint32_t number)
{
  struct tag tag = { store, disk, at, number };

  for (unsigned i = 0; i < SECTOR; i += sizeof tag)
    memcpy (sector + i, &tag, sizeof tag);
}

bool
sector_read (const uint8_t *sector, uint64_t store, uint64_t *stamp)
{
  struct tag tag;

  *stamp = 0;
  memcpy (&tag, sector, sizeof tag);
  /* All is equal to what comes one tag behind. */
  if (memcmp (sector, sector + sizeof tag, SECTOR - sizeof tag) != 0)
    return false;
  if (tag.store == 0 && tag.disk == 0 && tag.sector == 0 && tag.number == 0)
    return true;
  *stamp = stamp_make (tag.disk, tag.sector, tag.number);
  return tag.store == store && tag.number != 0 && tag.number <= UINT32_MAX && tag.disk < DISKS
         && tag.sector < DISK_BLOCKS_MAX * BLOCK_SECTORS;
}

/* --- acts --- */

/* Beyond the end all is zeros: what a disk gains by growing. */
static void
image_zero (struct image *image, uint64_t offset, uint64_t length)
{
  memset (&image->stamps[offset / SECTOR], 0, length / SECTOR * sizeof image->stamps[0]);
}

static void
image_move (struct image *image, uint64_t to, uint64_t from)
{
  uint64_t most = BLOCKS (DISK_BLOCKS_MAX);

  memmove (&image->stamps[to / SECTOR], &image->stamps[from / SECTOR],
           (most - MAX (to, from)) / SECTOR * sizeof image->stamps[0]);
}

static void
apply_request (struct model *model, const struct act *act)
{
  struct image *image = &model->disks[act->disk];
  uint64_t first = align_up (act->offset, BLOCK_SIZE);
  uint64_t end = align_down (act->offset + act->length, BLOCK_SIZE);

  if (act->offset + act->length > BLOCKS (image->blocks))
    return;
  if (act->kind == REQUEST_WRITE)
    for (uint64_t at = act->offset; at < act->offset + act->length; at += SECTOR)
      image->stamps[at / SECTOR] = stamp_make (act->disk, at / SECTOR, act->number);
  else if (act->kind == REQUEST_WRITE_ZEROES)
    image_zero (image, act->offset, act->length);
  else if (act->kind == REQUEST_TRIM && first < end)
    image_zero (image, first, end - first);
}

static void
apply_clone (struct model *model, const struct act *act)
{
  const struct image *source = &model->disks[act->disk];
  struct image *target = &model->disks[act->target];

  if (!source->exists || act->offset + act->length > BLOCKS (source->blocks)
      || act->target_offset + act->length > BLOCKS (target->blocks))
    return;
  memcpy (&target->stamps[act->target_offset / SECTOR], &source->stamps[act->offset / SECTOR],
          act->length / SECTOR * sizeof target->stamps[0]);
}

void
model_apply (struct model *model, const struct act *act)
{
  struct image *image = &model->disks[act->disk];

  switch (act->what) {
  case ACT_REQUEST:
    apply_request (model, act);
    return;
  case ACT_READ_AHEAD:
  case ACT_WRITE_BACK:
    return;
  case ACT_RESIZE:
    if (act->offset < BLOCKS (image->blocks))
      image_zero (image, act->offset, BLOCKS (image->blocks) - act->offset);
    image->blocks = act->offset / BLOCK_SIZE;
    return;
  case ACT_DELETE:
    *image = (struct image) { 0 };
    return;
  case ACT_COLLAPSE:
    image_move (image, act->offset, act->offset + act->length);
    image->blocks -= act->length / BLOCK_SIZE;
    return;
  case ACT_INSERT:
    image_move (image, act->offset + act->length, act->offset);
    image_zero (image, act->offset, act->length);
    image->blocks += act->length / BLOCK_SIZE;
    return;
  case ACT_CLONE:
    apply_clone (model, act);
    return;
  }
  CHECK (false);
}

/* --- outcomes --- */

enum { NEITHER, ONLY_A, ONLY_B, A_FIRST, B_FIRST };

void
outcomes_find (struct outcomes *outcomes, const struct model *before, const struct act *a,
               const struct act *b)
{
  struct model *models = outcomes->models;

  for (unsigned i = 0; i < MODELS_MAX; i++) {
    models[i] = *before;
    outcomes->are_ends[i] = i == A_FIRST || i == B_FIRST;
  }
  model_apply (&models[ONLY_A], a);
  model_apply (&models[ONLY_B], b);
  model_apply (&models[A_FIRST], a);
  model_apply (&models[A_FIRST], b);
  model_apply (&models[B_FIRST], b);
  model_apply (&models[B_FIRST], a);
}

void
outcomes_fail (struct outcomes *outcomes, bool a, bool b)
{
  outcomes->are_ends[ONLY_A] |= b;
  outcomes->are_ends[ONLY_B] |= a;
  outcomes->are_ends[NEITHER] |= a && b;
}

bool
outcomes_allow (const struct outcomes *outcomes, unsigned disk, uint64_t sector, uint64_t stamp)
{
  for (unsigned i = 0; i < MODELS_MAX; i++)
    if (outcomes->models[i].disks[disk].stamps[sector] == stamp)
      return true;
  return stamp == STAMP_UNKNOWN;
}

bool
outcomes_settle (const struct outcomes *outcomes, unsigned disk, uint64_t block,
                 const uint64_t stamps[BLOCK_SECTORS], struct model *model)
{
  uint64_t first = block * BLOCK_SECTORS;
  size_t bytes = BLOCK_SECTORS * sizeof stamps[0];

  for (unsigned i = 0; i < MODELS_MAX; i++)
    if (outcomes->are_ends[i]
        && memcmp (&outcomes->models[i].disks[disk].stamps[first], stamps, bytes) == 0) {
      memcpy (&model->disks[disk].stamps[first], stamps, bytes);
      return true;
    }
  return false;
}
