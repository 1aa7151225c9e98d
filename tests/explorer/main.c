/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c - explorer [OPTION...] [SCENARIO...]: runs them (all that are not long), and says of each
 * how many interleavings there are.  Names may be patterns, as the shell's.
 *   --long      also those that take minutes
 *   --full      runs every interleaving by itself
 *   --compare N runs both ways those that have at most N: numbers of interleavings and outcomes
 *               must be the same
 *   --max N     gives up a scenario after N runs
 *   --trace     tells each step
 *   --first     the first one that fails is the last
 *   --list      only names them
 *   --rows      names the rows of the tables
 *   --roles     says what in the engine the rows of the tables stand for */
#include <fnmatch.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "explorer.h"

/* Stores are abandoned, as a kill does: what they had is lost, not leaked.  They are opened many
 * thousand times, and the rest makes that cheaper. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0:quarantine_size_mb=1:clear_shadow_mmap_threshold=16777216";
}

struct arguments {
  struct explorer_settings settings;
  bool is_long, is_list, is_roles, is_first_only, is_ok;
  char **names;
  bool *are_known;              /* of NAMES: there is such a scenario */
};

static bool
is_wanted (const struct scenario *scenario, struct arguments *arguments)
{
  bool is_named = false;

  if (*arguments->names == NULL)
    return arguments->is_long || !scenario->is_long;
  for (unsigned i = 0; arguments->names[i] != NULL; i++)
    if (fnmatch (arguments->names[i], scenario->name, 0) == 0)
      is_named = arguments->are_known[i] = true;
  return is_named;
}

/* A name that is none must not look like a scenario that went well. */
static bool
names_are_known (const struct arguments *arguments)
{
  bool are_known = true;

  for (unsigned i = 0; arguments->names[i] != NULL; i++)
    if (!arguments->are_known[i]) {
      fprintf (stderr, "explorer: there is no scenario %s; see explorer --list\n",
               arguments->names[i]);
      are_known = false;
    }
  return are_known;
}

static void
print_ways (const struct exploration *result)
{
  if (result->ways == UINT64_MAX - 1)
    printf ("more than 1.8e19 interleavings");
  else
    printf ("%" PRIu64 " interleavings", result->ways);
  if (result->returns > 0)
    printf (" and circles");
}

static double
seconds (void)
{
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

static bool
run (const struct scenario *scenario, const struct explorer_settings *settings,
     struct exploration *result)
{
  double start = seconds ();
  bool is_ok = explore (scenario, settings, result);

  printf ("%s %s: %s", is_ok ? "ok" : "FAIL", scenario->name, is_ok ? "all " : "");
  print_ways (result);
  printf (", %" PRIu64 " states, %" PRIu64 " runs, %" PRIu64 " steps, %" PRIu64 " crashes, %" PRIu64
          " outcomes, %.1f s\n", result->states, result->runs, result->steps, result->cuts,
          result->outcomes, seconds () - start);
  return is_ok;
}

/* RESULT was found by states; each interleaving run by itself must find the same. */
static bool
compare (const struct scenario *scenario, const struct explorer_settings *settings,
         const struct exploration *result)
{
  struct explorer_settings full = *settings;
  struct exploration each;

  if (result->ways > settings->compare_max)
    return true;
  full.is_full = true;
  if (!run (scenario, &full, &each))
    return false;
  if (result->ways == each.ways && each.ways == each.runs && result->outcomes == each.outcomes
      && result->digest == each.digest)
    return true;
  printf ("FAIL %s: by states there are %" PRIu64 " interleavings and %" PRIu64 " outcomes%s\n",
          scenario->name, result->ways, result->outcomes,
          result->digest != each.digest ? ", and not the same" : "");
  return false;
}

static bool
parse (int argc, char **argv, struct arguments *arguments)
{
  static const struct option options[] = {
    { "trace", no_argument, NULL, 't' },   { "list", no_argument, NULL, 'l' },
    { "max", required_argument, NULL, 'm' }, { "full", no_argument, NULL, 'f' },
    { "compare", required_argument, NULL, 'c' }, { "long", no_argument, NULL, 'L' },
    { "first", no_argument, NULL, 'F' },   { "roles", no_argument, NULL, 'r' },
    { "rows", no_argument, NULL, 'R' },
    { NULL, 0, NULL, 0 },
  };
  int option;

  while ((option = getopt_long (argc, argv, "", options, NULL)) != -1)
    switch (option) {
    case 't':
      arguments->settings.is_traced = true;
      break;
    case 'm':
      arguments->settings.runs_max = strtoull (optarg, NULL, 0);
      break;
    case 'f':
      arguments->settings.is_full = true;
      break;
    case 'c':
      arguments->settings.compare_max = strtoull (optarg, NULL, 0);
      break;
    case 'L':
      arguments->is_long = true;
      break;
    case 'r':
      arguments->is_roles = true;
      break;
    case 'F':
      arguments->is_first_only = true;
      break;
    case 'R':
      tables_print_rows ();
      exit (0);
    case 'l':
      arguments->is_list = true;
      break;
    default:
      return false;
    }
  arguments->names = argv + optind;
  arguments->are_known = calloc (argc, sizeof *arguments->are_known);
  CHECK (arguments->are_known != NULL);
  return true;
}

/* One scenario, if it is wanted. */
static void
visit (const struct scenario *scenario, void *arg)
{
  struct arguments *arguments = arg;
  struct exploration result;

  if (arguments->is_list)
    printf ("%-32s %s%s\n", scenario->name, scenario->about, scenario->is_long ? " (long)" : "");
  else if (is_wanted (scenario, arguments) && (arguments->is_ok || !arguments->is_first_only))
    arguments->is_ok &= run (scenario, &arguments->settings, &result)
                        && compare (scenario, &arguments->settings, &result);
}

int
main (int argc, char **argv)
{
  struct arguments arguments = { .settings.runs_max = 10000000, .is_ok = true };

  if (!parse (argc, argv, &arguments))
    return 2;
  setvbuf (stdout, NULL, _IOLBF, 0);
  if (arguments.is_roles)
    return roles_print () & state_is_known () ? 0 : 1;
  world_log_nothing ();
  world_handle_signals ();
  for (unsigned i = 0; i < race_count; i++)
    visit (&races[i], &arguments);
  for (unsigned i = 0; i < scenario_count; i++)
    visit (&scenarios[i], &arguments);
  tables_each (visit, &arguments);
  if (!arguments.is_list && !names_are_known (&arguments))
    return 2;
  return arguments.is_ok ? 0 : 1;
}
