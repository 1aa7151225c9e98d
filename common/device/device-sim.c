/* SPDX-License-Identifier: BSD-2-Clause */
/* device-sim.c - see device-sim.h.
 *
 * Every block has two pages: `current`, what reads see, and `durable`, what a
 * power cut falls back to.  Between them lies the log: what has completed and
 * is not flushed, block by block, in the order of completion.  A completed flush
 * moves the log up to where it was at the submission of the flush into `durable`;
 * a power cut moves of each io in it nothing, all, or some sectors.  Pages are
 * shared by reference: a write makes one copy, whatever becomes of it.
 *
 * The data of a write is copied when it is submitted, so that a crash needs
 * nothing of the memory of a store that has been abandoned before; and compared
 * when it completes: whoever modifies a block under I/O has a bug.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

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

static void *
allocate (size_t count, size_t size)
{
  void *memory = calloc (count, size);

  CHECK (memory);
  return memory;
}

static void
lock (struct sim_image *image)
{
  if (image->options.is_threaded)
    pthread_mutex_lock (&image->mutex);
}

static void
unlock (struct sim_image *image)
{
  if (image->options.is_threaded)
    pthread_mutex_unlock (&image->mutex);
}

/* splitmix64 */
static uint64_t
draw (struct sim_image *image)
{
  uint64_t z = image->random += UINT64_C (0x9e3779b97f4a7c15);

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static uint64_t
draw_below (struct sim_image *image, uint64_t limit)
{
  return draw (image) % limit;
}

/* --- pages and chunks --- */

static struct page *
page_create (const void *data)
{
  struct page *page = malloc (sizeof *page);

  CHECK (page);
  page->references = 1;
  page->is_garbage = false;
  if (data)
    memcpy (page->data, data, BLOCK_SIZE);
  else
    memset (page->data, 0, BLOCK_SIZE);
  return page;
}

static struct page *
page_get (struct page *page)
{
  if (page)
    page->references++;
  return page;
}

static void
page_put (struct page *page)
{
  if (page && --page->references == 0)
    free (page);
}

/* Whether it takes space at the host. */
static bool
page_is_allocated (const struct page *page)
{
  return page && !page->is_garbage;
}

/* The slot of a chunk, or the empty one where it belongs. */
static struct chunk **
chunk_slot (struct sim_image *image, uint64_t number)
{
  uint64_t mask = image->chunk_slots - 1;
  uint64_t at = (number * UINT64_C (0x9e3779b97f4a7c15)) >> 20 & mask;

  while (image->chunks[at] && image->chunks[at]->number != number)
    at = (at + 1) & mask;
  return &image->chunks[at];
}

static void
chunks_enlarge (struct sim_image *image)
{
  struct chunk **old = image->chunks;
  uint64_t old_slots = image->chunk_slots;

  image->chunk_slots *= 2;
  image->chunks = allocate (image->chunk_slots, sizeof *image->chunks);
  for (uint64_t i = 0; i < old_slots; i++)
    if (old[i])
      *chunk_slot (image, old[i]->number) = old[i];
  free (old);
}

static struct chunk *
chunk_make (struct sim_image *image, uint64_t place)
{
  uint64_t number = place / CHUNK_BLOCKS;
  struct chunk **slot = chunk_slot (image, number);

  if (*slot)
    return *slot;
  if (++image->chunk_count > image->chunk_slots / 2) {
    chunks_enlarge (image);
    slot = chunk_slot (image, number);
  }
  *slot = allocate (1, sizeof **slot);
  (*slot)->number = number;
  return *slot;
}

static struct page *
current_page (struct sim_image *image, uint64_t place)
{
  struct chunk *chunk = *chunk_slot (image, place / CHUNK_BLOCKS);

  return chunk ? chunk->current[place % CHUNK_BLOCKS] : NULL;
}

static struct page *
durable_page (struct sim_image *image, uint64_t place)
{
  struct chunk *chunk = *chunk_slot (image, place / CHUNK_BLOCKS);

  return chunk ? chunk->durable[place % CHUNK_BLOCKS] : NULL;
}

/* Both take over the reference to PAGE. */
static void
current_set (struct sim_image *image, uint64_t place, struct page *page)
{
  struct page **slot = &chunk_make (image, place)->current[place % CHUNK_BLOCKS];

  image->counts.blocks_allocated += page_is_allocated (page);
  image->counts.blocks_allocated -= page_is_allocated (*slot);
  page_put (*slot);
  *slot = page;
}

static void
durable_set (struct sim_image *image, uint64_t place, struct page *page)
{
  struct page **slot = &chunk_make (image, place)->durable[place % CHUNK_BLOCKS];

  page_put (*slot);
  *slot = page;
}

/* --- the log --- */

static struct log_entry *
log_at (struct sim_image *image, uint64_t position)
{
  return &image->log[position & (image->log_slots - 1)];
}

/* A completed flush: all before MARK is durable. */
static void
log_settle (struct sim_image *image, uint64_t mark)
{
  while (image->log_first < mark) {
    struct log_entry *entry = log_at (image, image->log_first++);

    durable_set (image, entry->place, entry->page);
  }
}

static void
log_append (struct sim_image *image, uint64_t place, uint64_t number, struct page *page)
{
  uint64_t used = image->log_end - image->log_first;

  if (used == LOG_MAX)
    log_settle (image, image->log_first + 1);
  else if (used == image->log_slots) {
    struct log_entry *larger = allocate (2 * image->log_slots, sizeof *larger);

    for (uint64_t p = image->log_first; p < image->log_end; p++)
      larger[p & (2 * image->log_slots - 1)] = *log_at (image, p);
    free (image->log);
    image->log = larger;
    image->log_slots *= 2;
  }
  *log_at (image, image->log_end++) = (struct log_entry) { place, number, page };
}

/* A block gets a new content that is not durable yet. */
static void
block_change (struct sim_image *image, uint64_t place, uint64_t number, struct page *page)
{
  current_set (image, place, page_get (page));
  log_append (image, place, number, page_get (page));
}

/* --- what io do --- */

/* How much of an io that is cut off takes effect. */
enum tear_kind { TEAR_NONE, TEAR_WHOLE, TEAR_RANDOM, TEAR_PREFIX, TEAR_SUFFIX };
struct tear {
  enum tear_kind kind;
  uint64_t at;                  /* PREFIX, SUFFIX: sectors from the start of the io */
};

static struct tear
tear_draw (struct sim_image *image, uint64_t length)
{
  static const enum tear_kind kinds[] = {
    TEAR_NONE, TEAR_NONE, TEAR_NONE, TEAR_WHOLE, TEAR_WHOLE, TEAR_WHOLE,
    TEAR_RANDOM, TEAR_RANDOM, TEAR_PREFIX, TEAR_SUFFIX,
  };
  struct tear tear = { .kind = kinds[draw_below (image, ARRAY_COUNT (kinds))] };

  if (tear.kind == TEAR_PREFIX || tear.kind == TEAR_SUFFIX)
    tear.at = draw_below (image, length * SECTORS_PER_BLOCK + 1);
  return tear;
}

/* The sectors, a bit each, of the io's block INDEX that take effect. */
static unsigned
tear_mask (struct sim_image *image, const struct tear *tear, uint64_t index)
{
  unsigned mask = 0;

  switch (tear->kind) {
  case TEAR_NONE:
    return 0;
  case TEAR_WHOLE:
    return 0xff;
  case TEAR_RANDOM:
    return draw (image) & 0xff;
  default:
    for (unsigned s = 0; s < SECTORS_PER_BLOCK; s++)
      if ((index * SECTORS_PER_BLOCK + s < tear->at) == (tear->kind == TEAR_PREFIX))
        mask |= 1u << s;
    return mask;
  }
}

/* A reference to what a block holds when only the sectors of MASK of NEW have
 * come over OLD.  Discards (no page, or garbage) are whole or nothing. */
static struct page *
page_merge (struct page *old, struct page *new, unsigned mask)
{
  struct page *merged;

  if (!page_is_allocated (new))
    return page_get (mask & 1 ? new : old);
  if (mask == 0 || mask == 0xff)
    return page_get (mask ? new : old);
  merged = page_create (old ? old->data : NULL);
  for (unsigned s = 0; s < SECTORS_PER_BLOCK; s++)
    if (mask & 1u << s)
      memcpy (merged->data + s * SECTOR_SIZE, new->data + s * SECTOR_SIZE, SECTOR_SIZE);
  return merged;
}

static void
write_apply (struct sim_image *image, const struct flight *flight, const struct tear *tear)
{
  for (uint64_t i = 0; i < flight->length; i++) {
    uint64_t place = flight->place + i;
    unsigned mask = tear_mask (image, tear, i);
    struct page *page;

    if (mask == 0)
      continue;
    page = page_merge (current_page (image, place), flight->pages[i], mask);
    block_change (image, place, flight->number, page);
    page_put (page);
    image->length = MAX (image->length, place + 1);
  }
}

static void
discard_chunk (struct sim_image *image, const struct flight *flight, struct chunk *chunk,
               const struct tear *tear)
{
  uint64_t start = chunk->number * CHUNK_BLOCKS;
  uint64_t first = MAX (start, flight->place);
  uint64_t end = MIN (start + CHUNK_BLOCKS, flight->place + flight->length);

  for (uint64_t place = first; place < end; place++) {
    struct page *page = NULL;

    /* Where nothing is, nothing needs to be dropped, now or after a power cut. */
    if (!chunk->current[place - start] && !chunk->durable[place - start])
      continue;
    if ((tear_mask (image, tear, place - flight->place) & 1) == 0)
      continue;
    if (draw_below (image, 2))
      page = image->garbage[draw_below (image, GARBAGE_PAGES)];
    block_change (image, place, flight->number, page);
  }
}

/* Costs no more than there are chunks, whatever the length. */
static void
discard_apply (struct sim_image *image, const struct flight *flight, const struct tear *tear)
{
  uint64_t first = flight->place / CHUNK_BLOCKS;
  uint64_t last = (flight->place + flight->length - 1) / CHUNK_BLOCKS;
  struct chunk *chunk;

  if (last - first < image->chunk_slots) {
    for (uint64_t number = first; number <= last; number++)
      if ((chunk = *chunk_slot (image, number)))
        discard_chunk (image, flight, chunk, tear);
    return;
  }
  for (uint64_t i = 0; i < image->chunk_slots; i++)
    if ((chunk = image->chunks[i]) && chunk->number >= first && chunk->number <= last)
      discard_chunk (image, flight, chunk, tear);
}

/* The segments of an io, block by block. */
struct walk {
  const struct iovec *segment;
  size_t offset;
};

static uint8_t *
walk_next (struct walk *walk)
{
  uint8_t *block;

  while (walk->offset == walk->segment->iov_len) {
    walk->segment++;
    walk->offset = 0;
  }
  block = (uint8_t *) walk->segment->iov_base + walk->offset;
  walk->offset += BLOCK_SIZE;
  return block;
}

static void
read_apply (struct sim_image *image, struct io *io)
{
  struct walk walk = { .segment = io->segments };

  for (uint64_t i = 0; i < io->length; i++) {
    struct page *page = current_page (image, io->place + i);
    uint8_t *block = walk_next (&walk);

    if (page)
      memcpy (block, page->data, BLOCK_SIZE);
    else
      memset (block, 0, BLOCK_SIZE);
  }
}

static uint64_t
host_free (struct sim_image *image)
{
  if (image->host_capacity == UINT64_MAX)
    return UINT64_MAX;
  return image->host_capacity - MIN (image->host_capacity, image->counts.blocks_allocated);
}

/* Checks that nobody has changed the memory, and that the host has the space. */
static int
write_check (struct sim_image *image, const struct flight *flight)
{
  struct walk walk = { .segment = flight->io->segments };
  uint64_t fresh = 0;

  for (uint64_t i = 0; i < flight->length; i++) {
    CHECK (memcmp (walk_next (&walk), flight->pages[i]->data, BLOCK_SIZE) == 0);
    fresh += !page_is_allocated (current_page (image, flight->place + i));
  }
  return fresh > host_free (image) ? -ENOSPC : 0;
}

static void
flight_perform (struct sim_image *image, struct flight *flight)
{
  struct tear whole = { .kind = TEAR_WHOLE };

  if (flight->kind == IO_WRITE && flight->error == 0)
    flight->error = write_check (image, flight);
  if (flight->error) {
    /* A write that failed may have reached the device in part. */
    if (flight->kind == IO_WRITE && flight->error == -EIO) {
      struct tear tear = tear_draw (image, flight->length);

      write_apply (image, flight, &tear);
    }
    return;
  }
  switch (flight->kind) {
  case IO_READ:
    read_apply (image, flight->io);
    break;
  case IO_WRITE:
    write_apply (image, flight, &whole);
    break;
  case IO_FLUSH:
    log_settle (image, flight->log_mark);
    image->durable_length = MAX (image->durable_length, flight->device_length);
    break;
  case IO_DISCARD:
    discard_apply (image, flight, &whole);
    break;
  }
}

static void
flight_free (struct flight *flight)
{
  for (uint64_t i = 0; flight->pages && i < flight->length; i++)
    page_put (flight->pages[i]);
  free (flight->pages);
}

static void
flight_complete (struct sim_image *image, unsigned at)
{
  struct flight flight = image->flights[at];

  CHECK (flight.queue && flight.is_kicked);
  memmove (&image->flights[at], &image->flights[at + 1],
           (--image->flight_count - at) * sizeof flight);
  flight_perform (image, &flight);
  flight.io->error = flight.error;
  list_append (&flight.queue->completed, &flight.io->link);
  if (image->trace)
    image->trace (image->trace_arg, flight.io, true);
  flight_free (&flight);
}

/* --- submission --- */

static void
io_check (const struct io *io)
{
  uint64_t bytes = 0;

  CHECK (io->kind == IO_READ || io->kind == IO_WRITE || io->kind == IO_FLUSH
         || io->kind == IO_DISCARD);
  CHECK (io->done);
  CHECK ((io->kind == IO_FLUSH) == (io->length == 0));
  CHECK (io->place + io->length >= io->place);
  if (io->kind != IO_READ && io->kind != IO_WRITE)
    return;
  CHECK (io->segment_count >= 1 && io->segment_count <= IO_SEGMENTS_MAX);
  for (unsigned i = 0; i < io->segment_count; i++) {
    CHECK ((uintptr_t) io->segments[i].iov_base % BLOCK_SIZE == 0);
    CHECK (io->segments[i].iov_len % BLOCK_SIZE == 0);
    bytes += io->segments[i].iov_len;
  }
  CHECK (bytes == io->length * BLOCK_SIZE && bytes <= IO_BYTES_MAX);
}

/* Two changes of one block in flight end in any order: nobody may rely on one. */
static void
overlap_check (struct sim_image *image, const struct io *io)
{
  if (io->kind != IO_WRITE && io->kind != IO_DISCARD)
    return;
  for (unsigned i = 0; i < image->flight_count; i++) {
    const struct flight *other = &image->flights[i];
    bool is_change = other->kind == IO_WRITE || other->kind == IO_DISCARD;
    bool is_overlap = other->place < io->place + io->length
                      && io->place < other->place + other->length;

    CHECK (!is_change || !is_overlap);
  }
}

/* The error that an io is going to end with. */
static int
fault_draw (struct sim_image *image, const struct io *io)
{
  struct fault *fault = &image->faults[io->kind];

  if (image->submitted >= image->stop_at)
    image->is_stopped = true;
  if (image->is_stopped)
    return -ECANCELED;
  if (fault->after == 0) {
    if (!fault->forever)
      fault->after = UINT64_MAX;
    return fault->error;
  }
  if (fault->after != UINT64_MAX)
    fault->after--;
  if (io->place < fault->place + fault->length && fault->place < io->place + io->length)
    return fault->range_error;
  if (io->kind == IO_WRITE && io->place + io->length > image->options.length_max)
    return image->is_block_device ? -ENOSPC : -EFBIG;
  return 0;
}

static void
count_io (struct sim_counts *counts, const struct io *io)
{
  switch (io->kind) {
  case IO_READ:
    counts->reads++;
    counts->blocks_read += io->length;
    break;
  case IO_WRITE:
    counts->writes++;
    counts->blocks_written += io->length;
    break;
  case IO_FLUSH:
    counts->flushes++;
    break;
  case IO_DISCARD:
    counts->discards++;
    counts->blocks_discarded += io->length;
    break;
  }
}

static struct page **
data_copy (const struct io *io)
{
  struct page **pages = allocate (io->length, sizeof *pages);
  struct walk walk = { .segment = io->segments };

  for (uint64_t i = 0; i < io->length; i++)
    pages[i] = page_create (walk_next (&walk));
  return pages;
}

static struct sim_queue *
sim_queue (struct queue *q)
{
  return container_of (q, struct sim_queue, queue);
}

static struct sim_image *
queue_image (struct queue *q)
{
  return container_of (q->device, struct sim_device, device)->image;
}

static void
flight_create (struct sim_image *image, struct sim_queue *queue, struct io *io)
{
  if (image->flight_count == image->flight_max) {
    image->flight_max = MAX (64, 2 * image->flight_max);
    image->flights = realloc (image->flights, image->flight_max * sizeof *image->flights);
    CHECK (image->flights);
  }
  image->flights[image->flight_count++] = (struct flight) {
    .io = io,
    .queue = queue,
    .kind = io->kind,
    .error = fault_draw (image, io),
    .place = io->place,
    .length = io->length,
    .number = io->number,
    .log_mark = image->log_end,
    .device_length = image->length,
    .pages = io->kind == IO_WRITE ? data_copy (io) : NULL,
  };
  queue->unkicked++;
  image->unkicked++;
}

static void
submit_kick (struct queue *q)
{
  struct sim_image *image = queue_image (q);
  struct sim_queue *queue = sim_queue (q);

  for (unsigned i = image->flight_count; i > 0 && queue->unkicked > 0; i--) {
    struct flight *flight = &image->flights[i - 1];

    if (flight->queue != queue || flight->is_kicked)
      continue;
    flight->is_kicked = true;
    queue->unkicked--;
    image->unkicked--;
  }
}

static void
submit (struct queue *q, struct io *io)
{
  struct sim_image *image = queue_image (q);
  struct sim_queue *queue = sim_queue (q);
  bool is_signal_due = false;

  CHECK (!queue->is_dead);
  io_check (io);
  lock (image);
  overlap_check (image, io);
  io->queue = q;
  io->error = 0;
  io->number = image->submitted;
  q->in_flight++;
  count_io (&image->counts, io);
  if (image->trace)
    image->trace (image->trace_arg, io, false);
  flight_create (image, queue, io);
  image->submitted++;
  if (image->options.is_threaded) {
    submit_kick (q);
    flight_complete (image, image->flight_count - 1);
    is_signal_due = !queue->is_signalled;
  }
  unlock (image);
  if (is_signal_due) {
    queue->is_signalled = true;
    CHECK (eventfd_write (queue->event_fd, 1) == 0);
  }
}

static void
kick (struct queue *q)
{
  struct sim_image *image = queue_image (q);

  lock (image);
  submit_kick (q);
  unlock (image);
}

static unsigned
poll (struct queue *q)
{
  struct sim_queue *queue = sim_queue (q);
  struct list completed = LIST_INIT (completed);
  struct list *link;
  unsigned count = 0;

  if (queue->is_signalled) {
    eventfd_t value;

    CHECK (eventfd_read (queue->event_fd, &value) == 0);
    queue->is_signalled = false;
  }
  /* What `done` submits may complete at once (is_threaded): not in this turn. */
  list_splice (&completed, &queue->completed);
  while ((link = list_take (&completed))) {
    struct io *io = container_of (link, struct io, link);

    q->in_flight--;
    count++;
    io->done (io);
  }
  return count;
}

static void
wait (struct queue *q)
{
  struct sim_image *image = queue_image (q);
  struct sim_queue *queue = sim_queue (q);

  CHECK (q->in_flight > 0);
  kick (q);
  if (list_is_empty (&queue->completed)) {
    uint64_t choice = draw_below (image, q->in_flight);
    unsigned at = 0;

    for (;; at++) {
      CHECK (at < image->flight_count);
      if (image->flights[at].queue == queue && choice-- == 0)
        break;
    }
    flight_complete (image, at);
  }
  poll (q);
}

static int
event_fd (struct queue *q)
{
  return sim_queue (q)->event_fd;
}

static struct queue *
create_queue (struct device *d)
{
  struct sim_device *device = container_of (d, struct sim_device, device);
  struct sim_queue *queue = allocate (1, sizeof *queue);

  queue->queue.device = d;
  list_init (&queue->completed);
  queue->event_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (queue->event_fd < 0) {
    free (queue);
    return NULL;
  }
  lock (device->image);
  list_append (&device->image->queues, &queue->link);
  unlock (device->image);
  return &queue->queue;
}

/* With I/O in flight: for a store that is abandoned; a crash must follow. */
static void
destroy_queue (struct queue *q)
{
  struct sim_image *image = queue_image (q);
  struct sim_queue *queue = sim_queue (q);

  lock (image);
  submit_kick (q);
  for (unsigned i = 0; i < image->flight_count; i++)
    if (image->flights[i].queue == queue)
      image->flights[i].queue = NULL;
  list_remove (&queue->link);
  unlock (image);
  if (queue->event_fd >= 0)
    close (queue->event_fd);
  free (queue);
}

/* --- the device --- */

static void
close_device (struct device *d)
{
  struct sim_device *device = container_of (d, struct sim_device, device);

  if (device->image->device == device)
    device->image->device = NULL;
  list_remove (&device->link);
  free (device);
}

static void
get_info (struct device *d, struct device_info *info)
{
  struct sim_image *image = container_of (d, struct sim_device, device)->image;

  lock (image);
  *info = (struct device_info) {
    .is_block_device = image->is_block_device,
    .is_direct = true,
    .can_discard = true,
    .length = image->length,
    .length_max = image->options.length_max,
    .allocated = (image->is_block_device ? image->length : image->counts.blocks_allocated)
                 * BLOCK_SIZE,
  };
  unlock (image);
}

static int
grow (struct device *d, uint64_t length)
{
  struct sim_image *image = container_of (d, struct sim_device, device)->image;
  int error = 0;

  lock (image);
  if (length > image->length) {
    if (image->is_stopped)
      error = -ECANCELED;
    else if (length > image->options.length_max)
      error = image->is_block_device ? -ENOSPC : -EFBIG;
    else if (host_free (image) == 0)
      error = -ENOSPC;
    else
      image->length = length;
  }
  unlock (image);
  return error;
}

static uint64_t
get_host_free (struct device *d)
{
  struct sim_image *image = container_of (d, struct sim_device, device)->image;
  uint64_t blocks;

  lock (image);
  blocks = host_free (image);
  unlock (image);
  return blocks == UINT64_MAX || image->is_block_device ? UINT64_MAX : blocks * BLOCK_SIZE;
}

static const struct device_class sim_class = {
  .close = close_device,
  .get_info = get_info,
  .grow = grow,
  .host_free = get_host_free,
  .queue_create = create_queue,
  .queue_destroy = destroy_queue,
  .submit = submit,
  .kick = kick,
  .poll = poll,
  .wait = wait,
  .queue_fd = event_fd,
};

/* --- the image --- */

struct sim_image *
sim_image_create (const struct sim_options *options)
{
  struct sim_image *image = allocate (1, sizeof *image);

  CHECK (options->length <= options->length_max);
  image->options = *options;
  image->random = options->seed;
  image->is_block_device = options->length == options->length_max;
  image->length = image->durable_length = options->length;
  CHECK (pthread_mutex_init (&image->mutex, NULL) == 0);
  image->chunk_slots = 64;
  image->chunks = allocate (image->chunk_slots, sizeof *image->chunks);
  image->log_slots = 64;
  image->log = allocate (image->log_slots, sizeof *image->log);
  list_init (&image->queues);
  list_init (&image->graveyard);
  for (unsigned i = 0; i < GARBAGE_PAGES; i++) {
    image->garbage[i] = page_create (NULL);
    image->garbage[i]->is_garbage = true;
    for (unsigned at = 0; at < BLOCK_SIZE; at += 8) {
      uint64_t word = draw (image);

      memcpy (image->garbage[i]->data + at, &word, 8);
    }
  }
  sim_heal (image);
  return image;
}

/* What is in flight, without those who wait for it: only sim_crash can be next. */
static void
flights_clone (struct sim_image *clone, const struct sim_image *image)
{
  clone->flights = allocate (image->flight_count + 1, sizeof *clone->flights);
  clone->flight_max = image->flight_count + 1;
  for (unsigned i = 0; i < image->flight_count; i++) {
    struct flight *flight = &clone->flights[i];

    *flight = image->flights[i];
    flight->io = NULL;
    flight->queue = NULL;
    if (!flight->pages)
      continue;
    flight->pages = allocate (flight->length, sizeof *flight->pages);
    for (uint64_t b = 0; b < flight->length; b++)
      flight->pages[b] = page_get (image->flights[i].pages[b]);
  }
}

struct sim_image *
sim_image_clone (struct sim_image *image, uint64_t seed)
{
  struct sim_image *clone = allocate (1, sizeof *clone);

  CHECK (!image->options.is_threaded);
  *clone = *image;
  clone->random = seed;
  CHECK (pthread_mutex_init (&clone->mutex, NULL) == 0);
  clone->chunks = allocate (clone->chunk_slots, sizeof *clone->chunks);
  for (uint64_t i = 0; i < clone->chunk_slots; i++) {
    if (!image->chunks[i])
      continue;
    clone->chunks[i] = allocate (1, sizeof *clone->chunks[i]);
    *clone->chunks[i] = *image->chunks[i];
    for (unsigned b = 0; b < CHUNK_BLOCKS; b++) {
      page_get (clone->chunks[i]->current[b]);
      page_get (clone->chunks[i]->durable[b]);
    }
  }
  for (unsigned i = 0; i < GARBAGE_PAGES; i++)
    page_get (clone->garbage[i]);
  clone->log = allocate (clone->log_slots, sizeof *clone->log);
  for (uint64_t p = clone->log_first; p < clone->log_end; p++) {
    *log_at (clone, p) = *log_at (image, p);
    page_get (log_at (clone, p)->page);
  }
  flights_clone (clone, image);
  clone->device = NULL;
  list_init (&clone->queues);
  list_init (&clone->graveyard);
  clone->trace = NULL;
  return clone;
}

void
sim_image_destroy (struct sim_image *image)
{
  CHECK (!image->device);
  for (unsigned i = 0; i < image->flight_count; i++)
    flight_free (&image->flights[i]);
  list_for_each_safe (link, &image->queues)
    destroy_queue (&container_of (link, struct sim_queue, link)->queue);
  list_for_each_safe (link, &image->graveyard)
    close_device (&container_of (link, struct sim_device, link)->device);
  for (; image->log_first < image->log_end; image->log_first++)
    page_put (log_at (image, image->log_first)->page);
  for (uint64_t i = 0; i < image->chunk_slots; i++) {
    for (unsigned b = 0; image->chunks[i] && b < CHUNK_BLOCKS; b++) {
      page_put (image->chunks[i]->current[b]);
      page_put (image->chunks[i]->durable[b]);
    }
    free (image->chunks[i]);
  }
  for (unsigned i = 0; i < GARBAGE_PAGES; i++)
    page_put (image->garbage[i]);
  pthread_mutex_destroy (&image->mutex);
  free (image->chunks);
  free (image->log);
  free (image->flights);
  free (image);
}

struct device *
sim_device_create (struct sim_image *image)
{
  struct sim_device *device = allocate (1, sizeof *device);

  /* I/O left by a store that was abandoned: sim_crash decides on it first. */
  CHECK (!image->device && image->flight_count == 0);
  device->device.class = &sim_class;
  device->device.is_stepped = !image->options.is_threaded;
  device->device.is_stepped = !image->options.is_threaded;
  device->image = image;
  list_init (&device->link);
  image->device = device;
  return &device->device;
}

/* --- running --- */

unsigned
sim_in_flight (struct sim_image *image)
{
  return image->flight_count - image->unkicked;
}

/* Index among the kicked ones -> index among all. */
static unsigned
flight_find (struct sim_image *image, unsigned index)
{
  CHECK (index < sim_in_flight (image));
  if (image->unkicked == 0)
    return index;
  for (unsigned at = 0;; at++)
    if (image->flights[at].is_kicked && index-- == 0)
      return at;
}

const struct io *
sim_io (struct sim_image *image, unsigned index)
{
  return image->flights[flight_find (image, index)].io;
}

void
sim_complete (struct sim_image *image, unsigned index)
{
  flight_complete (image, flight_find (image, index));
}

/* --- faults --- */

void
sim_fail (struct sim_image *image, enum io_kind kind, uint64_t n, int error, bool forever)
{
  struct fault *fault = &image->faults[kind];

  CHECK (error < 0);
  lock (image);
  fault->after = n;
  fault->error = error;
  fault->forever = forever;
  unlock (image);
}

void
sim_fail_range (struct sim_image *image, enum io_kind kind, uint64_t place, uint64_t length,
                int error)
{
  struct fault *fault = &image->faults[kind];

  CHECK (error < 0 || length == 0);
  lock (image);
  fault->place = place;
  fault->length = length;
  fault->range_error = error;
  unlock (image);
}

void
sim_heal (struct sim_image *image)
{
  lock (image);
  for (unsigned kind = 0; kind < KINDS; kind++)
    image->faults[kind] = (struct fault) { .after = UINT64_MAX };
  image->stop_at = UINT64_MAX;
  image->is_stopped = false;
  image->host_capacity = UINT64_MAX;
  unlock (image);
}

void
sim_stop_after (struct sim_image *image, uint64_t n)
{
  lock (image);
  image->stop_at = n > UINT64_MAX - image->submitted ? UINT64_MAX : image->submitted + n;
  image->is_stopped = false;
  unlock (image);
}

bool
sim_is_stopped (struct sim_image *image)
{
  bool is_stopped;

  lock (image);
  is_stopped = image->is_stopped;
  unlock (image);
  return is_stopped;
}

void
sim_set_host_free (struct sim_image *image, uint64_t blocks)
{
  uint64_t used;

  lock (image);
  used = image->counts.blocks_allocated;
  image->host_capacity = blocks > UINT64_MAX - used ? UINT64_MAX : blocks + used;
  unlock (image);
}

/* --- crashes --- */

/* What was in flight, whoever waited for it: not done, done, or torn. */
static void
crash_flights (struct sim_image *image)
{
  for (unsigned i = 0; i < image->flight_count; i++) {
    struct flight *flight = &image->flights[i];
    struct tear tear = tear_draw (image, MAX (flight->length, 1));

    if (flight->error == 0 && flight->kind == IO_WRITE)
      write_apply (image, flight, &tear);
    if (flight->error == 0 && flight->kind == IO_DISCARD)
      discard_apply (image, flight, &tear);
    flight_free (flight);
  }
  image->flight_count = image->unkicked = 0;
}

/* What becomes of the log at a power cut: the extremes find what mixtures hide. */
enum power_kind { POWER_ALL_LOST, POWER_ALL_KEPT, POWER_MIXED, POWER_PREFIX, POWER_ONE_LOST,
                  POWER_ONE_KEPT, POWER_KINDS };

struct power {
  enum power_kind kind;
  uint64_t chosen;              /* PREFIX: the first one lost; ONE: that one */
};

static uint64_t
log_count_io (struct sim_image *image)
{
  uint64_t count = 0;

  for (uint64_t p = image->log_first; p < image->log_end; p++)
    count += p == image->log_first
             || log_at (image, p)->number != log_at (image, p - 1)->number;
  return count;
}

/* The fate of the INDEX-th io in the log, which has LENGTH entries. */
static struct tear
power_draw (struct sim_image *image, const struct power *power, uint64_t index, uint64_t length)
{
  struct tear tear = { .kind = TEAR_NONE };

  switch (power->kind) {
  case POWER_ALL_LOST:
    break;
  case POWER_ALL_KEPT:
    tear.kind = TEAR_WHOLE;
    break;
  case POWER_PREFIX:
    if (index < power->chosen)
      tear.kind = TEAR_WHOLE;
    else if (index == power->chosen)
      return tear_draw (image, length);
    break;
  case POWER_ONE_LOST:
    tear.kind = index == power->chosen ? TEAR_NONE : TEAR_WHOLE;
    break;
  case POWER_ONE_KEPT:
    tear.kind = index == power->chosen ? TEAR_WHOLE : TEAR_NONE;
    break;
  default:
    return tear_draw (image, length);
  }
  return tear;
}

/* The entries of one io, from position FIRST on, go into `durable` or are lost; the position
 * after them. */
static uint64_t
power_settle_io (struct sim_image *image, const struct power *power, uint64_t index,
                 uint64_t first)
{
  uint64_t number = log_at (image, first)->number;
  uint64_t end = first;
  struct tear tear;

  while (end < image->log_end && log_at (image, end)->number == number)
    end++;
  tear = power_draw (image, power, index, end - first);
  for (uint64_t p = first; p < end; p++) {
    struct log_entry *entry = log_at (image, p);
    unsigned mask = tear_mask (image, &tear, p - first);
    struct page *old = durable_page (image, entry->place);

    if (mask)
      durable_set (image, entry->place, page_merge (old, entry->page, mask));
  }
  return end;
}

static void
crash_power (struct sim_image *image)
{
  uint64_t io_count = log_count_io (image);
  struct power power = { .kind = draw_below (image, POWER_KINDS) };
  uint64_t index = 0;

  power.chosen = draw_below (image, MAX (io_count, 1));
  for (uint64_t p = image->log_first; p < image->log_end; index++)
    p = power_settle_io (image, &power, index, p);
  /* Growth of a file is metadata, and lasts from the next flush on only. */
  if (power.kind != POWER_ALL_KEPT && draw_below (image, 2))
    image->length = image->durable_length;
  for (; image->log_first < image->log_end; image->log_first++) {
    struct log_entry *entry = log_at (image, image->log_first);
    struct page *durable = durable_page (image, entry->place);

    if (page_is_allocated (durable))
      image->length = MAX (image->length, entry->place + 1);
    current_set (image, entry->place, page_get (durable));
    page_put (entry->page);
  }
  image->durable_length = image->length;
}

void
sim_crash (struct sim_image *image, enum sim_crash_kind kind)
{
  crash_flights (image);
  if (kind == SIM_POWER)
    crash_power (image);
  list_for_each (link, &image->queues) {
    struct sim_queue *queue = container_of (link, struct sim_queue, link);

    queue->is_dead = true;
    queue->unkicked = 0;
    list_init (&queue->completed);
    queue->queue.in_flight = 0;
    if (queue->event_fd >= 0)
      close (queue->event_fd);
    queue->event_fd = -1;
  }
  if (image->device)
    list_append (&image->graveyard, &image->device->link);
  image->device = NULL;
  image->stop_at = UINT64_MAX;
  image->is_stopped = false;
}

/* --- looking --- */

void
sim_peek (struct sim_image *image, uint64_t place, void *block)
{
  struct page *page;

  lock (image);
  page = current_page (image, place);
  if (page)
    memcpy (block, page->data, BLOCK_SIZE);
  else
    memset (block, 0, BLOCK_SIZE);
  unlock (image);
}

void
sim_poke (struct sim_image *image, uint64_t place, const void *block)
{
  struct page *page = page_create (block);

  lock (image);
  current_set (image, place, page_get (page));
  durable_set (image, place, page);
  unlock (image);
}

void
sim_get_counts (struct sim_image *image, struct sim_counts *counts)
{
  lock (image);
  *counts = image->counts;
  unlock (image);
}

void
sim_set_trace (struct sim_image *image,
               void (*trace) (void *arg, const struct io *io, bool is_completion), void *arg)
{
  image->trace = trace;
  image->trace_arg = arg;
}
