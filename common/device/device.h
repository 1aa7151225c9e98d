/* SPDX-License-Identifier: BSD-2-Clause */
/* device.h - the file or block device that a store lies in.
 *
 * A device does block-aligned reads and writes, flushes, and discards (a hole
 * punch on a file, BLKDISCARD on a block device).  It knows nothing of what
 * they mean.  Two implementations: io_uring (device-uring.c) and the simulated
 * one of the tests (device-sim.c); nothing above knows which one it has.
 *
 * I/O goes through a queue.  Each context has one, used by its thread only.
 * The caller owns the struct io and its memory until its `done` is called, and
 * `done` is called from queue_poll or queue_wait only, never within io_submit:
 * a completion never runs inside a submit.  Errors are negative errno in
 * io->error; a transfer is whole or it failed (short ones are continued inside).
 *
 * Reads of blocks that were never written, or were discarded, give zeros on a
 * file.  On a block device what a discard leaves is undefined, and nothing
 * above relies on it.
 */
#ifndef LACUNA_DEVICE_H
#define LACUNA_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/list.h"

struct device;
struct queue;

enum io_kind {
  IO_READ,
  IO_WRITE,
  IO_FLUSH,    /* all writes completed before its submission are durable after */
  IO_DISCARD,  /* give the space back to the host; content undefined after */
};

/* At most this many segments in one io, and this many bytes. */
#define IO_SEGMENTS_MAX 1024
#define IO_BYTES_MAX (4 * MIB)

struct io {
  /* Set by the caller. */
  enum io_kind kind;
  uint64_t place;           /* first block on the device */
  uint64_t length;          /* blocks; 0 for a flush */
  const struct iovec *segments;  /* 4096-aligned, lengths multiples of 4096, sum = length;
                                    stays valid until done */
  unsigned segment_count;
  void (*done) (struct io *io);

  /* Set by the device. */
  int error;                /* 0 or negative errno */

  /* The device's own. */
  struct list link;
  struct queue *queue;
  uint64_t transferred;     /* bytes, while short transfers are continued */
  struct iovec *rest;       /* segments that remain after a short transfer */
  uint64_t number;          /* order of submission, for the simulator */
};

/* What is known of a device.  Sizes in blocks of 4096 bytes. */
struct device_info {
  bool is_block_device;
  bool is_direct;           /* O_DIRECT; else buffered */
  bool can_discard;
  bool is_read_only;
  uint64_t length;          /* current blocks */
  uint64_t length_max;      /* a file may grow to this; a block device: length */
  uint64_t allocated;       /* bytes that the host has given to the file; device: its size */
};

/* Operations; NULL-free.  device-uring.c and device-sim.c fill it. */
struct device_class {
  void (*close) (struct device *);
  void (*get_info) (struct device *, struct device_info *);
  int (*grow) (struct device *, uint64_t length);
  uint64_t (*host_free) (struct device *);
  struct queue *(*queue_create) (struct device *);
  void (*queue_destroy) (struct queue *);
  void (*submit) (struct queue *, struct io *);
  void (*kick) (struct queue *);
  unsigned (*poll) (struct queue *);
  void (*wait) (struct queue *);
  int (*queue_fd) (struct queue *);
};

/* First members of the implementations' own structures. */
struct device {
  const struct device_class *class;
  bool is_stepped;          /* the simulated one: nothing completes but by queue_wait or by its
                               driver; there is no file descriptor to wait on */
  int memory_fd;            /* device_keep_memory */
};
struct queue {
  struct device *device;
  unsigned in_flight;       /* submitted, not yet done */
};

/* Opens PATH with the io_uring device and takes its lock (flock on the open
 * file; for a block device O_EXCL too).  Waits up to LOCK_WAIT_MS for the lock:
 * a process that was killed keeps it while the kernel still does its I/O, which
 * is the fence against late writes.  Nothing is read before the lock is held.
 * With CREATE a regular file is made if none exists (O_EXCL: -EEXIST if one does).
 * Returns 0, or negative errno: -EWOULDBLOCK if another opener has it, -ENOENT,
 * -EACCES, -EROFS, -EINVAL if it is neither a file nor a block device. */
enum device_open_flags { DEVICE_READ_ONLY = 1, DEVICE_CREATE = 2 };
int device_open (const char *path, unsigned flags, unsigned lock_wait_ms,
                 struct device **device);

static inline void device_close (struct device *d) { d->class->close (d); }
static inline void device_get_info (struct device *d, struct device_info *i)
{ d->class->get_info (d, i); }

/* Makes a file at least LENGTH blocks long (sparse).  May block briefly.  Any
 * thread.  0 or negative errno (-EFBIG, -ENOSPC). */
static inline int device_grow (struct device *d, uint64_t length)
{ return d->class->grow (d, length); }

/* Bytes that the host's file system could still give; UINT64_MAX: not limited. */
static inline uint64_t device_host_free (struct device *d)
{ return d->class->host_free (d); }

/* FD is a file whose pages I/O will read and fill, by way of a mapping.  Queues that are created
 * from now on have it open, too, until their last I/O has ended, were it long after the process:
 * a lock on it then says that nobody touches these pages any more.  What I/O has mapped says
 * nothing: the kernel holds the pages, not the file. */
static inline void device_keep_memory (struct device *d, int fd) { d->memory_fd = fd; }

static inline struct queue *queue_create (struct device *d)
{ return d->class->queue_create (d); }
/* No I/O may be in flight. */
static inline void queue_destroy (struct queue *q) { q->device->class->queue_destroy (q); }

/* Queues IO; it starts at the next queue_kick at the latest.  Never fails: what
 * goes wrong is told in io->error by `done`. */
static inline void io_submit (struct queue *q, struct io *io)
{ q->device->class->submit (q, io); }
/* Hands what was submitted to the kernel: one system call for all of it. */
static inline void queue_kick (struct queue *q) { q->device->class->kick (q); }
/* Calls `done` of what has completed; how many.  Does not wait. */
static inline unsigned queue_poll (struct queue *q) { return q->device->class->poll (q); }
/* Kicks, then waits until at least one completes, and calls `done`.  Something
 * must be in flight. */
static inline void queue_wait (struct queue *q) { q->device->class->wait (q); }
/* Readable when there is something to poll.  For poll and epoll only: nobody reads it. */
static inline int queue_fd (struct queue *q) { return q->device->class->queue_fd (q); }

#endif
