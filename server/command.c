/* SPDX-License-Identifier: BSD-2-Clause */
/* command.c - see command.h.  A command is an op; its steps start the store's own requests and
 * wait for them. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/text.h"
#include "command-internal.h"

enum op_next
command_fail (struct command *command, int error, const char *format, ...)
{
  va_list args;

  command->op.error = error;
  va_start (args, format);
  vsnprintf (command->message, sizeof command->message, format, args);
  va_end (args);
  return OP_DONE;
}

enum op_next
command_fail_no_disk (struct command *command)
{
  return command_fail (command, -ENOENT, "there is no disk of this name");
}

enum op_next
command_emit (struct command *command, struct json_object *piece)
{
  if (command->listener->piece (command->owner, piece) || command->is_stopping)
    return OP_MORE;
  command->is_held = true;
  op_expect (&command->op);
  return OP_WAIT;
}

/* --- members of the request --- */

/* The string KEY; NULL, with the failure noted, if it is missing, no string, or has NUL inside. */
static const char *
command_string (struct command *command, const char *key)
{
  struct json_object *value;

  if (!json_object_object_get_ex (command->request, key, &value)
      || !json_object_is_type (value, json_type_string)) {
    command_fail (command, -EINVAL, "the request has no string \"%s\"", key);
    return NULL;
  }
  const char *text = json_object_get_string (value);

  if (strlen (text) != (size_t) json_object_get_string_len (value)) {
    command_fail (command, -EINVAL, "\"%s\" must not contain NUL", key);
    return NULL;
  }
  return text;
}

/* Copies the name of a disk; whether there is one of this name is not asked here. */
bool
command_name (struct command *command, const char *key, char name[DISK_NAME_MAX + 1])
{
  const char *why, *text = command_string (command, key);

  if (text == NULL)
    return false;
  if (!format_name_is_valid (text, &why)) {
    command_fail (command, -EINVAL, "%s%s",
                  strcmp (key, "new_name") == 0 ? "new name: "
                  : strcmp (key, "target") == 0 ? "the target: " : "", why);
    return false;
  }
  memcpy (name, text, strlen (text) + 1);
  return true;
}

bool
command_bytes (struct command *command, const char *key, uint64_t *bytes)
{
  struct json_object *value;

  if (!json_object_object_get_ex (command->request, key, &value)
      || !json_object_is_type (value, json_type_int)) {
    command_fail (command, -EINVAL, "the request has no number \"%s\"", key);
    return false;
  }
  if (json_object_get_int64 (value) < 0) {
    command_fail (command, -EINVAL, "\"%s\" must not be negative", key);
    return false;
  }
  *bytes = json_object_get_uint64 (value);
  return true;
}

bool
command_request_id (struct command *command, uint8_t id[REQUEST_ID_BYTES])
{
  struct json_object *value;
  const char *text;

  memset (id, 0, REQUEST_ID_BYTES);
  if (!json_object_object_get_ex (command->request, "request_id", &value))
    return true;
  text = command_string (command, "request_id");
  if (text == NULL)
    return false;
  if (text_parse_uuid (text, id))
    return true;
  command_fail (command, -EINVAL, "the request's id \"%s\" is no UUID, or the one of zeros", text);
  return false;
}

/* Judges the size that a disk shall have. */
static bool
command_size_is_valid (struct command *command, uint64_t size)
{
  char text[TEXT_SIZE_MAX];

  if (size == 0)
    command_fail (command, -EINVAL, "a disk's size must be greater than zero");
  else if (size > DISK_SIZE_MAX)
    command_fail (command, -EFBIG,
                  "the size is too large: a disk has at most %" PRIu64 " bytes (8 EiB - 4 KiB)",
                  (uint64_t) DISK_SIZE_MAX);
  else if (size % BLOCK_SIZE != 0) {
    uint64_t next = align_up (size, BLOCK_SIZE);

    command_fail (command, -EINVAL,
                  "the size %" PRIu64 " is not a multiple of 4096; the next one up is %s", size,
                  text_exact_size (next, text));
  }
  else
    return true;
  return false;
}

/* --- create, resize, rename, delete, and what changes ranges: an admin op of the store --- */

static void
command_admin_done (struct admin *admin)
{
  struct command *command = admin->owner;

  op_wake (&command->op);
}

static enum op_next
command_start_admin (struct command *command, enum admin_kind kind)
{
  admin_init (&command->changes, command->op.context, command->store, kind, command->name,
              command_admin_done);
  command->changes.owner = command;
  command->op.stage = COMMAND_CHANGED;
  op_expect (&command->op);
  return OP_WAIT;
}

static enum op_next
command_changed (struct command *command)
{
  struct admin *admin = &command->changes;

  if (admin->op.error == 0
      && (admin->kind == ADMIN_COLLAPSE || admin->kind == ADMIN_INSERT
          || admin->kind == ADMIN_CLONE)) {
    command->result = json_object_new_object ();
    json_object_object_add (command->result, "already_done",
                            json_object_new_boolean (admin->was_done));
  }
  if (admin->op.error == 0)
    return OP_DONE;
  /* The message is about the name that is taken; the caller puts the disk's own before it. */
  bool is_taken = admin->kind == ADMIN_RENAME && admin->op.error == -EEXIST;

  return command_fail (command, admin->op.error, "%s%s", is_taken ? "new name: " : "",
                       admin->message[0] ? admin->message : strerror (-admin->op.error));
}

static enum op_next
command_create (struct command *command)
{
  uint64_t size;

  if (!command_name (command, "disk", command->name) || !command_bytes (command, "size", &size)
      || !command_size_is_valid (command, size))
    return OP_DONE;
  command_start_admin (command, ADMIN_CREATE);
  command->changes.size = size;
  admin_start (&command->changes);
  return OP_WAIT;
}

static enum op_next
command_delete (struct command *command)
{
  if (!command_name (command, "disk", command->name))
    return OP_DONE;
  command_start_admin (command, ADMIN_DELETE);
  admin_start (&command->changes);
  return OP_WAIT;
}

static enum op_next
command_rename (struct command *command)
{
  char new_name[DISK_NAME_MAX + 1];

  if (!command_name (command, "disk", command->name)
      || !command_name (command, "new_name", new_name))
    return OP_DONE;
  command_start_admin (command, ADMIN_RENAME);
  memcpy (command->changes.new_name, new_name, sizeof new_name);
  admin_start (&command->changes);
  return OP_WAIT;
}

static enum op_next
command_shift (struct command *command, enum admin_kind kind)
{
  uint8_t request_id[REQUEST_ID_BYTES];
  uint64_t offset, length;

  if (!command_name (command, "disk", command->name)
      || !command_bytes (command, "offset", &offset)
      || !command_bytes (command, "length", &length)
      || !command_request_id (command, request_id))
    return OP_DONE;
  command_start_admin (command, kind);
  command->changes.offset = offset;
  command->changes.length = length;
  memcpy (command->changes.request_id, request_id, sizeof request_id);
  admin_start (&command->changes);
  return OP_WAIT;
}

static enum op_next
command_collapse (struct command *command)
{
  return command_shift (command, ADMIN_COLLAPSE);
}

static enum op_next
command_insert (struct command *command)
{
  return command_shift (command, ADMIN_INSERT);
}

static enum op_next
command_clone (struct command *command)
{
  struct admin *admin = &command->changes;
  uint8_t request_id[REQUEST_ID_BYTES];
  uint64_t offset, length, target_offset;
  char target[DISK_NAME_MAX + 1];

  if (!command_name (command, "disk", command->name)
      || !command_bytes (command, "offset", &offset)
      || !command_bytes (command, "length", &length)
      || !command_name (command, "target", target)
      || !command_bytes (command, "target_offset", &target_offset)
      || !command_request_id (command, request_id))
    return OP_DONE;
  command_start_admin (command, ADMIN_CLONE);
  memcpy (admin->new_name, target, sizeof target);
  admin->offset = offset;
  admin->length = length;
  admin->target_offset = target_offset;
  memcpy (admin->request_id, request_id, sizeof request_id);
  admin_start (admin);
  return OP_WAIT;
}

/* Turns +SIZE and -SIZE into the new size; false with the failure noted. */
static bool
command_resize_relative (struct command *command, uint64_t now, uint64_t *size)
{
  struct json_object *relative;
  const char *sign = "";
  char text[TEXT_SIZE_MAX];

  if (json_object_object_get_ex (command->request, "relative", &relative))
    sign = json_object_get_string (relative);
  if (sign != NULL && strcmp (sign, "+") == 0) {
    if (*size > DISK_SIZE_MAX - now)
      *size = UINT64_MAX;
    else
      *size += now;
  }
  else if (sign != NULL && strcmp (sign, "-") == 0) {
    if (*size >= now) {
      command_fail (command, -EINVAL, "it cannot shrink by that much: its size is %s",
                    text_exact_size (now, text));
      return false;
    }
    *size = now - *size;
  }
  else if (sign == NULL || sign[0] != '\0') {
    command_fail (command, -EINVAL, "\"relative\" is \"+\" or \"-\"");
    return false;
  }
  return true;
}

static enum op_next
command_resize (struct command *command)
{
  struct json_object *shrink;
  struct disk *disk;
  uint64_t now, size;

  if (!command_name (command, "disk", command->name) || !command_bytes (command, "size", &size))
    return OP_DONE;
  disk = disk_open (command->store, command->name);
  if (disk == NULL)
    return command_fail_no_disk (command);
  now = disk_size (disk);
  disk_close (disk);
  if (!command_resize_relative (command, now, &size) || !command_size_is_valid (command, size))
    return OP_DONE;
  bool may_shrink = json_object_object_get_ex (command->request, "shrink", &shrink)
                    && json_object_get_boolean (shrink);

  if (size < now && !may_shrink) {
    char from[TEXT_SIZE_MAX], to[TEXT_SIZE_MAX];

    return command_fail (command, -EPERM, "it would shrink from %s to %s and lose what lies beyond;"
                         " if that is wanted, add --shrink", text_exact_size (now, from),
                         text_exact_size (size, to));
  }
  command_start_admin (command, ADMIN_RESIZE);
  command->changes.size = size;
  command->changes.may_shrink = may_shrink;
  admin_start (&command->changes);
  return OP_WAIT;
}

/* --- the op --- */

static enum op_next
command_begin (struct command *command)
{
  static const struct {
    const char *name;
    enum op_next (*begin) (struct command *command);
  } commands[] = {
    { "collapse-range", command_collapse }, { "insert-range", command_insert },
    { "clone-range", command_clone },
    { "create", command_create }, { "delete", command_delete }, { "info", command_info },
    { "list", command_list },     { "map", command_map },       { "punch", command_punch },
    { "rename", command_rename }, { "resize", command_resize }, { "stat", command_stat },
  };
  const char *name;

  if (!json_object_is_type (command->request, json_type_object))
    return command_fail (command, -EINVAL, "the request is not a JSON object");
  name = command_string (command, "command");
  if (name == NULL)
    return OP_DONE;
  for (size_t i = 0; i < ARRAY_COUNT (commands); i++)
    if (strcmp (commands[i].name, name) == 0)
      return commands[i].begin (command);
  return command_fail (command, -EOPNOTSUPP, "the server does not know this command");
}

/* Asked before something is begun: what a request that ran came to is told in any case. */
static bool
command_is_stopped (struct command *command)
{
  if (command->is_stopping)
    command_fail (command, -ECANCELED, "stopped before it was done");
  return command->is_stopping;
}

static enum op_next
command_step (struct op *op)
{
  struct command *command = container_of (op, struct command, op);

  switch ((enum command_stage) op->stage) {
  case COMMAND_BEGIN:
    return command_is_stopped (command) ? OP_DONE : command_begin (command);
  case COMMAND_CHANGED:
    return command_changed (command);
  case COMMAND_LIST_PIECE:
    return command_is_stopped (command) ? OP_DONE : command_list_piece (command);
  case COMMAND_MAP_ASK:
    return command_is_stopped (command) ? OP_DONE : command_map_ask (command);
  case COMMAND_MAP_ANSWER:
    return command_map_answer (command);
  case COMMAND_PUNCH_ASK:
    return command_is_stopped (command) ? OP_DONE : command_punch_ask (command);
  case COMMAND_PUNCH_ANSWER:
    return command_punch_answer (command);
  case COMMAND_END:
    return OP_DONE;
  }
  CHECK (!"a stage");
  return OP_DONE;
}

static void
command_done (struct op *op)
{
  struct command *command = container_of (op, struct command, op);

  if (command->disk != NULL)
    disk_close (command->disk);
  command->listener->done (command->owner, op->error, command->message, command->result);
  json_object_put (command->extents);
  json_object_put (command->request);
  free (command->infos);
  free (command);
}

struct command *
command_start (struct store *store, struct context *context, struct json_object *request,
               const struct command_listener *listener, void *owner)
{
  struct command *command = calloc (1, sizeof *command);

  if (command == NULL)
    return NULL;
  command->store = store;
  command->request = json_object_get (request);
  command->listener = listener;
  command->owner = owner;
  op_init (&command->op, context, "command", COMMAND_BEGIN, command_step, command_done);
  op_start (&command->op);
  return command;
}

void
command_resume (struct command *command)
{
  if (command->is_held) {
    command->is_held = false;
    op_wake (&command->op);
  }
}

void
command_stop (struct command *command)
{
  command->is_stopping = true;
  command_resume (command);
}
