/* SPDX-License-Identifier: BSD-2-Clause */
/* reply.c - slots, and the replies that leave from them.
 *
 * A slot that is done joins connection->done; reply_send composes the replies of all of them
 * into one list of segments, headers from connection->output, data from the pinned frames, and
 * sends that with one call.  The slots are released when all of it has gone.
 *
 * With structured replies negotiated a READ is always answered in chunks; success of the others
 * is a simple reply, which is shorter; errors are chunks with a text.  With extended headers all
 * are chunks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "server.h"

#define ERROR_TEXT_MAX 980         /* QEMU drops a connection that gets a chunk of 1000 bytes */

/* --- slots --- */

struct slot *
slot_get (struct connection *connection)
{
  struct list *link = list_take (&connection->free);
  struct slot *slot;

  if (link) {
    slot = container_of (link, struct slot, link);
  } else {
    if (connection->slot_count >= IN_FLIGHT_MAX)
      return NULL;
    slot = calloc (1, sizeof *slot);
    if (!slot)
      return NULL;
    list_init (&slot->link);
    slot->connection = connection;
    connection->slot_count++;
  }
  connection->in_use++;
  slot->failure = (struct nbd_failure) { NBD_SUCCESS, NULL };
  slot->is_in_engine = false;
  slot->length = slot->at = 0;
  slot->read_bytes = slot->sent = slot->chunk_end = 0;
  slot->is_open = false;
  return slot;
}

void
slot_release (struct slot *slot)
{
  struct connection *connection = slot->connection;

  if (slot->is_in_engine)
    request_release (&slot->request);
  if (slot->lent > 0)
    lend_give_back (slot);
  if (slot->copy)
    free (slot->copy);
  if (slot->extents) {
    free (slot->extents);
    connection->statuses--;
  }
  slot->copy = NULL;
  slot->extents = NULL;
  connection->copy_bytes -= slot->copy_bytes;
  slot->copy_bytes = 0;
  connection->read_bytes -= slot->read_bytes;
  connection->in_use--;
  list_remove (&slot->link);
  list_prepend (&connection->free, &slot->link);
}

static void
release_all (struct list *slots)
{
  while (!list_is_empty (slots))
    slot_release (container_of (slots->next, struct slot, link));
}

void
slot_finish (struct slot *slot)
{
  list_append (&slot->connection->done, &slot->link);
  connection_changed (slot->connection);
}

/* --- the data of a READ: in frames, or copied --- */

/* Up to here the data is there. */
static uint64_t
slot_end (const struct slot *slot)
{
  return slot->at + slot->request.length;
}

void
slot_copy_piece (struct slot *slot)
{
  struct iovec segments[PIECE_BYTES / BLOCK_SIZE + 1];
  uint64_t length = 0, bytes;
  unsigned count = request_segments (&slot->request, 0, segments, ARRAY_COUNT (segments), &bytes);

  CHECK (bytes == slot->request.length && bytes <= slot->copy_bytes);
  slot->is_hole = request_is_hole (&slot->request, 0, &length) && length == bytes;
  for (unsigned i = 0, at = 0; i < count; at += segments[i++].iov_len)
    memcpy (slot->copy + at, segments[i].iov_base, segments[i].iov_len);
  request_release (&slot->request);
  slot->is_in_engine = false;
}

/* Data from slot->sent on, as request_segments. */
static unsigned
slot_segments (struct slot *slot, struct iovec *segments, unsigned max)
{
  uint64_t from = slot->sent - slot->at, bytes;

  if (!slot->copy)
    return request_segments (&slot->request, from, segments, max, &bytes);
  segments[0] = (struct iovec) { slot->copy + from, slot->request.length - from };
  return 1;
}

/* Whether data from slot->sent on is a hole, as request_is_hole. */
static bool
slot_is_hole (struct slot *slot, uint64_t *length)
{
  uint64_t from = slot->sent - slot->at;

  if (!slot->copy)
    return request_is_hole (&slot->request, from, length);
  *length = slot->request.length - from;
  return slot->is_hole;
}

/* --- replies out --- */

static void *
add_header (struct output *output, size_t size)
{
  void *header = output->headers[output->header_count++];

  CHECK (size <= sizeof output->headers[0] && output->count < OUTPUT_SEGMENTS);
  output->segments[output->count++] = (struct iovec) { header, size };
  return header;
}

static void
add_data (struct output *output, const void *data, size_t size)
{
  CHECK (output->count < OUTPUT_SEGMENTS);
  output->segments[output->count++] = (struct iovec) { (void *) data, size };
}

static void
add_simple (struct output *output, const struct slot *slot)
{
  struct nbd_simple_reply *reply = add_header (output, sizeof *reply);

  reply->magic = to_be32 (NBD_SIMPLE_REPLY_MAGIC);
  reply->error = to_be32 (slot->failure.error);
  reply->cookie = to_be64 (slot->cookie);
}

/* A chunk whose payload begins with SIZE bytes, to be filled in by the caller, with BYTES more to
 * follow. */
static void *
add_chunk (struct output *output, const struct slot *slot, unsigned type, bool is_last, size_t size,
           uint64_t bytes)
{
  if (slot->connection->is_extended) {
    struct nbd_extended_chunk *chunk = add_header (output, sizeof *chunk + size);

    chunk->magic = to_be32 (NBD_EXTENDED_CHUNK_MAGIC);
    chunk->flags = to_be16 (is_last ? NBD_CHUNK_DONE : 0);
    chunk->type = to_be16 ((uint16_t) type);
    chunk->cookie = to_be64 (slot->cookie);
    chunk->offset = to_be64 (slot->offset);
    chunk->length = to_be64 (size + bytes);
    return chunk + 1;
  }
  struct nbd_chunk *chunk = add_header (output, sizeof *chunk + size);

  chunk->magic = to_be32 (NBD_CHUNK_MAGIC);
  chunk->flags = to_be16 (is_last ? NBD_CHUNK_DONE : 0);
  chunk->type = to_be16 ((uint16_t) type);
  chunk->cookie = to_be64 (slot->cookie);
  chunk->length = to_be32 ((uint32_t) (size + bytes));
  return chunk + 1;
}

static void
compose_error (struct output *output, const struct slot *slot)
{
  size_t length = strnlen (slot->failure.text, ERROR_TEXT_MAX);
  struct nbd_error_text *error
    = add_chunk (output, slot, NBD_CHUNK_ERROR, true, sizeof *error, length);

  error->error = to_be32 (slot->failure.error);
  error->text_length = to_be16 ((uint16_t) length);
  add_data (output, slot->failure.text, length);
}

/* The next chunk of a READ, from slot->sent on: its header, and slot->chunk_end.  Holes cost no
 * bytes, unless the client wants the data in one piece.  A chunk whose data has not all been read
 * is not said to be the last one: an error may still follow it. */
static void
begin_read_chunk (struct output *output, struct slot *slot)
{
  const struct connection *connection = slot->connection;
  uint64_t at = slot->sent, length = slot->length - at;
  bool is_hole = false, is_last;

  if (!connection->is_structured) {
    slot->chunk_end = slot->length;
    add_simple (output, slot);
    return;
  }
  if (!(slot->flags & NBD_CMD_FLAG_DF)) {
    is_hole = slot_is_hole (slot, &length);
    CHECK (length > 0);
  }
  is_last = at + length == slot->length && slot_end (slot) == slot->length;
  slot->is_open = !is_last;
  if (is_hole) {
    struct nbd_hole *hole
      = add_chunk (output, slot, NBD_CHUNK_OFFSET_HOLE, is_last, sizeof *hole, 0);

    hole->offset = to_be64 (slot->offset + at);
    hole->length = to_be32 ((uint32_t) length);
    slot->sent += length;
  } else {
    struct nbd_data *data
      = add_chunk (output, slot, NBD_CHUNK_OFFSET_DATA, is_last, sizeof *data, length);

    data->offset = to_be64 (slot->offset + at);
  }
  slot->chunk_end = at + length;
}

/* Data from slot->sent to slot->chunk_end, as far as it is there and there is room. */
static void
compose_read_data (struct output *output, struct slot *slot)
{
  uint64_t end = MIN (slot->chunk_end, slot_end (slot));

  while (slot->sent < end && output->count < OUTPUT_SEGMENTS) {
    struct iovec *segments = &output->segments[output->count];
    uint64_t left = end - slot->sent;
    unsigned max = OUTPUT_SEGMENTS - output->count;
    unsigned count
      = slot_segments (slot, segments, (unsigned) MIN (max, left / BLOCK_SIZE + 2));

    CHECK (count > 0);
    /* The segments go up to the request's end, the chunk may end before. */
    for (unsigned i = 0; i < count && left > 0; i++) {
      segments[i].iov_len = MIN (segments[i].iov_len, left);
      left -= segments[i].iov_len;
      slot->sent += segments[i].iov_len;
      output->count++;
    }
  }
}

/* Replies are composed only while there is room for a header and one segment, in each context. */
static bool
output_has_room (const struct output *output)
{
  return output->count + 2 * CONTEXT_COUNT <= OUTPUT_SEGMENTS;
}

/* True: all of the reply is in the output. */
static bool
compose_read (struct output *output, struct slot *slot)
{
  struct connection *connection = slot->connection;

  compose_read_data (output, slot);
  while (slot->sent < slot->length) {
    if (slot->sent == slot_end (slot)) {
      /* The next piece takes this one's memory, so this one is sent first. */
      if (output->count == 0) {
        list_remove (&slot->link);
        connection->unfinished = slot;
      }
      return false;
    }
    if (slot->sent < slot->chunk_end || !output_has_room (output))
      return false;
    begin_read_chunk (output, slot);
    compose_read_data (output, slot);
  }
  if (slot->is_open) {
    if (!output_has_room (output))
      return false;
    add_chunk (output, slot, NBD_CHUNK_NONE, true, 0, 0);
  }
  worker_count (&connection->worker->counters.sent_bytes, slot->length);
  return true;
}

/* The rest of a chunk that was begun, when what belongs there could not be read: zeros, and then
 * comes the error.  True: all of it is in the output. */
static bool
compose_padding (struct output *output, struct slot *slot)
{
  if (slot->sent < slot->chunk_end)
    memset (slot->copy, 0, slot->copy_bytes);
  while (slot->sent < slot->chunk_end && output_has_room (output)) {
    uint64_t step = MIN (slot->chunk_end - slot->sent, slot->copy_bytes);

    add_data (output, slot->copy, step);
    slot->sent += step;
  }
  return slot->sent == slot->chunk_end && output_has_room (output);
}

static void
compose_context (struct output *output, struct slot *slot, enum context_index context, bool is_last,
                 uint8_t *wire)
{
  const struct request *request = &slot->request;
  bool is_extended = slot->connection->is_extended;
  uint32_t count = metadata_wire (context, is_extended, request->extents, request->extent_count,
                                  wire);
  uint64_t bytes;

  if (is_extended) {
    struct nbd_extended_status *status;

    bytes = count * sizeof (struct nbd_extended_extent);
    status = add_chunk (output, slot, NBD_CHUNK_BLOCK_STATUS_EXTENDED, is_last, sizeof *status,
                        bytes);
    status->context = to_be32 (context_id (context));
    status->count = to_be32 (count);
  } else {
    struct nbd_status *status;

    bytes = count * sizeof (struct nbd_extent);
    status = add_chunk (output, slot, NBD_CHUNK_BLOCK_STATUS, is_last, sizeof *status, bytes);
    status->context = to_be32 (context_id (context));
  }
  add_data (output, wire, bytes);
}

/* One chunk per context.  The last one takes the memory of the extents themselves: on the wire they
 * are no longer than here. */
static void
compose_status (struct output *output, struct slot *slot)
{
  struct request *request = &slot->request;
  struct status_extent *wire = request->extents + request->extent_max;
  unsigned left = slot->contexts;

  CHECK (left != 0 && (left & ~slot->connection->contexts) == 0);
  CHECK (request->extent_count >= 1 && request->extent_count <= request->extent_max);
  for (unsigned i = 0; left != 0; i++) {
    if (!(left & 1u << i))
      continue;
    left &= ~(1u << i);
    compose_context (output, slot, i, left == 0, (uint8_t *) (left == 0 ? request->extents : wire));
    wire += request->extent_max;
  }
}

/* True: all of the reply is in the output. */
static bool
compose (struct output *output, struct slot *slot)
{
  bool is_structured = slot->connection->is_structured;

  if (slot->failure.error && is_structured) {
    if (!compose_padding (output, slot))
      return false;
    compose_error (output, slot);
  } else if (slot->failure.error)
    add_simple (output, slot);
  else if (slot->command == NBD_CMD_READ && slot->length > 0)
    return compose_read (output, slot);
  else if (slot->command == NBD_CMD_BLOCK_STATUS)
    compose_status (output, slot);
  else if (slot->connection->is_extended || (slot->command == NBD_CMD_READ && is_structured))
    add_chunk (output, slot, NBD_CHUNK_NONE, true, 0, 0);
  else
    add_simple (output, slot);
  return true;
}

static void
fill_output (struct connection *connection)
{
  struct output *output = &connection->output;

  output->first = output->count = output->header_count = 0;
  while (!list_is_empty (&connection->done) && output_has_room (output)) {
    struct slot *slot = container_of (connection->done.next, struct slot, link);

    if (!compose (output, slot))
      return;
    list_remove (&slot->link);
    list_append (&connection->sending, &slot->link);
  }
}

static void
output_advance (struct output *output, size_t sent)
{
  while (sent > 0) {
    struct iovec *segment = &output->segments[output->first];

    if (sent < segment->iov_len) {
      segment->iov_base = (uint8_t *) segment->iov_base + sent;
      segment->iov_len -= sent;
      return;
    }
    sent -= segment->iov_len;
    output->first++;
  }
}

int
reply_send (struct connection *connection)
{
  struct output *output = &connection->output;
  ssize_t sent;

  for (;;) {
    if (output->first == output->count) {
      release_all (&connection->sending);
      if (list_is_empty (&connection->done) || connection->unfinished)
        return 0;
      fill_output (connection);
      if (output->count == 0)
        return 0;
    }
    sent = connection->transport.class->send (&connection->transport,
                                              output->segments + output->first,
                                              output->count - output->first);
    if (sent < 0)
      return (int) sent;
    connection->progress_at = ev_now (connection->worker->loop);
    output_advance (output, (size_t) sent);
    /* To ask again would only tell so. */
    if (output->first < output->count && connection->transport.class->fills)
      return -EAGAIN;
  }
}

/* --- the end --- */

void
reply_drop (struct connection *connection)
{
  if (connection->unfinished && !connection->unfinished->is_in_engine) {
    slot_release (connection->unfinished);
    connection->unfinished = NULL;
  }
  release_all (&connection->sending);
  release_all (&connection->done);
  connection->output.first = connection->output.count = 0;
}

void
reply_free (struct connection *connection)
{
  struct list *link;

  CHECK (connection->in_engine == 0);
  reply_drop (connection);
  while ((link = list_take (&connection->free))) {
    struct slot *slot = container_of (link, struct slot, link);

    free (slot);
  }
}
