/* SPDX-License-Identifier: BSD-2-Clause */
/* rights.c - what a connection may do with a disk.
 *
 * Without --access all may do what the command line says.  With it a disk that somebody may not use
 * is, to him, not there.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "server.h"

/* NULL after a message; so, too, if there are rules that would never give anything. */
static struct access *
read_rules (const struct serve_options *options)
{
  struct access *access = access_read (options->access);
  const char *missing = NULL;

  if (!access)
    return NULL;
  if (access_has_certificates (access) && !options->tls_verify_peer)
    missing = "certificates, which need --tls-verify-peer";
  else if (access_has_keys (access) && !options->tls_psk)
    missing = "keys, which need --tls-psk";
  if (!missing)
    return access;
  log_error ("%s: it has rules about %s", options->access, missing);
  access_free (access);
  return NULL;
}

bool
rights_open (struct server *server)
{
  pthread_rwlock_init (&server->access_lock, NULL);
  if (server->options.access)
    server->access = read_rules (&server->options);
  return !server->options.access || server->access;
}

bool
rights_reload (struct server *server)
{
  struct access *access = read_rules (&server->options), *old;

  if (!access)
    return false;
  pthread_rwlock_wrlock (&server->access_lock);
  old = server->access;
  server->access = access;
  pthread_rwlock_unlock (&server->access_lock);
  atomic_fetch_add (&server->access_version, 1);
  access_free (old);
  return true;
}

void
rights_close (struct server *server)
{
  access_free (server->access);
  pthread_rwlock_destroy (&server->access_lock);
}

enum access_rights
rights_of (const struct connection *connection, const char *name)
{
  struct server *server = connection->worker->server;
  enum access_rights rights = server->options.may_resize ? ACCESS_RESIZE : ACCESS_WRITE;

  if (server->options.access) {
    pthread_rwlock_rdlock (&server->access_lock);
    rights = access_of (server->access, &connection->identity, name);
    pthread_rwlock_unlock (&server->access_lock);
  }
  return server->is_read_only ? MIN (rights, ACCESS_READ) : rights;
}

static struct disk *
open_named (struct server *server, const char *name)
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

struct disk *
rights_open_disk (const struct connection *connection, const char *name,
                  enum access_rights *rights)
{
  struct disk *disk = open_named (connection->worker->server, name);
  struct disk_info info;

  if (!disk)
    return NULL;
  disk_get_info (disk, &info);
  *rights = rights_of (connection, info.name);
  if (*rights != ACCESS_NONE)
    return disk;
  disk_close (disk);
  return NULL;
}

bool
rights_were_withdrawn (struct connection *connection)
{
  unsigned version = atomic_load (&connection->worker->server->access_version);
  struct disk_info info;

  if (connection->access_version == version)
    return false;
  connection->access_version = version;
  disk_get_info (connection->disk, &info);
  return rights_of (connection, info.name) < connection->rights;
}
