/* SPDX-License-Identifier: BSD-2-Clause */
/* negotiate.c - the fixed newstyle handshake (doc/proto.md of the nbd project).
 *
 * Works on bytes in connection->input and queues bytes in connection->reply: no socket, no
 * waiting.  Every option consumes exactly its length and gets exactly one final
 * answer.  What a client may cost before it has chosen a disk is bounded: number
 * of options, their length, and (in connection.c) the time.
 *
 * STARTTLS takes back all that was agreed on before it: anybody may have said that.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/text.h"
#include "server.h"

/* --- choosing a disk: EXPORT_NAME, INFO, GO --- */

/* What was chosen by SET_META_CONTEXT, if it was for this name. */
static unsigned
chosen_contexts (const struct connection *connection, const char *name)
{
  const struct negotiation *negotiation = &connection->negotiation;

  return strcmp (negotiation->context_name, name) == 0 ? negotiation->contexts : 0;
}

static uint16_t
transmission_flags (const struct connection *connection, const char *name,
                    enum access_rights rights)
{
  unsigned flags = NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA | NBD_CAN_MULTI_CONN
                   | NBD_SEND_CACHE;

  if (rights < ACCESS_WRITE)
    flags |= NBD_READ_ONLY;
  else
    flags |= NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES | NBD_SEND_FAST_ZERO;
  if (rights >= ACCESS_RESIZE)
    flags |= NBD_SEND_RESIZE;
  if (connection->is_structured)
    flags |= NBD_SEND_DF;
  if (connection->is_extended && chosen_contexts (connection, name) != 0)
    flags |= NBD_BLOCK_STATUS_PAYLOAD;
  return (uint16_t) flags;
}

/* The end of the handshake: DISK (a reference, taken over) is what the client works with. */
static void
choose_disk (struct connection *connection, struct disk *disk, const char *name,
             enum access_rights rights)
{
  connection->disk = disk;
  connection->size_seen = disk_size (disk);
  connection->rights = rights;
  connection->transmission_flags = transmission_flags (connection, name, rights);
  connection->contexts = chosen_contexts (connection, name);
}

static enum negotiate_result
option_export_name (struct connection *connection, const struct asked *option)
{
  struct nbd_export_name_reply reply = { 0 };
  char name[DISK_NAME_MAX + 1];
  enum access_rights rights;
  struct disk *disk;

  /* The one option that has no way to answer an error; and none for those who use extended
   * headers. */
  if (connection->is_extended || option->length > DISK_NAME_MAX
      || !text_is_utf8 ((const char *) option->data, option->length))
    return NEGOTIATE_ABORTED;
  memcpy (name, option->data, option->length);
  name[option->length] = '\0';
  disk = rights_open_disk (connection, name, &rights);
  if (!disk)
    return NEGOTIATE_ABORTED;
  if (disk_is_damaged (disk)) {
    disk_close (disk);
    return NEGOTIATE_ABORTED;
  }
  choose_disk (connection, disk, name, rights);
  reply.size = to_be64 (disk_size (disk));
  reply.flags = to_be16 (connection->transmission_flags);
  answer_append (connection, &reply, connection->negotiation.has_no_zeroes
                                      ? NBD_EXPORT_NAME_REPLY_SHORT : sizeof reply);
  return NEGOTIATE_DONE;
}

static void
info_export (struct connection *connection, uint32_t option, const struct disk *disk,
             const char *name, enum access_rights rights)
{
  struct nbd_info_export info = {
    .type = to_be16 (NBD_INFO_EXPORT),
    .size = to_be64 (disk_size (disk)),
    .flags = to_be16 (transmission_flags (connection, name, rights)),
  };

  answer_header (connection, option, NBD_REP_INFO, sizeof info);
  answer_append (connection, &info, sizeof info);
}

static void
info_name (struct connection *connection, uint32_t option, struct disk *disk)
{
  be16 type = to_be16 (NBD_INFO_NAME);
  struct disk_info info;

  disk_get_info (disk, &info);
  answer_header (connection, option, NBD_REP_INFO, sizeof type + strlen (info.name));
  answer_append (connection, &type, sizeof type);
  answer_append (connection, info.name, strlen (info.name));
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

  answer_header (connection, option, NBD_REP_INFO, sizeof info);
  answer_append (connection, &info, sizeof info);
}

/* Where rules say who may use what, it may be there for who has shown who he is. */
static void
answer_no_disk (struct connection *connection, uint32_t option, const char *name)
{
  const struct server *server = connection->worker->server;

  if (server->options.access && server->tls && connection->security == SECURITY_NONE
      && connection->negotiation.is_fixed)
    answer_error (connection, option, NBD_REP_ERR_TLS_REQD,
                  "There is no disk of this name, but perhaps by TLS.");
  else
    answer_unknown (connection, option, name);
}

static enum negotiate_result
option_info_or_go (struct connection *connection, const struct asked *option)
{
  bool wants_name = false, wants_block_size = false;
  char name[DISK_NAME_MAX + 1];
  enum access_rights rights;
  struct disk *disk;
  uint32_t at = 0;
  be16 wire;

  if (!option_take_name (option, &at, name) || option->length - at < sizeof wire)
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
  disk = rights_open_disk (connection, name, &rights);
  if (!disk) {
    answer_no_disk (connection, option->kind, name);
    return NEGOTIATE_MORE;
  }
  if (disk_is_damaged (disk)) {
    disk_close (disk);
    answer_error (connection, option->kind, NBD_REP_ERR_UNKNOWN,
                  "The disk is damaged: a part of its map cannot be read.");
    return NEGOTIATE_MORE;
  }
  info_export (connection, option->kind, disk, name, rights);
  if (wants_name)
    info_name (connection, option->kind, disk);
  if (wants_block_size)
    info_block_size (connection, option->kind);
  answer_ack (connection, option->kind);
  if (option->kind == NBD_OPT_GO) {
    choose_disk (connection, disk, name, rights);
    return NEGOTIATE_DONE;
  }
  disk_close (disk);
  return NEGOTIATE_MORE;

invalid:
  answer_invalid (connection, option->kind);
  return NEGOTIATE_MORE;
}

/* --- LIST --- */

static void
option_list (struct connection *connection, const struct asked *option)
{
  struct negotiation *negotiation = &connection->negotiation;
  struct store *store = connection->worker->server->store;
  struct disk_info *infos = NULL;
  unsigned named = 0;
  size_t count;

  if (option->length > 0) {
    answer_invalid (connection, option->kind);
    return;
  }
  count = store_list_disks (store, NULL, 0);
  if (count > 0)
    infos = calloc (count, sizeof *infos);
  if (count > 0 && !infos) {
    answer_error (connection, option->kind, NBD_REP_ERR_TOO_BIG, "There are too many disks.");
    return;
  }
  count = MIN (count, store_list_disks (store, infos, count));
  for (size_t i = 0; i < count; i++) {
    be32 length = to_be32 ((uint32_t) strlen (infos[i].name));

    if (rights_of (connection, infos[i].name) == ACCESS_NONE)
      continue;
    answer_header (connection, option->kind, NBD_REP_SERVER,
                   sizeof length + strlen (infos[i].name));
    answer_append (connection, &length, sizeof length);
    answer_append (connection, infos[i].name, strlen (infos[i].name));
    named++;
  }
  free (infos);
  answer_ack (connection, option->kind);
  /* `qemu-nbd --list` asks two more for every name it got.  What it was not told of is not told by
   * this either. */
  if (negotiation->options_max == OPTIONS_MAX)
    negotiation->options_max += 2 * MIN (named, 100000);
}

/* --- the rest --- */

static void
option_structured_reply (struct connection *connection, const struct asked *option)
{
  if (option->length > 0) {
    answer_invalid (connection, option->kind);
  } else if (connection->is_extended) {
    answer_error (connection, option->kind, NBD_REP_ERR_EXT_HEADER_REQD,
                  "Extended headers were negotiated, which take the place of structured replies.");
  } else {
    connection->is_structured = true;
    answer_ack (connection, option->kind);
  }
}

static void
option_extended_headers (struct connection *connection, const struct asked *option)
{
  if (option->length > 0) {
    answer_invalid (connection, option->kind);
  } else if (connection->is_extended) {
    answer_error (connection, option->kind, NBD_REP_ERR_INVALID,
                  "Extended headers were negotiated already.");
  } else {
    connection->is_extended = connection->is_structured = true;
    answer_ack (connection, option->kind);
  }
}

static enum negotiate_result
option_starttls (struct connection *connection, const struct asked *option)
{
  if (option->length > 0) {
    answer_invalid (connection, option->kind);
  } else if (!connection->worker->server->tls) {
    answer_error (connection, option->kind, NBD_REP_ERR_UNSUP, "This server does not speak TLS.");
  } else if (!connection->negotiation.is_fixed) {
    answer_error (connection, option->kind, NBD_REP_ERR_POLICY,
                  "TLS is for clients that have agreed on the fixed newstyle negotiation.");
  } else if (connection->security != SECURITY_NONE) {
    answer_error (connection, option->kind, NBD_REP_ERR_INVALID, "TLS is spoken already.");
  } else {
    answer_ack (connection, option->kind);
    connection->is_structured = connection->is_extended = false;
    connection->negotiation.contexts = 0;
    /* What came in one piece with the option did not come from who will show who it is. */
    connection->input_start = connection->input_end = 0;
    return NEGOTIATE_STARTTLS;
  }
  return NEGOTIATE_MORE;
}

/* With --tls=require only these can be had in the clear. */
static bool
needs_tls (const struct connection *connection, uint32_t option)
{
  return connection->worker->server->options.tls == TLS_REQUIRE
         && connection->security != SECURITY_TLS && option != NBD_OPT_STARTTLS
         && option != NBD_OPT_ABORT;
}

/* Whether the option is one whose data would have to be looked at, and is too long for that. */
static bool
is_too_long (const struct asked *option)
{
  return !option->data
         && (option->kind == NBD_OPT_INFO || option->kind == NBD_OPT_GO
             || option->kind == NBD_OPT_LIST_META_CONTEXT
             || option->kind == NBD_OPT_SET_META_CONTEXT);
}

static enum negotiate_result
answer (struct connection *connection, const struct asked *option)
{
  if (option->kind == NBD_OPT_ABORT) {
    answer_ack (connection, option->kind);
    return NEGOTIATE_ABORTED;
  }
  if (needs_tls (connection, option->kind)) {
    /* Who has not agreed on the fixed negotiation must not be told of TLS. */
    if (option->kind == NBD_OPT_EXPORT_NAME || !connection->negotiation.is_fixed)
      return NEGOTIATE_ABORTED;
    answer_error (connection, option->kind, NBD_REP_ERR_TLS_REQD,
                  "This server can be used by TLS only.");
    return NEGOTIATE_MORE;
  }
  if (atomic_load (&connection->worker->server->is_stopping)) {
    if (option->kind == NBD_OPT_EXPORT_NAME)
      return NEGOTIATE_ABORTED;
    answer_error (connection, option->kind, NBD_REP_ERR_SHUTDOWN, "The server is shutting down.");
    return NEGOTIATE_MORE;
  }
  if (is_too_long (option)) {
    if (option->kind == NBD_OPT_SET_META_CONTEXT)
      connection->negotiation.contexts = 0;
    answer_error (connection, option->kind, NBD_REP_ERR_TOO_BIG, "The option's data is too long.");
    return NEGOTIATE_MORE;
  }
  switch (option->kind) {
  case NBD_OPT_EXPORT_NAME:
    return option_export_name (connection, option);
  case NBD_OPT_INFO:
  case NBD_OPT_GO:
    return option_info_or_go (connection, option);
  case NBD_OPT_LIST:
    option_list (connection, option);
    break;
  case NBD_OPT_STARTTLS:
    return option_starttls (connection, option);
  case NBD_OPT_STRUCTURED_REPLY:
    option_structured_reply (connection, option);
    break;
  case NBD_OPT_EXTENDED_HEADERS:
    option_extended_headers (connection, option);
    break;
  case NBD_OPT_LIST_META_CONTEXT:
  case NBD_OPT_SET_META_CONTEXT:
    metadata_option (connection, option);
    break;
  default:
    answer_error (connection, option->kind, NBD_REP_ERR_UNSUP,
                  "This server does not know the option.");
  }
  return NEGOTIATE_MORE;
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
  answer_append (connection, &hello, sizeof hello);
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
  connection->negotiation.is_fixed = flags & NBD_FIXED_NEWSTYLE;
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

/* Has an option's data thrown away; false if the client is not worth the reading. */
static bool
begin_skip (struct negotiation *negotiation, uint32_t length)
{
  if (length > OPTION_SKIP_MAX - negotiation->skipped)
    return false;
  negotiation->skip = length;
  negotiation->skipped += length;
  return true;
}

enum negotiate_result
negotiate_run (struct connection *connection)
{
  struct negotiation *negotiation = &connection->negotiation;
  enum negotiate_result result = NEGOTIATE_MORE;
  struct nbd_option wire;
  struct asked option;

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
      if (!begin_skip (negotiation, option.length))
        return NEGOTIATE_ABORTED;
      option.data = NULL;
    } else {
      if (input_available (connection) - sizeof wire < option.length)
        return NEGOTIATE_MORE;
      input_take (connection, sizeof wire);
      option.data = input_take (connection, option.length);
    }
    result = answer (connection, &option);
    if (result == NEGOTIATE_MORE && ++negotiation->options >= negotiation->options_max)
      return NEGOTIATE_ABORTED;
  }
  return result;
}
