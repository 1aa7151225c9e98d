/* SPDX-License-Identifier: BSD-2-Clause */
/* device-sim-image.c - the image of the simulated device; see device-sim.h.
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
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "device/device-sim-internal.h"

/* --- pages and chunks --- */

struct page *
sim_page_create (const void *data)
{
  struct page *page = malloc (sizeof *page);

  CHECK (page);
  page->references = 1;
  page->is_garbage = false;
  page->hash = 0;
  if (data)
    memcpy (page->data, data, BLOCK_SIZE);
  else
    memset (page->data, 0, BLOCK_SIZE);
  return page;
}

struct page *
sim_page_get (struct page *page)
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
  image->chunks = sim_allocate (image->chunk_slots, sizeof *image->chunks);
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
  *slot = sim_allocate (1, sizeof **slot);
  (*slot)->number = number;
  return *slot;
}

struct page *
sim_current_page (struct sim_image *image, uint64_t place)
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
void
sim_current_set (struct sim_image *image, uint64_t place, struct page *page)
{
  struct page **slot = &chunk_make (image, place)->current[place % CHUNK_BLOCKS];

  image->counts.blocks_allocated += page_is_allocated (page);
  image->counts.blocks_allocated -= page_is_allocated (*slot);
  page_put (*slot);
  *slot = page;
}

void
sim_durable_set (struct sim_image *image, uint64_t place, struct page *page)
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

    sim_durable_set (image, entry->place, entry->page);
  }
}

static void
log_append (struct sim_image *image, uint64_t place, uint64_t number, struct page *page)
{
  uint64_t used = image->log_end - image->log_first;

  if (used == LOG_MAX)
    log_settle (image, image->log_first + 1);
  else if (used == image->log_slots) {
    struct log_entry *larger = sim_allocate (2 * image->log_slots, sizeof *larger);

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
  sim_current_set (image, place, sim_page_get (page));
  log_append (image, place, number, sim_page_get (page));
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
  struct tear tear = { .kind = kinds[sim_draw_below (image, ARRAY_COUNT (kinds))] };

  if (tear.kind == TEAR_PREFIX || tear.kind == TEAR_SUFFIX)
    tear.at = sim_draw_below (image, length * SECTORS_PER_BLOCK + 1);
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
    return sim_draw (image) & 0xff;
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
    return sim_page_get (mask & 1 ? new : old);
  if (mask == 0 || mask == 0xff)
    return sim_page_get (mask ? new : old);
  merged = sim_page_create (old ? old->data : NULL);
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
    page = page_merge (sim_current_page (image, place), flight->pages[i], mask);
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
    if (sim_draw_below (image, 2))
      page = image->garbage[sim_draw_below (image, GARBAGE_PAGES)];
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

uint8_t *
sim_walk_next (struct walk *walk)
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
    struct page *page = sim_current_page (image, io->place + i);
    uint8_t *block = sim_walk_next (&walk);

    if (page)
      memcpy (block, page->data, BLOCK_SIZE);
    else
      memset (block, 0, BLOCK_SIZE);
  }
}

uint64_t
sim_host_free (struct sim_image *image)
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
    CHECK (memcmp (sim_walk_next (&walk), flight->pages[i]->data, BLOCK_SIZE) == 0);
    fresh += !page_is_allocated (sim_current_page (image, flight->place + i));
  }
  return fresh > sim_host_free (image) ? -ENOSPC : 0;
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

void
sim_flight_complete (struct sim_image *image, unsigned at)
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

/* --- the image --- */

struct sim_image *
sim_image_create (const struct sim_options *options)
{
  struct sim_image *image = sim_allocate (1, sizeof *image);

  CHECK (options->length <= options->length_max);
  image->options = *options;
  image->random = options->seed;
  image->is_block_device = options->length == options->length_max;
  image->length = image->durable_length = options->length;
  CHECK (pthread_mutex_init (&image->mutex, NULL) == 0);
  image->chunk_slots = 64;
  image->chunks = sim_allocate (image->chunk_slots, sizeof *image->chunks);
  image->log_slots = 64;
  image->log = sim_allocate (image->log_slots, sizeof *image->log);
  list_init (&image->queues);
  list_init (&image->graveyard);
  for (unsigned i = 0; i < GARBAGE_PAGES; i++) {
    image->garbage[i] = sim_page_create (NULL);
    image->garbage[i]->is_garbage = true;
    for (unsigned at = 0; at < BLOCK_SIZE; at += 8) {
      uint64_t word = sim_draw (image);

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
  clone->flights = sim_allocate (image->flight_count + 1, sizeof *clone->flights);
  clone->flight_max = image->flight_count + 1;
  for (unsigned i = 0; i < image->flight_count; i++) {
    struct flight *flight = &clone->flights[i];

    *flight = image->flights[i];
    flight->io = NULL;
    flight->queue = NULL;
    if (!flight->pages)
      continue;
    flight->pages = sim_allocate (flight->length, sizeof *flight->pages);
    for (uint64_t b = 0; b < flight->length; b++)
      flight->pages[b] = sim_page_get (image->flights[i].pages[b]);
  }
}

struct sim_image *
sim_image_clone (struct sim_image *image, uint64_t seed)
{
  struct sim_image *clone = sim_allocate (1, sizeof *clone);

  CHECK (!image->options.is_threaded);
  *clone = *image;
  clone->random = seed;
  CHECK (pthread_mutex_init (&clone->mutex, NULL) == 0);
  clone->chunks = sim_allocate (clone->chunk_slots, sizeof *clone->chunks);
  for (uint64_t i = 0; i < clone->chunk_slots; i++) {
    if (!image->chunks[i])
      continue;
    clone->chunks[i] = sim_allocate (1, sizeof *clone->chunks[i]);
    *clone->chunks[i] = *image->chunks[i];
    for (unsigned b = 0; b < CHUNK_BLOCKS; b++) {
      sim_page_get (clone->chunks[i]->current[b]);
      sim_page_get (clone->chunks[i]->durable[b]);
    }
  }
  for (unsigned i = 0; i < GARBAGE_PAGES; i++)
    sim_page_get (clone->garbage[i]);
  clone->log = sim_allocate (clone->log_slots, sizeof *clone->log);
  for (uint64_t p = clone->log_first; p < clone->log_end; p++) {
    *log_at (clone, p) = *log_at (image, p);
    sim_page_get (log_at (clone, p)->page);
  }
  flights_clone (clone, image);
  clone->device = NULL;
  list_init (&clone->queues);
  list_init (&clone->graveyard);
  clone->trace = NULL;
  return clone;
}

/* Of a block's content and something else. */
static uint64_t
page_hash (struct page *page, uint64_t with)
{
  uint64_t words[2] = { 0, with };

  if (page && page->hash == 0)
    page->hash = checksum (page->data, BLOCK_SIZE, 0) | 1;
  words[0] = page ? page->hash + page->is_garbage : 0;
  return checksum (words, sizeof words, 0);
}

bool
sim_image_is_durable (const struct sim_image *image)
{
  bool is_durable = image->log_first == image->log_end;

  for (unsigned i = 0; i < image->flight_count; i++)
    is_durable &= image->flights[i].kind != IO_WRITE && image->flights[i].kind != IO_DISCARD;
  return is_durable;
}

uint64_t
sim_image_hash (struct sim_image *image)
{
  uint64_t hash = checksum (&image->length, sizeof image->length, image->durable_length), first = 0;

  for (uint64_t i = 0; i < image->chunk_slots; i++)
    for (unsigned b = 0; image->chunks[i] && b < CHUNK_BLOCKS; b++)
      if (image->chunks[i]->durable[b])
        hash += page_hash (image->chunks[i]->durable[b],
                           image->chunks[i]->number * CHUNK_BLOCKS + b);
  for (uint64_t p = image->log_first; p < image->log_end; p++) {
    const struct log_entry *entry = log_at (image, p);

    /* The numbers count all io since the image was made: only which entries are of
     * one io matters. */
    if (p == image->log_first || entry->number != log_at (image, p - 1)->number)
      first = p - image->log_first;
    hash = hash * 31 + page_hash (entry->page, entry->place << 16 | first);
  }
  for (unsigned i = 0; i < image->flight_count; i++) {
    const struct flight *flight = &image->flights[i];

    if (flight->error != 0 || (flight->kind != IO_WRITE && flight->kind != IO_DISCARD))
      continue;
    hash = hash * 37 + flight->kind;
    for (uint64_t b = 0; b < flight->length; b++)
      hash = hash * 31 + page_hash (flight->pages ? flight->pages[b] : NULL, flight->place + b);
  }
  return hash;
}

void
sim_image_destroy (struct sim_image *image)
{
  CHECK (!image->device);
  for (unsigned i = 0; i < image->flight_count; i++)
    flight_free (&image->flights[i]);
  list_for_each_safe (link, &image->queues)
    sim_destroy_queue (&container_of (link, struct sim_queue, link)->queue);
  list_for_each_safe (link, &image->graveyard)
    sim_close_device (&container_of (link, struct sim_device, link)->device);
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
      sim_durable_set (image, entry->place, page_merge (old, entry->page, mask));
  }
  return end;
}

static void
crash_power (struct sim_image *image)
{
  uint64_t io_count = log_count_io (image);
  struct power power = { .kind = sim_draw_below (image, POWER_KINDS) };
  uint64_t index = 0;

  power.chosen = sim_draw_below (image, MAX (io_count, 1));
  for (uint64_t p = image->log_first; p < image->log_end; index++)
    p = power_settle_io (image, &power, index, p);
  /* Growth of a file is metadata, and lasts from the next flush on only. */
  if (power.kind != POWER_ALL_KEPT && sim_draw_below (image, 2))
    image->length = image->durable_length;
  for (; image->log_first < image->log_end; image->log_first++) {
    struct log_entry *entry = log_at (image, image->log_first);
    struct page *durable = durable_page (image, entry->place);

    if (page_is_allocated (durable))
      image->length = MAX (image->length, entry->place + 1);
    sim_current_set (image, entry->place, sim_page_get (durable));
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

