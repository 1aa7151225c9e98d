/* SPDX-License-Identifier: BSD-2-Clause */
/* world.c - a server in this process; see fuzz.h.  It runs on the caller's thread, turn by turn,
 * but for the keeper. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "../../server/control.h"
#include "../../server/server.h"
#include "../sim/blocking.h"
#include "fuzz.h"

#define RUDE_TURNS 100

static struct server server;
static char directory[] = "/dev/shm/lacuna-fuzz-XXXXXX", store_name[64];
static const char *tls_certificates, *tls_keys;

static void
remove_store (void)
{
  unlink (store_name);
  rmdir (directory);
}

static void
create_disk (const char *name, uint64_t size)
{
  struct context *context = server_worker_context (&server, 0);
  struct admin admin;

  admin_init (&admin, context, server.store, ADMIN_CREATE, name, admin_is_done);
  admin.size = size;
  CHECK (admin_run (&admin) == 0);
}

void
world_start (void)
{
  struct store_options options = { .arena_path = "off", .cache_bytes = STORE_CACHE_MIN };
  char *error = NULL;

  if (server.store)
    return;
  log_set_sink (log_nowhere);
  signal (SIGPIPE, SIG_IGN);   /* as serve.c has it */
  CHECK (mkdtemp (directory));
  atexit (remove_store);
  snprintf (store_name, sizeof store_name, "%s/store", directory);
  CHECK (store_init (store_name, 0, false, &error) == 0);
  options.path = store_name;
  CHECK (store_open (&options, &server.store, &error) == 0);
  server.options = (struct serve_options) {
    .store = store_name, .threads = 1, .may_resize = true,
    .tls = tls_certificates ? TLS_ON : TLS_OFF, .tls_certificates = tls_certificates,
    .tls_psk = tls_keys,
  };
  if (tls_certificates)
    CHECK (server.tls = tls_open (&server.options));
  admission_open (&server);
  CHECK (rights_open (&server));
  CHECK (workers_start (&server) == 0);
  create_disk ("disk", 64 * MIB);
  create_disk ("big", UINT64_C (1) << 62);
  server.control = control_start (server.store, server_worker_loop (&server, 0),
                                  server_worker_context (&server, 0), NULL, NULL, &error);
  CHECK (server.control);
}

void
world_set_tls (const char *certificates, const char *keys)
{
  tls_certificates = certificates;
  tls_keys = keys;
}

void
world_lend (bool is_lending)
{
  server.workers[0].lend_stock = 0;
  if (is_lending)
    lend_open (&server);
  else
    server.lend_small = server.lend_large = 0;
}

void
world_turn (void)
{
  ev_run (server_worker_loop (&server, 0), EVRUN_NOWAIT);
}

/* Sends and takes until the other side closes; or takes nothing, and just goes. */
static void
talk (int fd, const struct output_bytes *bytes, struct input *pieces)
{
  size_t sent = 0;
  bool is_open = true, is_whole = false, is_rude = input_pick (pieces, 4) == 3;
  unsigned left = RUDE_TURNS;
  uint8_t taken[65536];

  fcntl (fd, F_SETFL, O_NONBLOCK);
  while (is_open) {
    size_t piece = (size_t) input_take (pieces, 2);
    ssize_t length;

    piece = piece == 0 ? bytes->length : piece;
    if (sent < bytes->length) {
      length = send (fd, bytes->data + sent, MIN (piece, bytes->length - sent), MSG_NOSIGNAL);
      if (length > 0)
        sent += (size_t) length;
      else if (errno != EAGAIN)
        sent = bytes->length;
    } else if (!is_whole) {
      shutdown (fd, SHUT_WR);
      is_whole = true;
    }
    world_turn ();
    if (is_rude) {
      is_open = sent < bytes->length && left-- > 0;
      continue;
    }
    while ((length = recv (fd, taken, sizeof taken, 0)) > 0)
      ;
    is_open = length == -1 && errno == EAGAIN;
  }
  close (fd);
}

int
world_connect (void)
{
  int fds[2];

  CHECK (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  workers_take_single (&server, fds[1], fds[1]);
  return fds[0];
}

void
world_settle (void)
{
  while (admission_count (&server) > 0)
    world_turn ();
}

void
world_talk (const struct output_bytes *bytes, struct input *pieces)
{
  talk (world_connect (), bytes, pieces);
  world_settle ();
}

void
world_control (const struct output_bytes *bytes, struct input *pieces)
{
  struct ucred peer;
  int fd = control_connect (store_name, &peer);

  CHECK (fd >= 0);
  talk (fd, bytes, pieces);
  world_turn ();
}
