/* SPDX-License-Identifier: BSD-2-Clause */
/* resize.c - NBD_CMD_RESIZE: a client gives its disk another size (branch extension-resize of the
 * protocol's text).
 *
 * The new size is durable when it is answered, and holds for all connections at once; nobody but
 * the one that asked is told.  A disk shrinks only while nobody else has it open, and what is cut
 * off is lost: where it grows again it reads as zeros.
 */
#include <errno.h>
#include <stdlib.h>

#include "server.h"

struct resize {
  struct admin admin;
  struct slot *slot;
};

static bool
is_shared (struct disk *disk)
{
  struct disk_info info;

  disk_get_info (disk, &info);
  return info.open_count > 1;
}

enum nbd_cause
resize_judge (const struct connection *connection, uint64_t size)
{
  if (!(connection->transmission_flags & NBD_SEND_RESIZE))
    return NBD_CAUSE_RESIZE_FORBIDDEN;
  if (size == 0 || size > DISK_SIZE_MAX || size % BLOCK_SIZE != 0)
    return NBD_CAUSE_RESIZE_SIZE;
  if (size < disk_size (connection->disk) && is_shared (connection->disk))
    return NBD_CAUSE_RESIZE_SHARED;
  return NBD_CAUSE_NONE;
}

static void
on_resized (struct admin *admin)
{
  struct resize *resize = admin->owner;
  struct slot *slot = resize->slot;
  struct connection *connection = slot->connection;

  connection->in_engine--;
  if (admin->op.error)
    slot->failure = nbd_failure (NBD_CMD_RESIZE, nbd_cause_of_errno (admin->op.error));
  else
    connection->size_seen = MAX (connection->size_seen, admin->size);
  free (resize);
  slot_finish (slot);
}

void
resize_start (struct slot *slot, uint64_t size)
{
  struct connection *connection = slot->connection;
  struct resize *resize = malloc (sizeof *resize);
  struct disk_info info;

  if (!resize) {
    slot->failure = nbd_failure (NBD_CMD_RESIZE, NBD_CAUSE_NO_MEMORY);
    slot_finish (slot);
    return;
  }
  disk_get_info (connection->disk, &info);
  admin_init (&resize->admin, connection->worker->context, connection->worker->server->store,
              ADMIN_RESIZE, info.name, on_resized);
  /* It may be renamed meanwhile, and another one take its name. */
  resize->admin.disk_id = info.id;
  resize->admin.size = size;
  resize->admin.may_shrink = true;
  resize->admin.owner = resize;
  resize->slot = slot;
  connection->in_engine++;
  admin_start (&resize->admin);
}
