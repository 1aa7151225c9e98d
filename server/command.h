/* SPDX-License-Identifier: BSD-2-Clause */
/* command.h - what create, list, info, map, resize, rename, delete, punch, collapse-range,
 * insert-range, clone-range and stat do, once.
 *
 * A command comes as a JSON object (control.h has the protocol around it) and runs as an op on a
 * context of the store: the control socket runs it inside a server, the command line on a store
 * that nobody serves.  Neither knows the difference, so both answer the same.
 *
 *   {"command": "create", "disk": D, "size": BYTES}
 *   {"command": "list"}                   pieces: {"disks": [{name, uuid, size, ...}, ...]}
 *   {"command": "info"}                   result: the store
 *   {"command": "info", "disk": D}        result: the disk
 *   {"command": "map", "disk": D}         pieces: {"extents": [{offset, length, type}, ...]}
 *   {"command": "resize", "disk": D, "size": BYTES}   and if wanted
 *                                         "relative": "+" or "-", "shrink": true
 *   {"command": "rename", "disk": D, "new_name": N}
 *   {"command": "delete", "disk": D}
 *   {"command": "punch", "disk": D, "offset": BYTES, "length": BYTES}
 *   {"command": "collapse-range", "disk": D, "offset": BYTES, "length": BYTES}, or "insert-range",
 *                                         and if wanted "request_id": UUID, which makes it safe to
 *                                         ask again: result: {"already_done": BOOLEAN}
 *   {"command": "clone-range", "disk": D, "offset": BYTES, "length": BYTES, "target": D,
 *    "target_offset": BYTES}            likewise
 *   {"command": "stat"}                   result: {"store": {...}, "counters": {...}}
 *
 * What is long comes in pieces of bounded size before the result; a listener that is behind holds
 * the command until it calls command_resume, so memory stays bounded however long the answer is.
 * What changes something is durable when it is done; what fails at its arguments changed nothing.
 *
 * Nothing here waits.  All on the context's thread; callbacks never come inside command_start.
 */
#ifndef LACUNA_COMMAND_H
#define LACUNA_COMMAND_H

#include <json-c/json.h>
#include <stdbool.h>

#include "store/store.h"

struct command;

/* Adds counters of the program to those of the store: fills up to MAX, returns how many. */
typedef size_t command_counters (void *owner, struct store_counter *counters, size_t max);

struct command_listener {
  /* A piece of the answer; its reference is the listener's now.  False: no more until
   * command_resume. */
  bool (*piece) (void *owner, struct json_object *piece);
  /* The end, and the last call; the command is freed after it.  ERROR 0: RESULT (may be NULL; its
   * reference is the listener's).  Else negative errno, and MESSAGE says what was wrong, without
   * the names of store and disk. */
  void (*done) (void *owner, int error, const char *message, struct json_object *result);
  command_counters *counters;   /* for `stat`; may be NULL */
};

/* Starts what REQUEST asks for; whatever is wrong with it is told by `done`.  NULL: no memory. */
struct command *command_start (struct store *store, struct context *context,
                               struct json_object *request,
                               const struct command_listener *listener, void *owner);

/* After `piece` returned false. */
void command_resume (struct command *command);

/* Ends it before its next request to the store (-ECANCELED); one that runs is not interrupted, and
 * what it came to is told.  `done` comes all the same. */
void command_stop (struct command *command);

#endif
