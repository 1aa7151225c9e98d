/* SPDX-License-Identifier: BSD-2-Clause */
/* test-device-uring.c - the io_uring device on files, in the current directory. */
#define _GNU_SOURCE 1           /* RTLD_NEXT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#undef BLOCK_SIZE               /* linux/fs.h has one of its own */
#include "base/bytes.h"
#include "base/log.h"
#include "base/test-seed.h"
#include "device/device.h"

static char path[64];
static unsigned log_count;

static void
count_log (enum log_level level, const char *message)
{
  (void) level;
  (void) message;
  log_count++;
}

struct fixture {
  struct device *device;
  struct queue *queue;
};

static int
set_up (void **state)
{
  struct fixture *f = calloc (1, sizeof *f);

  /* Not in /tmp, which may be tmpfs: the builder's file system is closer to the truth. */
  snprintf (path, sizeof path, "test-device-%d.tmp", (int) getpid ());
  log_set_sink (count_log);
  log_count = 0;
  if (!f || device_open (path, DEVICE_CREATE, 0, &f->device) < 0)
    return -1;
  f->queue = queue_create (f->device);
  *state = f;
  return f->queue ? 0 : -1;
}

static int
tear_down (void **state)
{
  struct fixture *f = *state;

  if (f->queue)
    queue_destroy (f->queue);
  if (f->device)
    device_close (f->device);
  free (f);
  log_set_sink (NULL);
  return unlink (path);
}

struct job {
  struct io io;
  struct iovec segments[8];
  uint8_t *memory;
  bool is_done;
};

static void
job_done (struct io *io)
{
  container_of (io, struct job, io)->is_done = true;
}

static uint8_t *
allocate_blocks (uint64_t count)
{
  uint8_t *memory = aligned_alloc (BLOCK_SIZE, count * BLOCK_SIZE);

  assert_non_null (memory);
  memset (memory, 0xee, count * BLOCK_SIZE);
  return memory;
}

/* SEGMENT_COUNT segments, which divide LENGTH. */
static void
job_submit (struct job *job, struct queue *queue, enum io_kind kind, uint64_t place,
            uint64_t length, unsigned segment_count)
{
  uint64_t bytes = segment_count ? length * BLOCK_SIZE / segment_count : 0;

  for (unsigned i = 0; i < segment_count; i++)
    job->segments[i] = (struct iovec) { job->memory + i * bytes, bytes };
  job->io = (struct io) {
    .kind = kind, .place = place, .length = length, .segments = job->segments,
    .segment_count = segment_count, .done = job_done,
  };
  job->is_done = false;
  io_submit (queue, &job->io);
  assert_false (job->is_done);
}

static int
job_run (struct job *job, struct queue *queue, enum io_kind kind, uint64_t place,
         uint64_t length, unsigned segment_count)
{
  job_submit (job, queue, kind, place, length, segment_count);
  while (!job->is_done)
    queue_wait (queue);
  return job->io.error;
}

static void
test_round_trip (void **state)
{
  struct fixture *f = *state;
  struct job job = { .memory = allocate_blocks (8) };
  struct device_info info;
  struct stat stat_file;

  assert_int_equal (device_grow (f->device, 1000), 0);
  assert_int_equal (device_grow (f->device, 10), 0);
  for (unsigned i = 0; i < 8; i++)
    memset (job.memory + i * BLOCK_SIZE, i + 1, BLOCK_SIZE);
  assert_int_equal (job_run (&job, f->queue, IO_WRITE, 100, 8, 4), 0);
  assert_int_equal (job_run (&job, f->queue, IO_FLUSH, 0, 0, 0), 0);
  memset (job.memory, 0, 8 * BLOCK_SIZE);
  assert_int_equal (job_run (&job, f->queue, IO_READ, 101, 7, 1), 0);
  assert_int_equal (job.memory[0], 2);
  assert_int_equal (job.memory[6 * BLOCK_SIZE], 8);
  device_get_info (f->device, &info);
  assert_int_equal (info.length, 1000);
  assert_false (info.is_block_device || info.is_read_only);
  assert_true (info.length_max > 1000 && info.allocated >= 8 * BLOCK_SIZE
               && info.allocated < 100 * BLOCK_SIZE);
  assert_true (device_host_free (f->device) > 0);
  assert_int_equal (stat (path, &stat_file), 0);
  assert_int_equal (stat_file.st_size, 1000 * BLOCK_SIZE);
  assert_int_equal (stat_file.st_mode & 0777, 0600);
  free (job.memory);
}

static void
test_discard (void **state)
{
  struct fixture *f = *state;
  struct job job = { .memory = allocate_blocks (8) };
  struct device_info before, after;
  int error;

  assert_int_equal (job_run (&job, f->queue, IO_WRITE, 0, 8, 1), 0);
  assert_int_equal (job_run (&job, f->queue, IO_FLUSH, 0, 0, 0), 0);
  device_get_info (f->device, &before);
  error = job_run (&job, f->queue, IO_DISCARD, 2, 4, 0);
  device_get_info (f->device, &after);
  if (error == -EOPNOTSUPP) {
    assert_false (after.can_discard);
    skip ();
  }
  assert_int_equal (error, 0);
  assert_int_equal (after.length, 8);
  assert_int_equal (after.allocated, before.allocated - 4 * BLOCK_SIZE);
  assert_int_equal (job_run (&job, f->queue, IO_READ, 0, 8, 1), 0);
  assert_int_equal (job.memory[2 * BLOCK_SIZE - 1], 0xee);
  assert_int_equal (job.memory[2 * BLOCK_SIZE], 0);
  assert_int_equal (job.memory[6 * BLOCK_SIZE - 1], 0);
  assert_int_equal (job.memory[6 * BLOCK_SIZE], 0xee);
  free (job.memory);
}

/* Zeros beyond the end: whole blocks, and in a block that the end cuts. */
static void
test_end_of_file (void **state)
{
  static const off_t lengths[] = { 0, 100, 4096, 2 * 4096 + 512, 3 * 4096 + 1, 5 * 4096 };
  struct fixture *f = *state;
  struct job job = { .memory = allocate_blocks (8) };

  for (unsigned i = 0; i < ARRAY_COUNT (lengths); i++)
    for (unsigned segments = 1; segments <= 8; segments *= 2) {
      memset (job.memory, 0xee, 8 * BLOCK_SIZE);
      assert_int_equal (truncate (path, 0), 0);
      assert_int_equal (job_run (&job, f->queue, IO_WRITE, 0, 8, segments), 0);
      assert_int_equal (truncate (path, lengths[i]), 0);
      memset (job.memory, 0x33, 8 * BLOCK_SIZE);
      assert_int_equal (job_run (&job, f->queue, IO_READ, 0, 8, segments), 0);
      assert_int_equal (job.io.segment_count, segments);
      for (off_t at = 0; at < 8 * 4096; at++)
        if (job.memory[at] != (at < lengths[i] ? 0xee : 0))
          fail_msg ("byte %ld of %ld", (long) at, (long) lengths[i]);
      assert_int_equal (job_run (&job, f->queue, IO_READ, 1000, 8, segments), 0);
    }
  free (job.memory);
}

/* Far more at once than the ring holds; every one is done, with its own data. */
static void
test_many (void **state)
{
  enum { COUNT = 3000 };
  struct fixture *f = *state;
  struct job *jobs = calloc (COUNT, sizeof *jobs);
  uint8_t *memory = allocate_blocks (COUNT);

  random_seed ();
  assert_int_equal (device_grow (f->device, COUNT), 0);
  for (unsigned round = 0; round < 2; round++) {
    unsigned done = 0;

    for (uint64_t i = 0; i < COUNT; i++) {
      jobs[i].memory = memory + i * BLOCK_SIZE;
      if (round == 0)
        memcpy (jobs[i].memory + 8, &i, sizeof i);
      job_submit (&jobs[i], f->queue, round ? IO_READ : IO_WRITE, i, 1, 1);
      if (random_below (100) == 0)
        queue_kick (f->queue);
      if (random_below (100) == 0)
        done += queue_poll (f->queue);
    }
    queue_kick (f->queue);
    while (f->queue->in_flight > 0) {
      struct pollfd poll_fd = { .fd = queue_fd (f->queue), .events = POLLIN };

      if (random_below (2))
        queue_wait (f->queue);
      else {
        int ready = poll (&poll_fd, 1, 10000);

        assert_true (ready == 1 || (ready < 0 && errno == EINTR));
        queue_poll (f->queue);
      }
    }
    assert_true (done < COUNT);
    for (uint64_t i = 0; i < COUNT; i++) {
      assert_true (jobs[i].is_done);
      assert_int_equal (jobs[i].io.error, 0);
      assert_memory_equal (memory + i * BLOCK_SIZE + 8, &i, sizeof i);
    }
    if (round == 0)
      memset (memory, 0, COUNT * BLOCK_SIZE);
  }
  free (memory);
  free (jobs);
}

/* As a context does: the queue in an epoll set, in another one; another thread than the
 * one that made the queue; a discard and a flush among the rest. */
static void *
epoll_run (void *arg)
{
  struct fixture *f = arg;
  struct job job = { .memory = allocate_blocks (1) };
  struct epoll_event event = { .events = EPOLLIN };
  int inner = epoll_create1 (EPOLL_CLOEXEC), outer = epoll_create1 (EPOLL_CLOEXEC);
  long errors = 0;

  errors += epoll_ctl (inner, EPOLL_CTL_ADD, queue_fd (f->queue), &event) < 0;
  errors += epoll_ctl (outer, EPOLL_CTL_ADD, inner, &event) < 0;
  for (unsigned i = 0; i < 400 && errors == 0; i++) {
    static const enum io_kind kinds[] = { IO_WRITE, IO_READ, IO_FLUSH, IO_DISCARD };
    enum io_kind kind = kinds[i % 4];
    bool is_transfer = kind == IO_READ || kind == IO_WRITE;

    job_submit (&job, f->queue, kind, i / 4, kind != IO_FLUSH, is_transfer);
    queue_kick (f->queue);
    while (!job.is_done && errors == 0) {
      int ready = epoll_wait (outer, &event, 1, 10000);

      errors += ready == 0 || (ready < 0 && errno != EINTR);
      queue_poll (f->queue);
    }
    errors += job.io.error != 0 && !(kind == IO_DISCARD && job.io.error == -EOPNOTSUPP);
    /* Nothing is left that would wake anybody. */
    errors += epoll_wait (outer, &event, 1, 0) > 0;
  }
  close (inner);
  close (outer);
  free (job.memory);
  return (void *) errors;
}

static void
test_epoll (void **state)
{
  pthread_t thread;
  void *errors;

  assert_int_equal (pthread_create (&thread, NULL, epoll_run, *state), 0);
  assert_int_equal (pthread_join (thread, &errors), 0);
  assert_null (errors);
}

static bool is_misplacing;

/* In place of liburing's: while is_misplacing, I/O goes to odd offsets, which O_DIRECT refuses as
 * a file system does that has none.  All of it is waited for: one that the kernel begins late, when
 * the device is buffered already, would be done there. */
int
io_uring_submit (struct io_uring *ring)
{
  static int (*real_submit) (struct io_uring *);
  struct io_uring_cqe *cqe;
  int submitted;

  if (!real_submit)
    real_submit = (int (*) (struct io_uring *)) dlsym (RTLD_NEXT, "io_uring_submit");
  for (unsigned i = ring->sq.sqe_head; is_misplacing && i != ring->sq.sqe_tail; i++)
    ring->sq.sqes[i & *ring->sq.kring_mask].off++;
  submitted = real_submit (ring);
  if (is_misplacing && submitted > 0)
    io_uring_wait_cqe_nr (ring, &cqe, submitted);
  return submitted;
}

/* What is refused is done again, buffered, and that is said once. */
static void
test_buffered (void **state)
{
  struct fixture *f = *state;
  uint8_t *memory = allocate_blocks (9);
  struct job jobs[2] = { { .memory = memory }, { .memory = memory + 4 * BLOCK_SIZE } };
  struct device_info info;

  is_misplacing = true;
  job_submit (&jobs[0], f->queue, IO_WRITE, 0, 4, 2);
  job_submit (&jobs[1], f->queue, IO_WRITE, 4, 4, 1);
  queue_kick (f->queue);
  is_misplacing = false;
  while (f->queue->in_flight > 0)
    queue_wait (f->queue);
  device_get_info (f->device, &info);
  if (info.is_direct) {
    /* A tmpfs, which takes them. */
    free (memory);
    skip ();
  }
  assert_int_equal (log_count, 1);
  assert_int_equal (jobs[0].io.error, 0);
  assert_int_equal (jobs[1].io.error, 0);
  assert_int_equal (job_run (&jobs[0], f->queue, IO_FLUSH, 0, 0, 0), 0);
  memset (memory, 0, 9 * BLOCK_SIZE);
  assert_int_equal (job_run (&jobs[0], f->queue, IO_READ, 0, 8, 1), 0);
  for (unsigned i = 0; i < 8 * BLOCK_SIZE; i++)
    assert_int_equal (memory[i], 0xee);
  free (memory);
}

static void
test_lock (void **state)
{
  struct fixture *f = *state;
  struct device *other;
  int pipe_fds[2], status;
  pid_t pid;
  char byte;

  assert_int_equal (device_open (path, 0, 0, &other), -EWOULDBLOCK);
  assert_int_equal (device_open (path, DEVICE_READ_ONLY, 30, &other), -EWOULDBLOCK);
  assert_int_equal (device_open (path, DEVICE_CREATE, 0, &other), -EEXIST);
  queue_destroy (f->queue);
  device_close (f->device);
  f->queue = NULL;
  f->device = NULL;

  /* Held by a process that ends while another one waits for it. */
  assert_int_equal (pipe (pipe_fds), 0);
  pid = fork ();
  assert_true (pid >= 0);
  if (pid == 0) {
    int error = device_open (path, 0, 0, &other);

    error |= write (pipe_fds[1], "", 1) != 1;
    usleep (200000);
    _exit (error != 0);
  }
  assert_int_equal (read (pipe_fds[0], &byte, 1), 1);
  close (pipe_fds[0]);
  close (pipe_fds[1]);
  assert_int_equal (device_open (path, 0, 0, &other), -EWOULDBLOCK);
  assert_int_equal (device_open (path, 0, 10000, &f->device), 0);
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
}

/* A child that was forked with the device open, and lives longer, has all that its parent had: what the
 * parent had in memory, too.  If the parent ends without a word the child counts as the opener; a
 * close in order is for both. */
static void
test_forked (void **state)
{
  struct fixture *f = *state;
  struct device *other;
  int pipe_fds[2], status;
  pid_t child, parent;

  queue_destroy (f->queue);
  device_close (f->device);
  f->queue = NULL;
  f->device = NULL;
  for (int is_killed = 0; is_killed < 2; is_killed++) {
    assert_int_equal (pipe (pipe_fds), 0);
    parent = fork ();
    assert_true (parent >= 0);
    if (parent == 0) {
      int error = device_open (path, 0, 10000, &other);

      child = fork ();
      if (child == 0)
        for (;;)
          pause ();
      if (!is_killed)
        device_close (other);
      error |= write (pipe_fds[1], &child, sizeof child) != sizeof child;
      if (is_killed)
        raise (SIGKILL);
      _exit (error != 0);
    }
    assert_int_equal (read (pipe_fds[0], &child, sizeof child), sizeof child);
    close (pipe_fds[0]);
    close (pipe_fds[1]);
    assert_int_equal (waitpid (parent, &status, 0), parent);
    assert_true (is_killed ? WIFSIGNALED (status) : status == 0);
    if (is_killed) {
      assert_int_equal (device_open (path, 0, 30, &other), -EWOULDBLOCK);
      assert_int_equal (kill (child, SIGKILL), 0);
    }
    assert_int_equal (device_open (path, 0, 10000, &other), 0);
    device_close (other);
    if (!is_killed)
      assert_int_equal (kill (child, SIGKILL), 0);
  }
  assert_int_equal (device_open (path, 0, 0, &f->device), 0);
}

/* What I/O may read and fill stays locked until a queue's last I/O has ended, whoever else has closed
 * it.  (That this is so for a process that was killed needs root: tests/test-late-io.py.) */
static void
test_keep_memory (void **state)
{
  struct fixture *f = *state;
  char memory[80];
  struct queue *queue;
  int fd, other;

  snprintf (memory, sizeof memory, "%s.memory", path);
  fd = open (memory, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  other = open (memory, O_RDWR | O_CLOEXEC);
  assert_true (fd >= 0 && other >= 0);
  assert_int_equal (unlink (memory), 0);
  assert_int_equal (flock (fd, LOCK_EX | LOCK_NB), 0);
  device_keep_memory (f->device, fd);
  queue = queue_create (f->device);
  assert_non_null (queue);
  device_keep_memory (f->device, -1);
  close (fd);
  assert_int_equal (flock (other, LOCK_EX | LOCK_NB), -1);
  assert_int_equal (errno, EWOULDBLOCK);
  queue_destroy (queue);
  assert_int_equal (flock (other, LOCK_EX | LOCK_NB), 0);
  close (other);
}

static void
test_wrong_paths (void **state)
{
  struct fixture *f = *state;
  struct job job = { .memory = allocate_blocks (1) };
  struct device *other;
  struct device_info info;
  char fifo[80];

  assert_int_equal (device_open ("no-such-file", 0, 0, &other), -ENOENT);
  assert_int_equal (device_open ("no-such-directory/x", DEVICE_CREATE, 0, &other), -ENOENT);
  assert_int_equal (device_open ("/", DEVICE_READ_ONLY, 0, &other), -EINVAL);
  assert_int_equal (device_open ("/dev/null", 0, 0, &other), -EINVAL);
  snprintf (fifo, sizeof fifo, "%s.fifo", path);
  assert_int_equal (mkfifo (fifo, 0600), 0);
  assert_int_equal (device_open (fifo, DEVICE_READ_ONLY, 0, &other), -EINVAL);
  unlink (fifo);

  /* Read only. */
  queue_destroy (f->queue);
  device_close (f->device);
  assert_int_equal (device_open (path, DEVICE_READ_ONLY, 0, &f->device), 0);
  f->queue = queue_create (f->device);
  device_get_info (f->device, &info);
  assert_true (info.is_read_only);
  assert_false (info.can_discard);
  assert_true (job_run (&job, f->queue, IO_WRITE, 0, 1, 1) < 0);
  assert_int_equal (job_run (&job, f->queue, IO_READ, 0, 1, 1), 0);
  free (job.memory);
}

static void
test_too_big (void **state)
{
  struct fixture *f = *state;
  struct rlimit old, limit;

  assert_int_equal (device_grow (f->device, UINT64_MAX), -EFBIG);
  assert_int_equal (device_grow (f->device, (uint64_t) INT64_MAX / BLOCK_SIZE + 1), -EFBIG);
  assert_int_equal (getrlimit (RLIMIT_FSIZE, &old), 0);
  limit = (struct rlimit) { MIB, old.rlim_max };
  assert_int_equal (setrlimit (RLIMIT_FSIZE, &limit), 0);
  assert_int_equal (device_grow (f->device, 257), -EFBIG);
  assert_int_equal (device_grow (f->device, 256), 0);
  assert_int_equal (setrlimit (RLIMIT_FSIZE, &old), 0);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown (test_round_trip, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_discard, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_end_of_file, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_many, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_epoll, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_buffered, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_lock, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_forked, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_keep_memory, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_wrong_paths, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_too_big, set_up, tear_down),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
