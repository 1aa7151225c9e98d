/* SPDX-License-Identifier: BSD-2-Clause */
/* rest.c - what a client that has gone has left behind in its socket.
 *
 * Whoever just closes, or is lost, has given up what was not answered.  Whoever has sent
 * NBD_CMD_DISC before wants all that it has asked for to be done (proto.md: "The server MUST handle
 * all outstanding requests"), even if it takes no more answers.  The two are told apart only by
 * what comes last, so all of it is taken out of the socket, looked through, and then received from
 * here.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "server.h"

#define REST_MAX (16 * MIB)        /* more than sockets hold */

/* Takes all that the socket has into connection->rest, behind what is in the input. */
static void
take_rest (struct connection *connection)
{
  size_t size = INPUT_BYTES, length = connection->input_end - connection->input_start;
  uint8_t *rest = malloc (size), *larger;
  struct iovec segment;
  ssize_t received = 0;

  if (!rest)
    return;
  memcpy (rest, connection->input + connection->input_start, length);
  while (size <= REST_MAX) {
    segment = (struct iovec) { rest + length, size - length };
    received = segment.iov_len == 0
                 ? 0 : connection->transport.class->receive (&connection->transport, &segment, 1);
    if (segment.iov_len > 0 && received <= 0)
      break;
    length += (size_t) received;
    if (length < size)
      continue;
    larger = realloc (rest, size *= 2);
    if (!larger)
      break;
    rest = larger;
  }
  connection->input_start = connection->input_end = 0;
  connection->rest = rest;
  connection->rest_at = 0;
  connection->rest_length = length;
}

/* Payload that is still to come before the next request. */
static uint64_t
missing_payload (const struct connection *connection)
{
  const struct slot *slot = connection->incoming;

  if (!slot || connection->skip > 0)
    return connection->skip;
  return slot->length - slot->at - connection->incoming_bytes;
}

bool
rest_has_goodbye (struct connection *connection)
{
  struct arrived arrived;
  uint64_t at;

  if (connection->is_ended)
    return false;
  if (!connection->rest)
    take_rest (connection);
  if (connection->has_goodbye || !connection->rest)
    return connection->has_goodbye;
  for (at = missing_payload (connection); at < connection->rest_length; at += arrived.bytes) {
    if (request_decode (connection, connection->rest + at, connection->rest_length - at, &arrived)
        != 0)
      return false;
    if (arrived.command == NBD_CMD_DISC)
      break;
    if (arrived.payload > connection->rest_length - at)
      return false;
    at += arrived.payload;
  }
  connection->has_goodbye = at < connection->rest_length;
  return connection->has_goodbye;
}

ssize_t
rest_receive (struct connection *connection, const struct iovec *segments, unsigned count)
{
  size_t total = 0;

  for (unsigned i = 0; i < count; i++) {
    size_t step
      = MIN (segments[i].iov_len, connection->rest_length - connection->rest_at);

    memcpy (segments[i].iov_base, connection->rest + connection->rest_at, step);
    connection->rest_at += step;
    total += step;
  }
  return (ssize_t) total;
}
