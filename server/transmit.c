/* SPDX-License-Identifier: BSD-2-Clause */
/* transmit.c - requests in.
 *
 * One recv brings as many requests as fit into connection->input; each takes a slot and is
 * started at once.  The payload of a WRITE is copied out of the input if it came with it; what
 * has not come yet is received straight into the request's memory, together with what follows
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

/* What the commands of the protocol are to the engine. */
static const struct command_info {
  enum request_kind kind;
  uint16_t flags;                    /* allowed ones */
  bool is_change;
} command_infos[NBD_CMD_COUNT] = {
  [NBD_CMD_READ] = { REQUEST_READ, NBD_CMD_FLAG_FUA, false },   /* and DF, if structured */
  [NBD_CMD_WRITE] = { REQUEST_WRITE, NBD_CMD_FLAG_FUA, true },
  [NBD_CMD_FLUSH] = { REQUEST_FLUSH, NBD_CMD_FLAG_FUA, false },
  [NBD_CMD_TRIM] = { REQUEST_TRIM, NBD_CMD_FLAG_FUA, true },
  [NBD_CMD_CACHE] = { REQUEST_CACHE, NBD_CMD_FLAG_FUA, false },
  [NBD_CMD_WRITE_ZEROES] = { REQUEST_WRITE_ZEROES,
                             NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
                             true },
  [NBD_CMD_BLOCK_STATUS] = { REQUEST_BLOCK_STATUS, NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE, false },
};

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

static void
on_done (struct request *request)
{
  struct slot *slot = container_of (request, struct slot, request);
  struct connection *connection = slot->connection;

  connection->in_engine--;
  if (request->op.error)
    slot->failure = nbd_failure_of_error (slot->command, request->op.error);
  if (command_infos[slot->command].is_change)
    connection->changes_done++;
  else if (slot->command == NBD_CMD_FLUSH && !request->op.error)
    connection->changes_durable = MAX (connection->changes_durable, slot->changes_before);
  slot_finish (slot);
}

/* --- requests in --- */

static unsigned
engine_flags (const struct slot *slot)
{
  unsigned flags = 0;

  if (slot->flags & NBD_CMD_FLAG_FUA && command_infos[slot->command].is_change)
    flags |= REQUEST_FUA;
  if (slot->flags & NBD_CMD_FLAG_NO_HOLE)
    flags |= REQUEST_NO_HOLE;
  if (slot->flags & NBD_CMD_FLAG_FAST_ZERO)
    flags |= REQUEST_FAST_ZERO;
  if (slot->flags & NBD_CMD_FLAG_REQ_ONE)
    flags |= REQUEST_ONE_EXTENT;
  return flags;
}

/* Everything that can be wrong with a request before it is started. */
static struct nbd_failure
judge (const struct connection *connection, const struct slot *slot, uint64_t offset,
       uint32_t length)
{
  const struct command_info *info;
  struct nbd_failure failure;
  const char *why = NULL;
  unsigned allowed;
  int error;

  if (slot->command >= NBD_CMD_COUNT)
    return nbd_failure_of_cause (NBD_CAUSE_UNKNOWN_COMMAND);
  info = &command_infos[slot->command];
  allowed = info->flags;
  if (slot->command == NBD_CMD_READ && connection->is_structured)
    allowed |= NBD_CMD_FLAG_DF;
  if (slot->flags & ~allowed)
    return nbd_failure_of_cause (NBD_CAUSE_FLAGS);
  if (connection->is_stopping)
    return nbd_failure_of_cause (NBD_CAUSE_SHUTDOWN);
  if ((slot->command == NBD_CMD_WRITE || slot->command == NBD_CMD_READ)
      && length > STORE_REQUEST_MAX)
    return nbd_failure_of_cause (NBD_CAUSE_PAYLOAD_TOO_LONG);
  if (slot->command == NBD_CMD_FLUSH && (offset != 0 || length != 0))
    return nbd_failure_of_cause (NBD_CAUSE_FLUSH_RANGE);
  if (slot->command == NBD_CMD_BLOCK_STATUS && !connection->has_allocation)
    return nbd_failure_of_cause (NBD_CAUSE_NO_CONTEXT);
  if (info->is_change && connection->transmission_flags & NBD_READ_ONLY)
    return nbd_failure_of_cause (NBD_CAUSE_READ_ONLY);
  error = request_validate (connection->disk, info->kind, engine_flags (slot), offset, length,
                            &why);
  failure = nbd_failure_of_error (slot->command, error);
  if (error && why)
    failure.text = why;
  return failure;
}

static void
start (struct slot *slot)
{
  struct connection *connection = slot->connection;

  connection->in_engine++;
  request_start (&slot->request);
}

/* Memory for the payload is there, or there is none at all: then the payload is thrown away. */
static void
begin_payload (struct slot *slot)
{
  if (slot->request.op.error) {
    slot->failure = nbd_failure_of_error (slot->command, slot->request.op.error);
    slot->connection->skip = slot->request.length;
  }
}

static void
on_admitted (struct request *request)
{
  struct slot *slot = container_of (request, struct slot, request);
  struct connection *connection = slot->connection;

  connection->in_engine--;
  connection->waits_for_memory = false;
  connection->progress_at = now (connection);
  if (connection->state == CONNECTION_TRANSMISSION)
    begin_payload (slot);
  else
    drop_incoming (connection);
  connection_changed (connection);
}

/* Room for the answer to BLOCK_STATUS. */
static void
prepare_extents (struct slot *slot)
{
  struct request *request = &slot->request;

  if (!(slot->flags & NBD_CMD_FLAG_REQ_ONE) && !slot->extents)
    slot->extents = malloc (STATUS_EXTENTS_MAX * sizeof *slot->extents);
  if (slot->flags & NBD_CMD_FLAG_REQ_ONE || !slot->extents) {
    request->extents = &slot->one_extent;
    request->extent_max = 1;
  } else {
    request->extents = slot->extents;
    request->extent_max = STATUS_EXTENTS_MAX;
  }
}

/* A valid request: it goes to the engine, or first gets its payload. */
static void
accept_request (struct slot *slot, uint64_t offset, uint32_t length)
{
  struct connection *connection = slot->connection;
  struct request *request = &slot->request;

  request_init (request, connection->worker->context, connection->disk,
                command_infos[slot->command].kind, engine_flags (slot), offset, length, on_done);
  slot->is_in_engine = true;
  switch (slot->command) {
  case NBD_CMD_WRITE:
    request->admitted = on_admitted;
    connection->incoming = slot;
    connection->incoming_bytes = 0;
    connection->waits_for_memory = !request_admit (request);
    if (connection->waits_for_memory) {
      connection->in_engine++;
      connection->paused_at = now (connection);
    } else {
      begin_payload (slot);
    }
    return;
  case NBD_CMD_READ:
    request->stream = &connection->stream;
    slot->read_bytes = length;
    connection->read_bytes += length;
    break;
  case NBD_CMD_FLUSH:
    slot->changes_before = connection->changes_done;
    break;
  case NBD_CMD_BLOCK_STATUS:
    prepare_extents (slot);
    break;
  }
  start (slot);
}

/* Whether the connection can take one more request; else the input waits. */
static bool
has_room (const struct connection *connection, const struct nbd_request *wire)
{
  uint32_t length = from_be32 (wire->length);

  if (connection->in_use >= IN_FLIGHT_MAX)
    return false;
  return from_be16 (wire->command) != NBD_CMD_READ || length > STORE_REQUEST_MAX
         || connection->read_bytes == 0 || connection->read_bytes + length <= READ_BACKLOG_MAX;
}

/* Takes the request whose header begins the input.  Negative errno: the connection is beyond
 * help. */
static int
take_request (struct connection *connection)
{
  struct nbd_request wire;
  struct slot *slot;
  uint64_t offset;
  uint32_t length;

  memcpy (&wire, connection->input + connection->input_start, sizeof wire);
  if (from_be32 (wire.magic) != NBD_REQUEST_MAGIC)
    return -EPROTO;
  if (from_be16 (wire.command) == NBD_CMD_DISC) {
    connection->is_ended = true;
    return 0;
  }
  slot = has_room (connection, &wire) ? slot_get (connection) : NULL;
  if (!slot) {
    /* Without a single slot nothing would ever wake it again. */
    if (connection->in_use == 0)
      return -ENOMEM;
    connection->is_paused = true;
    if (connection->paused_at == 0)
      connection->paused_at = now (connection);
    return 0;
  }
  connection->paused_at = 0;
  connection->input_start += sizeof wire;
  worker_count (&connection->worker->counters.requests, 1);
  slot->cookie = from_be64 (wire.cookie);
  slot->command = from_be16 (wire.command);
  slot->flags = from_be16 (wire.flags);
  offset = from_be64 (wire.offset);
  length = from_be32 (wire.length);
  slot->failure = judge (connection, slot, offset, length);
  if (slot->command == NBD_CMD_WRITE && length > 0 && slot->failure.error) {
    connection->incoming = slot;
    connection->skip = length;
    return length <= PAYLOAD_SKIP_MAX ? 0 : -EMSGSIZE;
  }
  if (slot->failure.error || (length == 0 && slot->command != NBD_CMD_FLUSH))
    slot_finish (slot);
  else
    accept_request (slot, offset, length);
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

/* A payload that has come starts its request; true if it did. */
static bool
complete_payload (struct connection *connection)
{
  struct slot *slot = connection->incoming;

  if (connection->incoming_bytes < slot->request.length)
    return false;
  worker_count (&connection->worker->counters.received_bytes, slot->request.length);
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

/* A request that a client has given up and sent again on another connection must not be carried out
 * here later, over what it has written since: after a long wait, what a closed
 * connection has left behind is dropped. */
static bool
is_given_up (const struct connection *connection)
{
  return connection->paused_at != 0 && now (connection) - connection->paused_at > FENCE_SECONDS
         && transport_peer_is_gone (&connection->transport);
}

int
transmit_resume (struct connection *connection)
{
  int error;

  if (connection->waits_for_memory)
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
      if (connection->waits_for_memory)
        return 0;
      copy_payload (connection);
      if (!complete_payload (connection))
        return 0;
    } else {
      if (connection->input_end - connection->input_start < sizeof (struct nbd_request))
        return 0;
      error = take_request (connection);
      if (error)
        return error;
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

  /* The remainder is less than a header, and nothing at all in front of a payload. */
  memmove (connection->input, connection->input + connection->input_start,
           connection->input_end - connection->input_start);
  connection->input_end -= connection->input_start;
  connection->input_start = 0;
  *asked = 0;
  if (connection->incoming && connection->skip == 0) {
    struct request *request = &connection->incoming->request;

    CHECK (connection->input_end == 0);
    count = request_segments (request, connection->incoming_bytes, segments, PAYLOAD_SEGMENTS,
                              &payload);
    *asked = payload;
    if (connection->incoming_bytes + payload < request->length)
      goto receive;
  }
  segments[count].iov_base = connection->input + connection->input_end;
  segments[count].iov_len = payload >= PAYLOAD_LONG ? sizeof (struct nbd_request)
                                                     : INPUT_BYTES - connection->input_end;
  *asked += segments[count].iov_len;
  count++;

receive:
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
    if (connection->is_ended || connection->is_paused || connection->waits_for_memory)
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
  if (!connection->waits_for_memory)
    drop_incoming (connection);
  connection->skip = 0;
  connection->input_start = connection->input_end = 0;
}
