/* SPDX-License-Identifier: BSD-2-Clause */
/* server.h - the program `lacuna` on one page: one section per .c file.
 *
 * `lacuna serve` is a store, listening sockets, a reception and N workers.  A worker is a thread with
 * a libev loop and a context of the engine; a connection belongs to one worker from when it has
 * chosen its disk, so that nothing of it is locked and no request is handed between threads.  Until
 * then it is at the reception: a thread with a loop of its own, which has the listening sockets, too,
 * so that newcomers, whatever they send, and the handshakes of TLS take no time from those who
 * read and write.  Worker 0 runs on the main thread; it also has the signals and the control socket.
 *
 * One turn of a worker's loop: sockets are read, and all requests that one recv brought are
 * parsed and started; then, before the loop sleeps, context_run lets the engine work, and all
 * replies that are ready on a connection leave in one sendmsg.
 *
 * Each file calls only those further up on this page.  What one has to tell those below is a
 * flag in struct connection; connection_changed makes connection.c look at it.
 */
#ifndef LACUNA_SERVER_H
#define LACUNA_SERVER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <ev.h>

#include "access.h"
#include "base/list.h"
#include "nbd/nbd-errno.h"
#include "nbd/nbd-protocol.h"
#include "store/store.h"

struct connection;
struct fence;
struct control;
struct server;
struct worker;

/* --- tls.c: certificates and keys --- */

enum tls_mode { TLS_OFF, TLS_ON, TLS_REQUIRE };
struct serve_options;
struct tls;

/* Reads what OPTIONS name; NULL after a message. */
struct tls *tls_open (const struct serve_options *options);
/* Reads it again, for those who come from now on.  False after a message: all is as it was. */
bool tls_reload (struct tls *tls);
void tls_close (struct tls *tls);

/* --- transport.c: bytes to and from a client: sockets and pipes --- */

struct transport;

struct transport_class {
  /* Bytes received (> 0), 0 at the end of the stream, -EAGAIN, or another negative errno. */
  ssize_t (*receive) (struct transport *transport, const struct iovec *segments, unsigned count);
  /* Bytes sent (> 0), -EAGAIN, or another negative errno.  May send less than asked. */
  ssize_t (*send) (struct transport *transport, const struct iovec *segments, unsigned count);
  void (*close) (struct transport *transport);
  bool fills;                    /* less than asked means that no more can be sent now */
};

struct transport {
  const struct transport_class *class;
  int receive_fd, send_fd;       /* non-blocking; differ for pipes only */
  bool has_more;                 /* there may be more to receive than the socket knows of */

  /* TLS. */
  struct ssl_st *ssl;            /* OpenSSL's; NULL: plain */
  bool wants_write;              /* to receive, it waits for the socket to be writable */
  bool is_corked;                /* TCP waits for more to send */
  bool is_broken;                /* not even a goodbye can be sent */
  bool is_deaf;                  /* nothing can be received */
  const char *reason;            /* why the handshake failed, or nothing can be sent any more */
  char user[IDENTITY_USER_MAX + 1];   /* whose key it says it has; "": nobody's */
};

/* Takes over the descriptors, makes them non-blocking, and sets what a block server wants of its
 * sockets. */
void transport_init_plain (struct transport *transport, int receive_fd, int send_fd);

void transport_close_plain (struct transport *transport);

/* Who the socket says the peer is. */
void transport_identify (int fd, struct identity *identity);

/* Whether the peer has closed its side: then what is still unread was given up by it. */
bool transport_peer_is_gone (const struct transport *transport);

/* --- transport-tls.c: the same by TLS --- */

/* From here on, nothing is sent or received but by TLS.  0 or -ENOMEM. */
int transport_start_tls (struct transport *transport, struct tls *tls);
/* To be called until it is 0, whenever the socket is readable, or writable if WANTS_WRITE.
 * Negative errno but -EAGAIN: it has failed. */
int transport_handshake (struct transport *transport);
/* Who the peer has shown to be.  0 or -ENOMEM. */
int transport_identify_tls (const struct transport *transport, struct identity *identity);

/* --- admission.c: how many may come in --- */

#define CONNECTIONS_MAX 4096
#define HANDSHAKES_MAX 128         /* peers with connections that have not chosen a disk */
#define HANDSHAKES_PER_PEER_MAX 32

enum peer_kind { PEER_OTHER, PEER_ADDRESS, PEER_USER };

struct peer {
  uint8_t kind, key[16];
};

struct admission {
  pthread_mutex_t mutex;           /* leaf; protects: */
  unsigned connections;
  struct peer_count {
    struct peer peer;
    unsigned count;                /* of its handshakes; 0: the entry is free */
  } peers[HANDSHAKES_MAX];
};

void admission_open (struct server *server);
void admission_close (struct server *server);

/* Counts a connection, and its handshake; false: there are too many.  What follows the one is once
 * the other. */
bool admission_enter (struct server *server, const struct identity *identity);
void admission_end_handshake (struct server *server, const struct identity *identity);
void admission_leave (struct server *server);
unsigned admission_count (struct server *server);   /* connections */

/* --- rights.c: what a connection may do with a disk --- */

/* Reads --access, if it is given.  False after a message. */
bool rights_open (struct server *server);
/* Reads it again; false after a message: all is as it was. */
bool rights_reload (struct server *server);
void rights_close (struct server *server);

enum access_rights rights_of (const struct connection *connection, const char *name);
/* The disk that NAME stands for ("": --export, or the only disk), referenced; NULL: there is none
 * that the client may use. */
struct disk *rights_open_disk (const struct connection *connection, const char *name,
                               enum access_rights *rights);
/* Whether the client may do less now with its disk than when it began; tells it once. */
bool rights_were_withdrawn (struct connection *connection);

/* --- answer.c: options, and the answers to them --- */

/* The option that is being answered; DATA is not owned.  NULL: it is longer than what is looked at. */
struct asked {
  uint32_t kind;
  uint32_t length;
  const uint8_t *data;
};

/* Queue bytes in connection->reply. */
void answer_append (struct connection *connection, const void *data, size_t length);
void answer_header (struct connection *connection, uint32_t option, uint32_t type, size_t length);
void answer_ack (struct connection *connection, uint32_t option);
void answer_error (struct connection *connection, uint32_t option, uint32_t type, const char *text);
void answer_invalid (struct connection *connection, uint32_t option);
void answer_unknown (struct connection *connection, uint32_t option, const char *name);

/* Read what is at *AT of the option, and move *AT behind it; false: it is malformed.  A name that
 * no disk can have, since it is too long, becomes one that no disk has. */
bool option_take_name (const struct asked *option, uint32_t *at, char name[DISK_NAME_MAX + 1]);
bool option_take_u32 (const struct asked *option, uint32_t *at, uint32_t *value);

/* --- metadata.c: metadata contexts --- */

enum context_index { CONTEXT_ALLOCATION, CONTEXT_DEPTH, CONTEXT_COUNT };
#define CONTEXTS_ALL ((1u << CONTEXT_COUNT) - 1)   /* sets of them have bit 1 << index */

/* LIST_META_CONTEXT and SET_META_CONTEXT. */
void metadata_option (struct connection *connection, const struct asked *option);

/* What a context is called in transmission; 0 is nobody. */
static inline uint32_t
context_id (unsigned index)
{
  return index + 1;
}
unsigned context_of_id (uint32_t id);   /* as a set; empty: there is none */

/* Writes what BLOCK_STATUS answers in this context, and returns how many extents that are; WIRE may
 * be the memory of EXTENTS. */
uint32_t metadata_wire (enum context_index context, bool is_extended,
                        const struct status_extent *extents, uint32_t count, uint8_t *wire);

/* --- negotiate.c: the handshake, up to the disk and what was agreed on --- */

#define HANDSHAKE_SECONDS 10       /* CVE-2024-7409: nobody stays in the handshake */
#define OPTIONS_MAX 64             /* of one handshake; NBD_OPT_LIST allows more, see negotiate.c */
#define OPTION_BYTES_MAX (8 * 1024)
#define OPTION_BYTES_MAX_META (16 * 1024)
#define OPTION_SKIP_MAX (1024 * 1024)   /* of all that are too long; more ends the connection */

#define BLOCK_SIZE_MINIMUM 1       /* advertised; any byte range is served */

struct negotiation {
  bool has_client_flags;           /* they have been read */
  bool is_fixed;                   /* the client has agreed on the fixed newstyle negotiation */
  bool has_no_zeroes;
  unsigned options, options_max;
  uint32_t skip;                   /* bytes of a refused option to be thrown away */
  uint32_t skipped;                /* and of all of them */
  unsigned contexts;               /* chosen, for the name that follows */
  char context_name[DISK_NAME_MAX + 1];
};

enum negotiate_result {
  NEGOTIATE_MORE, NEGOTIATE_STARTTLS, NEGOTIATE_DONE, NEGOTIATE_ABORTED,
};

/* Queues the server's hello. */
void negotiate_start (struct connection *connection);

/* Takes whole options from connection->input and queues the answers.  MORE: the rest has not
 * come yet.  STARTTLS: send what is queued, then it is the turn of TLS.  DONE: connection->disk
 * is there, transmission begins with what is left in input.  ABORTED: send what is queued, then
 * end. */
enum negotiate_result negotiate_run (struct connection *connection);

/* --- lend.c: frames that clients hold for as long as they like --- */

struct slot;

void lend_open (struct server *server);
/* Frames for a READ or WRITE of LENGTH bytes, > 0, until its reply is sent; false: too many are
 * lent already, and the request must not hold any while the client is waited for. */
bool lend_take (struct slot *slot, uint64_t offset, uint64_t length);
void lend_give_back (struct slot *slot);

/* --- reply.c: slots, and the replies that leave from them --- */

#define IN_FLIGHT_MAX 128          /* requests of a connection, until their replies are sent */
/* Bytes of READs, likewise, or one that is longer: what a slow reader can hold of the cache.  A
 * quarter of what requests up to 1 MiB share with the smallest cache (cache.h), so that such a
 * reader holds up nobody else. */
#define READ_BACKLOG_MAX (2 * MIB)
#define STATUS_EXTENTS_MAX 1024    /* in one answer to BLOCK_STATUS */
#define STATUSES_MAX 8             /* answers of a connection with more than one extent */
#define PIECE_BYTES (64 * KIB)     /* of requests that no frames are lent to */
#define OUTPUT_SEGMENTS 256

/* One request of a client, from its header until its reply is sent.  Made on demand, kept by the
 * connection. */
struct slot {
  struct request request;
  struct connection *connection;
  struct list link;                /* in its connection's free, done or sending; or it runs */
  uint64_t cookie, offset;
  uint16_t command, flags;         /* as the client sent them */
  struct nbd_failure failure;      /* error NBD_SUCCESS: none */
  bool is_in_engine;               /* request_init was called: needs request_release */
  uint64_t length;                 /* READ, WRITE: of all of it */
  uint32_t lent;                   /* frames; 0: it goes in pieces */
  uint64_t at;                     /* of it: where what the engine has begins, all or a piece */
  uint8_t *copy;                   /* READ: the data of the piece, whose frames are given back */
  uint32_t copy_bytes;             /* counted in connection->copy_bytes */
  bool is_hole;                    /* so is the piece */
  uint64_t read_bytes;             /* counted in connection->read_bytes */
  uint64_t sent;                   /* READ: bytes whose reply has been composed */
  uint64_t chunk_end;              /* READ: where the chunk that is being composed ends */
  bool is_open;                    /* READ: that chunk was not said to be the last one */
  uint64_t changes_before;         /* FLUSH: connection->changes_done when it came */
  unsigned contexts;               /* BLOCK_STATUS: to be answered */
  struct status_extent one_extent[CONTEXT_COUNT];
  struct status_extent *extents;   /* STATUS_EXTENTS_MAX for each of the connection's contexts, if
                                      more than one is wanted; counted in connection->statuses */
};

/* Replies on their way: what one sendmsg takes.  The slots in connection->sending are released
 * when all of it is sent. */
struct output {
  struct iovec segments[OUTPUT_SEGMENTS];
  unsigned first, count;           /* those not sent yet: [first, count) */
  uint8_t headers[OUTPUT_SEGMENTS][48];
  unsigned header_count;
};

/* One for a new request; NULL if all are in use or there is no memory. */
struct slot *slot_get (struct connection *connection);
/* The answer is known: the reply will be sent in this turn of the loop. */
void slot_finish (struct slot *slot);
/* Back to the free ones, with all that it holds of the engine. */
void slot_release (struct slot *slot);

/* READ, the engine is done with it, or a piece of it: copies the data, and lets its frames go. */
void slot_copy_piece (struct slot *slot);

/* Sends replies until there are none left, or connection->unfinished, 0; or the socket is full,
 * -EAGAIN; or negative errno. */
int reply_send (struct connection *connection);
/* Releases all requests that are done, sent or not. */
void reply_drop (struct connection *connection);
/* Nothing may be in the engine. */
void reply_free (struct connection *connection);

/* --- resize.c: RESIZE --- */

/* Whether the connection's disk may get this size. */
enum nbd_cause resize_judge (const struct connection *connection, uint64_t size);
/* slot_finish follows. */
void resize_start (struct slot *slot, uint64_t size);

/* --- judge.c: a request as it came, and what is wrong with it --- */

#define NO_HOLE_MAX (UINT64_C (1) << 40)   /* WRITE_ZEROES that takes space, in one request */

/* What the commands of the protocol are to the engine. */
struct command_info {
  enum request_kind kind;
  uint16_t flags;                  /* allowed ones */
  bool is_change;
};
extern const struct command_info command_infos[NBD_CMD_COUNT];

struct arrived {
  uint16_t command, flags;
  uint64_t cookie, offset, length; /* LENGTH: of the range */
  uint64_t payload;                /* bytes that follow, but for those in BYTES */
  uint32_t bytes;                  /* that were decoded */
  unsigned contexts;               /* BLOCK_STATUS: to be answered */
  bool has_bad_filter;             /* BLOCK_STATUS: its payload does not name contexts */
};

size_t request_header_bytes (const struct connection *connection);
/* 0; -EAGAIN: not all of it is there; -EPROTO: this is no request. */
int request_decode (const struct connection *connection, const uint8_t *data, size_t available,
                    struct arrived *arrived);
/* Everything that can be wrong with a request before it is started. */
struct nbd_failure request_judge (const struct connection *connection,
                                  const struct arrived *arrived);
/* What it is to the client that the engine could not do it: the disk may have shrunk under it. */
struct nbd_failure request_failure (const struct slot *slot);
unsigned request_engine_flags (uint16_t command, uint16_t flags);   /* as the client sent them */

/* --- rest.c: what a client that has gone has left behind in its socket --- */

/* Whether the client, which sends nothing more or takes nothing more, has said goodbye in what was
 * not looked at yet: then all that it asked for before is to be done (proto.md, NBD_CMD_DISC). */
bool rest_has_goodbye (struct connection *connection);
/* From that, while connection->rest_at is before its end; as transport's. */
ssize_t rest_receive (struct connection *connection, const struct iovec *segments, unsigned count);

/* --- transmit.c: requests in --- */

#define PAYLOAD_SKIP_MAX (64 * MIB)   /* a longer WRITE ends the connection */

/* Reads from the socket and starts what came.  0, or negative errno if the connection is dead;
 * end of stream and NBD_CMD_DISC set connection->is_ended. */
int transmit_receive (struct connection *connection);

/* Goes on with what is in the input already, after something it waited for has come. */
int transmit_resume (struct connection *connection);

/* Makes the connection's writes durable before it goes; `connection_changed` follows.  False:
 * nothing to do. */
bool transmit_start_sync (struct connection *connection);

/* Has the engine read the next piece of connection->unfinished. */
void transmit_fetch (struct connection *connection);

/* Releases the request whose payload was being received, unless the engine has it. */
void transmit_drop_incoming (struct connection *connection);

/* --- connection.c: a client from accept to the end --- */

#define STALL_SECONDS 120          /* without progress, while replies or a payload hold memory */
#define STOP_SECONDS 10            /* for replies to be taken when the server ends */
#define INPUT_BYTES (144 * 1024)   /* a batch of 32 WRITEs of 4 KiB, in one recv */
#define CONNECTION_BYTES_MIN INPUT_BYTES

enum connection_state {
  CONNECTION_HANDSHAKE,
  CONNECTION_TRANSMISSION,
  CONNECTION_DRAINING,             /* reads no more; requests end, replies are sent */
  CONNECTION_DEAD,                 /* the socket is closed; requests that were started end */
  CONNECTION_SYNCING,              /* nothing runs but the FLUSH that makes all durable */
};

enum connection_security {
  SECURITY_NONE,
  SECURITY_AGREED,                 /* the answer to STARTTLS is being sent */
  SECURITY_HANDSHAKE,
  SECURITY_TLS,
};

struct connection {
  struct worker *worker;
  struct list link;                /* in worker->connections */
  struct list changed_link;        /* in worker->changed: connection_advance is wanted */
  enum connection_state state;
  enum connection_security security;
  struct identity identity;
  struct transport transport;
  ev_io read_watcher, write_watcher;
  double since;                    /* when it began, or began to stop: for the deadlines */
  double progress_at;              /* something was sent or received */

  /* Input: bytes received and not yet used, [input_start, input_end). */
  uint8_t input[INPUT_BYTES];
  uint32_t input_start, input_end;

  /* Handshake. */
  struct negotiation negotiation;
  uint8_t *reply;                  /* to be sent: [reply_sent, reply_length) */
  size_t reply_length, reply_size, reply_sent;

  /* What was negotiated. */
  struct disk *disk;               /* referenced */
  enum access_rights rights;
  unsigned access_version;         /* of the file that gave them */
  uint16_t transmission_flags;
  bool is_structured;              /* replies are chunks; so they are with extended headers */
  bool is_extended;
  unsigned contexts;
  uint64_t size_seen;              /* the largest one that the client was told, or has made */

  /* Transmission. */
  struct list free, done, sending; /* of slots */
  unsigned slot_count;             /* made */
  unsigned in_use;                 /* not free */
  unsigned in_engine;              /* started, or waiting for admission; not yet done */
  uint64_t read_bytes;
  uint32_t copy_bytes;             /* at most PIECE_BYTES */
  unsigned statuses;
  struct slot *unfinished;         /* a READ in pieces: the next one is to be read, and nothing else
                                      to be sent before it */
  struct slot *incoming;           /* a WRITE whose payload is being received */
  uint64_t incoming_bytes;         /* of it, or of the piece, that are there */
  bool waits_for_engine;           /* incoming is not admitted yet, or a piece of it is written */
  uint64_t skip;                   /* payload bytes to throw away; then `incoming` is answered */
  bool is_paused;                  /* too much in flight: input is left where it is */
  double paused_at;
  bool is_ended;                   /* the client sends nothing more */
  bool is_stopping;                /* the server ends: new requests get ESHUTDOWN */
  uint64_t number;                 /* of those that chose a disk, in the order in which they did */
  bool is_fenced;
  bool has_goodbye;                /* see rest_has_goodbye */
  bool is_mute;                    /* its client takes no replies: there are none any more */
  uint8_t *rest;                   /* all that has come, once a goodbye was looked for: */
  size_t rest_at, rest_length;     /* what is not in the input yet */
  bool is_broken;                  /* a reply was begun that cannot be ended */
  struct fence *fence;             /* it waits for what others have left behind */
  bool is_watched;                 /* by worker->hangups */
  struct list gone_link;           /* in worker->gone */
  uint64_t changes_done, changes_durable;   /* counts of requests that change the disk */
  struct read_stream stream;
  struct output output;
};

/* Takes over the descriptors; says hello.  False (closed) if there is no memory or are too many. */
bool connection_create (struct worker *worker, int receive_fd, int send_fd);
/* It has chosen its disk, and is on the worker that it stays on. */
void connection_begin (struct connection *connection);
/* Something happened that connection_advance must look at: it will be called in this turn of the
 * loop. */
void connection_changed (struct connection *connection);
/* Sends, resumes, ends, frees: whatever is due.  Called by the worker only. */
void connection_advance (struct connection *connection);
/* Takes what has come; connection_changed, which is the caller's, has the rest done. */
void connection_receive (struct connection *connection);
/* Whether nothing but its client can bring the connection on; and whether that has happened, as the
 * loop would tell. */
bool connection_waits_for_client (const struct connection *connection);
bool connection_is_ready (const struct connection *connection);
/* The server ends. */
void connection_stop (struct connection *connection);
/* Deadlines; about once a second. */
void connection_tick (struct connection *connection, double now);

/* Its peer has gone, and somebody waits for what it has left behind: what has not been started is
 * not any more, unless it has said goodbye. */
void connection_fence (struct connection *connection);

/* --- fence.c: what a client has left behind on a connection that failed --- */

/* Whether its peer goes is noticed from now on. */
void fence_watch (struct connection *connection);
/* Its socket is about to be closed.  IS_DEAD: with requests that are not done. */
void fence_unwatch (struct connection *connection, bool is_dead);
/* The connection has its disk now, and must not read requests while connection->fence is set.
 * connection_changed follows when it is not any more.  0 or -ENOMEM. */
int fence_start (struct connection *connection);
/* It ends before that. */
void fence_forget (struct connection *connection);

/* A worker has mail. */
void fence_receive (struct worker *worker);
/* Something may have ended; before the worker sleeps. */
void fence_advance (struct worker *worker);
/* All workers have ended. */
void fence_drop_orders (struct worker *worker);

/* --- worker.c: threads, their loops, their contexts --- */

struct worker_counters {
  _Atomic uint64_t connections;    /* accepted */
  _Atomic uint64_t requests;
  _Atomic uint64_t received_bytes, sent_bytes;   /* payload */
};

/* A worker; or the reception, which has no context, and no fences. */
struct worker {
  struct server *server;
  pthread_t thread;                /* but for worker 0 */
  int start_error;                 /* negative errno; valid once `started` was posted */
  sem_t started;
  struct ev_loop *loop;
  struct context *context;
  ev_io context_watcher;
  ev_prepare prepare;              /* runs the engine and sends replies, before the loop sleeps */
  ev_idle idle;                    /* active while the engine has more to do */
  ev_async mail;                   /* look at what is below, and server->is_stopping */
  ev_timer tick;                   /* active while there are connections */
  struct list connections, changed;
  unsigned sleeps, sleeps_left;    /* without staying awake before: at first, and from now on */
  bool is_stopping;
  bool is_last;                    /* nobody comes any more from the reception */
  _Atomic unsigned question, answered;   /* whether it is alive */
  double complained_at;            /* about a client; once a second is enough */
  int64_t lend_stock;              /* lend.c's */
  struct list fences;              /* orders that are being carried out */
  struct list gone;                /* connections whose peers have gone, as far as was looked */
  int hangups;                     /* an epoll descriptor: tells whose peers go */
  struct worker_counters counters;

  pthread_mutex_t mutex;           /* leaf; protects: */
  struct list arrivals;            /* connections from the reception */
  struct list orders, fences_done; /* fence.c's */
};

/* Makes all workers and the reception, and starts the threads of all but worker 0 and the reception.
 * 0, or negative errno: then those that were started still need workers_stop, workers_run and
 * workers_free. */
int workers_start (struct server *server);
/* Starts the reception; listen_start was called.  0 or negative errno. */
int workers_receive (struct server *server);
/* Runs worker 0 on the calling thread; returns when all of them have ended, after workers_stop. */
void workers_run (struct server *server);
void workers_free (struct server *server);

/* All workers end as soon as nothing is in flight; once. */
void workers_stop (struct server *server);

/* A newcomer, at the reception. */
void workers_take (struct server *server, int fd);
/* It has chosen its disk: from the reception it goes to one of the workers, in turn, and is not the
 * caller's any more. */
void workers_hand_over (struct connection *connection);
/* --single: worker 0 serves this one, from its handshake on; all ends with it. */
bool workers_take_single (struct server *server, int receive_fd, int send_fd);

/* Whether all have answered what they were asked last: they are alive. */
bool workers_are_alive (struct server *server);
void workers_ask (struct server *server);

/* Worker 0's stay until workers_free: control.c runs on them, longer than the worker does. */
struct ev_loop *server_worker_loop (struct server *server, unsigned index);
struct context *server_worker_context (struct server *server, unsigned index);

struct server_counters {
  uint64_t connections_now, connections, requests, received_bytes, sent_bytes;
};
/* Adds to a worker's own counter; its thread only. */
void worker_count (_Atomic uint64_t *counter, uint64_t n);
/* Any thread. */
void server_get_counters (struct server *server, struct server_counters *counters);

/* --- confine.c: what the process gives up --- */

/* Becomes this user, for good.  0, or negative errno after a message. */
int confine_user (const char *name);
/* No thread can start programs or change the system any more.  0 or negative errno. */
int confine_calls (void);

/* --- options.c: the command line of `lacuna serve` --- */

struct serve_options {
  const char *store;
  const char *unix_path;           /* -U */
  const char *address, *port;      /* -i, -p; NULL: not given */
  bool is_single;
  bool is_vsock;
  const char *export;              /* -e; NULL: the only disk */
  bool is_read_only;
  bool may_resize;                 /* --resize: clients may */
  const char *pidfile;
  unsigned threads;
  uint64_t cache_bytes;            /* 0: the engine's default */
  const char *arena;
  const char *run;
  enum tls_mode tls;
  const char *tls_certificates;    /* a directory */
  const char *tls_psk;             /* a file */
  bool tls_verify_peer;
  const char *user;                /* NULL: who started us */
  const char *access;              /* a file; NULL: all may use all */
};

/* 0; or the exit status (2 after a message, 0 after --help) with *STOP set. */
int options_parse (int argc, char **argv, struct serve_options *options, bool *stop);

/* --- notify.c: what systemd is told --- */

/* All are on worker 0's thread. */
void notify_ready (struct server *server);
void notify_reloading (void);
void notify_reloaded (void);
void notify_stopping (struct server *server);

/* --- listen.c: listening sockets --- */

#define LISTENERS_MAX 64

struct listener {
  struct server *server;
  int fd;
  ev_io watcher;
  ev_timer retry;                  /* active while no more descriptors are to be had */
  bool is_short;                   /* of descriptors: that was said, and nobody has come in since */
  char *uri;                       /* as clients write it */
  char *unix_path;                 /* to be unlinked at the end; NULL: not ours */
  dev_t device;                    /* of unix_path, so that only our own is unlinked */
  ino_t inode;
};

/* Opens what OPTIONS ask for, and LISTEN_FDS.  0, or negative errno after a message. */
int listen_open (struct server *server);
void listen_start (struct server *server);   /* on the reception's loop, which does not run yet */
/* On the reception's thread, or when that does not run (any more). */
void listen_close (struct server *server);

/* --- serve.c: the whole --- */

struct server {
  struct serve_options options;
  struct store *store;
  struct tls *tls;                 /* NULL: off */
  pthread_rwlock_t access_lock;    /* leaf; protects: */
  struct access *access;           /* if there is options.access; else all may use all */
  _Atomic unsigned access_version; /* how many times it was read again */
  struct worker *workers;
  unsigned worker_count, next_worker;   /* NEXT_WORKER: the reception's */
  struct worker reception;
  bool is_received;                /* its thread was started */
  _Atomic bool has_reception;      /* and runs */
  struct listener listeners[LISTENERS_MAX];
  unsigned listener_count;
  char *temporary_directory;       /* --run without -U */
  char *temporary_path;
  pid_t child;                     /* --run; 0: none (any more) */
  int exit_status;
  bool is_read_only;
  bool has_pidfile;                /* to be removed at the end */
  _Atomic bool is_stopping;
  struct admission admission;
  _Atomic uint64_t disks_chosen;   /* by connections */
  _Atomic int64_t lend_small, lend_large;   /* frames that may still be lent */
  ev_signal on_terminate, on_interrupt, on_child, on_hangup;
  ev_timer notify_timer;           /* with NOTIFY_SOCKET only */
  bool has_watchdog;
  unsigned asked;                  /* how many times all threads were */
  struct control *control;         /* control.h; NULL: there is none */
};

/* `lacuna serve ...`; argv[0] is "serve".  Returns the exit status. */
int serve_main (int argc, char **argv);

/* Begins to end: nothing new is accepted, what is in flight is finished.  Worker 0's thread. */
void server_stop (struct server *server);

#endif
