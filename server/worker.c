/* SPDX-License-Identifier: BSD-2-Clause */
/* worker.c - threads, their libev loops, and their contexts of the engine; and the reception.
 *
 * A turn of the loop: events (sockets are read, requests are started); then, in the prepare
 * watcher, the engine runs and the connections that have something to send or to decide are
 * advanced; then the loop sleeps, unless the engine has more to do, or a lone client is likely to send
 * more at once.  So a batch of requests that hit the cache costs one epoll_wait or poll, one recv and
 * one sendmsg.
 *
 * The reception's turn is the same without an engine.  What newcomers cost, by themselves or by
 * all that can be thrown at a handshake, is its time, not that of those who read and write.
 *
 * Between threads goes nothing but connections that have chosen their disk, and the order to end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
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
#define RECEPTION_NICE 10

/* --- the loop --- */

static void
end_if_idle (struct worker *worker)
{
  struct server *server = worker->server;

  if (!list_is_empty (&worker->connections))
    return;
  ev_timer_stop (worker->loop, &worker->tick);
  if (server->options.is_single && worker == &server->workers[0])
    workers_stop (server);
  if (worker->is_stopping && worker->is_last)
    ev_break (worker->loop, EVBREAK_ALL);
}

/* All that have changed; one that changes again meanwhile has its next turn after the others.
 * False: there was none. */
static bool
advance_changed (struct worker *worker)
{
  struct list changed = LIST_INIT (changed), *link;
  bool has_run = false;

  list_splice (&changed, &worker->changed);
  while ((link = list_take (&changed))) {
    connection_advance (container_of (link, struct connection, changed_link));
    has_run = true;
  }
  return has_run;
}

/* Runs the engine and the connections until nothing is left to do, false, or sockets should be looked
 * at again. */
static bool
worker_turns (struct worker *worker)
{
  bool has_run = true, has_more = false;

  for (unsigned turn = 0; has_run && !has_more && turn < TURNS_MAX; turn++) {
    has_run = context_run (worker->context);
    /* A long request goes on when others have been heard. */
    has_more = context_has_more (worker->context);
    has_run |= advance_changed (worker);
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

static void
on_reception_prepare (struct ev_loop *loop, ev_prepare *watcher, int events)
{
  struct worker *reception = watcher->data;

  (void) events;
  if (advance_changed (reception))
    ev_idle_start (loop, &reception->idle);
  else
    ev_idle_stop (loop, &reception->idle);
  end_if_idle (reception);
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
start_ticking (struct worker *worker)
{
  if (!ev_is_active (&worker->tick))
    ev_timer_again (worker->loop, &worker->tick);
}

static void
adopt_arrivals (struct worker *worker)
{
  struct list arrivals = LIST_INIT (arrivals), *link;

  pthread_mutex_lock (&worker->mutex);
  list_splice (&arrivals, &worker->arrivals);
  pthread_mutex_unlock (&worker->mutex);
  while ((link = list_take (&arrivals))) {
    struct connection *connection = container_of (link, struct connection, link);

    list_append (&worker->connections, link);
    start_ticking (worker);
    connection_begin (connection);
    if (worker->is_stopping)
      connection_stop (connection);
  }
}

static void
on_mail (struct ev_loop *loop, ev_async *watcher, int events)
{
  struct worker *worker = watcher->data;
  struct server *server = worker->server;
  /* To be asked before what has come is taken. */
  bool is_last = !atomic_load (&server->has_reception);

  (void) loop;
  (void) events;
  adopt_arrivals (worker);
  worker->is_last = is_last || worker == &server->reception;
  fence_receive (worker);
  atomic_store (&worker->answered, atomic_load (&worker->question));
  if (atomic_load (&server->is_stopping) && !worker->is_stopping) {
    worker->is_stopping = true;
    if (worker == &server->reception)
      listen_close (server);
    list_for_each (link, &worker->connections)
      connection_stop (container_of (link, struct connection, link));
  }
}

static bool
take (struct worker *worker, int receive_fd, int send_fd)
{
  if (!connection_create (worker, receive_fd, send_fd))
    return false;
  worker_count (&worker->counters.connections, 1);
  start_ticking (worker);
  return true;
}

void
workers_take (struct server *server, int fd)
{
  take (&server->reception, fd, fd);
}

bool
workers_take_single (struct server *server, int receive_fd, int send_fd)
{
  return take (&server->workers[0], receive_fd, send_fd);
}

void
workers_hand_over (struct connection *connection)
{
  struct server *server = connection->worker->server;
  struct worker *to;

  if (connection->worker != &server->reception) {
    connection_begin (connection);
    return;
  }
  to = &server->workers[server->next_worker++ % server->worker_count];
  list_remove (&connection->link);
  list_remove (&connection->changed_link);
  connection->worker = to;
  pthread_mutex_lock (&to->mutex);
  list_append (&to->arrivals, &connection->link);
  pthread_mutex_unlock (&to->mutex);
  ev_async_send (to->loop, &to->mail);
}

/* Has all threads look at their mail. */
static void
wake_all (struct server *server)
{
  for (unsigned i = 0; i < server->worker_count; i++)
    ev_async_send (server->workers[i].loop, &server->workers[i].mail);
  if (atomic_load (&server->has_reception))
    ev_async_send (server->reception.loop, &server->reception.mail);
}

void
workers_stop (struct server *server)
{
  if (!atomic_exchange (&server->is_stopping, true))
    wake_all (server);
}

bool
workers_are_alive (struct server *server)
{
  bool all = !atomic_load (&server->has_reception)
             || atomic_load (&server->reception.answered) == server->asked;

  for (unsigned i = 0; i < server->worker_count; i++)
    all = all && atomic_load (&server->workers[i].answered) == server->asked;
  return all;
}

void
workers_ask (struct server *server)
{
  server->asked++;
  atomic_store (&server->reception.question, server->asked);
  for (unsigned i = 0; i < server->worker_count; i++)
    atomic_store (&server->workers[i].question, server->asked);
  wake_all (server);
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
  return 0;
}

static void
worker_destroy (struct worker *worker)
{
  if (!worker->loop)
    return;
  ev_loop_destroy (worker->loop);
  close (worker->hangups);
  pthread_mutex_destroy (&worker->mutex);
  sem_destroy (&worker->started);
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

static void *
reception_main (void *argument)
{
  struct worker *reception = argument;

  pthread_setname_np (pthread_self (), "reception");
  /* Where there are fewer processors than there is to do, newcomers wait.  Of this thread alone. */
  setpriority (PRIO_PROCESS, 0, getpriority (PRIO_PROCESS, 0) + RECEPTION_NICE);
  worker_run (reception);
  atomic_store (&reception->server->has_reception, false);
  wake_all (reception->server);
  return NULL;
}

/* What other threads may use before the worker's own thread runs.  PREPARE is what it does before it
 * sleeps. */
static int
worker_init (struct worker *worker, struct server *server, unsigned backend,
             void (*prepare) (struct ev_loop *, ev_prepare *, int))
{
  worker->server = server;
  list_init (&worker->connections);
  list_init (&worker->changed);
  list_init (&worker->arrivals);
  list_init (&worker->gone);
  list_init (&worker->fences);
  list_init (&worker->orders);
  list_init (&worker->fences_done);
  pthread_mutex_init (&worker->mutex, NULL);
  sem_init (&worker->started, 0, 0);
  worker->hangups = epoll_create1 (EPOLL_CLOEXEC);
  if (worker->hangups == -1)
    return -errno;
  worker->loop = ev_loop_new (backend);
  if (!worker->loop) {
    close (worker->hangups);
    return -ENOMEM;
  }
  ev_async_init (&worker->mail, on_mail);
  ev_async_start (worker->loop, &worker->mail);
  ev_prepare_init (&worker->prepare, prepare);
  ev_prepare_start (worker->loop, &worker->prepare);
  ev_idle_init (&worker->idle, on_idle);
  ev_timer_init (&worker->tick, on_tick, TICK_SECONDS, TICK_SECONDS);
  worker->mail.data = worker->prepare.data = worker->tick.data = worker;
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
  int error;

  server->workers = calloc (server->options.threads, sizeof *server->workers);
  if (!server->workers)
    return -ENOMEM;
  lend_open (server);
  /* To epoll, libev's way with it, a socket would belong for as long as it is open. */
  error = worker_init (&server->reception, server, EVBACKEND_POLL, on_reception_prepare);
  for (unsigned i = 0; i < server->options.threads && error == 0; i++) {
    struct worker *worker = &server->workers[i];

    error = worker_init (worker, server, EVFLAG_AUTO, on_prepare);
    if (error == 0)
      error = i == 0 ? worker_begin (worker) : worker_start_thread (worker);
    if (error == 0)
      server->worker_count++;
    else
      worker_destroy (worker);
  }
  return error;
}

int
workers_receive (struct server *server)
{
  int error;

  atomic_store (&server->has_reception, true);
  error = -pthread_create (&server->reception.thread, NULL, reception_main, &server->reception);
  if (error)
    atomic_store (&server->has_reception, false);
  server->is_received = error == 0;
  return error;
}

void
workers_run (struct server *server)
{
  if (server->worker_count == 0)
    return;
  worker_run (&server->workers[0]);
  if (server->is_received)
    pthread_join (server->reception.thread, NULL);
  for (unsigned i = 1; i < server->worker_count; i++)
    pthread_join (server->workers[i].thread, NULL);
}

void
workers_free (struct server *server)
{
  for (unsigned i = 0; i < server->worker_count; i++) {
    struct worker *worker = &server->workers[i];

    fence_drop_orders (worker);
    /* Worker 0's: the control socket has used it until now. */
    if (worker->context)
      worker_end (worker);
    worker_destroy (worker);
  }
  worker_destroy (&server->reception);
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
  counters->connections
    = atomic_load_explicit (&server->reception.counters.connections, memory_order_relaxed);
  for (unsigned i = 0; i < server->worker_count; i++) {
    struct worker_counters *own = &server->workers[i].counters;

    counters->connections += atomic_load_explicit (&own->connections, memory_order_relaxed);
    counters->requests += atomic_load_explicit (&own->requests, memory_order_relaxed);
    counters->received_bytes += atomic_load_explicit (&own->received_bytes, memory_order_relaxed);
    counters->sent_bytes += atomic_load_explicit (&own->sent_bytes, memory_order_relaxed);
  }
}
