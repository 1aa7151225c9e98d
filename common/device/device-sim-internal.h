/* SPDX-License-Identifier: BSD-2-Clause */
/* device-sim-internal.h - what the two halves of the simulated device share: device-sim.c has
 * queues, devices and faults, device-sim-image.c what io do to the image, and what a crash leaves
 * of it.
 */
#ifndef LACUNA_DEVICE_SIM_INTERNAL_H
#define LACUNA_DEVICE_SIM_INTERNAL_H

#include <pthread.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/check.h"
#include "device/device-sim.h"

#define SECTOR_SIZE 512
#define SECTORS_PER_BLOCK (BLOCK_SIZE / SECTOR_SIZE)
#define CHUNK_BLOCKS 64
#define GARBAGE_PAGES 8
#define KINDS (IO_DISCARD + 1)
/* Beyond this many blocks in the log the oldest become durable, as from a disk's
 * cache that is full. */
#define LOG_MAX (UINT64_C (1) << 16)

struct page {
  unsigned references;
  bool is_garbage;              /* what a discard left: takes no space */
  uint64_t hash;                /* of the data; 0: not known.  A page in use never changes */
  uint8_t data[BLOCK_SIZE];
};

/* NULL is a block of zeros that takes no space. */
struct chunk {
  uint64_t number;              /* of its first block / CHUNK_BLOCKS */
  struct page *current[CHUNK_BLOCKS];
  struct page *durable[CHUNK_BLOCKS];
};

struct log_entry {
  uint64_t place;
  uint64_t number;              /* of the io */
  struct page *page;
};

/* An io between submission and completion. */
struct flight {
  struct io *io;                /* not touched once the queue is gone */
  struct sim_queue *queue;      /* NULL: destroyed with this in flight */
  enum io_kind kind;
  bool is_kicked;
  int error;                    /* that it will end with */
  uint64_t place;
  uint64_t length;
  uint64_t number;
  uint64_t log_mark;            /* flush: the end of the log at submission */
  uint64_t device_length;       /* flush: of the device at submission */
  struct page **pages;          /* write: the data */
};

struct fault {
  uint64_t after;               /* so many more succeed; UINT64_MAX: off */
  int error;
  bool forever;
  uint64_t place, length;       /* length 0: off */
  int range_error;
};

struct sim_queue {
  struct queue queue;
  struct list link;             /* in the image's */
  struct list completed;        /* io that poll has to deliver */
  unsigned unkicked;
  bool is_dead;                 /* its device has crashed */
  bool is_signalled;
  int event_fd;
};

struct sim_device {
  struct device device;
  struct sim_image *image;
  struct list link;             /* in the image's `graveyard` */
};

struct sim_image {
  struct sim_options options;
  pthread_mutex_t mutex;        /* taken only if is_threaded */
  uint64_t random;
  bool is_block_device;
  uint64_t length;
  uint64_t durable_length;

  struct chunk **chunks;        /* open addressing, by number */
  uint64_t chunk_slots;         /* power of 2 */
  uint64_t chunk_count;
  struct page *garbage[GARBAGE_PAGES];

  struct log_entry *log;        /* ring; positions only grow */
  uint64_t log_slots;           /* power of 2 */
  uint64_t log_first;
  uint64_t log_end;

  struct flight *flights;       /* in order of submission */
  unsigned flight_count;
  unsigned flight_max;
  unsigned unkicked;            /* of them */

  struct sim_device *device;    /* the live one */
  struct list queues;           /* of the live one and of crashed ones */
  struct list graveyard;        /* crashed devices that nobody has closed yet */

  struct fault faults[KINDS];
  uint64_t submitted;           /* io ever */
  uint64_t stop_at;             /* value of `submitted`; UINT64_MAX: off */
  bool is_stopped;
  uint64_t host_capacity;       /* blocks; UINT64_MAX: no limit */
  struct sim_counts counts;
  void (*trace) (void *arg, const struct io *io, bool is_completion);
  void *trace_arg;
};

/* The segments of an io, block by block. */
struct walk {
  const struct iovec *segment;
  size_t offset;
};

/* --- small services --- */

static inline void *
sim_allocate (size_t count, size_t size)
{
  void *memory = calloc (count, size);

  CHECK (memory);
  return memory;
}

static inline void
sim_lock (struct sim_image *image)
{
  if (image->options.is_threaded)
    pthread_mutex_lock (&image->mutex);
}

static inline void
sim_unlock (struct sim_image *image)
{
  if (image->options.is_threaded)
    pthread_mutex_unlock (&image->mutex);
}

/* splitmix64 */
static inline uint64_t
sim_draw (struct sim_image *image)
{
  uint64_t z = image->random += UINT64_C (0x9e3779b97f4a7c15);

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static inline uint64_t
sim_draw_below (struct sim_image *image, uint64_t limit)
{
  return sim_draw (image) % limit;
}

/* --- device-sim-image.c --- */

struct page *sim_page_create (const void *data);
struct page *sim_page_get (struct page *page);
struct page *sim_current_page (struct sim_image *image, uint64_t place);
void sim_current_set (struct sim_image *image, uint64_t place, struct page *page);
void sim_durable_set (struct sim_image *image, uint64_t place, struct page *page);
uint8_t *sim_walk_next (struct walk *walk);
uint64_t sim_host_free (struct sim_image *image);
void sim_flight_complete (struct sim_image *image, unsigned at);

/* --- device-sim.c --- */

void sim_destroy_queue (struct queue *q);
void sim_close_device (struct device *d);

#endif
