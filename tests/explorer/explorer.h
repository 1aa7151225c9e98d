/* SPDX-License-Identifier: BSD-2-Clause */
/* explorer.h - a few ops, through every interleaving of their steps and of the device's
 * completions, on the real engine.
 *
 * A scenario is run again and again from one initial state.  Wherever more than one thing can
 * happen next, each is tried: depth first, by replaying the choices of the run before up to the
 * last one that has an alternative.  There are no bounds: whatever an op may be interrupted by, it
 * is interrupted by, everywhere.
 *
 * What makes that possible is that states are recognised (state.c).  A run that comes to a state
 * from which everything has been tried already ends there: what can follow is known, and in how
 * many ways.  So the number of interleavings is exact though most of them are never run; it is the
 * number of ways through the graph of states.  FULL runs each of them, as a test of that.
 *
 * A run ends when nothing can happen any more: not even the keeper has something to do.
 *
 * Each READ is judged by the simulator's oracle when it ends; on the way, each io: the blocks that
 * it goes to must not change owners meanwhile.  Each final state is judged: the engine's
 * structures, the content of all disks through the store, and again after a FLUSH and a power cut
 * (judge.c).  With CUT_POWER the power is cut after every step, in a clone of the world, and with
 * CUT_KILL the process is killed there; once in each state.
 */
#ifndef LACUNA_TESTS_EXPLORER_H
#define LACUNA_TESTS_EXPLORER_H

#include "../sim/world.h"
#include "store/store-internal.h"

enum explorer_cuts { CUT_POWER = 1, CUT_KILL = 2 };

struct scenario {
  const char *name;
  const char *about;
  uint64_t capacity;            /* data blocks of the store; 0: plenty */
  /* The initial state: BASE is run to its end and closed once; WARM is run to its end in each
   * run. */
  void (*base) (struct world *world);
  void (*warm) (struct world *world);
  void (*start) (struct world *world);
  /* Started when all of START has ended (for what must come after), explored as well. */
  void (*then) (struct world *world);
  /* Looked at before each choice: true if it has started something, and PHASE counts up. */
  bool (*chase) (struct world *world, unsigned phase);
  const void *arg;
  unsigned cuts;                /* enum explorer_cuts */
  bool is_long;                 /* not in make check */
};

struct exploration {
  uint64_t ways;                /* interleavings; UINT64_MAX: that many or more */
  uint64_t states, runs, steps, cuts;
  uint64_t returns;             /* to a state that led there: ways without end */
  uint64_t outcomes, digest;    /* final states, as the judge sees them: how many, and which */
  uint32_t depth_max;
  bool is_failed;
};

struct explorer_settings {
  uint64_t runs_max;            /* more are a failure, since not all was tried */
  uint64_t compare_max;         /* main.c's */
  bool is_full;                 /* every interleaving is run; no crashes */
  bool is_traced;
};

bool explore (const struct scenario *scenario, const struct explorer_settings *settings,
              struct exploration *result);

extern const struct scenario scenarios[], races[];
extern const unsigned scenario_count, race_count;

/* tables.c: those that are made from its tables; they are gone when VISIT returns. */
void tables_each (void (*visit) (const struct scenario *scenario, void *arg), void *arg);

bool tables_has_row (const char *name);
void tables_print_rows (void);
/* roles.c: what in the engine each row stands for.  False: there is no such row. */
bool roles_print (void);

/* --- for scenarios --- */

/* The one that is being explored. */
const struct scenario *explorer_scenario (void);

#define BLOCKS(n) ((n) * BLOCK_SIZE)

/* Starts a request, which must be one that can be started. */
void explorer_request (struct world *world, unsigned disk, enum request_kind kind, unsigned flags,
                       uint64_t offset, uint64_t length);
/* Starts write-back of all that is dirty on disk D, as one more op. */
void explorer_write_back (struct world *world, unsigned d);
/* A READ that goes on where one before it had ended, so that it reads ahead. */
void explorer_read_ahead (struct world *world, unsigned d, uint64_t offset, uint64_t length);
/* Runs all that was started to its end. */
void explorer_finish (struct world *world);

/* --- judge.c --- */

/* On each io; its memory of those in flight is cleared by judge_begin. */
void judge_io (void *arg, const struct io *io, bool is_completion);
void judge_begin (void);
/* Of what it remembers. */
uint64_t judge_token (void);
/* Cuts power, or kills, in a clone, if it has not been done in this state. */
void judge_cuts (struct world *world, unsigned cuts, struct exploration *result);
/* All has ended.  Returns a number for what has come of it. */
uint64_t judge_end (struct world *world, struct exploration *result);
void judge_forget (void);

/* --- state.c --- */

uint64_t explorer_state (struct world *world);
/* False: the engine's structures have changed since it was written. */
bool state_is_known (void);
/* What was started by CHASE and THEN. */
uint64_t explorer_phase (void);

/* Numbers that were seen, each with a value. */
struct seen_set {
  struct seen_entry { uint64_t key, value; } *entries;
  uint64_t slots, count;        /* slots: power of 2 */
};
/* The value of KEY (not 0), and whether it is NEW: then it is 0. */
uint64_t *seen_find (struct seen_set *set, uint64_t key, bool *is_new);
void seen_clear (struct seen_set *set);

/* Ops that are not requests. */
#define EXPLORER_OPS 4

struct explorer_op {
  struct op op;
  struct world *world;
  struct writeback_request request;
  struct disk *opened;
};
extern struct explorer_op *explorer_ops[EXPLORER_OPS];

#endif
