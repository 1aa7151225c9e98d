/* SPDX-License-Identifier: BSD-2-Clause */
/* transmit.c - requests in.
 *
 * One recv brings as many requests as fit into connection->input; each takes a slot and is
 * started at once.  The payload of a WRITE is copied out of the input if it came with it; what
 * has not come yet is received straight into the request's memory, together with what follows
 * it.
 *
 * A READ or WRITE that no frames are lent to (lend.c) goes in pieces, one after the other.  A
 * piece of a payload is gathered in the input, and given to the engine when it is whole; a piece of
 * a READ is copied when the engine has read it, and the next one is read when the client has taken
 * it.
 *
 * What stops the input (no slot, too many bytes of READs unsent, no memory for a payload) leaves
 * it where it is: the client's own window closes, and nobody else is held up.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "server.h"

#define PAYLOAD_SEGMENTS 128
/* A payload this long is received alone but for the next header: what follows is likely as long,
 * and should not be copied either. */
#define PAYLOAD_LONG (32 * KIB)
#define ROUNDS_MAX 8               /* receives in one turn, so that other connections have theirs */
#define FENCE_SECONDS 1.0

static double
now (const struct connection *connection)
{
  return ev_now (connection->worker->loop);
}

/* --- into the engine, and back --- */

/* While a request waits for admission it is the engine's, even if nobody wants it any more. */
static void
drop_incoming (struct connection *connection)
{
  if (connection->incoming)
    slot_release (connection->incoming);
  connection->incoming = NULL;
}

/* What the engine had to do for `incoming' is done. */
static void
resume_incoming (struct connection *connection)
{
  connection->waits_for_engine = false;
  connection->progress_at = now (connection);
  if (connection->state != CONNECTION_TRANSMISSION)
    drop_incoming (connection);
  connection_changed (connection);
}

/* A piece of a payload is written, and there is more to come. */
static void
end_written_piece (struct slot *slot)
{
  struct connection *connection = slot->connection;

  slot->at += slot->request.length;
  connection->incoming_bytes = 0;
  if (slot->failure.error)
    connection->skip = slot->length - slot->at;
  request_release (&slot->request);
  slot->is_in_engine = false;
  resume_incoming (connection);
}

/* A later piece of a READ is there.  In the middle of what it was promised, the client cannot be
 * told of an error, unless it gets its reply in chunks. */
static void
end_fetched_piece (struct slot *slot)
{
  struct connection *connection = slot->connection;

  connection->unfinished = NULL;
  connection->is_broken = slot->failure.error && !connection->is_structured;
  list_prepend (&connection->done, &slot->link);
  connection_changed (connection);
}

static void on_done (struct request *);

static void
start (struct slot *slot)
{
  struct connection *connection = slot->connection;

  connection->in_engine++;
  request_start (&slot->request);
}

/* All pieces of a WRITE are there: with FUA they are made durable together. */
static bool
start_piece_sync (struct slot *slot)
{
  struct connection *connection = slot->connection;
  struct request *request = &slot->request;

  if (slot->command != NBD_CMD_WRITE || slot->at == 0 || !(slot->flags & NBD_CMD_FLAG_FUA)
      || slot->failure.error || request->kind == REQUEST_FLUSH || slot == connection->incoming)
    return false;
  request_release (request);
  request_init (request, connection->worker->context, connection->disk, REQUEST_FLUSH, 0, 0, 0,
                on_done);
  start (slot);
  return true;
}

static void
on_done (struct request *request)
{
  struct slot *slot = container_of (request, struct slot, request);
  struct connection *connection = slot->connection;

  connection->in_engine--;
  if (request->op.error)
    slot->failure = request_failure (slot);
  else if (slot->copy)
    slot_copy_piece (slot);
  if (command_infos[slot->command].is_change)
    connection->changes_done++;
  else if (slot->command == NBD_CMD_FLUSH && !request->op.error)
    connection->changes_durable = MAX (connection->changes_durable, slot->changes_before);
  if (start_piece_sync (slot))
    return;
  if (slot == connection->incoming)
    end_written_piece (slot);
  else if (slot == connection->unfinished)
    end_fetched_piece (slot);
  else
    slot_finish (slot);
}

/* --- requests in --- */

/* The engine's request for all of the slot's, or for a piece that begins at slot->at of it. */
static void
make_request (struct slot *slot, uint64_t length)
{
  struct connection *connection = slot->connection;
  unsigned flags = request_engine_flags (slot->command, slot->flags);

  if (length < slot->length)
    flags &= (unsigned) ~REQUEST_FUA;
  request_init (&slot->request, connection->worker->context, connection->disk,
                command_infos[slot->command].kind, flags, slot->offset + slot->at, length, on_done);
  slot->is_in_engine = true;
}

/* Of what begins at slot->at. */
static uint64_t
piece_bytes (const struct slot *slot)
{
  uint64_t from = slot->offset + slot->at;

  return MIN (slot->length - slot->at, align_down (from + PIECE_BYTES, BLOCK_SIZE) - from);
}

static void
start_read (struct slot *slot)
{
  make_request (slot, slot->copy ? piece_bytes (slot) : slot->length);
  slot->request.stream = &slot->connection->stream;
  start (slot);
}

void
transmit_fetch (struct connection *connection)
{
  struct slot *slot = connection->unfinished;

  if (!slot || slot->is_in_engine)
    return;
  slot->at = slot->sent;
  start_read (slot);
}

static void
on_admitted (struct request *request)
{
  struct slot *slot = container_of (request, struct slot, request);

  slot->connection->in_engine--;
  resume_incoming (slot->connection);
}

/* Asks for memory for a payload, or a piece of it; false: it will be there. */
static bool
admit (struct slot *slot, uint64_t length)
{
  struct connection *connection = slot->connection;

  make_request (slot, length);
  slot->request.admitted = on_admitted;
  connection->waits_for_engine = !request_admit (&slot->request);
  if (connection->waits_for_engine) {
    connection->in_engine++;
    connection->paused_at = now (connection);
  }
  return !connection->waits_for_engine;
}

/* Room for the answer to BLOCK_STATUS, in all its contexts.  It may be shorter than asked for: so
 * it is for a client that takes no answers. */
static void
prepare_extents (struct slot *slot)
{
  struct connection *connection = slot->connection;
  struct request *request = &slot->request;
  unsigned contexts = (unsigned) __builtin_popcount (connection->contexts);

  if (!(slot->flags & NBD_CMD_FLAG_REQ_ONE) && connection->statuses < STATUSES_MAX)
    slot->extents = malloc (contexts * STATUS_EXTENTS_MAX * sizeof *slot->extents);
  if (slot->extents) {
    connection->statuses++;
    request->extents = slot->extents;
    request->extent_max = STATUS_EXTENTS_MAX;
  } else {
    request->extents = slot->one_extent;
    request->extent_max = 1;
  }
}

/* Memory for a READ or WRITE: frames that are lent to it, or its connection's.  False: it has to
 * wait. */
static bool
take_memory (struct slot *slot, const struct arrived *arrived)
{
  struct connection *connection = slot->connection;
  uint32_t bytes;

  slot->length = arrived->length;
  if (lend_take (slot, arrived->offset, arrived->length) || slot->command == NBD_CMD_WRITE)
    return true;
  bytes = (uint32_t) MIN (slot->length, PIECE_BYTES);
  if (connection->copy_bytes + bytes > PIECE_BYTES)
    return false;
  slot->copy = malloc (bytes);
  if (!slot->copy)
    return false;
  slot->copy_bytes = bytes;
  connection->copy_bytes += bytes;
  return true;
}

/* A valid request: it goes to the engine, or first gets its payload. */
static void
accept_request (struct slot *slot, const struct arrived *arrived)
{
  struct connection *connection = slot->connection;

  switch (slot->command) {
  case NBD_CMD_WRITE:
    connection->incoming = slot;
    connection->incoming_bytes = 0;
    if (slot->lent > 0)
      admit (slot, slot->length);
    return;
  case NBD_CMD_READ:
    slot->read_bytes = arrived->length;
    connection->read_bytes += arrived->length;
    start_read (slot);
    return;
  }
  make_request (slot, arrived->length);
  if (slot->command == NBD_CMD_FLUSH) {
    slot->changes_before = connection->changes_done;
  } else if (slot->command == NBD_CMD_BLOCK_STATUS) {
    slot->contexts = arrived->contexts;
    if (slot->contexts & 1u << CONTEXT_DEPTH)
      slot->request.flags |= REQUEST_TELL_SHARED;
    prepare_extents (slot);
  }
  start (slot);
}

/* Whether the connection can take one more request; else the input waits. */
static bool
has_room (const struct connection *connection, const struct arrived *arrived)
{
  if (connection->in_use >= IN_FLIGHT_MAX)
    return false;
  return arrived->command != NBD_CMD_READ || arrived->length > STORE_REQUEST_MAX
         || connection->read_bytes == 0
         || connection->read_bytes + arrived->length <= READ_BACKLOG_MAX;
}

static bool
is_about_nothing (const struct arrived *arrived)
{
  return arrived->length == 0 && arrived->command != NBD_CMD_FLUSH
         && arrived->command != NBD_CMD_RESIZE;
}

static bool
needs_memory (const struct slot *slot, const struct arrived *arrived)
{
  return !slot->failure.error && !is_about_nothing (arrived)
         && (slot->command == NBD_CMD_READ || slot->command == NBD_CMD_WRITE);
}

/* A slot for the request; NULL: it has to wait, and so has what follows it. */
static struct slot *
take_slot (struct connection *connection, const struct arrived *arrived)
{
  struct slot *slot = has_room (connection, arrived) ? slot_get (connection) : NULL;

  if (slot) {
    slot->cookie = arrived->cookie;
    slot->command = arrived->command;
    slot->flags = arrived->flags;
    slot->offset = arrived->offset;
    slot->failure = request_judge (connection, arrived);
    if (!needs_memory (slot, arrived) || take_memory (slot, arrived)) {
      connection->paused_at = 0;
      return slot;
    }
    slot_release (slot);
  }
  connection->is_paused = true;
  if (connection->paused_at == 0)
    connection->paused_at = now (connection);
  return NULL;
}

/* Payloads that are not even thrown away: whoever sends them is cut off. */
static bool
is_too_much (const struct connection *connection, const struct arrived *arrived)
{
  return arrived->payload > (connection->is_extended ? STORE_REQUEST_MAX : PAYLOAD_SKIP_MAX);
}

/* Takes the request that begins the input.  -EAGAIN: it is not all there; another negative errno:
 * the connection is beyond help. */
static int
take_request (struct connection *connection)
{
  struct arrived arrived;
  struct slot *slot;
  int error = request_decode (connection, connection->input + connection->input_start,
                              connection->input_end - connection->input_start, &arrived);

  if (error)
    return error;
  if (arrived.command == NBD_CMD_DISC) {
    connection->is_ended = true;
    return 0;
  }
  if (is_too_much (connection, &arrived))
    return -EMSGSIZE;
  slot = take_slot (connection, &arrived);
  if (!slot)
    /* Without a single slot nothing would ever wake it again. */
    return connection->in_use == 0 ? -ENOMEM : 0;
  connection->input_start += arrived.bytes;
  worker_count (&connection->worker->counters.requests, 1);
  if (slot->failure.error && arrived.payload > 0) {
    connection->incoming = slot;
    connection->skip = arrived.payload;
  } else if (slot->failure.error || is_about_nothing (&arrived)) {
    slot_finish (slot);
  } else if (slot->command == NBD_CMD_RESIZE) {
    resize_start (slot, arrived.offset);
  } else {
    accept_request (slot, &arrived);
  }
  return 0;
}

/* Throws away what there is of a refused payload; true when all of it has gone and is answered. */
static bool
skip_payload (struct connection *connection)
{
  uint64_t step = MIN (connection->skip, connection->input_end - connection->input_start);

  connection->input_start += (uint32_t) step;
  connection->skip -= step;
  if (connection->skip > 0)
    return false;
  slot_finish (connection->incoming);
  connection->incoming = NULL;
  return true;
}

/* Memory for a payload was to be had, even if none is there: then the payload is thrown away. */
static bool
was_refused (struct slot *slot)
{
  if (!slot->request.op.error)
    return false;
  slot->failure = nbd_failure (slot->command, nbd_cause_of_errno (slot->request.op.error));
  slot->connection->skip = slot->length - slot->at;
  return true;
}

/* A payload that has come starts its request; true if it did. */
static bool
complete_payload (struct connection *connection)
{
  struct slot *slot = connection->incoming;

  if (connection->incoming_bytes < slot->request.length)
    return false;
  worker_count (&connection->worker->counters.received_bytes, slot->request.length);
  if (slot->at + slot->request.length < slot->length)
    connection->waits_for_engine = true;
  else
    connection->incoming = NULL;
  start (slot);
  return true;
}

/* Copies what there is of a payload out of the input. */
static void
copy_payload (struct connection *connection)
{
  struct request *request = &connection->incoming->request;
  struct iovec segments[PAYLOAD_SEGMENTS];
  uint64_t bytes, left;

  while (connection->incoming_bytes < request->length
         && connection->input_start < connection->input_end) {
    unsigned count = request_segments (request, connection->incoming_bytes, segments,
                                       PAYLOAD_SEGMENTS, &bytes);

    CHECK (count > 0);
    for (unsigned i = 0; i < count; i++) {
      left = connection->input_end - connection->input_start;
      if (left == 0)
        return;
      left = MIN (left, segments[i].iov_len);
      memcpy (segments[i].iov_base, connection->input + connection->input_start, left);
      connection->input_start += (uint32_t) left;
      connection->incoming_bytes += left;
    }
  }
}

/* Takes what has come of a payload; false: the rest must be waited for, or the engine. */
static bool
take_payload (struct connection *connection)
{
  struct slot *slot = connection->incoming;

  if (slot->lent == 0 && !slot->is_in_engine) {
    uint64_t bytes = piece_bytes (slot);

    if (connection->input_end - connection->input_start < bytes || !admit (slot, bytes))
      return false;
  }
  if (was_refused (slot))
    return true;
  copy_payload (connection);
  if (!complete_payload (connection))
    return false;
  return !connection->waits_for_engine;
}

/* A request that a client has given up and sent again on another connection must not be carried out
 * here later, over what it has written since: after a long wait, what a closed
 * connection has left behind is dropped. */
static bool
is_given_up (struct connection *connection)
{
  return connection->paused_at != 0 && now (connection) - connection->paused_at > FENCE_SECONDS
         && !connection->has_goodbye && transport_peer_is_gone (&connection->transport)
         && !rest_has_goodbye (connection);
}

int
transmit_resume (struct connection *connection)
{
  int error;

  if (connection->waits_for_engine)
    return 0;
  if (is_given_up (connection)) {
    connection->is_ended = true;
    return 0;
  }
  connection->is_paused = false;
  while (!connection->is_ended && !connection->is_paused) {
    if (connection->skip > 0) {
      if (!skip_payload (connection))
        return 0;
    } else if (connection->incoming) {
      if (connection->waits_for_engine || !take_payload (connection))
        return 0;
    } else {
      error = take_request (connection);
      if (error)
        return error == -EAGAIN ? 0 : error;
    }
  }
  return 0;
}

/* One receive: into the payload that is wanted, if any, and behind it into the input.  As
 * transport's. */
static ssize_t
receive_once (struct connection *connection, uint64_t *asked)
{
  struct iovec segments[PAYLOAD_SEGMENTS + 1];
  uint64_t payload = 0, taken;
  unsigned count = 0;
  ssize_t received;

  /* The remainder is less than a request, and nothing at all in front of a payload. */
  memmove (connection->input, connection->input + connection->input_start,
           connection->input_end - connection->input_start);
  connection->input_end -= connection->input_start;
  connection->input_start = 0;
  *asked = 0;
  if (connection->incoming && connection->incoming->is_in_engine && connection->skip == 0) {
    struct request *request = &connection->incoming->request;

    CHECK (connection->input_end == 0);
    count = request_segments (request, connection->incoming_bytes, segments, PAYLOAD_SEGMENTS,
                              &payload);
    *asked = payload;
    if (connection->incoming_bytes + payload < request->length)
      goto receive;
  }
  segments[count].iov_base = connection->input + connection->input_end;
  segments[count].iov_len = payload >= PAYLOAD_LONG ? request_header_bytes (connection)
                                                     : INPUT_BYTES - connection->input_end;
  *asked += segments[count].iov_len;
  count++;

receive:
  if (connection->rest_at < connection->rest_length)
    received = rest_receive (connection, segments, count);
  else
    received = connection->transport.class->receive (&connection->transport, segments, count);
  if (received > 0) {
    taken = MIN ((uint64_t) received, payload);
    connection->incoming_bytes += taken;
    connection->input_end += (uint32_t) ((uint64_t) received - taken);
    connection->progress_at = now (connection);
  }
  return received;
}

int
transmit_receive (struct connection *connection)
{
  uint64_t asked;
  ssize_t received;
  int error;

  for (unsigned round = 0; round < ROUNDS_MAX; round++) {
    if (connection->is_ended || connection->is_paused || connection->waits_for_engine)
      return 0;
    received = receive_once (connection, &asked);
    if (received == -EAGAIN)
      return 0;
    if (received < 0)
      return (int) received;
    if (received == 0) {
      connection->is_ended = true;
      return 0;
    }
    error = transmit_resume (connection);
    if (error)
      return error;
    /* A short receive has emptied the socket: asking again would only tell so. */
    if ((uint64_t) received < asked)
      return 0;
  }
  return 0;
}

/* --- the end --- */

static void
on_synced (struct request *request)
{
  struct slot *slot = container_of (request, struct slot, request);
  struct connection *connection = slot->connection;
  struct disk_info info;

  connection->in_engine--;
  if (request->op.error) {
    disk_get_info (connection->disk, &info);
    log_error ("%s: what a client wrote could not be made durable when it left: %s", info.name,
               strerror (-request->op.error));
  }
  list_append (&connection->done, &slot->link);
  connection_changed (connection);
}

bool
transmit_start_sync (struct connection *connection)
{
  struct slot *slot;

  CHECK (connection->in_engine == 0);
  if (connection->changes_durable == connection->changes_done)
    return false;
  /* There is one: something has changed the disk, and nothing is in flight any more. */
  slot = slot_get (connection);
  CHECK (slot);
  slot->command = NBD_CMD_FLUSH;
  connection->changes_durable = connection->changes_done;
  request_init (&slot->request, connection->worker->context, connection->disk, REQUEST_FLUSH, 0,
                0, 0, on_synced);
  slot->is_in_engine = true;
  connection->in_engine++;
  request_start (&slot->request);
  return true;
}

void
transmit_drop_incoming (struct connection *connection)
{
  if (!connection->waits_for_engine)
    drop_incoming (connection);
  connection->skip = 0;
  connection->input_start = connection->input_end = 0;
}
