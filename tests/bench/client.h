/* SPDX-License-Identifier: BSD-2-Clause */
/* client.h - an NBD client that costs as little as it can, for measuring servers.
 *
 * Requests are queued and leave in one sendmsg; one recv brings as many replies as have come.  All
 * that is read is compared with what writes of this client put there: the first word of a block is
 * its number, so a block in the wrong place is noticed, and the rest is a fixed pattern.  What
 * goes wrong ends the program: a measurement of a server that errs means nothing.
 *
 * One thread; nothing here waits but client_connect, and client_receive on a connection whose
 * `is_waiting` is set.
 */
#ifndef LACUNA_BENCH_CLIENT_H
#define LACUNA_BENCH_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "nbd/nbd-protocol.h"

#define SECOND UINT64_C (1000000000)

#define DEPTH_MAX 256              /* requests in flight on a connection */
#define CLIENT_INPUT (256 * KIB)

/* A request from when it is queued until its reply is there. */
struct slot {
  struct nbd_request wire;
  uint64_t offset;
  uint32_t length;
  uint16_t command;
  bool is_busy;
  uint64_t queued_at;              /* the caller's */
  uint64_t status_length;          /* BLOCK_STATUS: bytes that the answer describes */
  uint32_t status_extents;
  uint8_t *payload;                /* WRITE: of the longest request */
};

struct client {
  int fd;
  struct ssl_st *ssl;              /* OpenSSL's; NULL: plain */
  bool is_structured;
  bool may_read_zeros;             /* blocks that were never written are no error */
  bool is_waiting;                 /* client_receive waits for the first byte */
  uint64_t size;                   /* of the disk */
  struct slot *slots;
  unsigned depth;
  unsigned free[DEPTH_MAX], free_count;

  struct iovec output[2 * DEPTH_MAX];
  unsigned output_first, output_end;

  uint8_t input[CLIENT_INPUT];
  size_t input_start, input_end;
  struct slot *reading;            /* whose data is coming in */
  uint64_t data_at, data_left;     /* offset on the disk, bytes of this chunk */
  bool is_last_chunk;
  uint64_t received_at;            /* the return of the last recv that brought something */
  uint64_t syscalls;
};

struct client_options {
  const char *unix_path, *host, *port, *export;
  unsigned depth;
  uint64_t request_bytes;          /* the longest WRITE; 0: there will be none */
  bool wants_structured, wants_status, may_read_zeros, wants_tls;
};

void client_die (const char *format, ...) __attribute__ ((format (printf, 1, 2), noreturn));

/* Connects, shakes hands. */
void client_connect (struct client *client, const struct client_options *options);
void client_disconnect (struct client *client);

/* Queues a request; there must be a free slot.  The slot is valid until its reply was handed out. */
struct slot *client_queue (struct client *client, uint16_t command, uint16_t flags,
                           uint64_t offset, uint32_t length);
/* Sends what is queued.  False: the socket is full, some is left. */
bool client_send (struct client *client);
/* Takes what has come, with one recv; DONE is called for each request that was answered, and may
 * queue new ones.  False: nothing there. */
bool client_receive (struct client *client, void (*done) (void *owner, struct slot *slot),
                     void *owner);

/* --- client-tls.c: as recv and sendmsg; from _begin on the socket's bytes are TLS'.  For one
 * connection only: what OpenSSL has, epoll does not know of. --- */
void client_tls_begin (struct client *client);
void client_tls_end (struct client *client);
ssize_t client_tls_receive (struct client *client, void *data, size_t size, bool is_waiting);
ssize_t client_tls_send (struct client *client, const struct iovec *segments, size_t count);

static inline unsigned
client_in_flight (const struct client *client)
{
  return client->depth - client->free_count;
}

#endif
