/* SPDX-License-Identifier: BSD-2-Clause */
/* command-report.c - list, info, stat: the store and its disks as JSON. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "command-internal.h"

/* Disks in one piece of a list. */
#define LIST_PIECE 128

#define COUNTERS_MAX 256

/* Numbers that stand for "no limit" become null. */
static struct json_object *
json_limit (uint64_t value)
{
  return value == UINT64_MAX ? NULL : json_object_new_uint64 (value);
}

void
json_add_bytes (struct json_object *object, const char *key, uint64_t value)
{
  json_object_object_add (object, key, json_object_new_uint64 (value));
}

static void
json_add_uuid (struct json_object *object, const uint8_t uuid[16])
{
  char text[TEXT_UUID_SIZE];

  json_object_object_add (object, "uuid", json_object_new_string (text_uuid (uuid, text)));
}

static struct json_object *
json_from_disk (const struct disk_info *info)
{
  struct json_object *disk = json_object_new_object ();

  json_object_object_add (disk, "name", json_object_new_string (info->name));
  json_add_uuid (disk, info->uuid);
  json_add_bytes (disk, "size", info->size);
  json_add_bytes (disk, "allocated", info->mapped + info->unmapped_dirty);
  json_add_bytes (disk, "mapped", info->mapped);
  json_add_bytes (disk, "not_placed_yet", info->unmapped_dirty);
  json_add_bytes (disk, "extents", info->extents);
  json_add_bytes (disk, "connections", info->open_count);
  json_add_bytes (disk, "created", info->created);
  json_object_object_add (disk, "damaged", json_object_new_boolean (info->is_damaged));
  return disk;
}

static struct json_object *
json_from_store (struct store *store)
{
  static const char *const modes[] = {
    [STORE_OK] = "ok", [STORE_READ_ONLY] = "read-only", [STORE_FAILED] = "failed",
  };
  struct json_object *object = json_object_new_object ();
  struct store_info info;

  store_get_info (store, &info);
  json_add_uuid (object, info.uuid);
  json_object_object_add (object, "mode", json_object_new_string (modes[info.mode]));
  json_object_object_add (object, "kind", json_object_new_string (info.is_block_device
                                                                  ? "block device" : "file"));
  json_object_object_add (object, "direct_io", json_object_new_boolean (info.is_direct));
  json_add_bytes (object, "format_version", info.format_version);
  json_add_bytes (object, "disks", info.disks);
  json_object_object_add (object, "capacity", json_limit (info.capacity));
  json_add_bytes (object, "used", info.used);
  json_add_bytes (object, "shared", info.shared);
  json_object_object_add (object, "free", json_limit (info.free));
  json_add_bytes (object, "reserved", info.reserved);
  json_add_bytes (object, "pending", info.pending);
  json_add_bytes (object, "undiscarded", info.undiscarded);
  json_add_bytes (object, "withheld", info.withheld);
  json_add_bytes (object, "metadata", info.metadata);
  json_add_bytes (object, "allocated", info.allocated);
  json_add_bytes (object, "opened", info.opened);
  return object;
}

enum op_next
command_list (struct command *command)
{
  size_t count, room = 0;

  /* Until all fit: disks may be created meanwhile. */
  while ((count = store_list_disks (command->store, command->infos, room)) > room) {
    struct disk_info *infos = realloc (command->infos, (count + 16) * sizeof *infos);

    if (infos == NULL)
      return command_fail (command, -ENOMEM, "out of memory");
    command->infos = infos;
    room = count + 16;
  }
  command->info_count = count;
  command->op.stage = COMMAND_LIST_PIECE;
  return OP_MORE;
}

enum op_next
command_list_piece (struct command *command)
{
  struct json_object *piece, *disks;

  if (command->info_next == command->info_count)
    return OP_DONE;
  disks = json_object_new_array ();
  for (unsigned i = 0; i < LIST_PIECE && command->info_next < command->info_count; i++)
    json_object_array_add (disks, json_from_disk (&command->infos[command->info_next++]));
  piece = json_object_new_object ();
  json_object_object_add (piece, "disks", disks);
  return command_emit (command, piece);
}

enum op_next
command_info (struct command *command)
{
  struct disk_info info;
  struct disk *disk;

  if (!json_object_object_get_ex (command->request, "disk", NULL)) {
    command->result = json_from_store (command->store);
    return OP_DONE;
  }
  if (!command_name (command, "disk", command->name))
    return OP_DONE;
  disk = disk_open (command->store, command->name);
  if (disk == NULL)
    return command_fail_no_disk (command);
  disk_get_info (disk, &info);
  info.open_count--;            /* the one just opened */
  disk_close (disk);
  command->result = json_from_disk (&info);
  return OP_DONE;
}

enum op_next
command_stat (struct command *command)
{
  struct json_object *live = json_object_new_object ();
  struct store_counter counters[COUNTERS_MAX];
  size_t count = store_get_counters (command->store, counters, COUNTERS_MAX);

  count = MIN (count, COUNTERS_MAX);
  if (command->listener->counters != NULL)
    count += command->listener->counters (command->owner, counters + count, COUNTERS_MAX - count);
  for (size_t i = 0; i < count; i++)
    json_add_bytes (live, counters[i].name, counters[i].value);
  command->result = json_object_new_object ();
  json_object_object_add (command->result, "store", json_from_store (command->store));
  json_object_object_add (command->result, "counters", live);
  return OP_DONE;
}
