/* SPDX-License-Identifier: BSD-2-Clause */
/* arena.c - see arena.h. */
#define _GNU_SOURCE 1           /* asprintf */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/clock.h"
#include "base/log.h"
#include "store/arena.h"

_Static_assert (sizeof (struct arena_header) <= BLOCK_SIZE, "one block");
_Static_assert (sizeof (struct arena_frame) == 24, "what lies in a file has no holes");

/* Records in the tail are copied in and out by cache lines. */
#define TAIL_ALIGNMENT 64

#define LOCK_RETRY_MS 10

static uint64_t
tail_offset (uint64_t frame_count)
{
  return align_up (BLOCK_SIZE + frame_count * sizeof (struct arena_frame), TAIL_ALIGNMENT);
}

static uint64_t
data_offset (uint64_t frame_count, uint64_t tail_bytes)
{
  return align_up (tail_offset (frame_count) + tail_bytes, BLOCK_SIZE);
}

static uint64_t
arena_length (uint64_t frame_count, uint64_t tail_bytes)
{
  return data_offset (frame_count, tail_bytes) + frame_count * BLOCK_SIZE;
}

/* What can be laid out without overflow, by a wide margin. */
static bool
is_geometry_valid (uint64_t frame_count, uint64_t tail_bytes)
{
  return frame_count > 0 && frame_count < UINT64_C (1) << 40 && is_power_of_2 (tail_bytes)
         && tail_bytes < UINT64_C (1) << 40;
}

static uint64_t
header_checksum (const struct arena_header *header)
{
  const char *start = (const char *) header->store_uuid;

  return checksum (start, (const char *) &header->tail_end - start, 0);
}

/* Maps FD, or private memory if it is -1. */
static struct arena *
arena_map (int fd, const char *path, uint64_t frame_count, uint64_t tail_bytes)
{
  struct arena *arena = calloc (1, sizeof *arena);
  uint64_t length = arena_length (frame_count, tail_bytes);
  int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  uint8_t *base;

  if (!arena)
    return NULL;
  arena->path = path ? strdup (path) : NULL;
  base = mmap (NULL, length, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (base == MAP_FAILED || (path && !arena->path)) {
    if (base != MAP_FAILED)
      munmap (base, length);
    free (arena->path);
    free (arena);
    errno = ENOMEM;
    return NULL;
  }
  arena->header = (struct arena_header *) base;
  arena->frames = (struct arena_frame *) (base + BLOCK_SIZE);
  arena->tail = base + tail_offset (frame_count);
  arena->data = base + data_offset (frame_count, tail_bytes);
  arena->frame_count = frame_count;
  arena->tail_bytes = tail_bytes;
  arena->length = length;
  arena->fd = fd;
  return arena;
}

/* --- making one --- */

static uint64_t
mib_up (uint64_t bytes)
{
  return divide_up (bytes, MIB);
}

/* Bytes that are free where PATH is.  There are file systems without a bound. */
static uint64_t
free_bytes (const char *path)
{
  struct statvfs info;
  char *copy = strdup (path);
  bool is_known = copy && statvfs (dirname (copy), &info) == 0;

  free (copy);
  if (is_known && info.f_blocks == 0)
    return UINT64_MAX / 2;
  return is_known ? (uint64_t) info.f_bavail * info.f_frsize : 0;
}

/* Sets *ERROR for what errno says of PATH. */
static void
explain (char **error, const char *path, uint64_t length)
{
  int number = errno;
  int printed;

  if (number == ENOSPC || number == EFBIG || number == EDQUOT)
    printed = asprintf (error, "the arena %s needs %llu MiB, but only %llu MiB are free there;"
                        " make it smaller with --cache SIZE, or put it elsewhere with"
                        " --arena PATH", path, (unsigned long long) mib_up (length),
                        (unsigned long long) (free_bytes (path) / MIB));
  else if (number == EEXIST)
    printed = asprintf (error, "the arena %s exists already; remove it if nothing in it is"
                        " needed, or name another one with --arena PATH", path);
  else if (number == ENOMEM)
    printed = asprintf (error, "there is no memory for an arena of %llu MiB; make it smaller"
                        " with --cache SIZE", (unsigned long long) mib_up (length));
  else
    printed = asprintf (error, "the arena %s cannot be made: %s; name another place with"
                        " --arena PATH", path, strerror (number));
  if (printed < 0)
    *error = NULL;
}

/* Space of the file, now: writing to a mapping could not be refused later. */
static int
allocate_file (int fd, uint64_t start, uint64_t length)
{
  int error;

  do
    error = posix_fallocate (fd, start, length);
  while (error == EINTR);
  errno = error;
  return error ? -1 : 0;
}

/* Whether the file at PATH may go: nothing that belongs to somebody else, were it another store's
 * arena. */
static bool
is_replaceable (const char *path, const struct arena_identity *identity)
{
  int fd = open (path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  struct arena_header header = { .magic = 0 };
  struct stat stat;
  bool result;

  if (fd < 0)
    return false;
  /* Without a magic number it was being made. */
  result = fstat (fd, &stat) == 0 && S_ISREG (stat.st_mode)
           && flock (fd, LOCK_EX | LOCK_NB) == 0
           && pread (fd, &header, sizeof header, 0) >= 0
           && (header.magic == 0
               || (header.magic == ARENA_MAGIC
                   && memcmp (header.store_uuid, identity->store_uuid, sizeof header.store_uuid)
                        == 0));
  close (fd);
  return result;
}

/* An open file of LENGTH, with the space of its first ALLOCATED bytes, and as it seems room for the
 * rest; or -1 with errno. */
static int
create_file (const char *path, const struct arena_identity *identity, uint64_t length,
             uint64_t allocated, bool replace)
{
  int fd, number;

  if (replace && is_replaceable (path, identity) && unlink (path) < 0 && errno != ENOENT)
    return -1;
  fd = open (path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0)
    return -1;
  if (flock (fd, LOCK_EX | LOCK_NB) == 0) {
    if (free_bytes (path) < length)
      errno = ENOSPC;
    else if (allocate_file (fd, 0, allocated) == 0 && ftruncate (fd, length) == 0)
      return fd;
  }
  number = errno;
  close (fd);
  unlink (path);
  errno = number;
  return -1;
}

static void
header_fill (struct arena *arena, const struct arena_identity *identity)
{
  struct arena_header *header = arena->header;

  memcpy (header->store_uuid, identity->store_uuid, sizeof header->store_uuid);
  memcpy (header->arena_id, identity->arena_id, sizeof header->arena_id);
  memcpy (header->boot_id, identity->boot_id, sizeof header->boot_id);
  header->frame_count = arena->frame_count;
  header->tail_bytes = arena->tail_bytes;
  header->length = arena->length;
  header->checksum = header_checksum (header);
  __atomic_store_n (&header->magic, ARENA_MAGIC, __ATOMIC_RELEASE);
}

struct arena *
arena_create (const char *path, const struct arena_identity *identity, uint64_t frame_count,
              uint64_t frames_at_start, uint64_t tail_bytes, bool replace, char **error)
{
  uint64_t at_start = path ? MIN (frames_at_start, frame_count) : frame_count, length;
  struct arena *arena;
  int fd = -1;

  CHECK (is_geometry_valid (frame_count, tail_bytes));
  length = arena_length (frame_count, tail_bytes);
  *error = NULL;
  if (path) {
    fd = create_file (path, identity, length,
                      data_offset (frame_count, tail_bytes) + at_start * BLOCK_SIZE, replace);
    if (fd < 0) {
      explain (error, path, length);
      return NULL;
    }
  }
  arena = arena_map (fd, path, frame_count, tail_bytes);
  if (!arena) {
    explain (error, path, length);
    if (path) {
      close (fd);
      unlink (path);
    }
    return NULL;
  }
  arena->frames_at_start = at_start;
  header_fill (arena, identity);
  return arena;
}

void
arena_allocate (struct arena *arena, uint64_t first, uint64_t count)
{
  uint64_t start = arena->data - (uint8_t *) arena->header + first * BLOCK_SIZE;
  char *error;

  CHECK (first >= arena->frames_at_start && count <= arena->frame_count - first);
  if (allocate_file (arena->fd, start, count * BLOCK_SIZE) == 0)
    return;
  explain (&error, arena->path, arena->length);
  log_error ("%s", error ? error : "the arena's space cannot be allocated");
  _exit (EXIT_FAILURE);
}

/* Sets errno to what stands against a file of LENGTH at PATH. */
static bool
could_be_made (const char *path, const struct arena_identity *identity, uint64_t length)
{
  struct stat old = { .st_blocks = 0 };
  char *copy = strdup (path);
  bool result = false;

  if (!copy)
    errno = ENOMEM;
  else if (lstat (path, &old) == 0 && !is_replaceable (path, identity))
    errno = EEXIST;
  else if (faccessat (AT_FDCWD, dirname (copy), W_OK | X_OK, AT_EACCESS) == 0) {
    result = free_bytes (path) + (uint64_t) old.st_blocks * 512 >= length;
    errno = ENOSPC;
  }
  free (copy);
  return result;
}

int
arena_check (const char *path, const struct arena_identity *identity, uint64_t frame_count,
             uint64_t tail_bytes, char **error)
{
  uint64_t length = arena_length (frame_count, tail_bytes);
  int number;

  *error = NULL;
  if (!path || could_be_made (path, identity, length))
    return 0;
  number = errno;
  explain (error, path, length);
  return -number;
}

/* --- taking one over --- */

/* Why a file with this HEADER is not the one that is wanted; NULL if it is. */
static const char *
header_refuse (const struct arena_header *header, const struct arena_identity *identity,
               uint64_t file_length)
{
  if (header->magic != ARENA_MAGIC)
    return "it is no arena, or was never finished";
  if (header->checksum != header_checksum (header)
      || !is_geometry_valid (header->frame_count, header->tail_bytes)
      || header->length != arena_length (header->frame_count, header->tail_bytes))
    return "its header is damaged";
  if (header->length != file_length)
    return "its length is wrong";
  if (memcmp (header->store_uuid, identity->store_uuid, sizeof header->store_uuid))
    return "it belongs to another store";
  if (memcmp (header->boot_id, identity->boot_id, sizeof header->boot_id))
    return "the machine has been started anew since it was made";
  if (memcmp (header->arena_id, identity->arena_id, sizeof header->arena_id))
    return "it belongs to another state of the store";
  return NULL;
}

/* /dev/shm is writable for all: what others have put there is not ours. */
static const char *
file_refuse (int fd, const struct arena_identity *identity, struct arena_header *header)
{
  struct stat stat;

  errno = 0;
  if (fstat (fd, &stat) < 0 || !S_ISREG (stat.st_mode))
    return "it is not a regular file";
  if (stat.st_uid != geteuid () || (stat.st_mode & 077)) {
    errno = EPERM;
    return "it belongs to another user, or is open to others";
  }
  if (pread (fd, header, sizeof *header, 0) != sizeof *header)
    return "it is too short";
  if (header->magic != ARENA_MAGIC && header->magic << 8 == ARENA_MAGIC << 8) {
    errno = EPROTONOSUPPORT;
    return "another version of lacuna has made it, and can take it over";
  }
  return header_refuse (header, identity, stat.st_size);
}

/* As flock with LOCK_EX does, but no longer than WAIT_MS. */
static int
lock_in_time (int fd, unsigned wait_ms)
{
  struct timespec pause = { .tv_nsec = LOCK_RETRY_MS * 1000000L };
  uint64_t deadline = clock_ns () + wait_ms * UINT64_C (1000000);

  while (flock (fd, LOCK_EX | LOCK_NB) < 0) {
    if (errno != EWOULDBLOCK || clock_ns () >= deadline)
      return -1;
    nanosleep (&pause, NULL);
  }
  return 0;
}

struct arena *
arena_take_over (const char *path, const struct arena_identity *identity, unsigned lock_wait_ms,
                 const char **why)
{
  struct arena_header header;
  struct arena *arena = NULL;
  int fd = open (path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), number;

  if (fd < 0) {
    *why = errno == ENOENT ? "there is none" : "it cannot be opened";
    if (errno == ENOENT)
      errno = 0;
    return NULL;
  }
  *why = file_refuse (fd, identity, &header);
  /* A copy of a store names the same arena; the process that has the original open uses it. */
  if (!*why && lock_in_time (fd, lock_wait_ms) < 0)
    *why = errno == EWOULDBLOCK ? "another process uses it, as if this were a copy of a store that"
                                  " is open"
                                : "it cannot be locked";
  if (!*why && allocate_file (fd, 0, header.length) < 0)
    *why = "its space cannot be allocated";
  if (!*why) {
    arena = arena_map (fd, path, header.frame_count, header.tail_bytes);
    if (arena) {
      arena->frames_at_start = arena->frame_count;
      return arena;
    }
    *why = "it cannot be mapped";
  }
  number = errno;
  close (fd);
  errno = number;
  return NULL;
}

/* Between the two stores the process may be killed: then nothing is known, which does no harm. */
void
arena_note_durable (struct arena *arena, uint64_t sequence)
{
  atomic_store_explicit (&arena->header->durable, sequence, memory_order_release);
  atomic_store_explicit (&arena->header->durable_check, ~sequence, memory_order_release);
}

uint64_t
arena_durable (const struct arena *arena)
{
  uint64_t sequence = atomic_load (&arena->header->durable);

  return atomic_load (&arena->header->durable_check) == ~sequence ? sequence : 0;
}

void
arena_close (struct arena *arena, bool remove)
{
  munmap (arena->header, arena->length);
  /* Rings that are being torn down have it open for a moment yet. */
  if (arena->fd >= 0) {
    flock (arena->fd, LOCK_UN);
    close (arena->fd);
  }
  if (remove && arena->path)
    unlink (arena->path);
  free (arena->path);
  free (arena);
}

void
arena_boot_id (uint8_t id[16])
{
  FILE *file = fopen ("/proc/sys/kernel/random/boot_id", "re");
  unsigned digits = 0;
  int c;

  memset (id, 0, 16);
  while (file && digits < 32 && (c = fgetc (file)) != EOF) {
    const char *hex = "0123456789abcdef", *at = c ? strchr (hex, c) : NULL;

    if (at) {
      id[digits / 2] = id[digits / 2] << 4 | (at - hex);
      digits++;
    }
  }
  if (file)
    fclose (file);
  /* Where it cannot be known, no arena may pass for one of this boot. */
  if (digits < 32)
    CHECK (getrandom (id, 16, 0) == 16);
}
