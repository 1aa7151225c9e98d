/* SPDX-License-Identifier: BSD-2-Clause */
/* control-path.c - where a store's control socket is; see control.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "control.h"

/* A server that is alive takes a connection at once; it may be stopped, or its queue full. */
#define CONNECT_TIMEOUT_S 10

/* Removing the directory after the last server may cross with the start of another one. */
#define LISTEN_TRIES 10

#define LISTEN_BACKLOG 128

#define DIRECTORIES_PER_USER 2

/* The I-th directory in which USER's servers have their sockets. */
static void
control_directory (uid_t user, unsigned i, char *path, size_t size)
{
  if (i > 0)
    snprintf (path, size, "/tmp/lacuna-%u", user);
  else if (user == 0)
    snprintf (path, size, "/run/lacuna");
  else
    snprintf (path, size, "/run/user/%u/lacuna", user);
}

/* The address of the store that STATUS describes in DIRECTORY. */
static void
control_address (const char *directory, const struct stat *status, struct sockaddr_un *address)
{
  memset (address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  if (S_ISBLK (status->st_mode))
    snprintf (address->sun_path, sizeof address->sun_path, "%.40s/block-%x-%x.sock", directory,
              major (status->st_rdev), minor (status->st_rdev));
  else
    snprintf (address->sun_path, sizeof address->sun_path, "%.40s/file-%llx-%llx.sock", directory,
              (unsigned long long) status->st_dev, (unsigned long long) status->st_ino);
}

/* Makes the directory if it is missing.  In /tmp somebody else may have made one of this name: it
 * is used only if it is ours and nobody else may write there. */
static int
control_make_directory (const char *path)
{
  struct stat status;

  if (mkdir (path, 0700) < 0 && errno != EEXIST)
    return -errno;
  if (lstat (path, &status) < 0)
    return -errno;
  if (!S_ISDIR (status.st_mode) || status.st_uid != geteuid () || (status.st_mode & 022) != 0)
    return -EPERM;
  return 0;
}

/* Whether somebody listens at ADDRESS. */
static bool
control_is_alive (const struct sockaddr_un *address)
{
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  bool is_alive = false;

  if (fd >= 0) {
    is_alive = connect (fd, (const struct sockaddr *) address, sizeof *address) == 0
               || errno == EAGAIN;
    close (fd);
  }
  return is_alive;
}

/* The listening descriptor, or negative errno. */
static int
control_bind (const struct sockaddr_un *address)
{
  int fd, error;

  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return -errno;
  /* The mode of the socket's file is the descriptor's at the time of bind. */
  if (fchmod (fd, 0600) < 0
      || bind (fd, (const struct sockaddr *) address, sizeof *address) < 0
      || listen (fd, LISTEN_BACKLOG) < 0) {
    error = -errno;
    close (fd);
    return error;
  }
  return fd;
}

/* Removes what killed servers left, whose stores may be gone as well. */
static void
control_sweep (const char *directory)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  DIR *entries = opendir (directory);
  struct dirent *entry;

  while (entries != NULL && (entry = readdir (entries)) != NULL) {
    size_t length = strlen (entry->d_name);

    if (length < 5 || strcmp (entry->d_name + length - 5, ".sock") != 0)
      continue;
    if (snprintf (address.sun_path, sizeof address.sun_path, "%s/%s", directory, entry->d_name)
          < (int) sizeof address.sun_path
        && !control_is_alive (&address))
      unlink (address.sun_path);
  }
  if (entries != NULL)
    closedir (entries);
}

/* Binds in DIRECTORY, which is locked meanwhile: a socket that is bound and does not listen yet
 * must not look like one that was left. */
static int
control_listen_in (const char *directory, const struct sockaddr_un *address)
{
  int fd = control_make_directory (directory), lock;

  if (fd < 0)
    return fd;
  lock = open (directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock < 0)
    return -errno;
  while (flock (lock, LOCK_EX) < 0 && errno == EINTR)
    ;
  control_sweep (directory);
  fd = control_bind (address);
  close (lock);
  return fd;
}

int
control_listen (const char *store_path, char **path, char **error)
{
  char directory[64];
  struct sockaddr_un address;
  struct stat status;
  int fd = -ENOENT;

  if (stat (store_path, &status) < 0) {
    fd = -errno;
    if (asprintf (error, "no control socket: %s", strerror (-fd)) < 0)
      *error = NULL;
    return fd;
  }
  for (unsigned i = 0; i < DIRECTORIES_PER_USER; i++) {
    control_directory (geteuid (), i, directory, sizeof directory);
    control_address (directory, &status, &address);
    for (unsigned tries = 0; tries < LISTEN_TRIES; tries++) {
      fd = control_listen_in (directory, &address);
      if (fd != -ENOENT)
        break;
    }
    if (fd >= 0) {
      *path = strdup (address.sun_path);
      if (*path != NULL)
        return fd;
      close (fd);
      fd = -ENOMEM;
    }
  }
  if (asprintf (error, "the control socket %s could not be made: %s", address.sun_path,
                strerror (-fd)) < 0)
    *error = NULL;
  return fd;
}

void
control_unlink (const char *path)
{
  char *directory = strdup (path);

  unlink (path);
  if (directory != NULL) {
    *strrchr (directory, '/') = '\0';
    rmdir (directory);          /* fails while there are others */
    free (directory);
  }
}

/* Connects to the server of USER; -ENOENT if there is none. */
static int
control_connect_to (const struct sockaddr_un *address, uid_t user, struct ucred *server)
{
  struct timeval timeout = { .tv_sec = CONNECT_TIMEOUT_S };
  socklen_t length = sizeof *server;
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), error;

  if (fd < 0)
    return -errno;
  setsockopt (fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  if (connect (fd, (const struct sockaddr *) address, sizeof *address) < 0)
    error = errno == EAGAIN ? -ETIMEDOUT : -ENOENT;
  else if (getsockopt (fd, SOL_SOCKET, SO_PEERCRED, server, &length) < 0 || server->uid != user)
    error = -ENOENT;
  else
    return fd;
  close (fd);
  return error;
}

int
control_connect (const char *store_path, struct ucred *server)
{
  char directory[64];
  struct sockaddr_un address;
  struct stat status;

  if (stat (store_path, &status) < 0)
    return -errno;
  const uid_t users[] = { geteuid (), 0, status.st_uid };

  for (unsigned user = 0; user < 3; user++)
    for (unsigned i = 0; i < DIRECTORIES_PER_USER; i++) {
      control_directory (users[user], i, directory, sizeof directory);
      control_address (directory, &status, &address);
      int fd = control_connect_to (&address, users[user], server);

      if (fd != -ENOENT)
        return fd;
    }
  return -ENOENT;
}
