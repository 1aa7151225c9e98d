/* SPDX-License-Identifier: BSD-2-Clause */
/* checker.c - opens a store for checking, and the order of the work; see checker.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "store/checker-internal.h"

void *
checker_array_add (void *array, size_t *count, size_t *max, size_t size)
{
  if (*count == *max) {
    *max = *max == 0 ? 64 : *max + *max / 2;
    array = reallocarray (array, *max, size);
    if (array == NULL) {
      /* A verdict on part of a store would be worth nothing. */
      fputs ("lacuna: not enough memory to check the store\n", stderr);
      exit (CHECKER_UNUSABLE);
    }
  }
  ++*count;
  return array;
}

int
checker_read (struct checker *checker, uint64_t place, uint8_t *block)
{
  if (place >= checker->reader->length) {
    memset (block, 0, CHECKER_BLOCK);
    return 0;
  }
  return checker->reader->read (checker->reader->arg, place, block);
}

bool
checker_is_zero (const uint8_t *bytes, size_t count)
{
  for (size_t i = 0; i < count; ++i)
    if (bytes[i] != 0)
      return false;
  return true;
}

uint64_t
checker_checksum (const uint8_t *block, unsigned offset, unsigned size, uint64_t seed)
{
  uint8_t copy[CHECKER_BLOCK];

  memcpy (copy, block, sizeof copy);
  memset (copy + offset, 0, size);
  return XXH3_64bits_withSeed (copy, sizeof copy, seed);
}

static void
checker_free (struct checker *checker)
{
  free (checker->disks);
  free (checker->lost);
  free (checker->shared);
  free (checker->counted);
  free (checker->nodes.slots);
  free (checker->runs);
  free (checker->map_changes.items);
  free (checker->data_changes.items);
  free (checker->shifts);
}

static int
checker_judge (const struct checker_reader *reader, struct checker_report *report,
               struct checker_plan *plan)
{
  struct checker checker = {
    .reader = reader, .report = report, .plan = plan, .is_planning = plan != NULL,
  };
  const char *why;
  bool is_damage;
  int verdict;

  why = checker_superblocks (&checker, &is_damage);
  if (why != NULL && !is_damage)
    return checker_report_unusable (checker.report, "%s", why);
  if (why != NULL)
    checker_find (&checker, CHECKER_DAMAGE,
                  (struct checker_where) { "superblock", CHECKER_NO_PLACE, NULL },
                  "nothing of the store can be found", "%s", why);
  else {
    checker_disks (&checker);
    checker_shared_runs (&checker);
    checker_maps (&checker, false);
    checker_owners (&checker, false);
    checker_shared_fix (&checker);
    /* Only now: the journal's items refer to the disks, and change them. */
    checker_journal (&checker);
    checker_superblock_fix (&checker);
    checker.is_planning = false;
    if (checker.item_count > 0)
      checker_replay_end (&checker);
  }
  verdict = checker_report_end (&checker, checker.report);
  checker_free (&checker);
  return verdict;
}

int
checker_run_reader (const struct checker_reader *reader, FILE *out, bool json)
{
  return checker_judge (reader, checker_report_create (NULL, out, json), NULL);
}

/* PATH as for checker_report_create. */
static int
checker_mend (const char *path, const struct checker_reader *reader, FILE *out,
              bool (*agree) (void *arg), void *arg)
{
  struct checker_plan *plan = checker_plan_create ();
  int verdict = checker_judge (reader, checker_report_create (path, out, false), plan), error;

  if (verdict == CHECKER_DAMAGED && checker_plan_print (plan, out) == 0)
    fputs ("nothing of that can be repaired\n", out);
  else if (verdict == CHECKER_DAMAGED) {
    fflush (out);
    if (!agree (arg))
      fputs ("nothing was changed\n", out);
    else if ((error = checker_plan_apply (plan, reader)) != 0)
      fprintf (out, "the repair failed: %s; it can be begun again\n", strerror (-error));
    else {
      fputs ("repaired; checking again\n", out);
      verdict = checker_judge (reader, checker_report_create (path, out, false), NULL);
    }
  }
  checker_plan_free (plan);
  return verdict;
}

int
checker_repair_reader (const struct checker_reader *reader, FILE *out,
                       bool (*agree) (void *arg), void *arg)
{
  return checker_mend (NULL, reader, out, agree, arg);
}

/* --- files and devices --- */

static int
checker_file_read (void *arg, uint64_t place, void *block)
{
  const int *fd = arg;
  size_t done = 0;

  while (done < CHECKER_BLOCK) {
    ssize_t n = pread (*fd, (uint8_t *) block + done, CHECKER_BLOCK - done,
                       (off_t) (place * CHECKER_BLOCK + done));

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return -errno;
    if (n == 0)
      return -EIO;
    done += n;
  }
  return 0;
}

/* Length in blocks, or why it is nothing that could hold a store. */
static const char *
checker_file_length (int fd, uint64_t *length, bool *is_device)
{
  struct stat st;
  uint64_t bytes;

  if (fstat (fd, &st) < 0)
    return strerror (errno);
  *is_device = S_ISBLK (st.st_mode);
  if (S_ISREG (st.st_mode))
    bytes = st.st_size;
  else if (!*is_device)
    return "is neither a file nor a block device";
  else if (ioctl (fd, BLKGETSIZE64, &bytes) < 0)
    return strerror (errno);
  *length = bytes / CHECKER_BLOCK;
  return *length == 0 ? "is not a Lacuna store: it is shorter than a block" : NULL;
}

static int
checker_file_write (void *arg, uint64_t place, const void *block)
{
  const int *fd = arg;
  size_t done = 0;

  while (done < CHECKER_BLOCK) {
    ssize_t n = pwrite (*fd, (const uint8_t *) block + done, CHECKER_BLOCK - done,
                        (off_t) (place * CHECKER_BLOCK + done));

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return -errno;
    done += n;
  }
  return 0;
}

static int
checker_file_flush (void *arg)
{
  const int *fd = arg;

  return fdatasync (*fd) < 0 ? -errno : 0;
}

/* Opens the store, and locks it: for a repair as whoever uses it does.  NULL, or why not. */
static const char *
checker_file_open (const char *path, bool is_repair, int *fd, struct checker_reader *reader)
{
  /* Not to be held up by a FIFO. */
  int flags = (is_repair ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  const char *why;
  struct stat st;
  bool is_device;

  /* A block device that is in use otherwise cannot be had exclusively. */
  if (is_repair && stat (path, &st) == 0 && S_ISBLK (st.st_mode))
    flags |= O_EXCL;
  *fd = open (path, flags);
  if (*fd < 0)
    return strerror (errno);
  why = checker_file_length (*fd, &reader->length, &is_device);
  /* Whoever has it open for use holds this lock exclusively. */
  if (why == NULL && flock (*fd, (is_repair ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0)
    why = errno == EWOULDBLOCK
            ? "is open in another process; stop the server, or use `lacuna info'"
            : strerror (errno);
  reader->is_growing = !is_device;
  reader->arg = fd;
  return why;
}

int
checker_run (const char *path, FILE *out, bool json)
{
  struct checker_report *report = checker_report_create (path, out, json);
  struct checker_reader reader = { .read = checker_file_read };
  int fd, verdict;
  const char *why = checker_file_open (path, false, &fd, &reader);

  verdict = why != NULL ? checker_report_unusable (report, "%s", why)
                        : checker_judge (&reader, report, NULL);
  if (fd >= 0)
    close (fd);
  return verdict;
}

int
checker_repair (const char *path, FILE *out, bool (*agree) (void *arg), void *arg)
{
  struct checker_reader reader = {
    .read = checker_file_read, .write = checker_file_write, .flush = checker_file_flush,
  };
  int fd, verdict;
  const char *why = checker_file_open (path, true, &fd, &reader);

  verdict = why != NULL
              ? checker_report_unusable (checker_report_create (path, out, false), "%s", why)
              : checker_mend (path, &reader, out, agree, arg);
  if (fd >= 0)
    close (fd);
  return verdict;
}
