/* SPDX-License-Identifier: BSD-2-Clause */
/* worker.c - a thread, its libev loop, and its context of the engine.
 *
 * A turn of the loop: events (sockets are read, requests are started); then, in the prepare
 * watcher, the engine runs and the connections that have something to send or to decide are
 * advanced; then the loop sleeps, unless the engine has more to do, or a lone client is likely to send
 * more at once.  So a batch of requests that hit the cache costs one epoll_wait or poll, one recv and
 * one sendmsg.
 *
 * Between threads goes nothing but accepted sockets and the order to end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "server.h"

#define TURNS_MAX 8                /* of engine and replies before sockets are looked at again: for
                                      requests that are short */
#define TICK_SECONDS 1.0
/* To wait for so long before sleeping: somewhat longer than a client takes that was asleep itself. */
#define AWAKE_NS 100000
/* So long between two looks: another thread ran meanwhile. */
#define SWITCHED_NS 3000
/* Requests so waited for before the loop looks at everything else again. */
#define AWAKE_ROUNDS_MAX 64
#define SLEEPS_MAX 4096            /* between two tries, where they are in vain */

/* --- the loop --- */

static void
end_if_idle (struct worker *worker)
{
  struct server *server = worker->server;

  if (!list_is_empty (&worker->connections))
    return;
  ev_timer_stop (worker->loop, &worker->tick);
  if (server->options.is_single && worker->index == 0)
    workers_stop (server);
  if (worker->is_stopping)
    ev_break (worker->loop, EVBREAK_ALL);
}

/* Runs the engine and the connections until nothing is left to do, false, or sockets should be looked
 * at again. */
static bool
worker_turns (struct worker *worker)
{
  struct list *link;
  bool has_run = true, has_more = false;

  for (unsigned turn = 0; has_run && !has_more && turn < TURNS_MAX; turn++) {
    struct list changed = LIST_INIT (changed);

    has_run = context_run (worker->context);
    /* A long request goes on when others have been heard. */
    has_more = context_has_more (worker->context);
    /* One that changes again while it is advanced has its next turn after the others. */
    list_splice (&changed, &worker->changed);
    while ((link = list_take (&changed))) {
      connection_advance (container_of (link, struct connection, changed_link));
      has_run = true;
    }
    fence_advance (worker);
  }
  return has_run;
}

/* Waits awake, for a short while, for the only client there is.  To wake a processor that sleeps costs
 * more than the answer to a request that hits the cache.  It does not pay where the client thinks
 * longer, or needs this very processor (then it comes only when this thread is made to let go of it):
 * after each time in vain there are twice as many sleeps without another try.  What is there at once
 * tells nothing.  True: there is something to do. */
static bool
worker_stays_awake (struct worker *worker)
{
  struct list *link = worker->connections.next;
  struct connection *connection = container_of (link, struct connection, link);
  uint64_t began, at, before;
  bool is_ready, was_switched;

  if (list_is_empty (&worker->connections) || link->next != &worker->connections
      || atomic_load_explicit (&worker->context->active, memory_order_relaxed) > 0
      || !connection_waits_for_client (connection))
    return false;
  if (worker->sleeps_left > 0) {
    worker->sleeps_left--;
    return false;
  }
  is_ready = connection_is_ready (connection);
  began = at = clock_ns ();
  while (!is_ready) {
    before = at;
    is_ready = connection_is_ready (connection);
    at = clock_ns ();
    was_switched = at - before >= SWITCHED_NS;
    if (is_ready && !was_switched) {
      worker->sleeps -= divide_up (worker->sleeps, 8);
    } else if (was_switched || at - began >= AWAKE_NS) {
      worker->sleeps = MIN (2 * worker->sleeps + 1, SLEEPS_MAX);
      worker->sleeps_left = worker->sleeps;
      break;
    }
  }
  if (is_ready) {
    connection_changed (connection);
    connection_receive (connection);
  }
  return is_ready;
}

static void
on_prepare (struct ev_loop *loop, ev_prepare *watcher, int events)
{
  struct worker *worker = watcher->data;
  bool has_run = true;

  (void) events;
  for (unsigned round = 0; round < AWAKE_ROUNDS_MAX; round++) {
    has_run = worker_turns (worker);
    if (has_run || !worker_stays_awake (worker))
      break;
    has_run = true;
  }
  if (!has_run)
    context_rest (worker->context);
  if (has_run || context_has_more (worker->context))
    ev_idle_start (loop, &worker->idle);
  else
    ev_idle_stop (loop, &worker->idle);
  end_if_idle (worker);
}

/* The loop need only wake up: on_prepare does the work. */
static void
on_context (struct ev_loop *loop, ev_io *watcher, int events)
{
  (void) loop;
  (void) watcher;
  (void) events;
}

static void
on_idle (struct ev_loop *loop, ev_idle *watcher, int events)
{
  (void) loop;
  (void) watcher;
  (void) events;
}

static void
on_tick (struct ev_loop *loop, ev_timer *watcher, int events)
{
  struct worker *worker = watcher->data;

  (void) events;
  list_for_each (link, &worker->connections)
    connection_tick (container_of (link, struct connection, link), ev_now (loop));
}

/* --- from other threads --- */

static void
worker_connect (struct worker *worker, int fd)
{
  if (!connection_create (worker, fd, fd))
    return;
  worker_count (&worker->counters.connections, 1);
  if (!ev_is_active (&worker->tick))
    ev_timer_again (worker->loop, &worker->tick);
}

static void
on_mail (struct ev_loop *loop, ev_async *watcher, int events)
{
  struct worker *worker = watcher->data;
  int accepted[ARRAY_COUNT (worker->accepted)];
  unsigned count;

  (void) loop;
  (void) events;
  pthread_mutex_lock (&worker->mutex);
  count = worker->accepted_count;
  memcpy (accepted, worker->accepted, count * sizeof *accepted);
  worker->accepted_count = 0;
  pthread_mutex_unlock (&worker->mutex);
  for (unsigned i = 0; i < count; i++)
    worker_connect (worker, accepted[i]);
  fence_receive (worker);
  notify_answer (worker);
  if (atomic_load (&worker->server->is_stopping) && !worker->is_stopping) {
    worker->is_stopping = true;
    list_for_each (link, &worker->connections)
      connection_stop (container_of (link, struct connection, link));
  }
}

void
workers_take (struct server *server, int fd)
{
  struct worker *worker = &server->workers[server->next_worker++ % server->worker_count];
  bool is_taken = false;

  if (worker->index == 0) {
    worker_connect (worker, fd);
    return;
  }
  pthread_mutex_lock (&worker->mutex);
  if (worker->accepted_count < ARRAY_COUNT (worker->accepted)) {
    worker->accepted[worker->accepted_count++] = fd;
    is_taken = true;
  }
  pthread_mutex_unlock (&worker->mutex);
  if (is_taken)
    ev_async_send (worker->loop, &worker->mail);
  else
    close (fd);
}

bool
workers_take_single (struct server *server, int receive_fd, int send_fd)
{
  struct worker *worker = &server->workers[0];

  if (!connection_create (worker, receive_fd, send_fd))
    return false;
  worker_count (&worker->counters.connections, 1);
  ev_timer_again (worker->loop, &worker->tick);
  return true;
}

void
workers_stop (struct server *server)
{
  if (atomic_exchange (&server->is_stopping, true))
    return;
  for (unsigned i = 0; i < server->worker_count; i++)
    ev_async_send (server->workers[i].loop, &server->workers[i].mail);
}

/* --- threads --- */

/* On the worker's own thread: an io_uring may belong to the thread that made it.  From here on
 * that thread runs the context, so that what a socket brings needs no mailbox: on_prepare comes
 * before the loop sleeps. */
static int
worker_begin (struct worker *worker)
{
  worker->context = store_context_create (worker->server->store);
  if (!worker->context)
    return -errno;
  op_enter_context (worker->context);
  ev_io_init (&worker->context_watcher, on_context, context_fd (worker->context), EV_READ);
  ev_io_start (worker->loop, &worker->context_watcher);
  ev_prepare_init (&worker->prepare, on_prepare);
  ev_prepare_start (worker->loop, &worker->prepare);
  ev_idle_init (&worker->idle, on_idle);
  ev_timer_init (&worker->tick, on_tick, TICK_SECONDS, TICK_SECONDS);
  worker->prepare.data = worker->tick.data = worker;
  return 0;
}

/* On the thread that began. */
static void
worker_end (struct worker *worker)
{
  op_enter_context (NULL);
  store_context_destroy (worker->server->store, worker->context);
  worker->context = NULL;
}

static void
worker_run (struct worker *worker)
{
  ev_run (worker->loop, 0);
  CHECK (list_is_empty (&worker->connections));
}

static void *
worker_main (void *argument)
{
  struct worker *worker = argument;

  worker->start_error = worker_begin (worker);
  sem_post (&worker->started);
  if (worker->start_error == 0) {
    worker_run (worker);
    worker_end (worker);
  }
  return NULL;
}

/* What other threads may use before the worker's own thread runs. */
static int
worker_init (struct worker *worker, struct server *server, unsigned index)
{
  worker->server = server;
  worker->index = index;
  list_init (&worker->connections);
  list_init (&worker->changed);
  list_init (&worker->fences);
  list_init (&worker->orders);
  list_init (&worker->fences_done);
  pthread_mutex_init (&worker->mutex, NULL);
  sem_init (&worker->started, 0, 0);
  worker->loop = ev_loop_new (EVFLAG_AUTO);
  if (!worker->loop)
    return -ENOMEM;
  ev_async_init (&worker->mail, on_mail);
  worker->mail.data = worker;
  ev_async_start (worker->loop, &worker->mail);
  return 0;
}

static int
worker_start_thread (struct worker *worker)
{
  int error = -pthread_create (&worker->thread, NULL, worker_main, worker);

  if (error)
    return error;
  while (sem_wait (&worker->started) == -1)
    CHECK (errno == EINTR);
  if (worker->start_error)
    pthread_join (worker->thread, NULL);
  return worker->start_error;
}

int
workers_start (struct server *server)
{
  int error = 0;

  server->workers = calloc (server->options.threads, sizeof *server->workers);
  if (!server->workers)
    return -ENOMEM;
  lend_open (server);
  for (unsigned i = 0; i < server->options.threads && error == 0; i++) {
    struct worker *worker = &server->workers[i];

    error = worker_init (worker, server, i);
    if (error == 0)
      error = i == 0 ? worker_begin (worker) : worker_start_thread (worker);
    if (error == 0)
      server->worker_count++;
    else if (worker->loop)
      ev_loop_destroy (worker->loop);
  }
  return error;
}

void
workers_run (struct server *server)
{
  if (server->worker_count == 0)
    return;
  worker_run (&server->workers[0]);
  for (unsigned i = 1; i < server->worker_count; i++)
    pthread_join (server->workers[i].thread, NULL);
}

void
workers_free (struct server *server)
{
  for (unsigned i = 0; i < server->worker_count; i++) {
    struct worker *worker = &server->workers[i];

    /* Sockets that came when the worker had ended already. */
    for (unsigned j = 0; j < worker->accepted_count; j++)
      close (worker->accepted[j]);
    fence_drop_orders (worker);
    /* Worker 0's: the control socket has used it until now. */
    if (worker->context)
      worker_end (worker);
    ev_loop_destroy (worker->loop);
    pthread_mutex_destroy (&worker->mutex);
    sem_destroy (&worker->started);
  }
  free (server->workers);
  server->workers = NULL;
  server->worker_count = 0;
}

/* --- for others --- */

struct ev_loop *
server_worker_loop (struct server *server, unsigned index)
{
  return server->workers[index].loop;
}

struct context *
server_worker_context (struct server *server, unsigned index)
{
  return server->workers[index].context;
}

void
worker_count (_Atomic uint64_t *counter, uint64_t n)
{
  /* One writer, the worker itself: no need to lock the bus. */
  atomic_store_explicit (counter, atomic_load_explicit (counter, memory_order_relaxed) + n,
                         memory_order_relaxed);
}

void
server_get_counters (struct server *server, struct server_counters *counters)
{
  memset (counters, 0, sizeof *counters);
  counters->connections_now = admission_count (server);
  for (unsigned i = 0; i < server->worker_count; i++) {
    struct worker_counters *own = &server->workers[i].counters;

    counters->connections += atomic_load_explicit (&own->connections, memory_order_relaxed);
    counters->requests += atomic_load_explicit (&own->requests, memory_order_relaxed);
    counters->received_bytes += atomic_load_explicit (&own->received_bytes, memory_order_relaxed);
    counters->sent_bytes += atomic_load_explicit (&own->sent_bytes, memory_order_relaxed);
  }
}
