/* SPDX-License-Identifier: BSD-2-Clause */
/* control.h - the control socket: how the command line reaches whoever has the store open.
 *
 * A Unix socket whose place follows from the store alone, so that nobody need be told: its name is
 * made of the file's device and inode (hard links and bind mounts are the same store) or the block
 * device's number; its directory belongs to the user that serves the store:
 *
 *   root    /run/lacuna            or, where that cannot be made, /tmp/lacuna-0
 *   others  /run/user/UID/lacuna   or /tmp/lacuna-UID
 *
 * The directory has mode 0700 and the socket 0600, the server answers its own user and root only,
 * and the command line believes a server only if it is of its own user, of root, or of the store
 * file's owner.  Sockets that killed servers left are removed by the next one, whatever its store.
 *
 * Both sides send lines of JSON.  A request is an object (command.h).  The answer is
 *   {"piece": ...}   any number of times, then
 *   {"done": ...}    the result or null; or
 *   {"error": "what was wrong"}
 * and the next request may follow.  A line that is no request is answered by an error.
 *
 * What a client does not fetch is held back in the command, not in memory, and a client that does
 * nothing for a minute is dropped.
 */
#ifndef LACUNA_CONTROL_H
#define LACUNA_CONTROL_H

#include <ev.h>
#include <sys/socket.h>

#include "command.h"

struct control;

/* Listens for STORE on LOOP.  Commands run on CONTEXT, which is LOOP's thread's and which that
 * thread runs (context_run) whenever context_fd is readable and before the loop sleeps.  COUNTERS
 * (may be NULL) adds to those of the store in `stat`: fills up to MAX, returns how many.
 * NULL with *ERROR (malloc'd). */
struct control *control_start (struct store *store, struct ev_loop *loop, struct context *context,
                               command_counters *counters, void *owner, char **error);

/* Ends what runs (a change that has begun is finished and answered) and removes the socket.  Runs
 * CONTEXT until that is done: it blocks.  On LOOP's thread, outside context_run. */
void control_stop (struct control *control);

/* --- where it is (control-path.c) --- */

#define CONTROL_LINE_MAX (64 * 1024)   /* of a request */

/* Binds the socket of the store at STORE_PATH and listens (non-blocking).  The descriptor, with
 * *PATH (malloc'd); or negative errno with *ERROR (malloc'd).  Only for who has the lock. */
int control_listen (const char *store_path, char **path, char **error);

/* Removes the socket, and its directory if it was the last one. */
void control_unlink (const char *path);

/* Connects to whoever serves the store: the descriptor (blocking) and in *SERVER who that is.
 * Negative errno: -ENOENT if nobody does, as far as this user can see. */
int control_connect (const char *store_path, struct ucred *server);

#endif
