/* SPDX-License-Identifier: BSD-2-Clause */
/* negotiate.c - the fixed newstyle handshake (doc/proto.md of the nbd project).
 *
 * Works on bytes in connection->input and queues bytes in connection->reply: no socket, no
 * waiting.  Every option consumes exactly its length and gets exactly one final
 * answer.  What a client may cost before it has chosen a disk is bounded: number
 * of options, their length, and (in connection.c) the time.
 *
 * There is no TLS yet: STARTTLS is refused, and no other option depends on it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/text.h"
#include "server.h"

/* The option that is being answered; DATA is not owned. */
struct option {
  uint32_t kind;
  uint32_t length;
  const uint8_t *data;
};

/* --- answers --- */

/* Queues bytes.  If there is no memory the connection ends: reply_size shows it. */
static void
reply_append (struct connection *connection, const void *data, size_t length)
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

static void
reply_header (struct connection *connection, uint32_t option, uint32_t type, size_t length)
{
  struct nbd_option_reply header = {
    .magic = to_be64 (NBD_OPTION_REPLY_MAGIC),
    .option = to_be32 (option),
    .type = to_be32 (type),
    .length = to_be32 ((uint32_t) length),
  };

  reply_append (connection, &header, sizeof header);
}

static void
reply_ack (struct connection *connection, uint32_t option)
{
  reply_header (connection, option, NBD_REP_ACK, 0);
}

static void
reply_error (struct connection *connection, uint32_t option, uint32_t type, const char *text)
{
  reply_header (connection, option, type, strlen (text));
  reply_append (connection, text, strlen (text));
}

static void
reply_invalid (struct connection *connection, uint32_t option)
{
  reply_error (connection, option, NBD_REP_ERR_INVALID, "The option's data is malformed.");
}

static void
reply_unknown (struct connection *connection, uint32_t option, const char *name)
{
  reply_error (connection, option, NBD_REP_ERR_UNKNOWN,
               *name ? "There is no disk of this name."
                     : "This server has no default disk; name the one you want.");
}

/* --- strings in options --- */

/* Reads a 32-bit length and as many bytes of a name at *AT, and moves *AT behind them.
 * A name that no disk can have, since it is too long, becomes one that no disk has. */
static bool
take_name (const struct option *option, uint32_t *at, char name[DISK_NAME_MAX + 1])
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

static bool
take_u32 (const struct option *option, uint32_t *at, uint32_t *value)
{
  be32 wire;

  if (option->length - *at < sizeof wire)
    return false;
  memcpy (&wire, option->data + *at, sizeof wire);
  *at += sizeof wire;
  *value = from_be32 (wire);
  return true;
}

/* --- choosing a disk: EXPORT_NAME, INFO, GO --- */

struct disk *
server_open_disk (struct server *server, const char *name)
{
  struct disk_info infos[2];

  if (*name != '\0')
    return disk_open (server->store, name);
  if (server->options.export)
    return disk_open (server->store, server->options.export);
  if (store_list_disks (server->store, infos, ARRAY_COUNT (infos)) != 1)
    return NULL;
  return disk_open (server->store, infos[0].name);
}

static uint16_t
transmission_flags (const struct connection *connection)
{
  unsigned flags = NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA | NBD_CAN_MULTI_CONN
                   | NBD_SEND_CACHE;

  if (connection->worker->server->is_read_only)
    flags |= NBD_READ_ONLY;
  else
    flags |= NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES | NBD_SEND_FAST_ZERO;
  if (connection->is_structured)
    flags |= NBD_SEND_DF;
  return (uint16_t) flags;
}

/* The end of the handshake: DISK (a reference, taken over) is what the client works with. */
static void
choose_disk (struct connection *connection, struct disk *disk, const char *name)
{
  const struct negotiation *negotiation = &connection->negotiation;

  connection->disk = disk;
  connection->transmission_flags = transmission_flags (connection);
  connection->has_allocation = negotiation->has_context
                               && strcmp (negotiation->context_name, name) == 0;
}

static enum negotiate_result
option_export_name (struct connection *connection, const struct option *option)
{
  struct nbd_export_name_reply reply = { 0 };
  char name[DISK_NAME_MAX + 1];
  struct disk *disk;

  /* The one option that has no way to answer an error. */
  if (option->length > DISK_NAME_MAX || !text_is_utf8 ((const char *) option->data, option->length))
    return NEGOTIATE_ABORTED;
  memcpy (name, option->data, option->length);
  name[option->length] = '\0';
  disk = server_open_disk (connection->worker->server, name);
  if (!disk)
    return NEGOTIATE_ABORTED;
  choose_disk (connection, disk, name);
  reply.size = to_be64 (disk_size (disk));
  reply.flags = to_be16 (connection->transmission_flags);
  reply_append (connection, &reply, connection->negotiation.has_no_zeroes
                                      ? NBD_EXPORT_NAME_REPLY_SHORT : sizeof reply);
  return NEGOTIATE_DONE;
}

static void
info_export (struct connection *connection, uint32_t option, const struct disk *disk)
{
  struct nbd_info_export info = {
    .type = to_be16 (NBD_INFO_EXPORT),
    .size = to_be64 (disk_size (disk)),
    .flags = to_be16 (transmission_flags (connection)),
  };

  reply_header (connection, option, NBD_REP_INFO, sizeof info);
  reply_append (connection, &info, sizeof info);
}

static void
info_name (struct connection *connection, uint32_t option, struct disk *disk)
{
  be16 type = to_be16 (NBD_INFO_NAME);
  struct disk_info info;

  disk_get_info (disk, &info);
  reply_header (connection, option, NBD_REP_INFO, sizeof type + strlen (info.name));
  reply_append (connection, &type, sizeof type);
  reply_append (connection, info.name, strlen (info.name));
}

static void
info_block_size (struct connection *connection, uint32_t option)
{
  struct nbd_info_block_size info = {
    .type = to_be16 (NBD_INFO_BLOCK_SIZE),
    .minimum = to_be32 (BLOCK_SIZE_MINIMUM),
    .preferred = to_be32 (BLOCK_SIZE),
    .maximum = to_be32 (STORE_REQUEST_MAX),
  };

  reply_header (connection, option, NBD_REP_INFO, sizeof info);
  reply_append (connection, &info, sizeof info);
}

static enum negotiate_result
option_info_or_go (struct connection *connection, const struct option *option)
{
  bool wants_name = false, wants_block_size = false;
  char name[DISK_NAME_MAX + 1];
  struct disk *disk;
  uint32_t at = 0;
  be16 wire;

  if (!take_name (option, &at, name) || option->length - at < sizeof wire)
    goto invalid;
  memcpy (&wire, option->data + at, sizeof wire);
  at += sizeof wire;
  if (option->length - at != from_be16 (wire) * sizeof wire)
    goto invalid;
  for (; at < option->length; at += sizeof wire) {
    memcpy (&wire, option->data + at, sizeof wire);
    wants_name |= from_be16 (wire) == NBD_INFO_NAME;
    wants_block_size |= from_be16 (wire) == NBD_INFO_BLOCK_SIZE;
  }
  disk = server_open_disk (connection->worker->server, name);
  if (!disk) {
    reply_unknown (connection, option->kind, name);
    return NEGOTIATE_MORE;
  }
  info_export (connection, option->kind, disk);
  if (wants_name)
    info_name (connection, option->kind, disk);
  if (wants_block_size)
    info_block_size (connection, option->kind);
  reply_ack (connection, option->kind);
  if (option->kind == NBD_OPT_GO) {
    choose_disk (connection, disk, name);
    return NEGOTIATE_DONE;
  }
  disk_close (disk);
  return NEGOTIATE_MORE;

invalid:
  reply_invalid (connection, option->kind);
  return NEGOTIATE_MORE;
}

/* --- LIST --- */

static enum negotiate_result
option_list (struct connection *connection, const struct option *option)
{
  struct negotiation *negotiation = &connection->negotiation;
  struct store *store = connection->worker->server->store;
  struct disk_info *infos = NULL;
  size_t count;

  if (option->length > 0) {
    reply_invalid (connection, option->kind);
    return NEGOTIATE_MORE;
  }
  count = store_list_disks (store, NULL, 0);
  if (count > 0)
    infos = calloc (count, sizeof *infos);
  if (infos)
    count = MIN (count, store_list_disks (store, infos, count));
  for (size_t i = 0; infos && i < count; i++) {
    be32 length = to_be32 ((uint32_t) strlen (infos[i].name));

    reply_header (connection, option->kind, NBD_REP_SERVER, sizeof length + strlen (infos[i].name));
    reply_append (connection, &length, sizeof length);
    reply_append (connection, infos[i].name, strlen (infos[i].name));
  }
  free (infos);
  reply_ack (connection, option->kind);
  /* `qemu-nbd --list` asks two more for every name it got. */
  if (negotiation->options_max == OPTIONS_MAX)
    negotiation->options_max += 2 * (unsigned) MIN (count, 100000);
  return NEGOTIATE_MORE;
}

/* --- metadata contexts --- */

static const char allocation[] = "base:allocation";

static bool
query_matches (const struct option *option, const uint8_t *query, uint32_t length)
{
  if (length == strlen (allocation) && memcmp (query, allocation, length) == 0)
    return true;
  return option->kind == NBD_OPT_LIST_META_CONTEXT && length == 5
         && memcmp (query, "base:", 5) == 0;
}

/* Whether the queries from AT on are well-formed, and in *IS_WANTED whether they ask for
 * base:allocation.  Contexts that nobody here knows are no error. */
static bool
read_queries (const struct option *option, uint32_t at, bool *is_wanted)
{
  uint32_t count, length;

  if (!take_u32 (option, &at, &count))
    return false;
  *is_wanted = count == 0 && option->kind == NBD_OPT_LIST_META_CONTEXT;
  while (count-- > 0) {
    if (!take_u32 (option, &at, &length) || length > option->length - at || length > NBD_STRING_MAX)
      return false;
    *is_wanted |= query_matches (option, option->data + at, length);
    at += length;
  }
  return at == option->length;
}

static enum negotiate_result
option_meta_context (struct connection *connection, const struct option *option)
{
  struct negotiation *negotiation = &connection->negotiation;
  bool is_set = option->kind == NBD_OPT_SET_META_CONTEXT, is_wanted = false;
  char name[DISK_NAME_MAX + 1];
  struct disk *disk;
  uint32_t at = 0;
  be32 id = to_be32 (is_set ? CONTEXT_ID_ALLOCATION : 0);

  /* A new choice replaces the one before, even if it fails. */
  if (is_set)
    negotiation->has_context = false;
  if (!take_name (option, &at, name) || !read_queries (option, at, &is_wanted)) {
    reply_invalid (connection, option->kind);
    return NEGOTIATE_MORE;
  }
  if (is_set && !connection->is_structured) {
    reply_error (connection, option->kind, NBD_REP_ERR_INVALID,
                 "Structured replies must be negotiated before metadata contexts.");
    return NEGOTIATE_MORE;
  }
  disk = server_open_disk (connection->worker->server, name);
  if (!disk) {
    reply_unknown (connection, option->kind, name);
    return NEGOTIATE_MORE;
  }
  disk_close (disk);
  if (is_wanted) {
    reply_header (connection, option->kind, NBD_REP_META_CONTEXT, sizeof id + strlen (allocation));
    reply_append (connection, &id, sizeof id);
    reply_append (connection, allocation, strlen (allocation));
  }
  reply_ack (connection, option->kind);
  if (is_set && is_wanted) {
    negotiation->has_context = true;
    strcpy (negotiation->context_name, name);
  }
  return NEGOTIATE_MORE;
}

/* --- the rest --- */

static enum negotiate_result
option_structured_reply (struct connection *connection, const struct option *option)
{
  if (option->length > 0) {
    reply_invalid (connection, option->kind);
    return NEGOTIATE_MORE;
  }
  connection->is_structured = true;
  reply_ack (connection, option->kind);
  return NEGOTIATE_MORE;
}

static enum negotiate_result
option_starttls (struct connection *connection, const struct option *option)
{
  if (option->length > 0)
    reply_invalid (connection, option->kind);
  else
    reply_error (connection, option->kind, NBD_REP_ERR_UNSUP, "This server does not speak TLS.");
  return NEGOTIATE_MORE;
}

static enum negotiate_result
answer (struct connection *connection, const struct option *option)
{
  if (option->kind == NBD_OPT_ABORT) {
    reply_ack (connection, option->kind);
    return NEGOTIATE_ABORTED;
  }
  if (atomic_load (&connection->worker->server->is_stopping)) {
    if (option->kind == NBD_OPT_EXPORT_NAME)
      return NEGOTIATE_ABORTED;
    reply_error (connection, option->kind, NBD_REP_ERR_SHUTDOWN, "The server is shutting down.");
    return NEGOTIATE_MORE;
  }
  switch (option->kind) {
  case NBD_OPT_EXPORT_NAME:
    return option_export_name (connection, option);
  case NBD_OPT_LIST:
    return option_list (connection, option);
  case NBD_OPT_STARTTLS:
    return option_starttls (connection, option);
  case NBD_OPT_INFO:
  case NBD_OPT_GO:
    return option_info_or_go (connection, option);
  case NBD_OPT_STRUCTURED_REPLY:
    return option_structured_reply (connection, option);
  case NBD_OPT_LIST_META_CONTEXT:
  case NBD_OPT_SET_META_CONTEXT:
    return option_meta_context (connection, option);
  default:
    reply_error (connection, option->kind, NBD_REP_ERR_UNSUP,
                 "This server does not know the option.");
    return NEGOTIATE_MORE;
  }
}

/* --- bytes --- */

void
negotiate_start (struct connection *connection)
{
  struct nbd_hello hello = {
    .magic = to_be64 (NBD_MAGIC),
    .version = to_be64 (NBD_OPTION_MAGIC),
    .flags = to_be16 (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES),
  };

  connection->negotiation.options_max = OPTIONS_MAX;
  reply_append (connection, &hello, sizeof hello);
}

static uint32_t
input_available (const struct connection *connection)
{
  return connection->input_end - connection->input_start;
}

static const uint8_t *
input_take (struct connection *connection, uint32_t length)
{
  const uint8_t *at = connection->input + connection->input_start;

  CHECK (length <= input_available (connection));
  connection->input_start += length;
  return at;
}

static bool
take_client_flags (struct connection *connection)
{
  uint32_t flags;
  be32 wire;

  memcpy (&wire, input_take (connection, sizeof wire), sizeof wire);
  flags = from_be32 (wire);
  connection->negotiation.has_client_flags = true;
  connection->negotiation.has_no_zeroes = flags & NBD_NO_ZEROES;
  return !(flags & ~(uint32_t) (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES));
}

/* Throws away what there is of a refused option's data; true when all of it has gone. */
static bool
skip_data (struct connection *connection)
{
  struct negotiation *negotiation = &connection->negotiation;
  uint32_t step = MIN (negotiation->skip, input_available (connection));

  input_take (connection, step);
  negotiation->skip -= step;
  return negotiation->skip == 0;
}

/* Refuses an option that is too long to be looked at; false if the client is not worth the
 * reading. */
static bool
refuse_long (struct connection *connection, uint32_t kind, uint32_t length)
{
  if (length > OPTION_SKIP_MAX || kind == NBD_OPT_EXPORT_NAME)
    return false;
  connection->negotiation.skip = length;
  if (kind == NBD_OPT_SET_META_CONTEXT)
    connection->negotiation.has_context = false;
  reply_error (connection, kind, NBD_REP_ERR_TOO_BIG, "The option's data is too long.");
  return true;
}

enum negotiate_result
negotiate_run (struct connection *connection)
{
  struct negotiation *negotiation = &connection->negotiation;
  enum negotiate_result result = NEGOTIATE_MORE;
  struct nbd_option wire;
  struct option option;

  if (!negotiation->has_client_flags) {
    if (input_available (connection) < sizeof (be32))
      return NEGOTIATE_MORE;
    if (!take_client_flags (connection))
      return NEGOTIATE_ABORTED;
  }
  /* One answer at a time: what a client does not fetch does not pile up. */
  while (result == NEGOTIATE_MORE && connection->reply_length < OPTION_BYTES_MAX_META) {
    if (!skip_data (connection) || input_available (connection) < sizeof wire)
      return NEGOTIATE_MORE;
    memcpy (&wire, connection->input + connection->input_start, sizeof wire);
    option.kind = from_be32 (wire.option);
    option.length = from_be32 (wire.length);
    if (from_be64 (wire.magic) != NBD_OPTION_MAGIC)
      return NEGOTIATE_ABORTED;
    if (option.length > (option.kind == NBD_OPT_SET_META_CONTEXT ? OPTION_BYTES_MAX_META
                                                                 : OPTION_BYTES_MAX)) {
      input_take (connection, sizeof wire);
      if (!refuse_long (connection, option.kind, option.length))
        return NEGOTIATE_ABORTED;
      result = NEGOTIATE_MORE;
    } else {
      if (input_available (connection) - sizeof wire < option.length)
        return NEGOTIATE_MORE;
      input_take (connection, sizeof wire);
      option.data = input_take (connection, option.length);
      result = answer (connection, &option);
    }
    if (result == NEGOTIATE_MORE && ++negotiation->options >= negotiation->options_max)
      return NEGOTIATE_ABORTED;
  }
  return result;
}
