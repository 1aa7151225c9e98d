/* SPDX-License-Identifier: BSD-2-Clause */
/* control.c - the serving side of the control socket; see control.h. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/list.h"
#include "control.h"

#define CLIENTS_MAX 64

/* A client that neither asks nor fetches anything for so long is dropped. */
#define IDLE_S 60.0

/* Until connections are accepted again after the process ran out of descriptors. */
#define ACCEPT_PAUSE_S 0.5

/* With so many bytes not fetched yet, the command is held back. */
#define OUTPUT_HIGH (256 * 1024)

struct control {
  struct store *store;
  struct context *context;
  struct ev_loop *loop;
  command_counters *counters;
  void *owner;
  char *path;
  int fd;
  ev_io acceptor;
  ev_timer pause;
  struct list clients;
  unsigned client_count;
  bool is_stopping;
};

struct control_client {
  struct list link;
  struct control *control;
  int fd;
  ev_io reader, writer;
  ev_timer idle;
  struct command *command;        /* runs; NULL: none */
  bool is_held;                   /* the command waits for output to be fetched */
  bool has_ended;                 /* nothing more comes: what was asked is answered, then it goes */
  bool is_gone;                   /* dead: freed when its command has ended */
  char *output;                   /* bytes [output_start, output_end) are to be sent */
  size_t output_start, output_end, output_room;
  size_t input_length;
  char input[CONTROL_LINE_MAX];   /* what came and is not answered yet */
};

/* --- the end of a client --- */

static void
control_client_free (struct control_client *client)
{
  struct control *control = client->control;

  list_remove (&client->link);
  control->client_count--;
  if (!control->is_stopping)
    ev_io_start (control->loop, &control->acceptor);
  free (client->output);
  free (client);
}

/* Closes the connection; the memory goes when its command has ended. */
static void
control_client_drop (struct control_client *client)
{
  struct ev_loop *loop = client->control->loop;

  if (!client->is_gone) {
    client->is_gone = true;
    ev_io_stop (loop, &client->reader);
    ev_io_stop (loop, &client->writer);
    ev_timer_stop (loop, &client->idle);
    close (client->fd);
  }
  if (client->command != NULL)
    command_stop (client->command);
  else
    control_client_free (client);
}

/* --- output --- */

static bool
control_client_is_behind (const struct control_client *client)
{
  return client->output_end - client->output_start >= OUTPUT_HIGH;
}

/* Sends what the socket takes; false if the client is dead. */
static bool
control_client_send (struct control_client *client)
{
  while (client->output_start < client->output_end) {
    ssize_t sent = send (client->fd, client->output + client->output_start,
                         client->output_end - client->output_start, MSG_NOSIGNAL);

    if (sent < 0 && errno == EINTR)
      continue;
    if (sent < 0 && errno == EAGAIN) {
      ev_io_start (client->control->loop, &client->writer);
      return true;
    }
    if (sent < 0)
      return false;
    client->output_start += sent;
    ev_timer_again (client->control->loop, &client->idle);
  }
  client->output_start = client->output_end = 0;
  ev_io_stop (client->control->loop, &client->writer);
  return true;
}

static bool
control_client_append (struct control_client *client, const char *text, size_t length)
{
  if (client->output_start > 0) {
    memmove (client->output, client->output + client->output_start,
             client->output_end - client->output_start);
    client->output_end -= client->output_start;
    client->output_start = 0;
  }
  if (client->output_room - client->output_end < length) {
    size_t room = 2 * (client->output_end + length);
    char *output = realloc (client->output, room);

    if (output == NULL)
      return false;
    client->output = output;
    client->output_room = room;
  }
  memcpy (client->output + client->output_end, text, length);
  client->output_end += length;
  return true;
}

/* Queues the line {KEY: VALUE}; VALUE's reference is taken. */
static bool
control_client_reply (struct control_client *client, const char *key, struct json_object *value)
{
  struct json_object *line = json_object_new_object ();
  size_t length;
  const char *text;
  bool is_queued = false;

  if (!client->is_gone) {
    json_object_object_add (line, key, json_object_get (value));
    text = json_object_to_json_string_length (line, JSON_C_TO_STRING_PLAIN, &length);
    is_queued = text != NULL && control_client_append (client, text, length)
                && control_client_append (client, "\n", 1);
  }
  json_object_put (value);
  json_object_put (line);
  return is_queued;
}

/* Answers with an error; the client stays. */
static bool
control_client_refuse (struct control_client *client, const char *message)
{
  return control_client_reply (client, "error", json_object_new_string (message));
}

/* --- what commands tell, within context_run: the writer, not we, goes on from there --- */

static bool
control_on_piece (void *owner, struct json_object *piece)
{
  struct control_client *client = owner;

  if (!control_client_reply (client, "piece", piece)) {
    control_client_drop (client);
    return true;                /* it is told to stop */
  }
  client->is_held = control_client_is_behind (client);
  ev_io_start (client->control->loop, &client->writer);
  return !client->is_held;
}

static void
control_on_done (void *owner, int error, const char *message, struct json_object *result)
{
  struct control_client *client = owner;
  bool is_queued;

  client->command = NULL;
  client->is_held = false;
  if (error < 0) {
    json_object_put (result);
    is_queued = control_client_refuse (client, message);
  }
  else
    is_queued = control_client_reply (client, "done", result);
  if (!is_queued)
    control_client_drop (client);
  else if (!client->control->is_stopping) {
    ev_timer_again (client->control->loop, &client->idle);
    ev_io_start (client->control->loop, &client->writer);
  }
}

static size_t
control_on_counters (void *owner, struct store_counter *counters, size_t max)
{
  struct control *control = ((struct control_client *) owner)->control;

  return control->counters != NULL ? control->counters (control->owner, counters, max) : 0;
}

static const struct command_listener control_listener = {
  .piece = control_on_piece,
  .done = control_on_done,
  .counters = control_on_counters,
};

/* --- input --- */

/* The JSON value that LINE is, with white space around it at most; or NULL. */
static struct json_object *
control_parse (const char *line, size_t length)
{
  struct json_tokener *tokener = json_tokener_new ();
  struct json_object *request = NULL;

  if (tokener == NULL || memchr (line, '\0', length) != NULL)
    goto out;
  json_tokener_set_flags (tokener, JSON_TOKENER_STRICT);
  /* With the newline, so that a number at the end is complete. */
  request = json_tokener_parse_ex (tokener, line, (int) length + 1);
  if (json_tokener_get_error (tokener) != json_tokener_success) {
    json_object_put (request);
    request = NULL;
  }
out:
  if (tokener != NULL)
    json_tokener_free (tokener);
  return request;
}

/* Starts what the first line of the input asks for, and removes it; false if there is none. */
static bool
control_client_take_line (struct control_client *client)
{
  char *end = memchr (client->input, '\n', client->input_length);
  struct json_object *request;
  size_t length;

  if (end == NULL)
    return false;
  length = end - client->input;
  request = control_parse (client->input, length);
  client->input_length -= length + 1;
  memmove (client->input, end + 1, client->input_length);
  if (request == NULL) {
    client->has_ended |= !control_client_refuse (client, "the request is not a line of JSON");
    return true;
  }
  client->command = command_start (client->control->store, client->control->context, request,
                                   &control_listener, client);
  json_object_put (request);
  if (client->command == NULL)
    client->has_ended |= !control_client_refuse (client, "out of memory");
  return true;
}

/* Starts the next request, or tells what is wrong with it.  Answers that nobody fetches hold back
 * further requests too. */
static void
control_client_take_input (struct control_client *client)
{
  while (client->command == NULL && !control_client_is_behind (client)
         && control_client_take_line (client))
    ;
  if (client->command == NULL && client->input_length == sizeof client->input
      && memchr (client->input, '\n', client->input_length) == NULL) {
    client->input_length = 0;
    client->has_ended = true;
    control_client_refuse (client, "the request is too long");
  }
}

/* Does what can be done now: starts the next request, sends, lets the command go on, ends. */
static void
control_client_advance (struct control_client *client)
{
  struct ev_loop *loop = client->control->loop;

  control_client_take_input (client);
  if (!control_client_send (client)) {
    control_client_drop (client);
    return;
  }
  if (client->is_held && !control_client_is_behind (client)) {
    client->is_held = false;
    command_resume (client->command);
  }
  if (client->command == NULL && client->output_end == 0) {
    if (memchr (client->input, '\n', client->input_length) != NULL)
      ev_io_start (loop, &client->writer);   /* the next line, in the next turn */
    else if (client->has_ended) {
      control_client_drop (client);
      return;
    }
  }
  if (client->has_ended || client->input_length == sizeof client->input)
    ev_io_stop (loop, &client->reader);
  else
    ev_io_start (loop, &client->reader);
}

/* Whether both directions are closed: then nobody waits for the answer.  A client that has only
 * shut down its sending side does. */
static bool
control_client_has_hung_up (struct control_client *client)
{
  struct pollfd poll_fd = { .fd = client->fd };

  return poll (&poll_fd, 1, 0) == 1 && (poll_fd.revents & (POLLHUP | POLLERR)) != 0;
}

static void
control_on_readable (struct ev_loop *loop, ev_io *watcher, int events)
{
  struct control_client *client = watcher->data;
  ssize_t received = recv (client->fd, client->input + client->input_length,
                           sizeof client->input - client->input_length, 0);

  (void) events;
  if (received < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (received < 0 || (received == 0 && control_client_has_hung_up (client))) {
    control_client_drop (client);
    return;
  }
  if (received == 0)
    client->has_ended = true;
  client->input_length += received;
  ev_timer_again (loop, &client->idle);
  control_client_advance (client);
}

static void
control_on_writable (struct ev_loop *loop, ev_io *watcher, int events)
{
  (void) loop;
  (void) events;
  control_client_advance (watcher->data);
}

static void
control_on_idle (struct ev_loop *loop, ev_timer *timer, int events)
{
  struct control_client *client = timer->data;

  (void) events;
  /* It is the store that takes its time: the client waits. */
  if (client->command != NULL && !client->is_held)
    ev_timer_again (loop, timer);
  else
    control_client_drop (client);
}

/* --- clients come --- */

static void
control_add_client (struct control *control, int fd)
{
  struct control_client *client = calloc (1, sizeof *client);

  if (client == NULL) {
    close (fd);
    return;
  }
  client->control = control;
  client->fd = fd;
  ev_io_init (&client->reader, control_on_readable, fd, EV_READ);
  ev_io_init (&client->writer, control_on_writable, fd, EV_WRITE);
  ev_init (&client->idle, control_on_idle);
  client->idle.repeat = IDLE_S;
  client->reader.data = client->writer.data = client->idle.data = client;
  ev_io_start (control->loop, &client->reader);
  ev_timer_again (control->loop, &client->idle);
  list_append (&control->clients, &client->link);
  if (++control->client_count == CLIENTS_MAX)
    ev_io_stop (control->loop, &control->acceptor);
}

static void
control_on_connection (struct ev_loop *loop, ev_io *watcher, int events)
{
  static const char refusal[] = "{\"error\": \"the server is another user's\"}\n";
  struct control *control = watcher->data;
  struct ucred peer;
  socklen_t length = sizeof peer;
  int fd = accept4 (control->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

  (void) events;
  if (fd < 0) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      /* The connection stays in the queue and would wake the loop again and again. */
      ev_io_stop (loop, watcher);
      ev_timer_again (loop, &control->pause);
    }
    return;
  }
  if (getsockopt (fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0
      || (peer.uid != geteuid () && peer.uid != 0)) {
    (void) !send (fd, refusal, sizeof refusal - 1, MSG_NOSIGNAL);
    close (fd);
    return;
  }
  control_add_client (control, fd);
}

static void
control_on_pause_end (struct ev_loop *loop, ev_timer *timer, int events)
{
  struct control *control = timer->data;

  (void) events;
  ev_timer_stop (loop, timer);
  if (control->client_count < CLIENTS_MAX)
    ev_io_start (loop, &control->acceptor);
}

struct control *
control_start (struct store *store, struct ev_loop *loop, struct context *context,
               command_counters *counters, void *owner, char **error)
{
  struct control *control = calloc (1, sizeof *control);

  if (control == NULL) {
    *error = strdup ("out of memory");
    return NULL;
  }
  control->fd = control_listen (store_path (store), &control->path, error);
  if (control->fd < 0) {
    free (control);
    return NULL;
  }
  control->store = store;
  control->context = context;
  control->loop = loop;
  control->counters = counters;
  control->owner = owner;
  list_init (&control->clients);
  ev_io_init (&control->acceptor, control_on_connection, control->fd, EV_READ);
  ev_init (&control->pause, control_on_pause_end);
  control->pause.repeat = ACCEPT_PAUSE_S;
  control->acceptor.data = control->pause.data = control;
  ev_io_start (loop, &control->acceptor);
  return control;
}

void
control_stop (struct control *control)
{
  control->is_stopping = true;
  ev_io_stop (control->loop, &control->acceptor);
  ev_timer_stop (control->loop, &control->pause);
  control_unlink (control->path);
  close (control->fd);
  list_for_each (at, &control->clients) {
    struct control_client *client = container_of (at, struct control_client, link);

    if (client->command != NULL)
      command_stop (client->command);
  }
  while (!list_is_empty (&control->clients)) {
    context_run (control->context);
    list_for_each_safe (at, &control->clients) {
      struct control_client *client = container_of (at, struct control_client, link);

      if (client->command == NULL) {
        /* The last answer, as far as the socket takes it. */
        control_client_send (client);
        control_client_drop (client);
      }
    }
    if (!list_is_empty (&control->clients))
      context_wait (control->context, -1);
  }
  free (control->path);
  free (control);
}
