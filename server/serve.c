/* SPDX-License-Identifier: BSD-2-Clause */
/* serve.c - `lacuna serve`: from the command line to the exit status.
 *
 * The order: addresses (is one in use?), store (recovered if need be), workers, control socket;
 * then it is ready, and says so on stdout, to the pidfile and to systemd.  The end is the
 * reverse: no new clients, what is in flight is finished, all is made durable.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <malloc.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "control.h"
#include "server.h"

/* --- pidfile --- */

/* Appears whole, or not at all. */
static int
pidfile_write (const char *path)
{
  char new_path[4096];
  int fd, error = 0;

  if (snprintf (new_path, sizeof new_path, "%s.XXXXXX", path) >= (int) sizeof new_path) {
    error = -ENAMETOOLONG;
  } else if ((fd = mkstemp (new_path)) == -1) {
    error = -errno;
  } else {
    if (dprintf (fd, "%ld\n", (long) getpid ()) < 0 || fchmod (fd, 0644) == -1)
      error = -errno;
    if (close (fd) == -1 && error == 0)
      error = -errno;
    if (error == 0 && rename (new_path, path) == -1)
      error = -errno;
    if (error)
      unlink (new_path);
  }
  if (error)
    log_error ("%s: the pidfile cannot be written: %s", path, strerror (-error));
  return error;
}

/* --- signals, and the command of --run --- */

static void
on_signal (struct ev_loop *loop, ev_signal *watcher, int events)
{
  struct server *server = watcher->data;

  (void) loop;
  (void) events;
  if (server->child)
    kill (server->child, SIGTERM);
  server_stop (server);
}

/* Who is connected stays so; who comes from now on meets what the files say now.  Where there are none
 * the signal must do no harm: the unit sends it, whatever the options are. */
static void
on_hangup (struct ev_loop *loop, ev_signal *watcher, int events)
{
  struct server *server = watcher->data;

  (void) loop;
  (void) events;
  notify_reloading ();
  if (!server->tls && !server->options.access)
    log_info ("there is nothing to be read again");
  if (server->tls) {
    if (tls_reload (server->tls))
      log_info ("certificates and keys have been read again");
    else
      log_error ("certificates and keys stay as they were");
  }
  if (server->options.access) {
    if (rights_reload (server))
      log_info ("%s has been read again", server->options.access);
    else
      log_error ("%s: all may do what they could before", server->options.access);
  }
  notify_reloaded ();
}

static void
on_child (struct ev_loop *loop, ev_signal *watcher, int events)
{
  struct server *server = watcher->data;
  int status;

  (void) loop;
  (void) events;
  if (!server->child || waitpid (server->child, &status, WNOHANG) != server->child)
    return;
  server->child = 0;
  /* As a shell has it. */
  server->exit_status = WIFEXITED (status) ? WEXITSTATUS (status) : 128 + WTERMSIG (status);
  server_stop (server);
}

static void
watch_signal (struct server *server, ev_signal *watcher,
              void (*callback) (struct ev_loop *, ev_signal *, int), int number)
{
  sigset_t set;

  ev_signal_init (watcher, callback, number);
  watcher->data = server;
  ev_signal_start (server_worker_loop (server, 0), watcher);
  sigemptyset (&set);
  sigaddset (&set, number);
  pthread_sigmask (SIG_UNBLOCK, &set, NULL);
}

/* Blocked before the first thread is made; watch_signal opens them again on the main thread. */
static void
block_signals (void)
{
  sigset_t set;

  signal (SIGPIPE, SIG_IGN);
  sigemptyset (&set);
  sigaddset (&set, SIGTERM);
  sigaddset (&set, SIGINT);
  sigaddset (&set, SIGCHLD);
  sigaddset (&set, SIGHUP);
  pthread_sigmask (SIG_BLOCK, &set, NULL);
}

/* --run without -U: a socket of our own, where nobody else can come in. */
static int
make_temporary_path (struct server *server)
{
  char directory[] = "/tmp/lacunaXXXXXX";

  if (!mkdtemp (directory)) {
    log_error ("/tmp: no directory can be made for the socket of --run: %s", strerror (errno));
    return -errno;
  }
  server->temporary_directory = strdup (directory);
  if (asprintf (&server->temporary_path, "%s/socket", directory) == -1)
    server->temporary_path = NULL;
  return server->temporary_directory && server->temporary_path ? 0 : -ENOMEM;
}

static int
run_command (struct server *server)
{
  const struct serve_options *options = &server->options;
  char *const arguments[] = { "sh", "-c", (char *) options->run, NULL };
  posix_spawnattr_t attributes;
  sigset_t set;
  int error;

  setenv ("uri", server->listeners[0].uri, 1);
  setenv ("unixsocket", options->unix_path ? options->unix_path : server->temporary_path, 1);
  posix_spawnattr_init (&attributes);
  sigemptyset (&set);
  posix_spawnattr_setsigmask (&attributes, &set);
  sigaddset (&set, SIGPIPE);
  posix_spawnattr_setsigdefault (&attributes, &set);
  posix_spawnattr_setflags (&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  error = posix_spawn (&server->child, "/bin/sh", NULL, &attributes, arguments, environ);
  posix_spawnattr_destroy (&attributes);
  if (error) {
    server->child = 0;
    log_error ("--run: %s", strerror (error));
  }
  return -error;
}

/* --- beginning --- */

/* Usually 1024 may be open at first, of which the listening sockets, the store and the control
 * socket need some: all the connections that the server allows would shut the command line out. */
static void
raise_file_limit (void)
{
  const rlim_t wanted = 2 * CONNECTIONS_MAX;
  struct rlimit limit;

  if (getrlimit (RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < wanted) {
    limit.rlim_cur = MIN (wanted, limit.rlim_max);
    setrlimit (RLIMIT_NOFILE, &limit);
  }
}

/* Elsewhere an arena does what it is for, but the kernel writes all of it to the disk. */
static void
judge_arena (struct server *server)
{
  const char *path = store_arena_path (server->store);
  struct statfs system;

  if (path && statfs (path, &system) == 0 && system.f_type != TMPFS_MAGIC
      && system.f_type != RAMFS_MAGIC)
    log_warning ("%s: the arena %s is not on tmpfs: the kernel will write it to the disk, too",
                 server->options.store, path);
}

static int
open_store (struct server *server)
{
  const struct serve_options *options = &server->options;
  const struct store_options store_options = {
    .path = options->store,
    .arena_path = options->arena,
    .cache_bytes = options->cache_bytes,
    .is_read_only = options->is_read_only,
    .lock_wait_ms = STORE_LOCK_WAIT_MS,
  };
  char *message = NULL;
  struct disk *disk;
  int error = store_open (&store_options, &server->store, &message);

  if (error) {
    log_error ("%s: %s", options->store, message ? message : strerror (-error));
    free (message);
    server->store = NULL;
    return error;
  }
  if (options->export) {
    disk = disk_open (server->store, options->export);
    if (!disk) {
      log_error ("%s: %s: there is no disk of this name", options->store, options->export);
      return -ENOENT;
    }
    disk_close (disk);
  }
  judge_arena (server);
  return 0;
}

/* The client is on stdin and stdout.  They move away, so that no message can get between the
 * replies. */
static int
take_stdio (struct server *server)
{
  int in = fcntl (STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
  int out = fcntl (STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
  int null = open ("/dev/null", O_RDWR | O_CLOEXEC);

  if (in == -1 || out == -1 || null == -1) {
    log_error ("--single: %s", strerror (errno));
    return -errno;
  }
  dup2 (null, STDIN_FILENO);
  dup2 (STDERR_FILENO, STDOUT_FILENO);
  close (null);
  return workers_take_single (server, in, out) ? 0 : -ENOMEM;
}

/* Says to all who wait for it that clients can come. */
static int
announce (struct server *server)
{
  if (server->options.pidfile) {
    int error = pidfile_write (server->options.pidfile);

    if (error)
      return error;
    server->has_pidfile = true;
  }
  for (unsigned i = 0; i < server->listener_count && !server->options.run; i++)
    printf ("ready: %s\n", server->listeners[i].uri);
  fflush (stdout);
  notify_ready (server);
  return 0;
}

/* What `lacuna stat` shows beside the store's own counters. */
static size_t
on_counters (void *owner, struct store_counter *counters, size_t max)
{
  struct server_counters now;

  server_get_counters (owner, &now);
  const struct store_counter all[] = {
    { "server_connections", now.connections_now },
    { "server_connections_accepted", now.connections },
    { "server_requests", now.requests },
    { "server_received_bytes", now.received_bytes },
    { "server_sent_bytes", now.sent_bytes },
  };
  size_t count = MIN (max, ARRAY_COUNT (all));

  memcpy (counters, all, count * sizeof *all);
  return count;
}

/* Clients are served without it, too. */
static void
start_control (struct server *server)
{
  char *message = NULL;

  server->control = control_start (server->store, server_worker_loop (server, 0),
                                   server_worker_context (server, 0), on_counters, server,
                                   &message);
  if (!server->control)
    log_warning ("%s: %s; other commands cannot work on the store while it is served",
                 server->options.store, message ? message : strerror (ENOMEM));
  free (message);
}

/* A host that cannot do that is served, too. */
static void
confine (struct server *server)
{
  int error = confine_calls ();

  if (error)
    log_warning ("%s: the system calls of the server are not confined: %s", server->options.store,
                 strerror (-error));
}

static int
begin (struct server *server)
{
  int error = workers_start (server);

  if (error) {
    log_error ("%s: the server's threads cannot be started: %s", server->options.store,
               strerror (-error));
    return error;
  }
  watch_signal (server, &server->on_terminate, on_signal, SIGTERM);
  watch_signal (server, &server->on_interrupt, on_signal, SIGINT);
  watch_signal (server, &server->on_child, on_child, SIGCHLD);
  watch_signal (server, &server->on_hangup, on_hangup, SIGHUP);
  start_control (server);
  listen_start (server);
  error = server->options.is_single ? take_stdio (server) : workers_receive (server);
  if (error == 0)
    error = announce (server);
  if (error == 0 && server->options.run)
    error = run_command (server);
  else if (error == 0)
    confine (server);
  return error;
}

/* --- the end --- */

void
server_stop (struct server *server)
{
  if (atomic_load (&server->is_stopping))
    return;
  notify_stopping (server);
  workers_stop (server);
}

static int
close_store (struct server *server)
{
  char *message = NULL;
  int error = store_close (server->store, &message);

  if (error)
    log_error ("%s: %s", server->options.store, message ? message : strerror (-error));
  free (message);
  return error;
}

/* Gives everything back, in whatever state the beginning left it. */
static void
end (struct server *server)
{
  if (server->control)
    control_stop (server->control);
  listen_close (server);
  workers_free (server);
  if (server->store && close_store (server) != 0)
    server->exit_status = EXIT_FAILURE;
  if (server->has_pidfile)
    unlink (server->options.pidfile);
  tls_close (server->tls);
  rights_close (server);
  admission_close (server);
  if (server->temporary_directory)
    rmdir (server->temporary_directory);
  free (server->temporary_directory);
  free (server->temporary_path);
}

int
serve_main (int argc, char **argv)
{
  struct server *server = calloc (1, sizeof *server);
  bool stop;
  int error;

  if (!server) {
    log_error ("%s", strerror (ENOMEM));
    return EXIT_FAILURE;
  }
  error = options_parse (argc, argv, &server->options, &stop);
  if (stop) {
    free (server);
    return error;
  }
  server->is_read_only = server->options.is_read_only;
  if (server->options.tls != TLS_OFF) {
    server->tls = tls_open (&server->options);
    error = server->tls ? 0 : -EINVAL;
  }
  if (!rights_open (server))
    error = -EINVAL;
  block_signals ();
  raise_file_limit ();
  /* A connection, most of which is room for what it sends, has memory of its own: what is not used
   * of it is not there, and all of it goes back when the connection ends. */
  mallopt (M_MMAP_THRESHOLD, CONNECTION_BYTES_MIN);
  admission_open (server);
  if (error == 0 && server->options.run && !server->options.unix_path)
    error = make_temporary_path (server);
  if (error == 0)
    error = listen_open (server);
  if (error == 0 && server->options.user)
    error = confine_user (server->options.user);
  if (error == 0)
    error = open_store (server);
  if (error == 0) {
    error = begin (server);
    if (error)
      server_stop (server);
    workers_run (server);
  }
  if (error)
    server->exit_status = EXIT_FAILURE;
  error = server->exit_status;
  end (server);
  error = MAX (error, server->exit_status);
  free (server);
  return error;
}
