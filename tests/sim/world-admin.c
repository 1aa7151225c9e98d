/* SPDX-License-Identifier: BSD-2-Clause */
/* world-admin.c - disks made, resized, renamed, deleted, in the model and in the store; see
 * world.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "world-internal.h"

static const char *const admin_names[] = {
  "CREATE", "RESIZE", "RENAME", "DELETE", "SYNC", "COLLAPSE", "INSERT", "CLONE",
};

/* --- what they do to the model --- */

static void
model_create (struct world *world, struct world_disk *disk, const char *name, uint64_t size)
{
  memset (disk, 0, sizeof *disk);
  oracle_disk_init (&world->oracle, &disk->oracle, 2 * size + MIB);
  strcpy (disk->name, name);
  disk->size = size;
  disk->exists = true;
}

static void
model_delete (struct world_disk *disk)
{
  oracle_disk_clear (&disk->oracle);
  memset (disk, 0, sizeof *disk);
}

/* The part between the sizes is zero from now on, whatever ended before. */
static void
model_zero (struct world *world, struct world_disk *disk, uint64_t from, uint64_t to)
{
  uint64_t change = oracle_change (&world->oracle);

  oracle_begin (&disk->oracle, change, true, from, to - from, ++world->now);
  oracle_end (&disk->oracle, change, from, to - from, true, true, ++world->now);
}

static void
model_done (struct world *world, const struct world_admin *admin)
{
  struct world_disk *disk = &world->disks[admin->disk];

  switch (admin->admin.kind) {
  case ADMIN_CREATE:
    model_create (world, disk, admin->admin.name, admin->size);
    break;
  case ADMIN_RESIZE:
    if (admin->size < disk->size) {
      oracle_end (&disk->oracle, admin->change, admin->size, disk->size - admin->size, true, true,
                  world->now);
      disk->shrunk = world->now;
    }
    disk->size = admin->size;
    break;
  case ADMIN_RENAME:
    strcpy (disk->name, admin->admin.new_name);
    break;
  case ADMIN_DELETE:
    model_delete (disk);
    break;
  case ADMIN_COLLAPSE:
  case ADMIN_INSERT:
    if (admin->is_again)
      break;
    disk->size = admin->size;
    memcpy (&disk->shift_id, admin->admin.request_id, sizeof disk->shift_id);
    world->totals.shifts++;
    break;
  case ADMIN_SYNC:
    for (unsigned d = 0; d < WORLD_DISKS; d++)
      if (world->disks[d].exists)
        oracle_flushed (&world->disks[d].oracle, admin->begun);
    break;
  case ADMIN_CLONE:
    break;
  }
}

static void
model_clone_end (struct world *world, bool is_ok)
{
  struct world_clone *clone = &world->clone;

  clone->is_running = false;
  oracle_end (&world->disks[clone->target].oracle, clone->change, clone->to, clone->length, is_ok,
              is_ok, world->now);
}

static bool
is_shift (enum admin_kind kind)
{
  return kind == ADMIN_COLLAPSE || kind == ADMIN_INSERT;
}

static void
model_shift_end (struct world *world, const struct world_admin *admin, bool is_ok)
{
  struct world_disk *disk = &world->disks[admin->disk];
  uint64_t from = admin->admin.offset, end = MAX (disk->size, admin->size);

  if (is_ok && admin->admin.was_done != admin->is_again)
    world_fail (world, "a shift that was %sdone before was %sdone", admin->is_again ? "" : "not ",
                admin->is_again ? "" : "not ");
  if (admin->is_again)
    return;
  world->clone.is_running = false;
  oracle_end (&disk->oracle, admin->change, from, end - from, is_ok, is_ok, world->now);
  if (disk->shrunk == NEVER)
    disk->shrunk = world->now;
}

/* --- ops --- */

static void
admin_done (struct admin *done)
{
  struct world_admin *admin = done->owner;
  struct world *world = container_of (admin, struct world, admin);
  struct world_disk *disk = &world->disks[admin->disk];

  world->now++;
  world->totals.admins++;
  admin->is_running = false;
  if (done->kind == ADMIN_CLONE)
    model_clone_end (world, done->op.error == 0);
  if (is_shift (done->kind))
    model_shift_end (world, admin, done->op.error == 0);
  world_trace (world, "END admin %s %s: %d %s", admin_names[done->kind], done->name, done->op.error,
               done->op.error != 0 ? done->message : "");
  if (done->op.error == 0) {
    model_done (world, admin);
    return;
  }
  if (done->kind == ADMIN_RESIZE && disk->shrunk == NEVER)
    disk->shrunk = world->now;
  if (done->op.error == -EBUSY && done->kind == ADMIN_DELETE)
    return;
  if ((done->op.error == -ENOMEM && world->is_starved)
      || (done->op.error == -ENOSPC && world->options.is_tight
          && (done->kind == ADMIN_CREATE || done->kind == ADMIN_CLONE
              || done->kind == ADMIN_INSERT))) {
    if (admin->change != 0 && !is_shift (done->kind))
      oracle_end (&disk->oracle, admin->change, admin->size, disk->size - admin->size, false, false,
                  world->now);
    return;
  }
  if (done->op.error == -EIO && world->is_faulty) {
    admin->is_unknown = done->kind != ADMIN_SYNC;
    /* It may have been done in memory: the disk may be shorter than the model's. */
    if (is_shift (done->kind))
      disk->shrunk = NEVER;
    return;
  }
  world_fail (world, "admin %s %s failed: %s: %s", admin_names[done->kind], done->name,
              strerror (-done->op.error), done->message);
}

static struct world_admin *
begin (struct world *world, enum admin_kind kind, unsigned disk, const char *name)
{
  struct world_admin *admin = &world->admin;

  if (admin->is_running || admin->is_unknown)
    return NULL;
  memset (admin, 0, sizeof *admin);
  admin_init (&admin->admin, world->contexts[0], world->store, kind, name, admin_done);
  admin->admin.owner = admin;
  admin->disk = disk;
  admin->begun = ++world->now;
  admin->is_running = true;
  world_trace (world, "BEGIN admin %s %s", admin_names[kind], name);
  return admin;
}

bool
world_create_disk (struct world *world, unsigned disk, uint64_t size)
{
  struct world_admin *admin;
  char name[32];

  if (world->disks[disk].exists)
    return false;
  snprintf (name, sizeof name, "disk%u-%u", disk, ++world->names);
  admin = begin (world, ADMIN_CREATE, disk, name);
  if (admin == NULL)
    return false;
  admin->admin.size = admin->size = size;
  admin_start (&admin->admin);
  return true;
}

bool
world_delete_disk (struct world *world, unsigned disk)
{
  struct world_admin *admin;

  if (!world->disks[disk].exists
      || (admin = begin (world, ADMIN_DELETE, disk, world->disks[disk].name)) == NULL)
    return false;
  admin_start (&admin->admin);
  return true;
}

bool
world_resize_disk (struct world *world, unsigned d, uint64_t size)
{
  struct world_disk *disk = &world->disks[d];
  struct world_admin *admin;

  if (!disk->exists || size > disk->oracle.sector_max * SECTOR_SIZE
      || (admin = begin (world, ADMIN_RESIZE, d, disk->name)) == NULL)
    return false;
  admin->admin.size = admin->size = size;
  admin->admin.may_shrink = true;
  if (size < disk->size) {
    admin->change = oracle_change (&world->oracle);
    disk->shrunk = NEVER;
    oracle_begin (&disk->oracle, admin->change, true, size, disk->size - size, world->now);
  } else if (size > disk->size)
    model_zero (world, disk, disk->size, size);
  admin_start (&admin->admin);
  return true;
}

bool
world_rename_disk (struct world *world, unsigned disk)
{
  struct world_admin *admin;

  if (!world->disks[disk].exists
      || (admin = begin (world, ADMIN_RENAME, disk, world->disks[disk].name)) == NULL)
    return false;
  snprintf (admin->admin.new_name, sizeof admin->admin.new_name, "disk%u-%u", disk, ++world->names);
  admin_start (&admin->admin);
  return true;
}

bool
world_sync (struct world *world)
{
  struct world_admin *admin = begin (world, ADMIN_SYNC, 0, "");

  if (admin == NULL)
    return false;
  admin_start (&admin->admin);
  return true;
}

/* --- clones --- */

bool
world_clone_range (struct world *world, unsigned source, uint64_t offset, uint64_t length,
                   unsigned target, uint64_t to)
{
  struct world_disk *from = &world->disks[source], *into = &world->disks[target];
  struct world_clone *clone = &world->clone;
  struct world_admin *admin;

  if (!from->exists || !into->exists || offset >= from->size || to >= into->size)
    return false;
  length = MIN (length, MIN (from->size - offset, into->size - to));
  if (source == target)
    length = MIN (length, offset > to ? offset - to : to - offset);
  if (length == 0 || (admin = begin (world, ADMIN_CLONE, source, from->name)) == NULL)
    return false;
  *clone = (struct world_clone) {
    .is_running = true, .source = source, .target = target,
    .change = oracle_change (&world->oracle), .from = offset, .to = to, .length = length,
  };
  strcpy (admin->admin.new_name, into->name);
  admin->admin.offset = offset;
  admin->admin.length = length;
  admin->admin.target_offset = to;
  world_trace (world, "  %" PRIu64 "+%" PRIu64 " to %s %" PRIu64 ", change %" PRIu64, offset,
               length, into->name, to, clone->change);
  world_set_oldest_read (world, target);
  oracle_clone_begin (&into->oracle, clone->change, to, length, &from->oracle, offset, world->now);
  admin_start (&admin->admin);
  return true;
}

/* In the model it is a clone within the disk, from the end that does not overwrite what is still to
 * be read; and zeros where nothing comes to lie. */
bool
world_shift_range (struct world *world, unsigned d, enum admin_kind kind, uint64_t offset,
                   uint64_t length)
{
  struct world_disk *disk = &world->disks[d];
  bool is_up = kind == ADMIN_INSERT;
  uint64_t lower = offset, upper = offset + length, change;
  uint64_t moved = disk->size - (is_up ? lower : upper);
  struct world_admin *admin;

  if (!disk->exists || (is_up && disk->size + length > disk->oracle.sector_max * SECTOR_SIZE)
      || (admin = begin (world, kind, d, disk->name)) == NULL)
    return false;
  admin->admin.offset = offset;
  admin->admin.length = length;
  memcpy (admin->admin.request_id, &admin->begun, sizeof admin->begun);
  admin->size = is_up ? disk->size + length : disk->size - length;
  admin->change = change = oracle_change (&world->oracle);
  world->clone = (struct world_clone) {
    .is_running = true, .source = d, .target = d, .change = change, .from = is_up ? lower : upper,
    .to = is_up ? upper : lower, .length = moved,
  };
  world_set_oldest_read (world, d);
  for (uint64_t done = 0; done < moved; done += SECTOR_SIZE) {
    uint64_t at = is_up ? moved - SECTOR_SIZE - done : done;

    oracle_clone_begin (&disk->oracle, change, world->clone.to + at, SECTOR_SIZE, &disk->oracle,
                        world->clone.from + at, world->now);
  }
  oracle_begin (&disk->oracle, change, true, is_up ? offset : disk->size - length, length,
                world->now);
  if (!is_up)
    disk->shrunk = NEVER;
  admin_start (&admin->admin);
  return true;
}

bool
world_shift_again (struct world *world, unsigned d)
{
  struct world_disk *disk = &world->disks[d];
  struct world_admin *admin;

  if (!disk->exists || disk->shift_id == 0
      || (admin = begin (world, ADMIN_COLLAPSE, d, disk->name)) == NULL)
    return false;
  admin->is_again = true;
  admin->admin.length = BLOCK_SIZE;
  memcpy (admin->admin.request_id, &disk->shift_id, sizeof disk->shift_id);
  admin_start (&admin->admin);
  return true;
}

void
world_clone_note (struct world *world, unsigned disk, uint64_t change, uint64_t offset,
                  uint64_t length)
{
  const struct world_clone *clone = &world->clone;
  uint64_t from = MAX (offset / SECTOR_SIZE * SECTOR_SIZE, clone->from);
  uint64_t end = MIN (align_up (offset + length, SECTOR_SIZE), clone->from + clone->length);

  if (clone->is_running && clone->source == disk && from < end)
    oracle_clone_add (&world->disks[clone->target].oracle, clone->change, world->admin.begun,
                      from - clone->from + clone->to, end - from, &world->disks[disk].oracle, from,
                      change, world->now);
}

void
world_clone_look (struct world *world, unsigned disk, enum crash_kind kind, uint64_t offset,
                  uint64_t length, const uint8_t *data)
{
  struct world_clone *clone = &world->clone;
  uint64_t from = MAX (offset, clone->to), end = MIN (offset + length, clone->to + clone->length);

  if (!clone->is_cut || clone->target != disk || from >= end)
    return;
  oracle_clone_found (&world->disks[disk].oracle, kind, clone->change, from, end - from,
                      data + (from - offset), world->now, &clone->was_done, &clone->was_not_done);
  if (clone->was_done && clone->was_not_done)
    world_fail (world, "half of a clone: of %" PRIu64 "+%" PRIu64 " in %s, change %" PRIu64,
                clone->to, clone->length, world->disks[disk].name, clone->change);
}

/* --- after a crash: what was cut off was done, or not --- */

static const struct disk_info *
find_info (const struct disk_info *infos, size_t count, const char *name)
{
  for (size_t i = 0; i < count; i++)
    if (strcmp (infos[i].name, name) == 0)
      return &infos[i];
  return NULL;
}

static void
settle_unknown (struct world *world, const struct disk_info *infos, size_t count)
{
  struct world_admin *admin = &world->admin;
  struct world_disk *disk = &world->disks[admin->disk];
  const char *name = admin->admin.kind == ADMIN_RENAME ? admin->admin.new_name : admin->admin.name;
  const struct disk_info *info = find_info (infos, count, name);
  bool was_done = admin->admin.kind == ADMIN_DELETE ? info == NULL : info != NULL;

  if (admin->admin.kind == ADMIN_RESIZE || is_shift (admin->admin.kind))
    was_done = info != NULL && info->size == admin->size;
  world_trace (world, "admin %s %s was %sdone before the crash", admin_names[admin->admin.kind],
               name, was_done ? "" : "not ");
  if (disk->shrunk == NEVER)
    disk->shrunk = world->now;
  if (is_shift (admin->admin.kind)) {
    world->clone.was_done = was_done;
    world->clone.was_not_done = !was_done;
  }
  if (admin->admin.kind == ADMIN_RESIZE && was_done && admin->size < disk->size) {
    /* The change was ended by the crash, with nobody knowing: now it is known. */
    model_zero (world, disk, admin->size, disk->size);
    disk->size = admin->size;
  } else if (was_done && admin->admin.kind != ADMIN_SYNC)
    model_done (world, admin);
}

bool
world_match_disks (struct world *world)
{
  struct disk_info infos[WORLD_DISKS + 1];
  size_t count = store_list_disks (world->store, infos, ARRAY_COUNT (infos));
  unsigned expected = 0;

  if (count > ARRAY_COUNT (infos)) {
    world_fail (world, "there are %zu disks", count);
    return false;
  }
  world->now++;
  /* Of a clone only its blocks tell. */
  if ((world->admin.is_running || world->admin.is_unknown)
      && world->admin.admin.kind != ADMIN_CLONE)
    settle_unknown (world, infos, count);
  world->clone.is_cut = world->clone.is_running;
  world->clone.is_running = world->admin.is_running = world->admin.is_unknown = false;
  for (unsigned d = 0; d < WORLD_DISKS; d++) {
    const struct world_disk *disk = &world->disks[d];
    const struct disk_info *info = find_info (infos, count, disk->name);

    if (!disk->exists)
      continue;
    expected++;
    if (info != NULL && info->is_damaged != disk->is_damaged) {
      world_fail (world, "after opening, %s is%s damaged", disk->name,
                  info->is_damaged ? "" : " not");
      return false;
    }
    if (info == NULL || info->size != disk->size) {
      world_fail (world, "after opening, %s of %" PRIu64 " bytes is %s", disk->name, disk->size,
                  info == NULL ? "not there" : "of another size");
      if (info != NULL)
        printf ("  it has %" PRIu64 "\n", info->size);
      return false;
    }
  }
  if (count != expected)
    world_fail (world, "there are %zu disks, not %u", count, expected);
  return count == expected;
}
