/* SPDX-License-Identifier: BSD-2-Clause */
/* answer.c - options: what is in them, and the answers that are queued in connection->reply.
 *
 * No socket, no waiting: connection.c sends what is queued.
 */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "server.h"

/* --- answers --- */

/* Queues bytes.  If there is no memory the connection ends: reply_size shows it. */
void
answer_append (struct connection *connection, const void *data, size_t length)
{
  size_t wanted = connection->reply_length + length;

  if (wanted > connection->reply_size) {
    size_t size = MAX (wanted, MAX (1024, 2 * connection->reply_size));
    uint8_t *reply = realloc (connection->reply, size);

    if (!reply) {
      connection->is_ended = true;
      return;
    }
    connection->reply = reply;
    connection->reply_size = size;
  }
  if (length > 0)
    memcpy (connection->reply + connection->reply_length, data, length);
  connection->reply_length = wanted;
}

void
answer_header (struct connection *connection, uint32_t option, uint32_t type, size_t length)
{
  struct nbd_option_reply header = {
    .magic = to_be64 (NBD_OPTION_REPLY_MAGIC),
    .option = to_be32 (option),
    .type = to_be32 (type),
    .length = to_be32 ((uint32_t) length),
  };

  answer_append (connection, &header, sizeof header);
}

void
answer_ack (struct connection *connection, uint32_t option)
{
  answer_header (connection, option, NBD_REP_ACK, 0);
}

void
answer_error (struct connection *connection, uint32_t option, uint32_t type, const char *text)
{
  answer_header (connection, option, type, strlen (text));
  answer_append (connection, text, strlen (text));
}

void
answer_invalid (struct connection *connection, uint32_t option)
{
  answer_error (connection, option, NBD_REP_ERR_INVALID, "The option's data is malformed.");
}

void
answer_unknown (struct connection *connection, uint32_t option, const char *name)
{
  answer_error (connection, option, NBD_REP_ERR_UNKNOWN,
               *name ? "There is no disk of this name."
                     : "This server has no default disk; name the one you want.");
}

/* --- strings in options --- */

/* Reads a 32-bit length and as many bytes of a name at *AT, and moves *AT behind them.
 * A name that no disk can have, since it is too long, becomes one that no disk has. */
bool
option_take_name (const struct asked *option, uint32_t *at, char name[DISK_NAME_MAX + 1])
{
  uint32_t length;
  be32 wire;

  if (option->length - *at < sizeof wire)
    return false;
  memcpy (&wire, option->data + *at, sizeof wire);
  *at += sizeof wire;
  length = from_be32 (wire);
  if (length > option->length - *at || length > NBD_STRING_MAX
      || !text_is_utf8 ((const char *) option->data + *at, length))
    return false;
  if (length > DISK_NAME_MAX) {
    strcpy (name, "\001");
  } else {
    memcpy (name, option->data + *at, length);
    name[length] = '\0';
  }
  *at += length;
  return true;
}

bool
option_take_u32 (const struct asked *option, uint32_t *at, uint32_t *value)
{
  be32 wire;

  if (option->length - *at < sizeof wire)
    return false;
  memcpy (&wire, option->data + *at, sizeof wire);
  *at += sizeof wire;
  *value = from_be32 (wire);
  return true;
}
