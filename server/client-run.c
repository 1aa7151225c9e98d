/* SPDX-License-Identifier: BSD-2-Clause */
/* client-run.c - where a command runs: in the process that serves the store, or in this one; see
 * client.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "client.h"
#include "control.h"

/* So long a store may be locked with nobody answering for it: a server that starts (it recovers
 * first) or ends, or another command. */
#define BUSY_TRIES 100
#define BUSY_PAUSE_NS 50000000L

/* A call that runs in this process. */
struct client_local {
  struct client_call *call;
  int status;
  _Atomic bool is_done;
};

struct json_object *
client_request (const char *name, const char *disk)
{
  struct json_object *request = json_object_new_object ();

  json_object_object_add (request, "command", json_object_new_string (name));
  if (disk != NULL)
    json_object_object_add (request, "disk", json_object_new_string (disk));
  return request;
}

/* --- over the control socket --- */

static bool
client_send (int fd, const char *text, size_t length)
{
  while (length > 0) {
    ssize_t sent = send (fd, text, length, MSG_NOSIGNAL);

    if (sent < 0 && errno == EINTR)
      continue;
    if (sent <= 0)
      return false;
    text += sent;
    length -= sent;
  }
  return true;
}

/* Deals with one line of the answer; true if it was the last, with the exit status in *STATUS. */
static bool
client_take_answer (struct client_call *call, const char *line, int *status)
{
  struct json_object *answer = json_tokener_parse (line), *value;
  bool is_last = true;

  if (json_object_object_get_ex (answer, "piece", &value)) {
    is_last = false;
    if (call->on_piece != NULL)
      call->on_piece (call, value);
  }
  else if (json_object_object_get_ex (answer, "done", &value)) {
    *status = CLIENT_DONE;
    if (call->on_result != NULL)
      call->on_result (call, value);
  }
  else if (json_object_object_get_ex (answer, "error", &value))
    *status = client_error (call->store, call->disk, "%s", json_object_get_string (value));
  else
    *status = client_error (call->store, call->disk, "process %d, which serves the store, answers"
                            " what is not understood", (int) call->server);
  json_object_put (answer);
  return is_last;
}

static int
client_run_remote (struct client_call *call, int fd)
{
  const char *text = json_object_to_json_string_ext (call->request, JSON_C_TO_STRING_PLAIN);
  FILE *answers = fdopen (fd, "r");
  int status = CLIENT_FAILED;
  bool has_ended = false;
  char *line = NULL;
  size_t room = 0;

  if (answers == NULL) {
    close (fd);
    return client_error (call->store, call->disk, "%s", strerror (errno));
  }
  if (client_send (fd, text, strlen (text)) && client_send (fd, "\n", 1))
    while (!has_ended && getline (&line, &room, answers) > 0)
      has_ended = client_take_answer (call, line, &status);
  if (!has_ended)
    client_error (call->store, call->disk, "process %d, which serves the store, ended before it"
                  " had answered", (int) call->server);
  free (line);
  fclose (answers);
  return status;
}

/* --- in this process --- */

static bool
client_on_piece (void *owner, struct json_object *piece)
{
  struct client_local *local = owner;

  if (local->call->on_piece != NULL)
    local->call->on_piece (local->call, piece);
  json_object_put (piece);
  return true;
}

static void
client_on_done (void *owner, int error, const char *message, struct json_object *result)
{
  struct client_local *local = owner;

  if (error < 0)
    local->status = client_error (local->call->store, local->call->disk, "%s", message);
  else if (local->call->on_result != NULL)
    local->call->on_result (local->call, result);
  json_object_put (result);
  local->is_done = true;
}

static const struct command_listener client_listener = {
  .piece = client_on_piece,
  .done = client_on_done,
};

/* Runs the call on an open store, and closes it. */
static int
client_run_local (struct client_call *call, struct store *store)
{
  struct client_local local = { .call = call, .status = CLIENT_DONE };
  struct context *context = store_context_create (store);
  char *error = NULL;

  if (context == NULL)
    local.status = client_error (call->store, call->disk, "no context to run on: %s",
                                 strerror (errno));
  else {
    if (command_start (store, context, call->request, &client_listener, &local) == NULL)
      local.status = client_error (call->store, call->disk, "out of memory");
    else
      context_run_until (context, &local.is_done);
    store_context_destroy (store, context);
  }
  int result = store_close (store, &error);

  if (result < 0)
    local.status = client_error (call->store, NULL, "%s", error ? error : strerror (-result));
  free (error);
  return local.status;
}

static int
client_open (const char *path, bool is_read_only, struct store **store, char **error)
{
  const struct store_options options = {
    .path = path,
    /* Nothing is written here that is not durable before the command ends. */
    .arena_path = "off",
    .cache_bytes = STORE_CACHE_MIN,
    .is_read_only = is_read_only,
  };

  *error = NULL;
  return store_open (&options, store, error);
}

/* Opens the store as the call needs it.  One that was not closed in order must be recovered, and so
 * written, before anything can be read of it. */
static int
client_open_for (const struct client_call *call, struct store **store, char **error)
{
  char *first_error;
  int result = client_open (call->store, call->only_reads, store, error);

  if (result != -EUCLEAN || !call->only_reads)
    return result;
  first_error = *error;
  result = client_open (call->store, false, store, error);
  if (result == -EROFS || result == -EACCES || result == -EPERM) {
    char *second_error = *error;

    if (asprintf (error, "%s; and it cannot be written: %s", first_error,
                  second_error ? second_error : strerror (-result)) < 0)
      *error = NULL;
    free (second_error);
  }
  free (first_error);
  return result;
}

static int
client_run_anywhere (struct client_call *call)
{
  const struct timespec pause = { .tv_nsec = BUSY_PAUSE_NS };
  struct store *store = NULL;
  struct ucred server;
  char *error = NULL;
  int result, status;

  for (unsigned tries = 0;; tries++) {
    int fd = control_connect (call->store, &server);

    if (fd >= 0) {
      call->server = server.pid;
      return client_run_remote (call, fd);
    }
    if (fd == -ETIMEDOUT)
      return client_error (call->store, NULL, "the process that serves the store does not answer");
    result = client_open_for (call, &store, &error);
    if (result == 0)
      return client_run_local (call, store);
    if (result != -EBUSY || tries == BUSY_TRIES)
      break;
    free (error);
    nanosleep (&pause, NULL);
  }
  if (result == -EBUSY)
    status = client_error (call->store, NULL, "%s; nobody answers on a control socket"
                           " (is it another user's?)",
                           error ? error : "another process has it open");
  else
    status = client_error (call->store, NULL, "%s", error ? error : strerror (-result));
  free (error);
  return status;
}

int
client_run (struct client_call *call)
{
  struct stat file;
  int status;

  call->server = 0;
  log_set_level (LOG_WARNING);
  if (stat (call->store, &file) < 0)
    status = client_error (call->store, NULL, "%s", strerror (errno));
  else
    status = client_run_anywhere (call);
  json_object_put (call->request);
  call->request = NULL;
  return client_flush (call->store, status);
}
