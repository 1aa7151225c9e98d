/* SPDX-License-Identifier: BSD-2-Clause */
/* test-image.h - what the checker, which knows the format's page only, says of a simulated device. */
#ifndef LACUNA_TEST_IMAGE_H
#define LACUNA_TEST_IMAGE_H

#include <stdbool.h>
#include <stdio.h>

#include "base/check.h"
#include "device/device-sim.h"
#include "store/checker.h"

static int
image_read (void *arg, uint64_t place, void *block)
{
  sim_peek (arg, place, block);
  return 0;
}

static int
image_write (void *arg, uint64_t place, const void *block)
{
  sim_poke (arg, place, block);
  return 0;
}

static int
image_flush (void *arg)
{
  (void) arg;
  return 0;
}

static bool
image_agree (void *arg)
{
  (void) arg;
  return true;
}

/* Of a store that nobody has open, on an IMAGE that may have LENGTH blocks; REPAIRS: whatever can be
 * repaired is.  To be freed. */
static inline char *
image_check_text (struct sim_image *image, uint64_t length, bool repairs, int *verdict)
{
  struct checker_reader reader = {
    .read = image_read, .write = image_write, .flush = image_flush,
    .length = length, .is_growing = true, .arg = image,
  };
  char *text = NULL;
  size_t bytes;
  FILE *out = open_memstream (&text, &bytes);

  CHECK (out != NULL);
  *verdict = repairs ? checker_repair_reader (&reader, out, image_agree, NULL)
                     : checker_run_reader (&reader, out, false);
  fclose (out);
  return text;
}

#endif
