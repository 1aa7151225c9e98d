/* SPDX-License-Identifier: BSD-2-Clause */
/* notify.c - what systemd is told: sd_notify(3), without the library.
 *
 * The watchdog is fed only while every thread answers: each is asked by mail, and must have
 * answered when the next turn comes.  A quarter of the watchdog's time is between the two.
 */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "server.h"

#define STATUS_SECONDS 10.0

/* --- messages --- */

static void
notify_send (const char *message)
{
  const char *path = getenv ("NOTIFY_SOCKET");
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd;

  if (!path || (*path != '/' && *path != '@') || strlen (path) >= sizeof address.sun_path)
    return;
  strcpy (address.sun_path, path);
  if (*path == '@')
    address.sun_path[0] = '\0';
  fd = socket (AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd == -1)
    return;
  if (sendto (fd, message, strlen (message), MSG_NOSIGNAL, (struct sockaddr *) &address,
              (socklen_t) (offsetof (struct sockaddr_un, sun_path) + strlen (path))) == -1)
    log_warning ("%s: cannot tell systemd: %s", path, strerror (errno));
  close (fd);
}

/* MORE: whole lines, or nothing. */
static void
send_status (struct server *server, const char *more)
{
  char message[256];

  snprintf (message, sizeof message, "%sSTATUS=%zu disks, %u connections\n", more,
            store_list_disks (server->store, NULL, 0), admission_count (server));
  notify_send (message);
}

void
notify_reloading (void)
{
  char message[64];

  snprintf (message, sizeof message, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\n",
            clock_ns () / 1000);
  notify_send (message);
}

void
notify_reloaded (void)
{
  notify_send ("READY=1\n");
}

void
notify_stopping (struct server *server)
{
  if (server->notify_timer.data)
    ev_timer_stop (server_worker_loop (server, 0), &server->notify_timer);
  notify_send ("STOPPING=1\nSTATUS=finishing what is in flight\n");
}

/* --- the watchdog --- */

/* Seconds after which systemd restarts a process that is silent; 0: it does not. */
static double
watchdog_seconds (void)
{
  const char *pid = getenv ("WATCHDOG_PID"), *usec = getenv ("WATCHDOG_USEC");
  uint64_t number;

  if (!usec || !text_parse_number (usec, 1, INT64_MAX, &number))
    return 0;
  if (pid && strtoll (pid, NULL, 10) != (long long) getpid ())
    return 0;
  return (double) number / 1e6;
}

static void
on_timer (struct ev_loop *loop, ev_timer *timer, int events)
{
  struct server *server = timer->data;

  (void) loop;
  (void) events;
  if (!workers_are_alive (server))
    return;
  send_status (server, server->has_watchdog ? "WATCHDOG=1\n" : "");
  workers_ask (server);
}

void
notify_ready (struct server *server)
{
  double seconds = watchdog_seconds ();

  if (!getenv ("NOTIFY_SOCKET"))
    return;
  send_status (server, "READY=1\n");
  server->has_watchdog = seconds > 0;
  seconds = server->has_watchdog ? MIN (seconds / 4, STATUS_SECONDS) : STATUS_SECONDS;
  ev_timer_init (&server->notify_timer, on_timer, seconds, seconds);
  server->notify_timer.data = server;
  ev_timer_start (server_worker_loop (server, 0), &server->notify_timer);
}
