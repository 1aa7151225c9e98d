/* SPDX-License-Identifier: BSD-2-Clause */
/* plugin.h - nbdkit-lacuna-plugin on one page: one section per .c file.
 *
 * nbdkit speaks NBD and has the threads; the plugin answers its callbacks from the engine.  A
 * callback blocks its thread until it has the answer, an op of the engine never does, so a bridge
 * is between the two: the thread takes a context, runs its own op there until that is done, and
 * gives the context back.  The plugin has one thread of its own, for the control socket and for reading
 * ahead, which must not hold up the reader; the engine has its keeper.
 *
 *   get_ready     looks at the store: what is wrong with it is said before nbdkit forks
 *   after_fork    opens the store, starts the thread
 *   open .. close connections; in between, requests on many threads at once
 *   cleanup       no connections any more: the thread ends, the store is closed
 *
 * Each file calls only those further up on this page.
 */
#ifndef LACUNA_PLUGIN_H
#define LACUNA_PLUGIN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "base/list.h"
#include "store/store.h"

/* What all callbacks share: nbdkit gives them no pointer of ours.  The parameters change before the
 * fork only, what is opened in after_fork and cleanup, when no other callback runs. */
struct plugin {
  char *path;                      /* store=, absolute */
  const char *disk;                /* disk=; NULL: the only one */
  uint64_t cache_bytes;            /* 0: the engine's default */
  char *arena;                     /* "off", or absolute; NULL: the engine's default */
  bool is_read_only;               /* the store cannot be written to */

  struct store *store;
  struct bridge *bridge;
  struct own_thread *thread;

  _Atomic uint64_t connections_now, connections, requests, received_bytes, sent_bytes;
};
extern struct plugin plugin;

/* --- bridge.c: contexts for nbdkit's threads --- */

/* The contexts belong to nobody in particular: nbdkit has as many threads for each connection as
 * there may be for all of them, starts and ends them with it, and most of them wait for a request.
 * Whoever has a request takes one; there are as many as requests were ever under way at once. */
struct bridge;

/* With one context, so that there always is one, however scarce descriptors become.  NULL with
 * errno. */
struct bridge *bridge_create (struct store *store);
/* All contexts must have been given back. */
void bridge_destroy (struct bridge *bridge);

/* A context for the calling thread alone; waits if there can be no more of them. */
struct context *bridge_take (struct bridge *bridge);
/* Nothing may be under way on it: context_drain.  What a thread has submitted to an io_uring would
 * be cancelled when that thread ends. */
void bridge_give (struct bridge *bridge, struct context *context);

/* --- own-thread.c: the plugin's own thread: control socket, reading ahead --- */

struct own_thread;

/* Starts it, and waits until it runs.  NULL with errno.  That there is no control socket is a
 * warning only. */
struct own_thread *own_thread_start (struct store *store);
/* Ends what its context has to do, then the thread. */
void own_thread_stop (struct own_thread *thread);
struct context *own_thread_context (struct own_thread *thread);

/* --- connection.c: exports, and one of them opened --- */

struct connection {
  struct list link;                /* in those that are open */
  struct disk *disk;               /* referenced */
  uint64_t size;                   /* held (disk_hold_size) */
  bool is_read_only;
  struct read_stream stream;
  char name[DISK_NAME_MAX + 1];    /* when it was opened */
};

int connection_list (int read_only, int is_tls, struct nbdkit_exports *exports);
const char *connection_default (int read_only, int is_tls);
void *connection_open (int read_only);
void connection_close (void *handle);
/* Those that nbdkit did not close: once it is told to end, it only waits for their threads. */
void connection_close_all (void);
const char *connection_description (void *handle);
int64_t connection_size (void *handle);
int connection_block_size (void *handle, uint32_t *minimum, uint32_t *preferred,
                           uint32_t *maximum);
int connection_can_write (void *handle);
int connection_can_fua (void *handle);
int connection_can_cache (void *handle);
int connection_yes (void *handle);
int connection_no (void *handle);

/* --- data.c: requests --- */

int data_pread (void *handle, void *buffer, uint32_t count, uint64_t offset, uint32_t flags);
int data_pwrite (void *handle, const void *buffer, uint32_t count, uint64_t offset,
                 uint32_t flags);
int data_flush (void *handle, uint32_t flags);
int data_trim (void *handle, uint32_t count, uint64_t offset, uint32_t flags);
int data_zero (void *handle, uint32_t count, uint64_t offset, uint32_t flags);
int data_cache (void *handle, uint32_t count, uint64_t offset, uint32_t flags);
int data_extents (void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                  struct nbdkit_extents *extents);

/* --- plugin.c: parameters, the store, the table of callbacks --- */

#endif
