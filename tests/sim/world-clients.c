/* SPDX-License-Identifier: BSD-2-Clause */
/* world-clients.c - requests, their data, and what is demanded of their results; see world.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/checksum.h"
#include "lint.h"
#include "store/store-internal.h"
#include "world-internal.h"

static const char *const kind_names[] = {
  "READ", "WRITE", "TRIM", "WRITE_ZEROES", "FLUSH", "CACHE", "BLOCK_STATUS",
};

/* --- payloads --- */

/* Copies between a buffer and the request's frames. */
static void
payload_copy (struct request *request, uint8_t *buffer, bool to_request)
{
  uint64_t at = 0;

  while (at < request->length) {
    struct iovec segments[16];
    uint64_t bytes;
    unsigned count = request_segments (request, at, segments, 16, &bytes);

    CHECK (count > 0);
    for (unsigned i = 0; i < count; i++) {
      if (to_request)
        memcpy (segments[i].iov_base, buffer + at, segments[i].iov_len);
      else
        memcpy (buffer + at, segments[i].iov_base, segments[i].iov_len);
      at += segments[i].iov_len;
    }
  }
}

/* What request_is_hole calls a hole must read as zeros; and it must get to the end. */
static void
check_holes (struct world_client *client)
{
  struct request *request = &client->request;
  uint64_t length;

  for (uint64_t at = 0; at < request->length; at += length) {
    bool is_hole = request_is_hole (request, at, &length);

    if (length == 0 || length > request->length - at) {
      world_fail (client->world, "request_is_hole returned a length of %" PRIu64, length);
      return;
    }
    for (uint64_t i = 0; is_hole && i < length; i++)
      if (client->world->buffer[at + i] != 0) {
        world_fail (client->world, "a hole is not zero");
        return;
      }
  }
}

/* --- ends --- */

static void
client_free (struct world_client *client)
{
  struct world_disk *disk = &client->world->disks[client->disk];

  request_release (&client->request);
  disk_close (client->request.disk);
  disk->users--;
  client->state = CLIENT_FREE;
  client->world->busy--;
}

static bool
may_be_cut (const struct world_client *client)
{
  const struct world_disk *disk = &client->world->disks[client->disk];

  return disk->shrunk > client->begun
         || client->request.offset + client->request.length > MIN (disk->size, client->size);
}

/* Whether this error may be.  */
static bool
error_is_legal (const struct world_client *client)
{
  const struct request *request = &client->request;
  const struct world *world = client->world;
  bool is_aligned = (request->offset | request->length) % BLOCK_SIZE == 0;

  switch (request->op.error) {
  case -EIO:
    return world->is_faulty;
  case -ENOMEM:
    /* What makes durable has its memory. */
    return world->is_starved && request->kind != REQUEST_FLUSH;
  case -EINVAL:
    return may_be_cut (client);
  case -ENOSPC:
    if (may_be_cut (client))
      return true;
    if (!world->options.is_tight)
      return false;
    return request->kind == REQUEST_WRITE
           || (request->kind == REQUEST_WRITE_ZEROES
               && ((request->flags & REQUEST_NO_HOLE) || !is_aligned));
  default:
    return false;
  }
}

static void
read_done (struct world_client *client)
{
  struct world *world = client->world;
  struct request *request = &client->request;
  struct world_disk *disk = &world->disks[client->disk];

  payload_copy (request, world->buffer, false);
  if (client->is_recovery)
    return;
  check_holes (client);
  client->sum = checksum (world->buffer, request->length, 0);
  if (!oracle_judge (&world->oracle, &disk->oracle, request->offset, request->length, world->buffer,
                     client->begun, client->ended)) {
    world_fail (world, "READ begun %" PRIu64 ": %s", client->begun, world->oracle.message);
    for (uint64_t at = 0; at < request->length; at += SECTOR_SIZE)
      if (!oracle_judge (&world->oracle, &disk->oracle, request->offset + at,
                         MIN (SECTOR_SIZE, request->length - at), world->buffer + at,
                         client->begun, client->ended)) {
        oracle_print (&disk->oracle, request->offset + at);
        break;
      }
  }
}

static void
status_done (struct world_client *client)
{
  struct world *world = client->world;
  struct request *request = &client->request;
  struct world_disk *disk = &world->disks[client->disk];
  uint64_t at = request->offset;

  if (request->extent_count == 0 || request->extent_count > request->extent_max
      || ((request->flags & REQUEST_ONE_EXTENT) && request->extent_count > 1)) {
    world_fail (world, "BLOCK_STATUS gave %u extents", request->extent_count);
    return;
  }
  for (unsigned i = 0; i < request->extent_count; i++) {
    const struct status_extent *extent = &request->extents[i];

    if (extent->length == 0 || extent->length > request->offset + request->length - at) {
      world_fail (world, "BLOCK_STATUS: extent %u has %" PRIu64 " bytes", i, extent->length);
      return;
    }
    memset (world->buffer, 0, extent->length);
    if ((extent->flags & STATUS_ZERO)
        && !oracle_judge (&world->oracle, &disk->oracle, at, extent->length, world->buffer,
                          client->begun, client->ended)) {
      world_fail (world, "BLOCK_STATUS says zero: %s", world->oracle.message);
      return;
    }
    at += extent->length;
  }
}

/* The range that a change zeroes or writes. */
static uint64_t
change_offset (const struct world_client *client)
{
  return client->request.kind == REQUEST_TRIM ? client->zero_from : client->request.offset;
}

static uint64_t
change_length (const struct world_client *client)
{
  return client->request.kind == REQUEST_TRIM ? client->zero_to - client->zero_from
         : client->request.length;
}

/* What the client was told.  Sums do not care for the order. */
static void
note_reply (struct world_client *client)
{
  const struct request *request = &client->request;
  uint64_t words[] = {
    client->disk, request->kind, request->flags, request->offset, request->length, client->change,
    request->op.error, request->kind == REQUEST_READ && request->op.error == 0 ? client->sum : 0,
  };

  client->world->replies += checksum (words, sizeof words, 0);
  for (uint32_t i = 0; request->kind == REQUEST_BLOCK_STATUS && i < request->extent_count; i++) {
    const struct status_extent *extent = &request->extents[i];

    client->world->replies += checksum (&extent->length, sizeof extent->length, 2 * i);
    client->world->replies += checksum (&extent->flags, sizeof extent->flags, 2 * i + 1);
  }
}

static void
client_done (struct request *request)
{
  struct world_client *client = request->owner;
  struct world *world = client->world;
  struct world_disk *disk = &world->disks[client->disk];
  bool is_ok = request->op.error == 0;

  CHECK (client->state == CLIENT_RUNNING);
  client->ended = ++world->now;
  world->totals.requests++;
  world_trace (world, "END %s %s %" PRIu64 "+%" PRIu64 " change %" PRIu64 ": %d", disk->name,
               kind_names[request->kind], request->offset, request->length, client->change,
               request->op.error);
  if (!is_ok) {
    world->totals.errors++;
    world->totals.enospc += request->op.error == -ENOSPC;
    if (!error_is_legal (client))
      world_fail (world, "%s %" PRIu64 "+%" PRIu64 " of %s failed: %s", kind_names[request->kind],
                  request->offset, request->length, disk->name, strerror (-request->op.error));
  }
  if (is_ok && client->is_late && (client->change != 0 || request->kind == REQUEST_FLUSH))
    world_fail (world, "L8: acknowledged after the store had failed");
  if (is_ok && world->lint != NULL
      && (request->kind == REQUEST_FLUSH
          || (client->change != 0 && (request->flags & REQUEST_FUA) != 0)))
    lint_acknowledged (world->lint);
  if (client->change != 0)
    oracle_end (&disk->oracle, client->change, change_offset (client), change_length (client),
                is_ok, request->flags & REQUEST_FUA, world->now);
  else if (is_ok && request->kind == REQUEST_FLUSH)
    oracle_flushed (&disk->oracle, client->begun);
  else if (is_ok && request->kind == REQUEST_BLOCK_STATUS)
    status_done (client);
  else if (is_ok && request->kind == REQUEST_READ) {
    read_done (client);
    note_reply (client);
    if (!client->is_recovery && !world->options.is_plain && random_chance (&world->random, 20)) {
      client->state = CLIENT_HELD;
      return;
    }
  }
  if (!is_ok || request->kind != REQUEST_READ)
    note_reply (client);
  client_free (client);
}

/* --- beginnings --- */

static void
client_admitted (struct request *request)
{
  struct world_client *client = request->owner;

  CHECK (client->state == CLIENT_ADMITTING);
  client->state = CLIENT_ADMITTED;
}

void
world_set_oldest_read (struct world *world, unsigned disk)
{
  uint64_t oldest = world->now;

  for (unsigned i = 0; i < WORLD_CLIENTS; i++)
    if (world->clients[i].state == CLIENT_RUNNING && world->clients[i].disk == disk)
      oldest = MIN (oldest, world->clients[i].begun);
  world->disks[disk].oracle.oldest_read = oldest;
}

static void
client_start (struct world_client *client)
{
  struct world *world = client->world;
  struct request *request = &client->request;
  struct world_disk *disk = &world->disks[client->disk];
  bool is_change = request->kind == REQUEST_WRITE || request->kind == REQUEST_TRIM
                   || request->kind == REQUEST_WRITE_ZEROES;

  client->begun = ++world->now;
  client->size = disk->size;
  client->is_late = store_is_failed (world->store);
  client->state = CLIENT_RUNNING;
  if (is_change) {
    client->change = oracle_change (&world->oracle);
    client->zero_from = align_up (request->offset, BLOCK_SIZE);
    client->zero_to = MAX (client->zero_from,
                           align_down (request->offset + request->length, BLOCK_SIZE));
    world_set_oldest_read (world, client->disk);
    oracle_begin (&disk->oracle, client->change, request->kind != REQUEST_WRITE,
                  change_offset (client), change_length (client), world->now);
    world_clone_note (world, client->disk, client->change, change_offset (client),
                      change_length (client));
  }
  if (request->kind == REQUEST_WRITE) {
    oracle_pattern (disk->oracle.incarnation, client->change, request->offset, world->buffer,
                    request->length);
    payload_copy (request, world->buffer, true);
  }
  world_trace (world, "BEGIN %s %s %" PRIu64 "+%" PRIu64 " flags %u change %" PRIu64, disk->name,
               kind_names[request->kind], request->offset, request->length, request->flags,
               client->change);
  request_start (request);
}

void
world_client_turn (struct world *world, unsigned choice)
{
  for (unsigned i = 0; i < WORLD_CLIENTS; i++) {
    struct world_client *client = &world->clients[i];

    if ((client->state != CLIENT_ADMITTED && client->state != CLIENT_HELD) || choice-- != 0)
      continue;
    if (client->state == CLIENT_HELD) {
      payload_copy (&client->request, world->buffer, false);
      if (checksum (world->buffer, client->request.length, 0) != client->sum)
        world_fail (world, "what a READ returned was changed afterwards");
      client_free (client);
    } else if (client->request.op.error != 0 || random_chance (&world->random, 3)) {
      world_trace (world, "a client died within its payload");
      client_free (client);
    } else
      client_start (client);
    return;
  }
  CHECK (false);
}

bool
world_request (struct world *world, unsigned context, unsigned d, enum request_kind kind,
               unsigned flags, uint64_t offset, uint64_t length)
{
  struct world_disk *disk = &world->disks[d];
  struct world_client *client = world->clients;
  struct disk *opened;
  const char *why = NULL;

  while (client < world->clients + WORLD_CLIENTS && client->state != CLIENT_FREE)
    client++;
  if (!disk->exists || client == world->clients + WORLD_CLIENTS)
    return false;
  opened = disk_open (world->store, disk->name);
  if (opened == NULL) {
    if (!world->admin.is_running && !world->admin.is_unknown)
      world_fail (world, "%s is not there", disk->name);
    return false;
  }
  if (request_validate (opened, kind, flags, offset, length, &why) < 0) {
    world_trace (world, "refused: %s", why);
    disk_close (opened);
    return false;
  }
  client->disk = d;
  client->change = 0;
  client->is_recovery = false;
  disk->users++;
  world->busy++;
  request_init (&client->request, world->contexts[context], opened, kind, flags, offset, length,
                client_done);
  client->request.owner = client;
  client->request.extents = client->extents;
  client->request.extent_max = ARRAY_COUNT (client->extents);
  if (kind == REQUEST_READ
      && (world->options.is_plain ? world->reads_ahead : random_chance (&world->random, 50)))
    client->request.stream = &client->stream;
  if (kind == REQUEST_WRITE) {
    client->request.admitted = client_admitted;
    client->state = CLIENT_ADMITTING;
    if (request_admit (&client->request)) {
      client->state = CLIENT_ADMITTED;
      if (world->options.is_plain && client->request.op.error != 0)
        client_free (client);
      else if (world->options.is_plain)
        client_start (client);
    }
  } else
    client_start (client);
  return true;
}

void
world_print_clients (struct world *world)
{
  static const char *const states[] = { "free", "waits for admission", "admitted", "runs", "held" };

  for (unsigned i = 0; i < WORLD_CLIENTS; i++) {
    const struct world_client *client = &world->clients[i];

    if (client->state != CLIENT_FREE)
      printf ("  %s %s %" PRIu64 "+%" PRIu64 " flags %u: %s, stage %d, waits for %u, begun %" PRIu64
              "\n", world->disks[client->disk].name, kind_names[client->request.kind],
              client->request.offset, client->request.length, client->request.flags,
              states[client->state], client->request.op.stage,
              atomic_load (&client->request.op.pending), client->begun);
  }
  if (world->admin.is_running)
    printf ("  admin %d: stage %d\n", world->admin.admin.kind, world->admin.admin.op.stage);
  fflush (stdout);
}

/* --- recovery --- */

void
world_clients_crash (struct world *world)
{
  for (unsigned i = 0; i < WORLD_CLIENTS; i++) {
    struct world_client *client = &world->clients[i];

    if (client->state != CLIENT_FREE && client->request.frames != client->request.frames_inline)
      free (client->request.frames);
    client->state = CLIENT_FREE;
  }
  world->busy = 0;
  world->now++;
  for (unsigned d = 0; d < WORLD_DISKS; d++) {
    world->disks[d].users = 0;
    if (world->disks[d].exists)
      oracle_crash (&world->disks[d].oracle, world->now);
  }
}

static bool
read_part (struct world *world, unsigned d, enum crash_kind kind, uint64_t offset, uint64_t length)
{
  struct world_disk *disk = &world->disks[d];
  struct world_client *client = world->clients;
  uint64_t now;

  if (!world_request (world, 0, d, REQUEST_READ, 0, offset, length)) {
    world_fail (world, "%s cannot be read at %" PRIu64, disk->name, offset);
    return false;
  }
  client->is_recovery = true;
  if (!world_settle (world))
    return false;
  if (client->request.op.error != 0 && world->options.end_faults != NULL
      && (world->is_faulty || world->is_starved)) {
    world->options.end_faults (world);
    return read_part (world, d, kind, offset, length);
  }
  if (client->request.op.error != 0) {
    world_fail (world, "%s cannot be read after recovery: %s", disk->name,
                strerror (-client->request.op.error));
    return false;
  }
  now = ++world->now;
  world_clone_look (world, d, kind, offset, length, world->buffer);
  if (!oracle_judge_recovered (&world->oracle, &disk->oracle, kind, offset, length, world->buffer,
                               now)) {
    world_fail (world, "%s", world->oracle.message);
    for (uint64_t at = 0; at < length; at += SECTOR_SIZE)
      if (!oracle_judge_recovered (&world->oracle, &disk->oracle, kind, offset + at, SECTOR_SIZE,
                                   world->buffer + at, now)) {
        oracle_print (&disk->oracle, offset + at);
        break;
      }
    return false;
  }
  return true;
}

bool
world_read_all (struct world *world, enum crash_kind kind)
{
  uint64_t part = 16 * BLOCK_SIZE;

  CHECK (world->busy == 0);
  for (unsigned d = 0; d < WORLD_DISKS; d++) {
    struct world_disk *disk = &world->disks[d];

    if (disk->is_damaged)
      continue;
    for (uint64_t at = 0; disk->exists && at < disk->size; at += part)
      if (!read_part (world, d, kind, at, MIN (part, disk->size - at)))
        return false;
    if (disk->exists && kind == CRASH_POWER)
      disk->oracle.flushed = 0;
  }
  return true;
}
