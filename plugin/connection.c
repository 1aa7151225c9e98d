/* SPDX-License-Identifier: BSD-2-Clause */
/* connection.c - exports, and one of them opened: what nbdkit asks before the first request. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "plugin.h"

/* --- exports --- */

#define DESCRIPTION_MAX 96

static void
describe (const struct disk_info *info, char text[DESCRIPTION_MAX])
{
  char size[TEXT_SIZE_MAX], allocated[TEXT_SIZE_MAX];

  snprintf (text, DESCRIPTION_MAX, "%s, %s allocated", text_human_size (info->size, size),
            text_human_size (info->mapped + info->unmapped_dirty, allocated));
}

int
connection_list (int read_only, int is_tls, struct nbdkit_exports *exports)
{
  struct disk_info *infos = NULL;
  size_t count, room = 0;
  int result = 0;

  (void) read_only;
  (void) is_tls;
  /* Until all fit: disks may be created meanwhile. */
  while ((count = store_list_disks (plugin.store, infos, room)) > room) {
    free (infos);
    room = count + 16;
    infos = calloc (room, sizeof *infos);
    if (infos == NULL) {
      nbdkit_error ("%s: there is not enough memory to list its disks", plugin.path);
      return -1;
    }
  }
  for (size_t i = 0; i < count && result == 0; i++) {
    char description[DESCRIPTION_MAX];

    describe (&infos[i], description);
    result = nbdkit_add_export (exports, infos[i].name, description);
  }
  free (infos);
  return result;
}

/* The disk that the export name "" stands for; false: nobody can know. */
static bool
default_name (char name[DISK_NAME_MAX + 1])
{
  struct disk_info infos[2];

  if (plugin.disk != NULL) {
    snprintf (name, DISK_NAME_MAX + 1, "%s", plugin.disk);
    return true;
  }
  if (store_list_disks (plugin.store, infos, ARRAY_COUNT (infos)) != 1)
    return false;
  memcpy (name, infos[0].name, sizeof infos[0].name);
  return true;
}

const char *
connection_default (int read_only, int is_tls)
{
  char name[DISK_NAME_MAX + 1];

  (void) read_only;
  (void) is_tls;
  return default_name (name) ? nbdkit_strdup_intern (name) : NULL;
}

/* --- opening one --- */

static pthread_mutex_t open_mutex = PTHREAD_MUTEX_INITIALIZER;   /* leaf; protects: */
static struct list open_connections = LIST_INIT (open_connections);

/* NULL after a message. */
static struct disk *
open_disk (struct connection *connection)
{
  const char *name = nbdkit_export_name ();
  struct disk *disk;

  if (name == NULL)
    return NULL;
  if (*name == '\0') {
    if (!default_name (connection->name)) {
      nbdkit_error ("%s: the client names no disk, and there is not exactly one; disk=NAME would"
                    " say which", plugin.path);
      nbdkit_set_error (ENOENT);
      return NULL;
    }
  }
  else if (snprintf (connection->name, sizeof connection->name, "%s", name)
           >= (int) sizeof connection->name) {
    nbdkit_error ("%s: the client asks for a disk whose name is too long", plugin.path);
    nbdkit_set_error (ENOENT);
    return NULL;
  }
  disk = disk_open (plugin.store, connection->name);
  if (disk == NULL) {
    nbdkit_error ("%s: %s: there is no disk of this name", plugin.path, connection->name);
    nbdkit_set_error (ENOENT);
  }
  else if (disk_is_damaged (disk)) {
    nbdkit_error ("%s: %s: the disk is damaged: a part of its map cannot be read; lacuna check tells"
                  " more", plugin.path, connection->name);
    nbdkit_set_error (EIO);
    disk_close (disk);
    disk = NULL;
  }
  return disk;
}

void *
connection_open (int read_only)
{
  struct connection *connection = calloc (1, sizeof *connection);

  if (connection == NULL) {
    nbdkit_error ("%s: there is not enough memory for a connection", plugin.path);
    return NULL;
  }
  connection->disk = open_disk (connection);
  if (connection->disk == NULL) {
    free (connection);
    return NULL;
  }
  /* nbdkit tells a client the size once: it must stay true. */
  connection->size = disk_hold_size (connection->disk);
  connection->is_read_only = read_only || plugin.is_read_only;
  connection->stream.context = own_thread_context (plugin.thread);
  atomic_fetch_add (&plugin.connections, 1);
  atomic_fetch_add (&plugin.connections_now, 1);
  pthread_mutex_lock (&open_mutex);
  list_append (&open_connections, &connection->link);
  pthread_mutex_unlock (&open_mutex);
  return connection;
}

void
connection_close (void *handle)
{
  struct connection *connection = handle;

  pthread_mutex_lock (&open_mutex);
  list_remove (&connection->link);
  pthread_mutex_unlock (&open_mutex);
  disk_release_size (connection->disk);
  disk_close (connection->disk);
  free (connection);
  atomic_fetch_sub (&plugin.connections_now, 1);
}

void
connection_close_all (void)
{
  list_for_each_safe (link, &open_connections)
    connection_close (container_of (link, struct connection, link));
}

/* --- what it is and can --- */

const char *
connection_description (void *handle)
{
  struct connection *connection = handle;
  char description[DESCRIPTION_MAX];
  struct disk_info info;

  disk_get_info (connection->disk, &info);
  info.size = connection->size;
  describe (&info, description);
  return nbdkit_strdup_intern (description);
}

int64_t
connection_size (void *handle)
{
  return (int64_t) ((struct connection *) handle)->size;
}

/* Longer requests are served as well (data.c), shorter ones anyway. */
int
connection_block_size (void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
  (void) handle;
  *minimum = 1;
  *preferred = BLOCK_SIZE;
  *maximum = STORE_REQUEST_MAX;
  return 0;
}

int
connection_can_write (void *handle)
{
  return !((struct connection *) handle)->is_read_only;
}

int
connection_can_fua (void *handle)
{
  (void) handle;
  return NBDKIT_FUA_NATIVE;
}

int
connection_can_cache (void *handle)
{
  (void) handle;
  return NBDKIT_CACHE_NATIVE;
}

int
connection_yes (void *handle)
{
  (void) handle;
  return 1;
}

int
connection_no (void *handle)
{
  (void) handle;
  return 0;
}
