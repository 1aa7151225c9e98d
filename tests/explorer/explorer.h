/* SPDX-License-Identifier: BSD-2-Clause */
/* explorer.h - a few ops, through every interleaving of their steps and of the device's completions, on the real engine.
 *
 * A scenario is run again and again from one initial state.  Wherever more than one thing can happen next, each is tried:
 * depth first, by replaying the choices of the run before up to the last one that has an alternative.  No state is
 * stored, none is skipped: all interleavings are run, or, with `preemptions`, all those in which an op that could go on
 * is interrupted (by another, or by a completion) at most so many times (Musuvathi and Qadeer, "Iterative context
 * bounding", PLDI 2007), or, with `delays`, all those that leave at most so many times the order in which each op runs
 * as far as it can (Emmi, Qadeer and Rakamaric, "Delay-bounded scheduling", POPL 2011).  With LACUNA_LONG the bounds are wider.
 *
 * Each READ is judged by the simulator's oracle when it ends.  After each run: the engine's structures, the content of
 * all disks through the store, and again after a FLUSH and a power cut.  On the way: no I/O to blocks that change
 * owners meanwhile.  With `cuts_power` the power is cut at every step of every interleaving, in a clone of the world; but
 * only once for what the device and the model are in, since nothing else outlives it.
 */
#ifndef LACUNA_TESTS_EXPLORER_H
#define LACUNA_TESTS_EXPLORER_H

#include "../sim/world.h"

struct scenario {
  const char *name;
  const char *about;
  uint64_t capacity;            /* data blocks of the store; 0: plenty */
  /* The initial state: BASE is run to its end and closed once; WARM is run to its end in each run. */
  void (*base) (struct world *world);
  void (*warm) (struct world *world);
  void (*start) (struct world *world);
  /* Started when all of START has ended (for what must come after), explored as well. */
  void (*then) (struct world *world);
  bool then_in_order;           /* not explored, but one step after the other */
  uint32_t preemptions, long_preemptions;  /* 0: no bound */
  uint32_t delays, long_delays;            /* 0: no bound */
  bool cuts_power;
};

struct exploration {
  uint64_t runs, steps, cuts;
  uint32_t depth_max;
  bool is_complete;             /* no interleaving was left out for the sake of a bound */
  bool is_failed;
};

/* More runs than RUNS_MAX: a failure, since not all were tried. */
bool explore (const struct scenario *scenario, uint64_t runs_max, bool is_traced, struct exploration *result);

extern const struct scenario scenarios[];
extern const unsigned scenario_count;

/* For scenarios: starts write-back of all that is dirty on disk D, as one more op. */
void explorer_write_back (struct world *world, unsigned d);
/* Runs all that was started to its end. */
void explorer_finish (struct world *world);

#endif
