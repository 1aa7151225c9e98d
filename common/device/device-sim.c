/* SPDX-License-Identifier: BSD-2-Clause */
/* device-sim.c - queues, devices and faults of the simulated device; see device-sim.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "device/device-sim-internal.h"

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
    image->counts.failed++;
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
  struct page **pages = sim_allocate (io->length, sizeof *pages);
  struct walk walk = { .segment = io->segments };

  for (uint64_t i = 0; i < io->length; i++)
    pages[i] = sim_page_create (sim_walk_next (&walk));
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

/* Those submitted are in flight now. */
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

  CHECK (!sim_queue (q)->is_dead);
  io_check (io);
  sim_lock (image);
  overlap_check (image, io);
  io->queue = q;
  io->error = 0;
  io->number = image->submitted;
  q->in_flight++;
  count_io (&image->counts, io);
  if (image->trace)
    image->trace (image->trace_arg, io, false);
  flight_create (image, sim_queue (q), io);
  image->submitted++;
  sim_unlock (image);
}

/* is_threaded: io are in flight, so there is something to poll, sooner or later. */
static void
signal_owner (struct sim_queue *queue)
{
  if (queue->is_signalled)
    return;
  queue->is_signalled = true;
  CHECK (eventfd_write (queue->event_fd, 1) == 0);
}

static void
kick (struct queue *q)
{
  struct sim_image *image = queue_image (q);

  sim_lock (image);
  submit_kick (q);
  sim_unlock (image);
  if (image->options.is_threaded && q->in_flight > 0)
    signal_owner (sim_queue (q));
}

/* is_threaded: of what is in flight some ends now, in any order, and some later, so that other
 * threads get between. */
static void
complete_some (struct queue *q)
{
  struct sim_image *image = queue_image (q);
  struct sim_queue *queue = sim_queue (q);
  bool is_more = false;

  sim_lock (image);
  for (unsigned at = image->flight_count; at > 0; at--) {
    struct flight *flight = &image->flights[at - 1];

    if (flight->queue != queue || !flight->is_kicked)
      continue;
    if (sim_draw_below (image, 2) == 0)
      sim_flight_complete (image, at - 1);
    else
      is_more = true;
  }
  sim_unlock (image);
  if (is_more)
    signal_owner (queue);
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
  if (queue_image (q)->options.is_threaded && q->in_flight > 0)
    complete_some (q);
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
    uint64_t choice;
    unsigned at = 0;

    sim_lock (image);
    choice = sim_draw_below (image, q->in_flight);
    for (;; at++) {
      CHECK (at < image->flight_count);
      if (image->flights[at].queue == queue && choice-- == 0)
        break;
    }
    sim_flight_complete (image, at);
    sim_unlock (image);
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
  struct sim_queue *queue = sim_allocate (1, sizeof *queue);

  queue->queue.device = d;
  list_init (&queue->completed);
  queue->event_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (queue->event_fd < 0) {
    free (queue);
    return NULL;
  }
  sim_lock (device->image);
  list_append (&device->image->queues, &queue->link);
  sim_unlock (device->image);
  return &queue->queue;
}

/* With I/O in flight: for a store that is abandoned; a crash must follow. */
void
sim_destroy_queue (struct queue *q)
{
  struct sim_image *image = queue_image (q);
  struct sim_queue *queue = sim_queue (q);

  sim_lock (image);
  submit_kick (q);
  for (unsigned i = 0; i < image->flight_count; i++)
    if (image->flights[i].queue == queue)
      image->flights[i].queue = NULL;
  list_remove (&queue->link);
  sim_unlock (image);
  if (queue->event_fd >= 0)
    close (queue->event_fd);
  free (queue);
}

/* --- the device --- */

void
sim_close_device (struct device *d)
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

  sim_lock (image);
  *info = (struct device_info) {
    .is_block_device = image->is_block_device,
    .is_direct = true,
    .can_discard = true,
    .length = image->length,
    .length_max = image->options.length_max,
    .allocated = (image->is_block_device ? image->length : image->counts.blocks_allocated)
                 * BLOCK_SIZE,
  };
  sim_unlock (image);
}

static int
grow (struct device *d, uint64_t length)
{
  struct sim_image *image = container_of (d, struct sim_device, device)->image;
  int error = 0;

  sim_lock (image);
  if (length > image->length) {
    if (image->is_stopped)
      error = -ECANCELED;
    else if (length > image->options.length_max)
      error = image->is_block_device ? -ENOSPC : -EFBIG;
    else if (sim_host_free (image) == 0)
      error = -ENOSPC;
    else
      image->length = length;
  }
  sim_unlock (image);
  return error;
}

static uint64_t
get_host_free (struct device *d)
{
  struct sim_image *image = container_of (d, struct sim_device, device)->image;
  uint64_t blocks;

  sim_lock (image);
  blocks = sim_host_free (image);
  sim_unlock (image);
  return blocks == UINT64_MAX || image->is_block_device ? UINT64_MAX : blocks * BLOCK_SIZE;
}

static const struct device_class sim_class = {
  .close = sim_close_device,
  .get_info = get_info,
  .grow = grow,
  .host_free = get_host_free,
  .queue_create = create_queue,
  .queue_destroy = sim_destroy_queue,
  .submit = submit,
  .kick = kick,
  .poll = poll,
  .wait = wait,
  .queue_fd = event_fd,
};

struct device *
sim_device_create (struct sim_image *image)
{
  struct sim_device *device = sim_allocate (1, sizeof *device);

  /* I/O left by a store that was abandoned: sim_crash decides on it first. */
  CHECK (!image->device && image->flight_count == 0);
  device->device.class = &sim_class;
  device->device.memory_fd = -1;
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
  sim_flight_complete (image, flight_find (image, index));
}

/* --- faults --- */

void
sim_fail (struct sim_image *image, enum io_kind kind, uint64_t n, int error, bool forever)
{
  struct fault *fault = &image->faults[kind];

  CHECK (error < 0);
  sim_lock (image);
  fault->after = n;
  fault->error = error;
  fault->forever = forever;
  sim_unlock (image);
}

void
sim_fail_range (struct sim_image *image, enum io_kind kind, uint64_t place, uint64_t length,
                int error)
{
  struct fault *fault = &image->faults[kind];

  CHECK (error < 0 || length == 0);
  sim_lock (image);
  fault->place = place;
  fault->length = length;
  fault->range_error = error;
  sim_unlock (image);
}

void
sim_heal (struct sim_image *image)
{
  sim_lock (image);
  for (unsigned kind = 0; kind < KINDS; kind++)
    image->faults[kind] = (struct fault) { .after = UINT64_MAX };
  image->stop_at = UINT64_MAX;
  image->is_stopped = false;
  image->host_capacity = UINT64_MAX;
  sim_unlock (image);
}

void
sim_stop_after (struct sim_image *image, uint64_t n)
{
  sim_lock (image);
  image->stop_at = n > UINT64_MAX - image->submitted ? UINT64_MAX : image->submitted + n;
  image->is_stopped = false;
  sim_unlock (image);
}

bool
sim_is_stopped (struct sim_image *image)
{
  bool is_stopped;

  sim_lock (image);
  is_stopped = image->is_stopped;
  sim_unlock (image);
  return is_stopped;
}

void
sim_set_host_free (struct sim_image *image, uint64_t blocks)
{
  uint64_t used;

  sim_lock (image);
  used = image->counts.blocks_allocated;
  image->host_capacity = blocks > UINT64_MAX - used ? UINT64_MAX : blocks + used;
  sim_unlock (image);
}

/* --- looking --- */

void
sim_peek (struct sim_image *image, uint64_t place, void *block)
{
  struct page *page;

  sim_lock (image);
  page = sim_current_page (image, place);
  if (page)
    memcpy (block, page->data, BLOCK_SIZE);
  else
    memset (block, 0, BLOCK_SIZE);
  sim_unlock (image);
}

void
sim_poke (struct sim_image *image, uint64_t place, const void *block)
{
  struct page *page = sim_page_create (block);

  sim_lock (image);
  sim_current_set (image, place, sim_page_get (page));
  sim_durable_set (image, place, page);
  sim_unlock (image);
}

void
sim_get_counts (struct sim_image *image, struct sim_counts *counts)
{
  sim_lock (image);
  *counts = image->counts;
  sim_unlock (image);
}

void
sim_set_trace (struct sim_image *image,
               void (*trace) (void *arg, const struct io *io, bool is_completion), void *arg)
{
  image->trace = trace;
  image->trace_arg = arg;
}
