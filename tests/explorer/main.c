/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c - explorer [--trace] [--list] [--max RUNS] [SCENARIO...]: runs them (all), and says of each how many interleavings there are. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "explorer.h"

/* Stores are abandoned, as a kill does: what they had is lost, not leaked. */
const char *__asan_default_options (void);
const char *
__asan_default_options (void)
{
  return "detect_leaks=0";
}

static void
quiet_sink (enum log_level level, const char *message)
{
  (void) level;
  (void) message;
}

static bool
is_wanted (const struct scenario *scenario, char **names)
{
  if (*names == NULL)
    return !scenario->is_long || getenv ("LACUNA_LONG") != NULL;
  for (; *names != NULL; names++)
    if (strcmp (scenario->name, *names) == 0)
      return true;
  return false;
}

static bool
run (const struct scenario *scenario, uint64_t max, bool is_traced)
{
  struct exploration result;
  struct timespec start, end;
  bool is_ok;

  clock_gettime (CLOCK_MONOTONIC, &start);
  is_ok = explore (scenario, max, is_traced, &result);
  clock_gettime (CLOCK_MONOTONIC, &end);
  printf ("%s %s: %" PRIu64 " interleavings", is_ok ? "ok" : "FAIL", scenario->name, result.runs);
  if (scenario->preemptions != PREEMPTIONS_ALL)
    printf (" (all with at most %u preemptions)", scenario->preemptions);
  printf (", %" PRIu64 " steps, %" PRIu64 " power cuts, %.1f s\n", result.steps, result.cuts,
          end.tv_sec - start.tv_sec + (end.tv_nsec - start.tv_nsec) / 1e9);
  fflush (stdout);
  return is_ok;
}

int
main (int argc, char **argv)
{
  static const struct option options[] = {
    { "trace", no_argument, NULL, 't' }, { "list", no_argument, NULL, 'l' }, { "max", required_argument, NULL, 'm' },
    { NULL, 0, NULL, 0 },
  };
  bool is_traced = false, is_ok = true;
  uint64_t max = 1000000;
  int option;

  while ((option = getopt_long (argc, argv, "", options, NULL)) != -1)
    switch (option) {
    case 't':
      is_traced = true;
      break;
    case 'm':
      max = strtoull (optarg, NULL, 0);
      break;
    case 'l':
      for (unsigned i = 0; i < scenario_count; i++)
        printf ("%-24s %s\n", scenarios[i].name, scenarios[i].about);
      return 0;
    default:
      return 2;
    }
  setvbuf (stdout, NULL, _IOLBF, 0);
  log_set_sink (quiet_sink);
  for (unsigned i = 0; i < scenario_count; i++)
    if (is_wanted (&scenarios[i], argv + optind))
      is_ok &= run (&scenarios[i], max, is_traced);
  return is_ok ? 0 : 1;
}
