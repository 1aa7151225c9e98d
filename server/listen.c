/* SPDX-License-Identifier: BSD-2-Clause */
/* listen.c - listening sockets: Unix, TCP, vsock, and those that systemd has opened for us.
 *
 * Opened before the store, so that an address in use is told before anything is touched;
 * accepted from only when the store is there.  Clients that come in between wait in the backlog.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "base/check.h"
#include "base/log.h"
#include "base/text.h"
#include "server.h"

#define ADDRESS_DEFAULT "127.0.0.1"
#define PORT_DEFAULT "10809"
#define BACKLOG 128
#define ACCEPTS_MAX 16             /* in one turn of the loop */
#define RETRY_SECONDS 1.0          /* when the process has no descriptor left */
#define FIRST_LISTEN_FD 3          /* sd_listen_fds(3) */

/* --- addresses as clients write them --- */

/* SCHEME is "nbd" or "nbds". */
static char *
format_uri (const char *format, const char *scheme, const char *text, unsigned number)
{
  char *uri;

  return asprintf (&uri, format, scheme, text, number) == -1 ? NULL : uri;
}

/* PATH, absolute, with what has a meaning in a URI escaped. */
static char *
unix_uri (const char *scheme, const char *path)
{
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/";
  char directory[4096] = "", *uri = NULL;
  size_t size;
  FILE *stream;

  if (*path != '/' && !getcwd (directory, sizeof directory))
    return NULL;
  stream = open_memstream (&uri, &size);
  if (!stream)
    return NULL;
  fprintf (stream, "%s+unix:///?socket=", scheme);
  for (unsigned part = 0; part < 2; part++)
    for (const char *at = part == 0 ? directory : path; *at; at++) {
      if (part == 1 && at == path && *path != '/')
        fputc ('/', stream);
      if (strchr (plain, *at))
        fputc (*at, stream);
      else
        fprintf (stream, "%%%02X", (unsigned) (unsigned char) *at);
    }
  if (fclose (stream) != 0) {
    free (uri);
    return NULL;
  }
  return uri;
}

/* The address that a socket has now: with the port that the kernel chose. */
static char *
socket_uri (const char *scheme, int fd)
{
  union {
    struct sockaddr any;
    struct sockaddr_un local;
    struct sockaddr_vm vsock;
    struct sockaddr_storage storage;
  } address = { .storage = { 0 } };
  socklen_t length = sizeof address;
  char host[NI_MAXHOST], port[NI_MAXSERV];

  if (getsockname (fd, &address.any, &length) == -1)
    return NULL;
  switch (address.any.sa_family) {
  case AF_UNIX:
    return address.local.sun_path[0] ? unix_uri (scheme, address.local.sun_path)
                                     : format_uri ("%s+unix:///", scheme, "", 0);
  case AF_VSOCK:
    /* As its guests see it, the host is 2. */
    return format_uri ("%s+vsock://%s:%u", scheme, "2", address.vsock.svm_port);
  default:
    if (getnameinfo (&address.any, length, host, sizeof host, port, sizeof port,
                     NI_NUMERICHOST | NI_NUMERICSERV) != 0)
      return NULL;
    return format_uri (address.any.sa_family == AF_INET6 ? "%s://[%s]:%u" : "%s://%s:%u", scheme,
                       host, (unsigned) atoi (port));
  }
}

/* Takes over a listening socket.  0, or -errno after a message: then FD is still the caller's. */
static int
add_listener (struct server *server, int fd)
{
  struct listener *listener = &server->listeners[server->listener_count];

  if (server->listener_count == LISTENERS_MAX) {
    log_error ("at most %d addresses can be listened on", LISTENERS_MAX);
    return -EINVAL;
  }
  memset (listener, 0, sizeof *listener);
  listener->server = server;
  listener->fd = fd;
  listener->uri = socket_uri (server->options.tls == TLS_REQUIRE ? "nbds" : "nbd", fd);
  if (!listener->uri) {
    log_error ("cannot tell the address of a listening socket: %s", strerror (errno));
    return -EINVAL;
  }
  server->listener_count++;
  return 0;
}

/* --- Unix sockets --- */

/* Whether the socket at ADDRESS is what a server left behind that is gone. */
static bool
is_stale (const struct sockaddr_un *address)
{
  struct stat status;
  bool stale;
  int fd;

  if (lstat (address->sun_path, &status) == -1 || !S_ISSOCK (status.st_mode))
    return false;
  /* Non-blocking: a server that lives but whose backlog is full says EAGAIN. */
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd == -1)
    return false;
  stale = connect (fd, (const struct sockaddr *) address, sizeof *address) == -1
          && errno == ECONNREFUSED;
  close (fd);
  return stale;
}

static int
bind_unix (int fd, const struct sockaddr_un *address)
{
  if (bind (fd, (const struct sockaddr *) address, sizeof *address) == 0)
    return 0;
  if (errno != EADDRINUSE)
    return -errno;
  if (!is_stale (address))
    return -EADDRINUSE;
  if (unlink (address->sun_path) == -1)
    return -errno;
  return bind (fd, (const struct sockaddr *) address, sizeof *address) == 0 ? 0 : -errno;
}

static void
own_path (struct listener *listener, const char *path)
{
  struct stat status;

  if (lstat (path, &status) == -1)
    return;
  listener->unix_path = strdup (path);
  listener->device = status.st_dev;
  listener->inode = status.st_ino;
}

static int
open_unix (struct server *server, const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd, error;

  if (strlen (path) >= sizeof address.sun_path) {
    log_error ("%s: the path of a Unix socket may have at most %zu bytes", path,
               sizeof address.sun_path - 1);
    return -ENAMETOOLONG;
  }
  strcpy (address.sun_path, path);
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  error = fd == -1 ? -errno : bind_unix (fd, &address);
  if (error == 0 && listen (fd, BACKLOG) == -1)
    error = -errno;
  if (error) {
    log_error ("%s: %s", path, error == -EADDRINUSE
               ? "another server listens here, or this is not a socket" : strerror (-error));
  } else {
    error = add_listener (server, fd);
    if (error == 0)
      own_path (&server->listeners[server->listener_count - 1], path);
  }
  if (error && fd != -1)
    close (fd);
  return error;
}

/* --- TCP and vsock --- */

static int
open_socket (struct server *server, int family, const struct sockaddr *address, socklen_t length)
{
  int fd, error = 0, on = 1;

  fd = socket (family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd == -1)
    return -errno;
  setsockopt (fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (family == AF_INET6)
    setsockopt (fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (bind (fd, address, length) == -1 || listen (fd, BACKLOG) == -1)
    error = -errno;
  else
    error = add_listener (server, fd);
  if (error)
    close (fd);
  return error;
}

static void
say_why_not (const char *where, const char *port, int error)
{
  if (error == -EADDRINUSE)
    log_error ("%s port %s is in use: another server listens there (choose one with --port)", where,
               port);
  else
    log_error ("cannot listen on %s port %s: %s", where, port, strerror (-error));
}

static int
open_tcp (struct server *server, const char *host, const char *port)
{
  struct addrinfo hints = {
    .ai_family = AF_UNSPEC,
    .ai_socktype = SOCK_STREAM,
    .ai_flags = AI_PASSIVE,
  };
  struct addrinfo *addresses;
  unsigned opened = 0;
  int error = getaddrinfo (host, port, &hints, &addresses);

  if (error) {
    log_error ("%s: %s", host, error == EAI_SYSTEM ? strerror (errno) : gai_strerror (error));
    return -EINVAL;
  }
  for (struct addrinfo *at = addresses; at && error == 0; at = at->ai_next) {
    error = open_socket (server, at->ai_family, at->ai_addr, at->ai_addrlen);
    /* A name may stand for an IPv6 address where there is no IPv6. */
    if ((error == -EAFNOSUPPORT || error == -EADDRNOTAVAIL) && (at->ai_next || opened > 0))
      error = 0;
    else if (error == 0)
      opened++;
  }
  freeaddrinfo (addresses);
  if (error == 0 && opened == 0)
    error = -EADDRNOTAVAIL;
  if (error)
    say_why_not (host, port, error);
  return error;
}

static int
open_vsock (struct server *server, const char *port)
{
  struct sockaddr_vm address = {
    .svm_family = AF_VSOCK,
    .svm_cid = VMADDR_CID_ANY,
    .svm_port = (unsigned) atoi (port),
  };
  int error;

  if (address.svm_port == 0)
    address.svm_port = VMADDR_PORT_ANY;
  error = open_socket (server, AF_VSOCK, (struct sockaddr *) &address, sizeof address);
  if (error)
    say_why_not ("vsock", port, error);
  return error;
}

/* --- socket activation: sd_listen_fds(3), without the library --- */

/* How many sockets we were started with, and in *NAMES (malloc'd; may be NULL) what they are
 * called, with colons between.  What we start ourselves must not believe it is meant. */
static unsigned
activation_count (char **names)
{
  const char *pid = getenv ("LISTEN_PID"), *fds = getenv ("LISTEN_FDS");
  const char *fd_names = getenv ("LISTEN_FDNAMES");
  uint64_t number, count;

  if (!pid || !fds || !text_parse_number (pid, 1, INT32_MAX, &number)
      || number != (uint64_t) getpid () || !text_parse_number (fds, 1, LISTENERS_MAX, &count))
    count = 0;
  *names = count > 0 && fd_names ? strdup (fd_names) : NULL;
  unsetenv ("LISTEN_PID");
  unsetenv ("LISTEN_FDS");
  unsetenv ("LISTEN_FDNAMES");
  return (unsigned) count;
}

static int
take_activated (struct server *server, unsigned count, char *names)
{
  int error = 0;

  for (unsigned i = 0; i < count && error == 0; i++) {
    int fd = FIRST_LISTEN_FD + (int) i, is_listening = 0;
    socklen_t length = sizeof is_listening;
    const char *name = names ? strsep (&names, ":") : NULL;

    if (getsockopt (fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &length) == -1 || !is_listening) {
      log_error ("LISTEN_FDS: descriptor %d (%s) is not a listening socket", fd,
                 name ? name : "no name");
      return -EINVAL;
    }
    fcntl (fd, F_SETFD, FD_CLOEXEC);
    fcntl (fd, F_SETFL, fcntl (fd, F_GETFL) | O_NONBLOCK);
    error = add_listener (server, fd);
  }
  return error;
}

/* --- all of them --- */

int
listen_open (struct server *server)
{
  const struct serve_options *options = &server->options;
  const char *port = options->port ? options->port : PORT_DEFAULT;
  const char *address = options->address ? options->address : ADDRESS_DEFAULT;
  char *names;
  unsigned activated = activation_count (&names);
  int error = 0;

  if (!options->is_single)
    error = take_activated (server, activated, names);
  free (names);
  if (options->is_single)
    return 0;
  if (error == 0 && options->unix_path)
    error = open_unix (server, options->unix_path);
  if (error == 0 && options->is_vsock)
    error = open_vsock (server, port);
  /* TCP: if asked for, or if there is nothing else. */
  if (error == 0 && (options->address || (options->port && !options->is_vsock)
                     || (server->listener_count == 0 && !server->temporary_path)))
    error = open_tcp (server, address, port);
  /* The socket of --run comes last, so that an address that was asked for is the one that
   * counts. */
  if (error == 0 && server->temporary_path)
    error = open_unix (server, server->temporary_path);
  return error;
}

/* Out of descriptors: the socket would stay readable, and the loop would spin. */
static void
pause_listener (struct ev_loop *loop, struct listener *listener)
{
  ev_io_stop (loop, &listener->watcher);
  ev_timer_again (loop, &listener->retry);
}

static void
on_retry (struct ev_loop *loop, ev_timer *timer, int events)
{
  struct listener *listener = timer->data;

  (void) events;
  ev_timer_stop (loop, timer);
  ev_io_start (loop, &listener->watcher);
}

static void
on_connection (struct ev_loop *loop, ev_io *watcher, int events)
{
  struct listener *listener = watcher->data;

  (void) events;
  for (unsigned i = 0; i < ACCEPTS_MAX; i++) {
    int fd = accept4 (listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd != -1) {
      listener->is_short = false;
      workers_take (listener->server, fd);
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      if (!listener->is_short)
        log_warning ("%s: clients have to wait: %s", listener->uri, strerror (errno));
      listener->is_short = true;
      pause_listener (loop, listener);
    }
    return;
  }
}

void
listen_start (struct server *server)
{
  for (unsigned i = 0; i < server->listener_count; i++) {
    struct listener *listener = &server->listeners[i];

    ev_timer_init (&listener->retry, on_retry, RETRY_SECONDS, RETRY_SECONDS);
    ev_io_init (&listener->watcher, on_connection, listener->fd, EV_READ);
    listener->retry.data = listener->watcher.data = listener;
    ev_io_start (server->reception.loop, &listener->watcher);
  }
}

void
listen_close (struct server *server)
{
  for (unsigned i = 0; i < server->listener_count; i++) {
    struct listener *listener = &server->listeners[i];
    struct stat status;

    if (server->reception.loop) {
      ev_io_stop (server->reception.loop, &listener->watcher);
      ev_timer_stop (server->reception.loop, &listener->retry);
    }
    close (listener->fd);
    /* Another server may have put its own there. */
    if (listener->unix_path && lstat (listener->unix_path, &status) == 0
        && status.st_dev == listener->device && status.st_ino == listener->inode)
      unlink (listener->unix_path);
    free (listener->unix_path);
    free (listener->uri);
  }
  server->listener_count = 0;
}
