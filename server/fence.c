/* SPDX-License-Identifier: BSD-2-Clause */
/* fence.c - a client that comes back finds nothing of its former self at work.
 *
 * A client whose connection has failed (the Linux kernel, after a timeout) sends on another one
 * again what had no answer, and goes on.  What it had sent on the first one must not be carried
 * out after that, over newer data.  So whoever chooses a disk waits, before its first request is
 * read, until on all connections to that disk whose peer has gone
 *
 *   what was started has ended, and
 *   what was not started has been dropped,
 *
 * or all of it has been done, where the client has said goodbye (NBD_CMD_DISC), as the protocol
 * wants it.  Only those are waited for that chose the disk before, so that no two wait for each
 * other.
 *
 * Connections belong to workers; each is asked by mail, looks at its own, and the last one to be
 * done tells the worker of the one that waits.  Clients may come often, and to a disk that thousands
 * have: so nobody looks at those whose peer is there.  The kernel tells of the others
 * (worker->hangups).
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/check.h"
#include "server.h"

#define HANGUPS 64                 /* asked for at once */

struct fence_order {
  struct list link;                /* in a worker's orders or fences */
  struct fence *fence;
};

struct fence {
  struct worker *worker;           /* of the connection that waits */
  struct connection *connection;   /* NULL: it is gone; for that worker alone */
  uint64_t number;                 /* of the connection */
  const void *disk;                /* to be compared, not to be used */
  _Atomic unsigned pending;        /* orders that are not carried out */
  struct list done_link;           /* in worker->fences_done */
  struct fence_order orders[];
};

static bool
is_shared (struct disk *disk)
{
  struct disk_info info;

  disk_get_info (disk, &info);
  return info.open_count > 1;
}

void
fence_watch (struct connection *connection)
{
  struct epoll_event event = { .events = EPOLLRDHUP | EPOLLONESHOT, .data.ptr = connection };

  /* What cannot be watched, a file that --single reads from, has no peer. */
  connection->is_watched = epoll_ctl (connection->worker->hangups, EPOLL_CTL_ADD,
                                      connection->transport.receive_fd, &event) == 0;
}

void
fence_unwatch (struct connection *connection, bool is_dead)
{
  if (connection->is_watched)
    CHECK (epoll_ctl (connection->worker->hangups, EPOLL_CTL_DEL,
                      connection->transport.receive_fd, NULL) == 0);
  connection->is_watched = false;
  if (is_dead && list_is_empty (&connection->gone_link))
    list_append (&connection->worker->gone, &connection->gone_link);
}

/* Whose peer has gone meanwhile. */
static void
find_gone (struct worker *worker)
{
  struct epoll_event events[HANGUPS];
  int count;

  do {
    count = epoll_wait (worker->hangups, events, HANGUPS, 0);
    for (int i = 0; i < count; i++) {
      struct connection *connection = events[i].data.ptr;

      if (list_is_empty (&connection->gone_link))
        list_append (&worker->gone, &connection->gone_link);
    }
  } while (count == HANGUPS);
}

int
fence_start (struct connection *connection)
{
  struct server *server = connection->worker->server;
  struct fence *fence;

  connection->number = atomic_fetch_add (&server->disks_chosen, 1);
  if (!is_shared (connection->disk))
    return 0;
  fence = malloc (sizeof *fence + server->worker_count * sizeof *fence->orders);
  if (!fence)
    return -ENOMEM;
  fence->worker = connection->worker;
  fence->connection = connection;
  fence->number = connection->number;
  fence->disk = connection->disk;
  fence->pending = server->worker_count;
  connection->fence = fence;
  for (unsigned i = 0; i < server->worker_count; i++) {
    struct worker *worker = &server->workers[i];

    fence->orders[i].fence = fence;
    pthread_mutex_lock (&worker->mutex);
    list_append (&worker->orders, &fence->orders[i].link);
    pthread_mutex_unlock (&worker->mutex);
    ev_async_send (worker->loop, &worker->mail);
  }
  return 0;
}

void
fence_forget (struct connection *connection)
{
  if (connection->fence)
    connection->fence->connection = NULL;
  connection->fence = NULL;
}

/* A connection that the order is about. */
static bool
is_meant (const struct fence *fence, const struct connection *connection)
{
  if (connection->disk != fence->disk || connection->number >= fence->number)
    return false;
  return connection->state == CONNECTION_TRANSMISSION || connection->state == CONNECTION_DRAINING
         || connection->state == CONNECTION_DEAD;
}

static void
begin_order (struct worker *worker, const struct fence *fence)
{
  list_for_each (link, &worker->gone) {
    struct connection *connection = container_of (link, struct connection, gone_link);

    if (is_meant (fence, connection))
      connection_fence (connection);
  }
}

static bool
is_carried_out (struct worker *worker, const struct fence *fence)
{
  list_for_each (link, &worker->gone) {
    const struct connection *connection = container_of (link, struct connection, gone_link);

    if (is_meant (fence, connection) && connection->is_fenced
        && (connection->in_engine > 0 || connection->state == CONNECTION_TRANSMISSION))
      return false;
  }
  return true;
}

static void
end_order (struct fence *fence)
{
  struct worker *worker = fence->worker;

  if (atomic_fetch_sub (&fence->pending, 1) > 1)
    return;
  pthread_mutex_lock (&worker->mutex);
  list_append (&worker->fences_done, &fence->done_link);
  pthread_mutex_unlock (&worker->mutex);
  ev_async_send (worker->loop, &worker->mail);
}

void
fence_receive (struct worker *worker)
{
  struct list orders = LIST_INIT (orders), done = LIST_INIT (done), *link;

  pthread_mutex_lock (&worker->mutex);
  list_splice (&orders, &worker->orders);
  list_splice (&done, &worker->fences_done);
  pthread_mutex_unlock (&worker->mutex);
  if (!list_is_empty (&orders))
    find_gone (worker);
  list_for_each (at, &orders)
    begin_order (worker, container_of (at, struct fence_order, link)->fence);
  list_splice (&worker->fences, &orders);
  while ((link = list_take (&done))) {
    struct fence *fence = container_of (link, struct fence, done_link);

    if (fence->connection) {
      fence->connection->fence = NULL;
      connection_changed (fence->connection);
    }
    free (fence);
  }
}

void
fence_advance (struct worker *worker)
{
  list_for_each_safe (link, &worker->fences) {
    struct fence *fence = container_of (link, struct fence_order, link)->fence;

    if (is_carried_out (worker, fence)) {
      list_remove (link);
      end_order (fence);
    }
  }
}

void
fence_drop_orders (struct worker *worker)
{
  struct list *link;

  list_splice (&worker->fences, &worker->orders);
  while ((link = list_take (&worker->fences))) {
    struct fence *fence = container_of (link, struct fence_order, link)->fence;

    if (atomic_fetch_sub (&fence->pending, 1) == 1)
      free (fence);
  }
  while ((link = list_take (&worker->fences_done)))
    free (container_of (link, struct fence, done_link));
}
