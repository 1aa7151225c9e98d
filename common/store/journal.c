/* SPDX-License-Identifier: BSD-2-Clause */
/* journal.c - the tail; see journal.h. */
#include <string.h>

#include "base/check.h"
#include "store/journal.h"
#include "store/order.h"

void
journal_init (struct journal *journal, struct arena *arena)
{
  pthread_mutex_init (&journal->mutex, NULL);
  journal->arena = arena;
  journal->reserved = 0;
  list_init (&journal->waiters);
  journal->is_wanted = journal->is_closed = false;
}

void
journal_destroy (struct journal *journal)
{
  CHECK (list_is_empty (&journal->waiters));
  pthread_mutex_destroy (&journal->mutex);
}

uint64_t
journal_start (struct journal *journal)
{
  return atomic_load_explicit (&journal->arena->header->tail_start, memory_order_acquire);
}

uint64_t
journal_end (struct journal *journal)
{
  return atomic_load_explicit (&journal->arena->header->tail_end, memory_order_acquire);
}

/* Bytes in use or promised. */
static uint64_t
journal_used (struct journal *journal)
{
  return journal_end (journal) - journal_start (journal) + journal->reserved;
}

/* What ops may use. */
static uint64_t
journal_room (const struct journal *journal)
{
  return journal->arena->tail_bytes / 2;
}

bool
journal_reserve (struct journal *journal, uint64_t bytes, struct journal_waiter *request,
                 struct waiter *waiter)
{
  uint64_t room = journal_room (journal);
  bool granted;

  CHECK (bytes <= room);
  order_wait (waiter, WAITS_FOR_TAIL);
  pthread_mutex_lock (&journal->mutex);
  granted = list_is_empty (&journal->waiters) && journal_used (journal) + bytes <= room;
  request->is_refused = !granted && journal->is_closed;
  if (granted)
    journal->reserved += bytes;
  else if (!request->is_refused) {
    request->waiter = waiter;
    request->bytes = bytes;
    list_append (&journal->waiters, &request->link);
    journal->is_wanted = true;
  }
  pthread_mutex_unlock (&journal->mutex);
  return granted || request->is_refused;
}

void
journal_close (struct journal *journal, struct list *wake)
{
  struct list *link;

  pthread_mutex_lock (&journal->mutex);
  journal->is_closed = true;
  while ((link = list_take (&journal->waiters)) != NULL) {
    struct journal_waiter *request = container_of (link, struct journal_waiter, link);

    request->is_refused = true;
    list_append (wake, &request->waiter->link);
  }
  journal->is_wanted = false;
  pthread_mutex_unlock (&journal->mutex);
}

bool
journal_reserve_keeper (struct journal *journal, uint64_t bytes, bool all)
{
  uint64_t room = all ? journal->arena->tail_bytes : journal->arena->tail_bytes / 4 * 3;
  bool granted;

  pthread_mutex_lock (&journal->mutex);
  granted = journal_used (journal) + bytes <= room;
  if (granted)
    journal->reserved += bytes;
  pthread_mutex_unlock (&journal->mutex);
  return granted;
}

/* Gives room to those who wait, in order. */
static void
journal_grant (struct journal *journal, struct list *wake)
{
  uint64_t room = journal_room (journal);

  list_for_each_safe (link, &journal->waiters) {
    struct journal_waiter *request = container_of (link, struct journal_waiter, link);

    if (journal_used (journal) + request->bytes > room)
      return;
    journal->reserved += request->bytes;
    list_remove (&request->link);
    list_append (wake, &request->waiter->link);
  }
  journal->is_wanted = false;
}

void
journal_unreserve (struct journal *journal, uint64_t bytes, struct list *wake)
{
  if (bytes == 0)
    return;
  pthread_mutex_lock (&journal->mutex);
  CHECK (journal->reserved >= bytes);
  journal->reserved -= bytes;
  journal_grant (journal, wake);
  pthread_mutex_unlock (&journal->mutex);
}

/* Copies into the ring, around its end. */
static void
journal_put (struct journal *journal, uint64_t position, const void *bytes, size_t count)
{
  uint64_t ring = journal->arena->tail_bytes;
  size_t first = MIN (count, ring - position % ring);

  if (count == 0)
    return;
  memcpy (journal->arena->tail + position % ring, bytes, first);
  memcpy (journal->arena->tail, (const uint8_t *) bytes + first, count - first);
}

uint64_t
journal_append (struct journal *journal, enum format_item_kind kind, uint32_t flags, uint64_t disk,
                uint64_t block, uint64_t length, uint64_t place, const void *extra,
                size_t extra_bytes)
{
  static const uint8_t zeros[8];
  size_t bytes = align_up (sizeof (struct format_item) + extra_bytes, 8);
  size_t padding = bytes - sizeof (struct format_item) - extra_bytes;
  struct format_item item = {
    .kind = to_le16 (kind),
    .bytes = to_le16 (bytes),
    .flags = to_le32 (flags),
    .disk = to_le64 (disk),
    .block = to_le64 (block),
    .length = to_le64 (length),
    .place = to_le64 (place),
  };
  uint64_t position;

  pthread_mutex_lock (&journal->mutex);
  CHECK (journal->reserved >= bytes);
  position = journal_end (journal);
  CHECK (position + bytes - journal_start (journal) <= journal->arena->tail_bytes);
  journal_put (journal, position, &item, sizeof item);
  journal_put (journal, position + sizeof item, extra, extra_bytes);
  journal_put (journal, position + sizeof item + extra_bytes, zeros, padding);
  journal->reserved -= bytes;
  /* Content first, then what makes it valid: the process may be killed between. */
  atomic_store_explicit (&journal->arena->header->tail_end, position + bytes,
                         memory_order_release);
  pthread_mutex_unlock (&journal->mutex);
  return position + bytes;
}

bool
journal_is_pressed (struct journal *journal)
{
  bool is_pressed;

  pthread_mutex_lock (&journal->mutex);
  /* Where nothing is in it, those who have its room promised must go on; a commit
   * would not help. */
  is_pressed
    = journal_end (journal) > journal_start (journal)
      && (journal->is_wanted || journal_used (journal) > journal->arena->tail_bytes / 8 * 3);
  pthread_mutex_unlock (&journal->mutex);
  return is_pressed;
}

void
journal_copy (struct journal *journal, uint64_t from, uint64_t to, void *bytes)
{
  uint64_t ring = journal->arena->tail_bytes;
  size_t count = to - from, first = MIN (count, ring - from % ring);

  CHECK (count <= ring);
  memcpy (bytes, journal->arena->tail + from % ring, first);
  memcpy ((uint8_t *) bytes + first, journal->arena->tail, count - first);
}

void
journal_advance (struct journal *journal, uint64_t position, struct list *wake)
{
  pthread_mutex_lock (&journal->mutex);
  CHECK (position <= journal_end (journal));
  if (position > journal_start (journal)) {
    atomic_store_explicit (&journal->arena->header->tail_start, position, memory_order_release);
    journal_grant (journal, wake);
  }
  pthread_mutex_unlock (&journal->mutex);
}
