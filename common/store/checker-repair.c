/* SPDX-License-Identifier: BSD-2-Clause */
/* checker-repair.c - puts right what can be put right without guessing.
 *
 * While the checker judges a store it plans: what a second copy has is copied; what leads to nodes
 * that are lost is taken out of their parents; a broken journal is cut; counts are corrected.
 * Nothing is written before somebody has agreed to all of it.
 *
 * The blocks are written in phases, with a flush after each, so that a repair that is interrupted
 * leaves what there was, or what there will be.  Nodes are changed in place: as long as the new
 * first copies are not referred to, the second ones are the tree; after that, the first ones are.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#include "store/checker-internal.h"

struct fix {
  enum checker_phase phase;
  uint64_t place;
  uint8_t *block;
  size_t order;
};

/* What is done, for people. */
struct telling {
  char *text;                      /* NULL: no memory for it */
  bool is_dropped;                 /* something is given up */
};

struct checker_plan {
  struct fix *fixes;
  size_t count, max;
  struct telling *texts;
  size_t text_count, text_max;
};

struct checker_plan *
checker_plan_create (void)
{
  struct checker_plan *plan = calloc (1, sizeof *plan);

  if (plan == NULL) {
    fputs ("lacuna: not enough memory to check the store\n", stderr);
    exit (CHECKER_UNUSABLE);
  }
  return plan;
}

void
checker_plan_free (struct checker_plan *plan)
{
  if (plan == NULL)
    return;
  for (size_t i = 0; i < plan->count; ++i)
    free (plan->fixes[i].block);
  for (size_t i = 0; i < plan->text_count; ++i)
    free (plan->texts[i].text);
  free (plan->fixes);
  free (plan->texts);
  free (plan);
}

/* --- planning --- */

void
checker_fix (struct checker *checker, enum checker_phase phase, uint64_t place,
             const uint8_t *block)
{
  struct checker_plan *plan = checker->plan;
  struct fix *fix;

  if (plan == NULL || !checker->is_planning)
    return;
  plan->fixes = checker_array_add (plan->fixes, &plan->count, &plan->max, sizeof *plan->fixes);
  fix = &plan->fixes[plan->count - 1];
  *fix = (struct fix) { phase, place, malloc (CHECKER_BLOCK), plan->count };
  if (fix->block == NULL) {
    fputs ("lacuna: not enough memory to plan the repair\n", stderr);
    exit (CHECKER_UNUSABLE);
  }
  memcpy (fix->block, block, CHECKER_BLOCK);
}

void
checker_fix_tell (struct checker *checker, bool is_dropped, const char *format, ...)
{
  struct checker_plan *plan = checker->plan;
  struct telling *telling;
  va_list arguments;

  if (plan == NULL || !checker->is_planning)
    return;
  plan->texts
    = checker_array_add (plan->texts, &plan->text_count, &plan->text_max, sizeof *plan->texts);
  telling = &plan->texts[plan->text_count - 1];
  telling->is_dropped = is_dropped;
  va_start (arguments, format);
  if (vasprintf (&telling->text, format, arguments) < 0)
    telling->text = NULL;
  va_end (arguments);
}

void
checker_put (uint8_t *at, uint64_t value, unsigned bytes)
{
  for (unsigned i = 0; i < bytes; ++i, value >>= 8)
    at[i] = value;
}

void
checker_seal (uint8_t *block)
{
  checker_put (block + 8, checker_checksum (block, 8, 8, 0), 8);
}

void
checker_fix_node (struct checker *checker, bool is_disk_node, uint64_t place, uint8_t *image)
{
  checker_seal (image);
  checker_fix (checker, is_disk_node ? CHECKER_PHASE_ROOTS : CHECKER_PHASE_NODES, place, image);
  checker_fix (checker, CHECKER_PHASE_SECONDS, place + checker->super.meta_blocks / 2, image);
}

/* --- doing --- */

static int
fix_compare (const void *a, const void *b)
{
  const struct fix *x = a, *y = b;

  if (x->phase != y->phase)
    return x->phase < y->phase ? -1 : 1;
  return x->order < y->order ? -1 : x->order > y->order;
}

size_t
checker_plan_print (const struct checker_plan *plan, FILE *out)
{
  for (size_t i = 0; i < plan->text_count; ++i)
    fprintf (out, "%s: %s\n", plan->texts[i].is_dropped ? "drop" : "repair",
             plan->texts[i].text != NULL ? plan->texts[i].text : "(no memory to tell)");
  return plan->count;
}

int
checker_plan_apply (struct checker_plan *plan, const struct checker_reader *reader)
{
  int error = 0;

  if (plan->count > 0)
    qsort (plan->fixes, plan->count, sizeof *plan->fixes, fix_compare);
  for (size_t i = 0; i < plan->count && error == 0; ++i) {
    if (i > 0 && plan->fixes[i].phase != plan->fixes[i - 1].phase)
      error = reader->flush (reader->arg);
    if (error == 0)
      error = reader->write (reader->arg, plan->fixes[i].place, plan->fixes[i].block);
  }
  return error != 0 ? error : reader->flush (reader->arg);
}
