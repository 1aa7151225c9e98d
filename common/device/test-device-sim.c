/* SPDX-License-Identifier: BSD-2-Clause */
/* test-device-sim.c - the simulated device against a model that keeps, for each sector,
 * all that it may hold after a crash.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "base/test-seed.h"
#include "device/device-sim.h"

/* --- one io with its memory --- */

#define IO_BLOCKS 6

struct job {
  struct io io;
  struct iovec segments[IO_BLOCKS];
  uint8_t *memory;
  bool is_busy;
  bool is_done;
  uint64_t order;               /* flush: completions before its submission */
};

static void
job_done (struct io *io)
{
  container_of (io, struct job, io)->is_done = true;
}

static void
job_create (struct job *job)
{
  memset (job, 0, sizeof *job);
  job->memory = aligned_alloc (BLOCK_SIZE, IO_BLOCKS * BLOCK_SIZE);
  assert_non_null (job->memory);
  memset (job->memory, 0, IO_BLOCKS * BLOCK_SIZE);
}

static void
job_submit (struct job *job, struct queue *queue, enum io_kind kind, uint64_t place,
            uint64_t length)
{
  bool is_transfer = kind == IO_READ || kind == IO_WRITE;

  for (unsigned i = 0; is_transfer && i < length; i++)
    job->segments[i] = (struct iovec) { job->memory + i * BLOCK_SIZE, BLOCK_SIZE };
  job->io = (struct io) {
    .kind = kind, .place = place, .length = length, .segments = job->segments,
    .segment_count = is_transfer ? length : 0, .done = job_done,
  };
  job->is_busy = true;
  job->is_done = false;
  io_submit (queue, &job->io);
}

static int
job_run (struct job *job, struct queue *queue, enum io_kind kind, uint64_t place, uint64_t length)
{
  job_submit (job, queue, kind, place, length);
  while (!job->is_done)
    queue_wait (queue);
  job->is_busy = false;
  return job->io.error;
}

/* --- against the model --- */

#define PLACES 48
#define SECTORS 8
#define JOBS 8
#define HISTORY_MAX 4096
#define GARBAGE UINT32_MAX              /* a discard was here: anything */

/* Every sector of a write holds its tag, four bytes repeated. */
struct change {
  uint32_t tag;
  uint64_t completed;                   /* order of completion; 0: in flight at the crash */
};

struct model {
  uint32_t current[PLACES];             /* tag per block, after completions */
  uint32_t base[PLACES][SECTORS];       /* durable for sure */
  struct change history[PLACES][HISTORY_MAX];   /* after it */
  unsigned history_count[PLACES];
  uint64_t completions;
};

static struct model model;
static struct job jobs[JOBS];
static uint32_t next_tag = 1;

static uint32_t
sector_tag (const uint8_t *block, unsigned sector)
{
  uint32_t tag, other;

  memcpy (&tag, block + sector * 512, 4);
  for (unsigned at = 4; at < 512; at += 4) {
    memcpy (&other, block + sector * 512 + at, 4);
    if (other != tag)
      return GARBAGE;
  }
  return tag;
}

static void
block_fill (uint8_t *block, uint32_t tag)
{
  for (unsigned at = 0; at < BLOCK_SIZE; at += 4)
    memcpy (block + at, &tag, 4);
}

static void
model_change (uint64_t place, uint32_t tag, uint64_t completed)
{
  assert_true (model.history_count[place] < HISTORY_MAX);
  model.history[place][model.history_count[place]++] = (struct change) { tag, completed };
}

/* All that completed up to ORDER is durable: the last such change is the base. */
static void
model_flush (uint64_t order)
{
  for (uint64_t place = 0; place < PLACES; place++) {
    struct change *history = model.history[place];
    unsigned kept = 0;

    for (unsigned i = 0; i < model.history_count[place]; i++)
      if (history[i].completed <= order)
        for (unsigned s = 0; s < SECTORS; s++)
          model.base[place][s] = history[i].tag;
      else
        history[kept++] = history[i];
    model.history_count[place] = kept;
  }
}

static void
model_complete (struct job *job)
{
  uint32_t tag;

  assert_int_equal (job->io.error, 0);
  if (job->io.kind == IO_FLUSH) {
    model_flush (job->order);
    return;
  }
  model.completions++;
  for (uint64_t i = 0; i < job->io.length; i++) {
    uint64_t place = job->io.place + i;

    memcpy (&tag, job->memory + i * BLOCK_SIZE, 4);
    if (job->io.kind == IO_READ) {
      if (model.current[place] != GARBAGE)
        for (unsigned s = 0; s < SECTORS; s++)
          assert_int_equal (sector_tag (job->memory + i * BLOCK_SIZE, s), model.current[place]);
      continue;
    }
    model.current[place] = job->io.kind == IO_WRITE ? tag : GARBAGE;
    model_change (place, model.current[place], model.completions);
  }
}

static bool
may_submit (enum io_kind kind, uint64_t place, uint64_t length)
{
  for (unsigned i = 0; i < JOBS; i++)
    if (kind != IO_FLUSH && jobs[i].is_busy && jobs[i].io.place < place + length
        && place < jobs[i].io.place + jobs[i].io.length)
      return false;
  return true;
}

static void
model_submit (struct queue *queue, struct job *job)
{
  static const enum io_kind kinds[] = { IO_READ, IO_WRITE, IO_WRITE, IO_WRITE, IO_FLUSH,
                                        IO_DISCARD };
  enum io_kind kind = kinds[random_below (ARRAY_COUNT (kinds))];
  uint64_t length = kind == IO_FLUSH ? 0 : 1 + random_below (IO_BLOCKS);
  uint64_t place = kind == IO_FLUSH ? 0 : random_below (PLACES - length + 1);

  if (!may_submit (kind, place, length))
    return;
  if (kind == IO_WRITE)
    for (uint64_t i = 0; i < length; i++)
      block_fill (job->memory + i * BLOCK_SIZE, next_tag++);
  job->order = model.completions;
  job_submit (job, queue, kind, place, length);
}

/* Each sector holds the base, or one of the changes since; what a kill leaves is one of
 * the last completed and those in flight. */
static void
model_judge (struct sim_image *image, uint64_t place, enum sim_crash_kind kind)
{
  uint8_t block[BLOCK_SIZE];
  bool has_garbage = false;

  sim_peek (image, place, block);
  for (unsigned i = 0; i < model.history_count[place]; i++)
    has_garbage |= model.history[place][i].tag == GARBAGE;
  has_garbage |= model.current[place] == GARBAGE;
  for (unsigned s = 0; s < SECTORS; s++) {
    uint32_t tag = sector_tag (block, s);
    bool is_legal = tag == model.current[place]
                    || (kind == SIM_POWER && tag == model.base[place][s])
                    || model.base[place][s] == GARBAGE || has_garbage;

    for (unsigned i = 0; i < model.history_count[place]; i++)
      is_legal |= model.history[place][i].tag == tag
                  && (kind == SIM_POWER || model.history[place][i].completed == 0);
    assert_true (is_legal);
  }
}

/* What is there now is what counts from now on. */
static void
model_restart (struct sim_image *image, enum sim_crash_kind kind)
{
  uint8_t block[BLOCK_SIZE];

  for (uint64_t place = 0; place < PLACES; place++) {
    bool is_mixed = false;
    uint32_t tag;

    sim_peek (image, place, block);
    tag = sector_tag (block, 0);
    for (unsigned s = 1; s < SECTORS; s++)
      is_mixed |= sector_tag (block, s) != tag;
    if (is_mixed)
      tag = GARBAGE;
    if (kind == SIM_POWER) {
      model.history_count[place] = 0;
      for (unsigned s = 0; s < SECTORS; s++)
        model.base[place][s] = tag;
    }
    /* A later power cut may still lose what a kill has left. */
    else
      for (unsigned i = 0; i < model.history_count[place]; i++)
        if (model.history[place][i].completed == 0)
          model.history[place][i].completed = ++model.completions;
    /* Also where it has not changed: what was in flight may have done nothing. */
    if (kind == SIM_KILL && model.history_count[place] > 0)
      model_change (place, tag, ++model.completions);
    model.current[place] = tag;
  }
}

static void
model_crash (struct sim_image *image, enum sim_crash_kind kind)
{
  for (unsigned i = 0; i < JOBS; i++) {
    struct job *job = &jobs[i];
    uint32_t tag;

    for (uint64_t b = 0; job->is_busy && b < job->io.length; b++) {
      memcpy (&tag, job->memory + b * BLOCK_SIZE, 4);
      if (job->io.kind == IO_WRITE || job->io.kind == IO_DISCARD)
        model_change (job->io.place + b, job->io.kind == IO_WRITE ? tag : GARBAGE, 0);
    }
    job->is_busy = false;
    /* Nothing of it is needed by now. */
    free (job->memory);
    memset (&job->io, 0x5a, sizeof job->io);
  }
  sim_crash (image, kind);
  for (uint64_t place = 0; place < PLACES; place++)
    model_judge (image, place, kind);
  model_restart (image, kind);
}

static void
reap_jobs (struct queue *queue)
{
  /* One completion at a time: polled at once, so the order is known. */
  queue_poll (queue);
  for (unsigned i = 0; i < JOBS; i++)
    if (jobs[i].is_busy && jobs[i].is_done) {
      model_complete (&jobs[i]);
      jobs[i].is_busy = false;
    }
}

static void
model_life (struct sim_image *image)
{
  struct device *device = sim_device_create (image);
  struct queue *queues[2] = { queue_create (device), queue_create (device) };
  enum sim_crash_kind kind = random_below (2) ? SIM_KILL : SIM_POWER;
  bool is_abandoned = random_below (2);

  for (unsigned i = 0; i < JOBS; i++)
    job_create (&jobs[i]);
  for (uint64_t step = random_below (200); step > 0; step--) {
    struct queue *queue = queues[random_below (2)];
    struct job *job = &jobs[random_below (JOBS)];

    if (!job->is_busy)
      model_submit (queue, job);
    else if (random_below (2))
      queue_kick (queue);
    if (random_below (2) && sim_in_flight (image) > 0) {
      sim_complete (image, random_below (sim_in_flight (image)));
      reap_jobs (queues[0]);
      reap_jobs (queues[1]);
    }
  }
  /* Both orders: the store lets go of its queues before the crash, or after it. */
  for (unsigned i = 0; is_abandoned && i < 2; i++)
    queue_destroy (queues[i]);
  if (is_abandoned)
    device_close (device);
  model_crash (image, kind);
  for (unsigned i = 0; !is_abandoned && i < 2; i++)
    queue_destroy (queues[i]);
  if (!is_abandoned)
    device_close (device);
}

static void
test_model (void **state)
{
  struct sim_options options = { .seed = random_seed (), .length = 10, .length_max = PLACES };
  struct sim_image *image = sim_image_create (&options);

  (void) state;
  memset (&model, 0, sizeof model);
  next_tag = 1;
  for (unsigned life = 0; life < 400; life++)
    model_life (image);
  sim_image_destroy (image);
}

/* --- the rest by example --- */

struct fixture {
  struct sim_image *image;
  struct device *device;
  struct queue *queue;
  struct job job;
};

static int
set_up (void **state)
{
  struct sim_options options = { .seed = 5, .length = 100, .length_max = 1000 };
  struct fixture *f = calloc (1, sizeof *f);

  f->image = sim_image_create (&options);
  f->device = sim_device_create (f->image);
  f->queue = queue_create (f->device);
  job_create (&f->job);
  *state = f;
  return 0;
}

static int
tear_down (void **state)
{
  struct fixture *f = *state;

  if (f->queue)
    queue_destroy (f->queue);
  if (f->device)
    device_close (f->device);
  sim_image_destroy (f->image);
  free (f->job.memory);
  free (f);
  return 0;
}

static int
run (struct fixture *f, enum io_kind kind, uint64_t place, uint64_t length)
{
  return job_run (&f->job, f->queue, kind, place, length);
}

static void
test_faults (void **state)
{
  struct fixture *f = *state;

  sim_fail (f->image, IO_WRITE, 1, -EIO, false);
  assert_int_equal (run (f, IO_WRITE, 0, 1), 0);
  assert_int_equal (run (f, IO_READ, 0, 1), 0);
  assert_int_equal (run (f, IO_WRITE, 0, 1), -EIO);
  assert_int_equal (run (f, IO_WRITE, 0, 1), 0);
  sim_fail (f->image, IO_FLUSH, 0, -EIO, true);
  assert_int_equal (run (f, IO_FLUSH, 0, 0), -EIO);
  assert_int_equal (run (f, IO_FLUSH, 0, 0), -EIO);
  sim_fail_range (f->image, IO_READ, 10, 5, -EBADMSG);
  assert_int_equal (run (f, IO_READ, 7, 3), 0);
  assert_int_equal (run (f, IO_READ, 8, 3), -EBADMSG);
  assert_int_equal (run (f, IO_READ, 15, 1), 0);
  sim_heal (f->image);
  assert_int_equal (run (f, IO_READ, 8, 3), 0);
  assert_int_equal (run (f, IO_FLUSH, 0, 0), 0);
}

static void
test_stop (void **state)
{
  struct fixture *f = *state;
  uint8_t block[BLOCK_SIZE];

  memset (f->job.memory, 1, BLOCK_SIZE);
  sim_stop_after (f->image, 2);
  assert_int_equal (run (f, IO_WRITE, 0, 1), 0);
  assert_int_equal (run (f, IO_READ, 1, 1), 0);
  assert_false (sim_is_stopped (f->image));
  memset (f->job.memory, 2, BLOCK_SIZE);
  assert_int_equal (run (f, IO_WRITE, 0, 1), -ECANCELED);
  assert_true (sim_is_stopped (f->image));
  assert_int_equal (run (f, IO_FLUSH, 0, 0), -ECANCELED);
  assert_int_equal (device_grow (f->device, 200), -ECANCELED);
  sim_crash (f->image, SIM_KILL);
  assert_false (sim_is_stopped (f->image));
  sim_peek (f->image, 0, block);
  assert_int_equal (block[0], 1);
}

static void
test_space (void **state)
{
  struct fixture *f = *state;
  struct device_info info;
  struct sim_counts counts;

  assert_int_equal (run (f, IO_WRITE, 0, 4), 0);
  sim_set_host_free (f->image, 2);
  assert_int_equal (device_host_free (f->device), 2 * BLOCK_SIZE);
  assert_int_equal (run (f, IO_WRITE, 2, 4), 0);          /* two are new */
  assert_int_equal (run (f, IO_WRITE, 6, 1), -ENOSPC);
  assert_int_equal (run (f, IO_WRITE, 0, 6), 0);
  assert_int_equal (device_grow (f->device, 101), -ENOSPC);
  assert_int_equal (run (f, IO_DISCARD, 0, 1), 0);
  assert_int_equal (run (f, IO_WRITE, 6, 1), 0);
  device_get_info (f->device, &info);
  assert_int_equal (info.allocated, 6 * BLOCK_SIZE);
  assert_false (info.is_block_device);
  sim_heal (f->image);
  assert_int_equal (device_grow (f->device, 1001), -EFBIG);
  assert_int_equal (device_grow (f->device, 500), 0);
  device_get_info (f->device, &info);
  assert_int_equal (info.length, 500);
  assert_int_equal (run (f, IO_WRITE, 999, 2), -EFBIG);
  /* Costs what is there, not what it spans. */
  assert_int_equal (run (f, IO_DISCARD, 0, UINT64_C (1) << 40), 0);
  sim_get_counts (f->image, &counts);
  assert_int_equal (counts.blocks_allocated, 0);
  assert_int_equal (counts.discards, 2);
}

/* I/O that nobody kicked is not there yet. */
static void
test_kick (void **state)
{
  struct fixture *f = *state;

  job_submit (&f->job, f->queue, IO_WRITE, 3, 1);
  assert_int_equal (sim_in_flight (f->image), 0);
  queue_kick (f->queue);
  assert_int_equal (sim_in_flight (f->image), 1);
  assert_ptr_equal (sim_io (f->image, 0), &f->job.io);
  assert_int_equal (f->queue->in_flight, 1);
  sim_complete (f->image, 0);
  assert_false (f->job.is_done);
  assert_int_equal (queue_poll (f->queue), 1);
  assert_true (f->job.is_done);
  assert_int_equal (f->queue->in_flight, 0);
}

/* All fates of one unflushed block are found, and none but those. */
static void
test_power_fates (void **state)
{
  unsigned old = 0, new = 0, torn = 0;

  (void) state;
  for (uint64_t seed = 0; seed < 300; seed++) {
    struct sim_options options = { .seed = seed, .length = 10, .length_max = 1000 };
    struct sim_image *image = sim_image_create (&options), *clone;
    struct device *device = sim_device_create (image);
    struct queue *queue = queue_create (device);
    uint8_t block[BLOCK_SIZE];
    struct job job;
    unsigned sectors = 0;

    job_create (&job);
    block_fill (job.memory, 1);
    assert_int_equal (job_run (&job, queue, IO_WRITE, 20, 1), 0);
    assert_int_equal (job_run (&job, queue, IO_FLUSH, 0, 0), 0);
    block_fill (job.memory, 2);
    assert_int_equal (job_run (&job, queue, IO_WRITE, 20, 1), 0);
    clone = sim_image_clone (image, ~seed);
    sim_crash (image, SIM_POWER);
    sim_peek (clone, 20, block);
    assert_int_equal (sector_tag (block, 0), 2);
    sim_crash (clone, SIM_POWER);
    sim_image_destroy (clone);
    sim_peek (image, 20, block);
    for (unsigned s = 0; s < SECTORS; s++)
      sectors += sector_tag (block, s) - 1;
    old += sectors == 0;
    new += sectors == SECTORS;
    torn += sectors > 0 && sectors < SECTORS;
    free (job.memory);
    sim_image_destroy (image);
  }
  assert_int_equal (old + new + torn, 300);
  assert_true (old > 30 && new > 30 && torn > 10);
}

/* The same seed, the same fate. */
static void
test_determinism (void **state)
{
  uint64_t sums[2] = { 0, 0 };

  (void) state;
  for (unsigned round = 0; round < 2; round++) {
    struct sim_options options = { .seed = 77, .length = 100, .length_max = 100 };
    struct sim_image *image = sim_image_create (&options);
    struct device *device = sim_device_create (image);
    struct queue *queue = queue_create (device);
    uint8_t block[BLOCK_SIZE];
    struct job own[20];

    for (unsigned i = 0; i < 20; i++) {
      job_create (&own[i]);
      memset (own[i].memory, i + 1, BLOCK_SIZE);
      job_submit (&own[i], queue, i % 5 == 4 ? IO_DISCARD : IO_WRITE, i * 4, 1);
    }
    for (unsigned i = 0; i < 10; i++)
      queue_wait (queue);
    sim_crash (image, SIM_POWER);
    for (uint64_t place = 0; place < 100; place++) {
      sim_peek (image, place, block);
      for (unsigned at = 0; at < BLOCK_SIZE; at++)
        sums[round] = sums[round] * 31 + block[at];
    }
    for (unsigned i = 0; i < 20; i++)
      free (own[i].memory);
    sim_image_destroy (image);
  }
  assert_int_equal (sums[0], sums[1]);
}

/* --- threads --- */

static struct device *thread_device;

static void *
thread_run (void *arg)
{
  struct queue *queue = queue_create (thread_device);
  uint64_t first = (uintptr_t) arg * 16;
  struct job job;
  long errors = 0;

  job_create (&job);
  for (unsigned i = 0; i < 500; i++) {
    struct pollfd poll_fd = { .fd = queue_fd (queue), .events = POLLIN };
    unsigned completed = 0;

    memset (job.memory, i, BLOCK_SIZE);
    job_submit (&job, queue, IO_WRITE, first + i % 16, 1);
    errors += job.is_done;              /* never within the submission */
    queue_kick (queue);
    while (completed == 0) {            /* not always at the first poll */
      errors += poll (&poll_fd, 1, -1) != 1;
      completed = queue_poll (queue);
    }
    errors += completed != 1 || !job.is_done || job.io.error;
    errors += poll (&poll_fd, 1, 0) != 0;
    memset (job.memory, 0, BLOCK_SIZE);
    errors += job_run (&job, queue, IO_READ, first + i % 16, 1) != 0;
    errors += job.memory[5] != i % 256;
    errors += i % 50 == 0 && job_run (&job, queue, IO_FLUSH, 0, 0) != 0;
  }
  free (job.memory);
  queue_destroy (queue);
  return (void *) errors;
}

static void
test_threads (void **state)
{
  struct sim_options options = { .seed = 1, .length = 64, .length_max = 64,
                                 .is_threaded = true };
  struct sim_image *image = sim_image_create (&options);
  pthread_t threads[3];
  void *errors;

  (void) state;
  thread_device = sim_device_create (image);
  for (uintptr_t i = 0; i < ARRAY_COUNT (threads); i++)
    assert_int_equal (pthread_create (&threads[i], NULL, thread_run, (void *) i), 0);
  for (unsigned i = 0; i < ARRAY_COUNT (threads); i++) {
    assert_int_equal (pthread_join (threads[i], &errors), 0);
    assert_null (errors);
  }
  device_close (thread_device);
  sim_image_destroy (image);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_model),
    cmocka_unit_test_setup_teardown (test_faults, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_stop, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_space, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_kick, set_up, tear_down),
    cmocka_unit_test (test_power_fates),
    cmocka_unit_test (test_determinism),
    cmocka_unit_test (test_threads),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
