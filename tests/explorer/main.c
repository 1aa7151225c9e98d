/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c - explorer [--trace] [--list] [--max RUNS] [--preemptions N] [--delays N] [SCENARIO...]: runs them (all), and
 * says of each how many interleavings there are, and whether these were all.  --preemptions, --delays: other bounds than the
 * scenario's (0: none). */
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

struct settings {
  uint64_t runs_max;
  uint32_t preemptions, delays;
  bool has_bounds, is_long, is_traced;
};

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
    return true;
  for (; *names != NULL; names++)
    if (strcmp (scenario->name, *names) == 0)
      return true;
  return false;
}

static bool
run (const struct scenario *listed, const struct settings *settings)
{
  struct scenario scenario = *listed;
  struct exploration result;
  struct timespec start, end;
  bool is_ok;

  if (settings->is_long) {
    scenario.preemptions = scenario.long_preemptions;
    scenario.delays = scenario.long_delays;
  }
  if (settings->has_bounds) {
    scenario.preemptions = settings->preemptions;
    scenario.delays = settings->delays;
  }
  clock_gettime (CLOCK_MONOTONIC, &start);
  is_ok = explore (&scenario, settings->runs_max, settings->is_traced, &result);
  clock_gettime (CLOCK_MONOTONIC, &end);
  printf ("%s %s: %s%" PRIu64 " interleavings", is_ok ? "ok" : "FAIL", scenario.name, result.is_complete ? "all " : "",
          result.runs);
  if (!result.is_complete && is_ok)
    printf (" (all with at most %u %s)", scenario.delays > 0 ? scenario.delays : scenario.preemptions,
            scenario.delays > 0 ? "delays" : "preemptions");
  printf (", %" PRIu64 " steps, %" PRIu64 " power cuts, %.1f s\n", result.steps, result.cuts,
          end.tv_sec - start.tv_sec + (end.tv_nsec - start.tv_nsec) / 1e9);
  fflush (stdout);
  return is_ok;
}

int
main (int argc, char **argv)
{
  static const struct option options[] = {
    { "trace", no_argument, NULL, 't' },       { "list", no_argument, NULL, 'l' },
    { "max", required_argument, NULL, 'm' },   { "preemptions", required_argument, NULL, 'p' },
    { "delays", required_argument, NULL, 'd' },
    { NULL, 0, NULL, 0 },
  };
  struct settings settings = { .runs_max = 10000000, .is_long = getenv ("LACUNA_LONG") != NULL };
  bool is_ok = true;
  int option;

  while ((option = getopt_long (argc, argv, "", options, NULL)) != -1)
    switch (option) {
    case 't':
      settings.is_traced = true;
      break;
    case 'm':
      settings.runs_max = strtoull (optarg, NULL, 0);
      break;
    case 'p':
      settings.has_bounds = true;
      settings.preemptions = strtoul (optarg, NULL, 0);
      break;
    case 'd':
      settings.has_bounds = true;
      settings.delays = strtoul (optarg, NULL, 0);
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
      is_ok &= run (&scenarios[i], &settings);
  return is_ok ? 0 : 1;
}
