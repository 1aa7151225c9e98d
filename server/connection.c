/* SPDX-License-Identifier: BSD-2-Clause */
/* connection.c - a client, from accept to the end.
 *
 *   HANDSHAKE -> TRANSMISSION -> DRAINING -> SYNCING -> freed
 *        \____________\_____________\-> DEAD -> SYNCING -> freed
 *
 * DRAINING is the way of a client that says goodbye, or whose stream ends, or when the server
 * ends: what it asked for is finished and answered.  DEAD is the way of one that cannot be
 * answered any more: what the engine has begun ends there, the rest is dropped.  In both cases
 * what this client has written is then made durable: many clients never send a FLUSH.
 *
 * Everything happens on the worker's thread.  Only connection_advance, which the worker calls
 * between events, sends, changes to a final state, and frees; so callbacks may keep using a
 * connection until they return.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "server.h"

static struct server *
server_of (const struct connection *connection)
{
  return connection->worker->server;
}

static double
now (const struct connection *connection)
{
  return ev_now (connection->worker->loop);
}

void
connection_changed (struct connection *connection)
{
  if (list_is_empty (&connection->changed_link))
    list_append (&connection->worker->changed, &connection->changed_link);
}

/* --- the socket --- */

/* A client could have this said as often as it likes. */
static void
complain (struct connection *connection, const char *what, const char *why)
{
  struct worker *worker = connection->worker;

  if (now (connection) - worker->complained_at < 1)
    return;
  worker->complained_at = now (connection);
  log_info ("%s: %s", what, why);
}

static void
connection_close (struct connection *connection)
{
  if (!connection->transport.class)
    return;
  ev_io_stop (connection->worker->loop, &connection->read_watcher);
  ev_io_stop (connection->worker->loop, &connection->write_watcher);
  fence_unwatch (connection, connection->state == CONNECTION_DEAD && connection->disk);
  connection->transport.class->close (&connection->transport);
  connection->transport.class = NULL;
}

/* The client cannot be answered any more. */
static void
connection_die (struct connection *connection)
{
  if (connection->state == CONNECTION_DEAD || connection->state == CONNECTION_SYNCING)
    return;
  connection->state = CONNECTION_DEAD;
  transmit_drop_incoming (connection);
  reply_drop (connection);
  connection_close (connection);
  connection_changed (connection);
}

/* It takes no replies any more. */
static void
connection_give_up (struct connection *connection)
{
  if (connection->state == CONNECTION_TRANSMISSION && rest_has_goodbye (connection)) {
    connection->is_mute = true;
    connection_changed (connection);
  } else {
    connection_die (connection);
  }
}

/* Receives for the handshake; what comes is looked at in connection_advance. */
static void
receive_handshake (struct connection *connection)
{
  struct iovec segment;
  ssize_t received;

  memmove (connection->input, connection->input + connection->input_start,
           connection->input_end - connection->input_start);
  connection->input_end -= connection->input_start;
  connection->input_start = 0;
  segment.iov_base = connection->input + connection->input_end;
  segment.iov_len = INPUT_BYTES - connection->input_end;
  if (segment.iov_len == 0)
    return;
  received = connection->transport.class->receive (&connection->transport, &segment, 1);
  if (received > 0)
    connection->input_end += (uint32_t) received;
  else if (received == 0)
    connection->is_ended = true;
  else if (received != -EAGAIN)
    connection_die (connection);
}

void
connection_receive (struct connection *connection)
{
  if (connection->state == CONNECTION_HANDSHAKE) {
    if (connection->security != SECURITY_HANDSHAKE)
      receive_handshake (connection);
  } else if (connection->state == CONNECTION_TRANSMISSION) {
    if (transmit_receive (connection) != 0) {
      if (connection->transport.reason)
        complain (connection, "a client was disconnected", connection->transport.reason);
      connection_die (connection);
    }
  }
}

static void
on_readable (struct ev_loop *loop, ev_io *watcher, int events)
{
  struct connection *connection = watcher->data;

  (void) loop;
  (void) events;
  connection_changed (connection);
  connection_receive (connection);
}

static void
on_writable (struct ev_loop *loop, ev_io *watcher, int events)
{
  (void) loop;
  (void) events;
  connection_changed (watcher->data);
}

bool
connection_waits_for_client (const struct connection *connection)
{
  return connection->state == CONNECTION_TRANSMISSION && connection->in_engine == 0
         && (ev_is_active (&connection->read_watcher) || ev_is_active (&connection->write_watcher));
}

bool
connection_is_ready (const struct connection *connection)
{
  struct pollfd fds[2] = {
    { .fd = ev_is_active (&connection->read_watcher) ? connection->transport.receive_fd : -1,
      .events = POLLIN },
    { .fd = ev_is_active (&connection->write_watcher) ? connection->transport.send_fd : -1,
      .events = POLLOUT },
  };

  return poll (fds, 2, 0) > 0;
}

/* --- moving on --- */

/* Somebody waits for it to do the rest, and not for its replies. */
static bool
is_waited_for (const struct connection *connection)
{
  return connection->is_fenced && connection->has_goodbye
         && connection->state == CONNECTION_TRANSMISSION;
}

/* Sends what there is.  False: it can not be sent, and the connection has died, or will be advanced
 * again. */
static bool
connection_send (struct connection *connection)
{
  struct ev_loop *loop = connection->worker->loop;
  ssize_t sent = 0;

  if (connection->is_mute) {
    connection->reply_sent = connection->reply_length = 0;
    reply_drop (connection);
    ev_io_stop (loop, &connection->write_watcher);
    return true;
  }
  while (connection->reply_sent < connection->reply_length) {
    struct iovec segment = { connection->reply + connection->reply_sent,
                             connection->reply_length - connection->reply_sent };

    sent = connection->transport.class->send (&connection->transport, &segment, 1);
    if (sent < 0)
      break;
    connection->reply_sent += (size_t) sent;
  }
  if (sent >= 0) {
    connection->reply_sent = connection->reply_length = 0;
    sent = connection->is_broken ? -EIO : reply_send (connection);
    transmit_fetch (connection);
  }
  if (sent < 0 && (sent != -EAGAIN || is_waited_for (connection))) {
    connection_give_up (connection);
    return false;
  }
  if (sent < 0 && !ev_is_active (&connection->write_watcher)) {
    connection->progress_at = now (connection);
    ev_io_start (loop, &connection->write_watcher);
  } else if (sent == 0) {
    ev_io_stop (loop, &connection->write_watcher);
  }
  return true;
}

static bool
has_output (const struct connection *connection)
{
  return connection->reply_length > 0 || connection->output.first < connection->output.count
         || !list_is_empty (&connection->done) || connection->unfinished;
}

/* There is something to be received of which the socket does not tell. */
static bool
has_more (const struct connection *connection)
{
  return connection->transport.has_more || connection->rest_at < connection->rest_length;
}

static void
set_reading (struct connection *connection, bool is_wanted)
{
  if (!is_wanted) {
    ev_io_stop (connection->worker->loop, &connection->read_watcher);
    return;
  }
  /* What TLS has received may have to be answered first, by a client that takes nothing. */
  if (connection->transport.wants_write) {
    ev_io_stop (connection->worker->loop, &connection->read_watcher);
    ev_io_start (connection->worker->loop, &connection->write_watcher);
    return;
  }
  ev_io_start (connection->worker->loop, &connection->read_watcher);
  if (has_more (connection))
    connection_changed (connection);
}

static void
begin_draining (struct connection *connection)
{
  connection->state = CONNECTION_DRAINING;
  set_reading (connection, false);
  transmit_drop_incoming (connection);
}

/* Goes on with TLS, if it is its turn; false: options cannot be answered now. */
static bool
advance_tls (struct connection *connection)
{
  struct transport *transport = &connection->transport;
  int error = 0;

  if (connection->security == SECURITY_AGREED) {
    error = transport_start_tls (transport, server_of (connection)->tls);
    connection->security = SECURITY_HANDSHAKE;
  }
  if (error == 0 && connection->security == SECURITY_HANDSHAKE) {
    error = transport_handshake (transport);
    if (error == 0) {
      error = transport_identify_tls (transport, &connection->identity);
      connection->security = SECURITY_TLS;
    }
  }
  if (error == -EAGAIN) {
    set_reading (connection, true);
  } else if (error) {
    complain (connection, "a client's TLS handshake failed",
              transport->reason ? transport->reason : strerror (-error));
    connection_die (connection);
  }
  return error == 0;
}

/* Answers options; a client that does not fetch its answers is not asked for more. */
static void
advance_handshake (struct connection *connection)
{
  enum negotiate_result result = NEGOTIATE_MORE;

  do {
    if (!connection_send (connection))
      return;
    if (has_output (connection))
      break;
    if (!advance_tls (connection))
      return;
    result = negotiate_run (connection);
    if (result == NEGOTIATE_STARTTLS)
      connection->security = SECURITY_AGREED;
  } while (result <= NEGOTIATE_STARTTLS && has_output (connection));

  if (result == NEGOTIATE_DONE) {
    admission_end_handshake (server_of (connection), &connection->identity);
    connection->state = CONNECTION_TRANSMISSION;
    set_reading (connection, false);
    ev_io_stop (connection->worker->loop, &connection->write_watcher);
    workers_hand_over (connection);
  } else if (result == NEGOTIATE_ABORTED || connection->is_ended) {
    begin_draining (connection);
    connection_changed (connection);
  } else {
    set_reading (connection, !has_output (connection));
  }
}

void
connection_begin (struct connection *connection)
{
  connection_changed (connection);
  fence_watch (connection);
  if (fence_start (connection) != 0)
    connection_die (connection);
}

static void
advance_transmission (struct connection *connection)
{
  if (!connection_send (connection))
    return;
  if (connection->fence) {
    set_reading (connection, false);
    return;
  }
  if (transmit_resume (connection) != 0) {
    connection_die (connection);
    return;
  }
  if (connection->is_ended) {
    begin_draining (connection);
    connection_changed (connection);
    return;
  }
  set_reading (connection, !connection->is_paused && !connection->waits_for_engine);
}

static void
connection_free (struct connection *connection)
{
  connection->state = CONNECTION_DEAD;
  if (!connection->disk)
    admission_end_handshake (server_of (connection), &connection->identity);
  admission_leave (server_of (connection));
  connection_close (connection);
  transmit_drop_incoming (connection);
  reply_free (connection);
  if (connection->disk)
    disk_close (connection->disk);
  list_remove (&connection->link);
  list_remove (&connection->changed_link);
  list_remove (&connection->gone_link);
  fence_forget (connection);
  identity_free (&connection->identity);
  free (connection->reply);
  free (connection->rest);
  free (connection);
}

/* Nothing of the client is left to do but to make durable what it wrote. */
static void
connection_end (struct connection *connection)
{
  connection->state = CONNECTION_SYNCING;
  if (!connection->disk || !transmit_start_sync (connection))
    connection_free (connection);
}

void
connection_advance (struct connection *connection)
{
  if ((connection->transport.wants_write && !connection->fence)
      || (has_more (connection) && ev_is_active (&connection->read_watcher)))
    connection_receive (connection);
  switch (connection->state) {
  case CONNECTION_HANDSHAKE:
    advance_handshake (connection);
    return;
  case CONNECTION_TRANSMISSION:
    advance_transmission (connection);
    return;
  case CONNECTION_DRAINING:
    if (connection_send (connection) && connection->in_engine == 0 && !has_output (connection))
      connection_end (connection);
    return;
  case CONNECTION_DEAD:
    reply_drop (connection);
    if (connection->in_engine == 0)
      connection_end (connection);
    return;
  case CONNECTION_SYNCING:
    if (connection->in_engine == 0)
      connection_free (connection);
    return;
  }
}

void
connection_fence (struct connection *connection)
{
  connection->is_fenced = true;
  if (connection->state != CONNECTION_TRANSMISSION)
    return;
  if (!rest_has_goodbye (connection))
    begin_draining (connection);
  connection_changed (connection);
}

/* --- deadlines and the server's end --- */

void
connection_stop (struct connection *connection)
{
  connection->since = now (connection);
  connection->is_stopping = true;
  if (connection->state == CONNECTION_HANDSHAKE) {
    connection_die (connection);
  } else if (connection->state == CONNECTION_TRANSMISSION) {
    /* What has come already is told that it comes too late. */
    if (!connection->fence && transmit_receive (connection) != 0) {
      connection_die (connection);
      return;
    }
    begin_draining (connection);
    connection_changed (connection);
  }
}

void
connection_tick (struct connection *connection, double at)
{
  bool holds_memory = has_output (connection)
                      || (connection->incoming && !connection->waits_for_engine);

  /* In the handshake, or without taking the last answer to it. */
  if (!connection->disk && at - connection->since > HANDSHAKE_SECONDS) {
    connection_die (connection);
    return;
  }
  switch (connection->state) {
  case CONNECTION_TRANSMISSION:
    if (rights_were_withdrawn (connection)) {
      log_info ("a client was disconnected: it may do less with its disk now");
      connection_die (connection);
      return;
    }
    /* fall through */
  case CONNECTION_DRAINING:
    if (connection->is_stopping && at - connection->since > STOP_SECONDS)
      holds_memory = true;
    else if (at - connection->progress_at <= STALL_SECONDS)
      return;
    if (holds_memory) {
      complain (connection, "a client was disconnected",
                "it held memory, and neither sent nor took data");
      connection_give_up (connection);
    }
    return;
  default:
    return;
  }
}

/* --- the beginning --- */

bool
connection_create (struct worker *worker, int receive_fd, int send_fd)
{
  struct identity identity = { 0 };
  struct connection *connection = NULL;
  struct transport transport = { .receive_fd = receive_fd, .send_fd = send_fd };
  bool is_admitted;

  /* Who is turned away costs as little as can be. */
  transport_identify (receive_fd, &identity);
  is_admitted = admission_enter (worker->server, &identity);
  if (is_admitted) {
    connection = calloc (1, sizeof *connection);
    if (!connection) {
      admission_end_handshake (worker->server, &identity);
      admission_leave (worker->server);
    }
  }
  if (!connection) {
    transport_close_plain (&transport);
    return false;
  }
  transport_init_plain (&transport, receive_fd, send_fd);
  connection->identity = identity;
  connection->worker = worker;
  list_append (&worker->connections, &connection->link);
  list_init (&connection->changed_link);
  list_init (&connection->gone_link);
  list_init (&connection->free);
  list_init (&connection->done);
  list_init (&connection->sending);
  connection->state = CONNECTION_HANDSHAKE;
  connection->since = connection->progress_at = now (connection);
  connection->transport = transport;
  connection->access_version = atomic_load (&worker->server->access_version);
  ev_io_init (&connection->read_watcher, on_readable, receive_fd, EV_READ);
  ev_io_init (&connection->write_watcher, on_writable, send_fd, EV_WRITE);
  connection->read_watcher.data = connection->write_watcher.data = connection;
  negotiate_start (connection);
  connection_changed (connection);
  return true;
}
