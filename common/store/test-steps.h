/* SPDX-License-Identifier: BSD-2-Clause */
/* test-steps.h - what the tests of administrative ops share: a store on a simulated device, run step
 * by step in an order that is drawn, cut off where the test says, and judged by the checker.
 */
#ifndef LACUNA_TEST_STEPS_H
#define LACUNA_TEST_STEPS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/test-seed.h"
#include "device/device-sim.h"
#include "store/store-internal.h"
#include "store/test-image.h"

/* Stores are abandoned here, as a kill does: what they had is lost, not leaked. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0";
}

#define TAIL_BYTES 16384
#define LENGTH_MAX 65536         /* blocks of the device */

static char arena_path[160];
static struct sim_image *image;
static struct store *store;
static struct context *context;

/* The device, with an empty store. */
static inline void
image_make_as (const struct store_geometry *geometry)
{
  static const uint8_t uuid[16] = { 4, 2 };
  struct sim_options options
    = { .seed = random_number (), .length = 1024, .length_max = LENGTH_MAX };
  const char *parent = getenv ("LACUNA_SHM");
  struct device *device;
  char *error = NULL;

  snprintf (arena_path, sizeof arena_path, "%s/lacuna-test-steps-%d",
            parent != NULL ? parent : "/dev/shm", (int) getpid ());
  unlink (arena_path);
  image = sim_image_create (&options);
  device = sim_device_create (image);
  assert_int_equal (store_init_device (device, geometry, uuid, &error), 0);
  device_close (device);
}

/* With ROOM blocks for data; 0: as many as it likes. */
static inline void
image_make (uint64_t room)
{
  struct store_geometry geometry = {
    .group_blocks = 4096, .meta_blocks = 256, .journal_half_blocks = 64,
  };

  if (room > 0)
    geometry.capacity
      = geometry.meta_blocks + JOURNAL_HALVES * geometry.journal_half_blocks + room;
  image_make_as (&geometry);
}

static inline void
image_destroy (void)
{
  sim_image_destroy (image);
  unlink (arena_path);
}

/* The device as it is. */
static inline void
image_check (void)
{
  int verdict;
  char *text = image_check_text (image, LENGTH_MAX, false, &verdict);

  if (strstr (text, "damage:") != NULL)
    fail_msg ("the checker finds:\n%s", text);
  free (text);
}

static inline void
steps_open (void)
{
  struct store_options options = {
    .device = sim_device_create (image),
    .arena_path = arena_path,
    .cache_bytes = 512 * BLOCK_SIZE,
    .tail_bytes = TAIL_BYTES,
    .has_own_keeper = true,
  };
  char *error = NULL;

  if (store_open (&options, &store, &error) != 0)
    fail_msg ("the store does not open: %s", error);
  /* What is written stays dirty until a test wants it otherwise. */
  store->keeper.unmapped_max = UINT64_MAX;
  context = store_context_create (store);
}

static inline void
steps_close (void)
{
  char *error = NULL;

  store_context_destroy (store, context);
  assert_int_equal (store_close (store, &error), 0);
  image_check ();
}

/* The process ends, or the power is cut. */
static inline void
steps_crash (enum sim_crash_kind kind)
{
  context_abandon (context);
  list_remove (&context->link);
  context_destroy (context);
  store_abandon (store);
  sim_crash (image, kind);
  if (kind == SIM_POWER)
    unlink (arena_path);
  image_check ();
}

static inline void
ignore_admin (struct admin *admin)
{
  (void) admin;
}

/* On the disk "d"; LENGTH is also the size of one that is made, in blocks. */
static inline void
admin_begin (struct admin *admin, enum admin_kind kind, uint64_t block, uint64_t length)
{
  admin_init (admin, context, store, kind, "d", ignore_admin);
  admin->offset = block * BLOCK_SIZE;
  admin->length = admin->size = length * BLOCK_SIZE;
  admin->may_shrink = true;
  admin_start (admin);
}

/* How many ops can go on; the INDEX-th of them is *OP. */
static unsigned
find_ready (unsigned index, struct op **op)
{
  struct context *contexts[] = { context, store_keeper_context (store) };
  unsigned count = 0;

  for (unsigned i = 0; i < ARRAY_COUNT (contexts); i++) {
    context_collect (contexts[i]);
    list_for_each (link, &contexts[i]->ready)
      if (count++ == index)
        *op = container_of (link, struct op, link);
  }
  return count;
}

/* One step of one op, or the end of an I/O; false: there is nothing left to be done. */
static bool
step (void)
{
  struct op *op = NULL;
  unsigned ready = find_ready (UINT32_MAX, &op), ios = sim_in_flight (image);
  unsigned choice;

  if (ready + ios == 0)
    return false;
  choice = random_below (ready + ios);
  if (choice >= ready) {
    sim_complete (image, choice - ready);
    return true;
  }
  find_ready (choice, &op);
  context_step (op->context, op);
  return true;
}

static void
run (void)
{
  for (unsigned steps = 0; step (); steps++)
    assert_true (steps < 10 * 1000 * 1000);
}

#endif
