/* SPDX-License-Identifier: BSD-2-Clause */
/* command-range.c - map, punch: requests along one disk. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/text.h"
#include "command-internal.h"

/* The disk stays open (and cannot be deleted) until the command ends. */
static bool
command_open_disk (struct command *command)
{
  if (!command_name (command, "disk", command->name))
    return false;
  command->disk = disk_open (command->store, command->name);
  if (command->disk == NULL)
    command_fail_no_disk (command);
  return command->disk != NULL;
}

static void
command_access_done (struct request *request)
{
  struct command *command = request->owner;

  op_wake (&command->op);
}

/* One request of the store for [at, at + LENGTH), which it accepts. */
static enum op_next
command_start_access (struct command *command, enum request_kind kind, unsigned flags,
                      uint64_t length, enum command_stage next)
{
  request_init (&command->access, command->op.context, command->disk, kind, flags, command->at,
                length, command_access_done);
  command->access.owner = command;
  if (kind == REQUEST_BLOCK_STATUS) {
    command->access.extents = command->status;
    command->access.extent_max = COMMAND_MAP_EXTENTS;
  }
  command->op.stage = next;
  op_expect (&command->op);
  request_start (&command->access);
  return OP_WAIT;
}

enum op_next
command_map (struct command *command)
{
  if (!command_open_disk (command))
    return OP_DONE;
  command->extents = json_object_new_array ();
  command->op.stage = COMMAND_MAP_ASK;
  return OP_MORE;
}

/* The pending extent is complete. */
static void
command_map_settle (struct command *command)
{
  struct status_extent *pending = &command->pending;
  struct json_object *extent = json_object_new_object ();
  const char *type = pending->flags & STATUS_HOLE ? "hole"
                     : pending->flags & STATUS_ZERO ? "zero" : "data";

  json_add_bytes (extent, "offset", command->at - pending->length);
  json_add_bytes (extent, "length", pending->length);
  json_object_object_add (extent, "type", json_object_new_string (type));
  json_object_array_add (command->extents, extent);
  pending->length = 0;
}

static enum op_next
command_map_emit (struct command *command, enum command_stage next)
{
  struct json_object *piece = json_object_new_object ();

  json_object_object_add (piece, "extents", command->extents);
  command->extents = next == COMMAND_END ? NULL : json_object_new_array ();
  command->op.stage = next;
  return command_emit (command, piece);
}

enum op_next
command_map_ask (struct command *command)
{
  uint64_t size = disk_size (command->disk);   /* each time: it may be resized meanwhile */
  const char *why;
  int error;

  if (command->at >= size) {
    if (command->pending.length > 0)
      command_map_settle (command);
    return command_map_emit (command, COMMAND_END);
  }
  error = request_validate (command->disk, REQUEST_BLOCK_STATUS, 0, command->at,
                            size - command->at, &why);
  if (error < 0)
    return command_fail (command, error, "%s", why);
  return command_start_access (command, REQUEST_BLOCK_STATUS, 0, size - command->at,
                               COMMAND_MAP_ANSWER);
}

enum op_next
command_map_answer (struct command *command)
{
  int error = command->access.op.error;

  /* An error may only mean that the disk has shrunk under it: then what is left is asked for. */
  if (error < 0 && command->access.offset + command->access.length <= disk_size (command->disk)) {
    request_release (&command->access);
    return command_fail (command, error, "its extents could not be read: %s", strerror (-error));
  }
  for (uint32_t i = 0; error == 0 && i < command->access.extent_count; i++) {
    const struct status_extent *extent = &command->status[i];

    if (command->pending.length > 0 && command->pending.flags != extent->flags)
      command_map_settle (command);
    command->pending.flags = extent->flags;
    command->pending.length += extent->length;
    command->at += extent->length;
  }
  request_release (&command->access);
  if (json_object_array_length (command->extents) >= COMMAND_MAP_EXTENTS)
    return command_map_emit (command, COMMAND_MAP_ASK);
  command->op.stage = COMMAND_MAP_ASK;
  return OP_MORE;
}

enum op_next
command_punch (struct command *command)
{
  char text[TEXT_SIZE_MAX];
  uint64_t length, size;

  if (!command_open_disk (command) || !command_bytes (command, "offset", &command->at)
      || !command_bytes (command, "length", &length))
    return OP_DONE;
  size = disk_size (command->disk);
  if (length == 0)
    return command_fail (command, -EINVAL, "the length must be greater than zero");
  if (command->at > size || length > size - command->at)
    return command_fail (command, -EINVAL, "the range ends beyond the disk, whose size is %s",
                         text_exact_size (size, text));
  command->end = command->at + length;
  command->op.stage = COMMAND_PUNCH_ASK;
  return OP_MORE;
}

/* Write zeroes, not trim: the range reads as zeros afterwards, to the byte; whole blocks become
 * holes.  In one request, whose steps the store bounds: each costs a look at the cache. */
enum op_next
command_punch_ask (struct command *command)
{
  uint64_t length = command->end - command->at;
  const char *why;
  int error = request_validate (command->disk, REQUEST_WRITE_ZEROES, REQUEST_FUA, command->at,
                                length, &why);

  if (error < 0)
    return command_fail (command, error, "nothing is punched from %" PRIu64 " on: %s", command->at,
                         error == -EPERM ? "the store is open read-only" : why);
  return command_start_access (command, REQUEST_WRITE_ZEROES, REQUEST_FUA, length,
                               COMMAND_PUNCH_ANSWER);
}

enum op_next
command_punch_answer (struct command *command)
{
  int error = command->access.op.error;

  request_release (&command->access);
  if (error < 0)
    return command_fail (command, error, "from %" PRIu64 " on it is punched in part only: %s",
                         command->at, strerror (-error));
  command->op.stage = COMMAND_END;
  return OP_MORE;
}
