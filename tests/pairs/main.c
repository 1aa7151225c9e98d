/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c - pairs [OPTION...] [PAIR...]: runs them, each in a store of its own.  PAIR may be a
 * pattern, as the shell's.
 *   --seed N   threads are not repeatable, but what they are to do is
 *   --ops N    all again and again until so many requests were made
 *   --sites N  rounds in each store (at most and by default 32)
 *   --jobs N   so many stores at a time (default 2): most threads wait for others
 *   --list     only names them
 *   --rows     names the rows of the tables */
#include <fnmatch.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../sim/sim.h"
#include "base/log.h"
#include "pairs.h"

#define JOBS_MAX 16
#define DELETED_MAX 8           /* rounds of those that delete: each has a disk of its own */
#define PAIR_SECONDS 200        /* and no store was begun: somebody hangs */

static struct {
  uint64_t seed, ops, sites;
  unsigned jobs;
  bool is_list;
  char **names;
} arguments = { .seed = 1, .sites = SITES_MAX, .jobs = 2 };

/* What is to be run, and what came of it. */
static struct {
  pthread_mutex_t mutex;
  struct pair *pairs;
  unsigned pair_count, next;
  struct random random;
  uint64_t stores, rounds, requests, refused, sectors;
  bool is_failed;
  const char *running[JOBS_MAX];
} work = { .mutex = PTHREAD_MUTEX_INITIALIZER };

void
run_fail (struct run *run, const char *format, ...)
{
  va_list args;
  char text[2048];

  va_start (args, format);
  vsnprintf (text, sizeof text, format, args);
  va_end (args);
  printf ("FAIL %s, site %" PRIu64 " of %" PRIu64 ": %s\n", run->pair->name, run->site, run->sites,
          text);
  atomic_store (&run->is_failed, true);
}

/* SITES rounds of a pair. */
static struct run *
run_create (const struct pair *pair, uint64_t seed)
{
  struct sim_options sim = { .seed = seed, .length = 64, .length_max = DEVICE_BLOCKS,
                             .is_threaded = true };
  struct run *run = calloc (1, sizeof *run);

  CHECK (run != NULL);
  run->pair = pair;
  run->sites = pair_deletes (pair) ? MIN (arguments.sites, DELETED_MAX) : arguments.sites;
  run->store_number = seed | 1;
  run->number = 2 * SITES_MAX;
  run->image = sim_image_create (&sim);
  run->worker_count = pair->place == PLACE_REUSE ? ROLES : CHASES;
  sem_init (&run->is_invalidated, 0, 0);
  for (unsigned i = 0; i < run->worker_count; i++) {
    run->workers[i].run = run;
    run->workers[i].role = i;
    run->workers[i].random.state = seed * ROLES + i;
  }
  return run;
}

/* A store that failed may be open still; the process will end. */
static void
run_destroy (struct run *run)
{
  if (!run->is_failed)
    sim_image_destroy (run->image);
  sem_destroy (&run->is_invalidated);
  free (run);
}

static void
count_run (const struct run *run)
{
  work.stores++;
  work.rounds += run->sites;
  work.refused += run->refused;
  work.is_failed |= run->is_failed;
  for (unsigned i = 0; i < run->worker_count; i++) {
    work.requests += run->workers[i].requests;
    work.sectors += run->workers[i].sectors;
  }
}

/* The next pair, or NULL: it is enough. */
static const struct pair *
next_pair (uint64_t *seed)
{
  if (work.is_failed)
    return NULL;
  if (work.next == work.pair_count && work.requests < arguments.ops)
    work.next = 0;
  if (work.next == work.pair_count)
    return NULL;
  *seed = random_next (&work.random);
  alarm (PAIR_SECONDS);
  return &work.pairs[work.next++];
}

static void *
job_main (void *running)
{
  const struct pair *pair;
  uint64_t seed;

  pthread_mutex_lock (&work.mutex);
  while ((pair = next_pair (&seed)) != NULL) {
    struct run *run = run_create (pair, seed);

    *(const char **) running = pair->name;
    pthread_mutex_unlock (&work.mutex);
    run_store (run);
    pthread_mutex_lock (&work.mutex);
    *(const char **) running = NULL;
    count_run (run);
    run_destroy (run);
  }
  pthread_mutex_unlock (&work.mutex);
  return NULL;
}

static void
run_jobs (void)
{
  pthread_t threads[JOBS_MAX];

  delays_switch (true);
  for (unsigned i = 0; i < arguments.jobs; i++)
    CHECK (pthread_create (&threads[i], NULL, job_main, &work.running[i]) == 0);
  for (unsigned i = 0; i < arguments.jobs; i++)
    pthread_join (threads[i], NULL);
  printf ("%s pairs: %" PRIu64 " stores, %" PRIu64 " rounds, %" PRIu64 " requests, of which"
          " %" PRIu64 " were refused, %" PRIu64 " sectors judged; --seed %" PRIu64 "\n",
          work.is_failed ? "FAIL" : "ok", work.stores, work.rounds, work.requests, work.refused,
          work.sectors, arguments.seed);
}

static void
choose_pairs (void)
{
  work.pairs = calloc (pair_count (), sizeof *work.pairs);
  CHECK (work.pairs != NULL);
  for (unsigned i = 0; i < pair_count (); i++) {
    struct pair *pair = &work.pairs[work.pair_count];
    bool is_wanted = *arguments.names == NULL;

    pair_get (i, pair);
    for (char **name = arguments.names; *name != NULL; name++)
      is_wanted |= fnmatch (*name, pair->name, 0) == 0;
    work.pair_count += is_wanted;
  }
}

/* A check in the engine, or nothing happens any more: where may it be? */
static void
on_signal (int signal)
{
  printf ("FAIL %s:", signal == SIGALRM ? "it hangs" : "a check failed");
  for (unsigned i = 0; i < JOBS_MAX; i++)
    if (work.running[i] != NULL)
      printf (" %s", work.running[i]);
  printf ("; --seed %" PRIu64 "\n", arguments.seed);
  fflush (stdout);
  if (signal == SIGALRM)
    abort ();
}

static void
log_nothing (enum log_level level, const char *message)
{
  (void) level;
  (void) message;
}

static bool
parse (int argc, char **argv)
{
  static const struct option options[] = {
    { "seed", required_argument, NULL, 's' }, { "ops", required_argument, NULL, 'o' },
    { "sites", required_argument, NULL, 'n' }, { "jobs", required_argument, NULL, 'j' },
    { "list", no_argument, NULL, 'l' },       { "rows", no_argument, NULL, 'r' },
    { NULL, 0, NULL, 0 },
  };
  int option;

  while ((option = getopt_long (argc, argv, "", options, NULL)) != -1)
    switch (option) {
    case 's':
      arguments.seed = strtoull (optarg, NULL, 0);
      break;
    case 'o':
      arguments.ops = strtoull (optarg, NULL, 0);
      break;
    case 'n':
      arguments.sites = strtoull (optarg, NULL, 0);
      break;
    case 'j':
      arguments.jobs = strtoull (optarg, NULL, 0);
      break;
    case 'l':
      arguments.is_list = true;
      break;
    case 'r':
      print_rows ();
      exit (0);
    default:
      return false;
    }
  arguments.names = argv + optind;
  return arguments.sites >= 1 && arguments.sites <= SITES_MAX && arguments.jobs >= 1
         && arguments.jobs <= JOBS_MAX;
}

int
main (int argc, char **argv)
{
  if (!parse (argc, argv))
    return 2;
  setvbuf (stdout, NULL, _IOLBF, 0);
  choose_pairs ();
  if (work.pair_count == 0) {
    fprintf (stderr, "pairs: there is no such pair; see pairs --list\n");
    return 2;
  }
  if (arguments.is_list) {
    for (unsigned i = 0; i < work.pair_count; i++)
      printf ("%s\n", work.pairs[i].name);
    return 0;
  }
  log_set_sink (log_nothing);
  signal (SIGABRT, on_signal);
  signal (SIGALRM, on_signal);
  work.random.state = arguments.seed;
  run_jobs ();
  free (work.pairs);
  return work.is_failed ? 1 : 0;
}
