/* SPDX-License-Identifier: BSD-2-Clause */
/* metadata.c - metadata contexts: the options that choose them, and what BLOCK_STATUS says in each.
 *
 *   base:allocation         hole and zero, as the engine has them
 *   qemu:allocation-depth   0 where nothing is allocated, 1 where the disk has something of its own, 2
 *                           where it shares data with others: to write there takes space
 *
 * Both come out of one look at the disk.  The second one is also what allows a write to what is no
 * hole to get ENOSPC, where it shares (proto.md, "base:allocation": "unless for reasons specified in
 * the definition of another context").
 */
#include <string.h>

#include "base/check.h"
#include "server.h"

static const char *const names[CONTEXT_COUNT] = {
  [CONTEXT_ALLOCATION] = "base:allocation",
  [CONTEXT_DEPTH] = "qemu:allocation-depth",
};

/* --- options --- */

/* The contexts that one query asks for.  A name space alone ("base:") is all of it, when they are
 * to be listed; what nobody here knows is no error. */
static unsigned
contexts_of_query (const struct asked *option, const uint8_t *query, uint32_t length)
{
  unsigned contexts = 0;

  for (unsigned i = 0; i < CONTEXT_COUNT; i++) {
    size_t whole = strlen (names[i]), space = (size_t) (strchr (names[i], ':') - names[i]) + 1;

    if ((length == whole
         || (option->kind == NBD_OPT_LIST_META_CONTEXT && length == space))
        && memcmp (query, names[i], length) == 0)
      contexts |= 1u << i;
  }
  return contexts;
}

/* Whether the queries from AT on are well-formed, and in *CONTEXTS what they ask for. */
static bool
read_queries (const struct asked *option, uint32_t at, unsigned *contexts)
{
  uint32_t count, length;

  if (!option_take_u32 (option, &at, &count))
    return false;
  *contexts = count == 0 && option->kind == NBD_OPT_LIST_META_CONTEXT ? CONTEXTS_ALL : 0;
  while (count-- > 0) {
    if (!option_take_u32 (option, &at, &length) || length > option->length - at
        || length > NBD_STRING_MAX)
      return false;
    *contexts |= contexts_of_query (option, option->data + at, length);
    at += length;
  }
  return at == option->length;
}

static void
answer_contexts (struct connection *connection, uint32_t option, unsigned contexts)
{
  for (unsigned i = 0; i < CONTEXT_COUNT; i++) {
    be32 id = to_be32 (option == NBD_OPT_SET_META_CONTEXT ? context_id (i) : 0);

    if (!(contexts & 1u << i))
      continue;
    answer_header (connection, option, NBD_REP_META_CONTEXT, sizeof id + strlen (names[i]));
    answer_append (connection, &id, sizeof id);
    answer_append (connection, names[i], strlen (names[i]));
  }
}

void
metadata_option (struct connection *connection, const struct asked *option)
{
  struct negotiation *negotiation = &connection->negotiation;
  bool is_set = option->kind == NBD_OPT_SET_META_CONTEXT;
  char name[DISK_NAME_MAX + 1];
  enum access_rights rights;
  unsigned contexts;
  struct disk *disk;
  uint32_t at = 0;

  /* A new choice replaces the one before, even if it fails. */
  if (is_set)
    negotiation->contexts = 0;
  if (!option_take_name (option, &at, name) || !read_queries (option, at, &contexts)) {
    answer_invalid (connection, option->kind);
    return;
  }
  if (is_set && !connection->is_structured) {
    answer_error (connection, option->kind, NBD_REP_ERR_INVALID,
                  "Structured replies or extended headers must be negotiated before metadata"
                  " contexts.");
    return;
  }
  disk = rights_open_disk (connection, name, &rights);
  if (!disk) {
    answer_unknown (connection, option->kind, name);
    return;
  }
  disk_close (disk);
  answer_contexts (connection, option->kind, contexts);
  answer_ack (connection, option->kind);
  if (is_set) {
    negotiation->contexts = contexts;
    strcpy (negotiation->context_name, name);
  }
}

/* --- BLOCK_STATUS --- */

unsigned
context_of_id (uint32_t id)
{
  for (unsigned i = 0; i < CONTEXT_COUNT; i++)
    if (context_id (i) == id)
      return 1u << i;
  return 0;
}

static uint32_t
context_value (enum context_index context, uint32_t status)
{
  if (context == CONTEXT_ALLOCATION)
    return status & (STATUS_HOLE | STATUS_ZERO);
  return status & STATUS_HOLE ? 0 : status & STATUS_SHARED ? 2 : 1;
}

uint32_t
metadata_wire (enum context_index context, bool is_extended, const struct status_extent *extents,
               uint32_t count, uint8_t *wire)
{
  uint32_t made = 0;

  for (uint32_t i = 0; i < count; made++) {
    uint32_t value = context_value (context, extents[i].flags);
    uint64_t length = 0;

    /* Neighbours that are the same in this context are told as one. */
    for (; i < count && context_value (context, extents[i].flags) == value; i++)
      length += extents[i].length;
    if (is_extended) {
      struct nbd_extended_extent extent = { to_be64 (length), to_be64 (value) };

      memcpy (wire + made * sizeof extent, &extent, sizeof extent);
    } else {
      struct nbd_extent extent = { to_be32 ((uint32_t) length), to_be32 (value) };

      memcpy (wire + made * sizeof extent, &extent, sizeof extent);
    }
  }
  return made;
}
