/* SPDX-License-Identifier: BSD-2-Clause */
/* command-internal.h - one command on its way; for the command*.c only.
 *
 * command.c has the op, the arguments, and the changes to disks; command-report.c what tells of the
 * store as a whole; command-range.c what walks along one disk.
 */
#ifndef LACUNA_COMMAND_INTERNAL_H
#define LACUNA_COMMAND_INTERNAL_H

#include "command.h"

/* Extents asked for at once; a piece of a map has at least as many (or is the last), and less than
 * twice as many. */
#define COMMAND_MAP_EXTENTS 512

enum command_stage {
  COMMAND_BEGIN,         /* which command it is, and its arguments */
  COMMAND_CHANGED,       /* create, resize ... clone-range: the admin op has ended */
  COMMAND_LIST_PIECE,    /* the next disks */
  COMMAND_MAP_ASK,       /* block status of the rest of the disk */
  COMMAND_MAP_ANSWER,    /* as much of it as was told */
  COMMAND_PUNCH_ASK,     /* the range becomes a hole */
  COMMAND_PUNCH_ANSWER,
  COMMAND_END,           /* the last piece was emitted */
};

struct command {
  struct op op;                         /* op.error: the result */
  struct store *store;
  struct json_object *request;
  const struct command_listener *listener;
  void *owner;
  struct json_object *result;
  char message[768];                    /* if op.error */
  char name[DISK_NAME_MAX + 1];
  bool is_held, is_stopping;

  struct admin changes;                 /* create, resize ... clone-range */

  struct disk_info *infos;              /* list */
  size_t info_count, info_next;

  struct disk *disk;                    /* map, punch */
  struct request access;
  uint64_t at, end;                     /* bytes */
  struct status_extent status[COMMAND_MAP_EXTENTS];
  struct status_extent pending;         /* ends at AT; the next one may continue it */
  struct json_object *extents;          /* before it, not emitted yet */
};

/* Notes the failure and returns OP_DONE. */
enum op_next command_fail (struct command *command, int error, const char *format, ...)
  __attribute__ ((format (printf, 3, 4)));
enum op_next command_fail_no_disk (struct command *command);

/* Hands PIECE to the listener; what the step returns after it has set the next stage. */
enum op_next command_emit (struct command *command, struct json_object *piece);

/* Members of the request; false with the failure noted if they are missing or cannot be right. */
bool command_name (struct command *command, const char *key, char name[DISK_NAME_MAX + 1]);
bool command_bytes (struct command *command, const char *key, uint64_t *bytes);

/* "request_id", a UUID, if there is one: to ID; else zeros.  False with the failure noted if it is
 * none. */
bool command_request_id (struct command *command, uint8_t id[REQUEST_ID_BYTES]);

void json_add_bytes (struct json_object *object, const char *key, uint64_t value);

/* The steps, in the other files. */
enum op_next command_list (struct command *command);
enum op_next command_list_piece (struct command *command);
enum op_next command_info (struct command *command);
enum op_next command_stat (struct command *command);
enum op_next command_map (struct command *command);
enum op_next command_map_ask (struct command *command);
enum op_next command_map_answer (struct command *command);
enum op_next command_punch (struct command *command);
enum op_next command_punch_ask (struct command *command);
enum op_next command_punch_answer (struct command *command);

#endif
