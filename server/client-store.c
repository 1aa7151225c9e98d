/* SPDX-License-Identifier: BSD-2-Clause */
/* client-store.c - init, check: what is done with a store that nobody has open. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "client.h"
#include "control.h"
#include "store/checker.h"

static bool
parse_capacity (const char *store, const char *text, uint64_t *capacity)
{
  char next[TEXT_SIZE_MAX];

  if (!client_parse_size (store, NULL, "--capacity", text, capacity))
    return false;
  /* To store_init zero means no limit, which is not what somebody meant who wrote it. */
  if (*capacity == 0)
    client_error (store, NULL, "the capacity must be greater than zero");
  else if (*capacity > PLACE_MAX * BLOCK_SIZE)
    client_error (store, NULL, "the capacity is too large: a store has less than 16 PiB");
  else if (*capacity % BLOCK_SIZE != 0)
    client_error (store, NULL, "the capacity is not a multiple of 4096; the next one up is %s",
                  text_exact_size (align_up (*capacity, BLOCK_SIZE), next));
  else
    return true;
  return false;
}

int
client_init (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "init STORE [--capacity SIZE] [--force]",
    .help = "Makes a store: a new file, which grows as needed, or a block device, which is used\n"
            "whole.\n"
            "\n"
            "  --capacity SIZE   the file may hold so much data (default: no limit)\n"
            "  --force           whatever the file or device holds is lost\n",
    .options = OPTION_CAPACITY | OPTION_FORCE,
    .operands_min = 1, .operands_max = 1,
  };
  struct client_arguments arguments;
  uint64_t capacity = 0;
  char *error = NULL;
  int result, status;

  if (!client_parse (argc, argv, &syntax, &arguments, &status))
    return status;
  const char *store = arguments.operands[0];

  if (arguments.capacity != NULL && !parse_capacity (store, arguments.capacity, &capacity))
    return CLIENT_FAILED;
  result = store_init (store, capacity, (arguments.options & OPTION_FORCE) != 0, &error);
  status = CLIENT_DONE;
  if (result < 0)
    status = client_error (store, NULL, "%s", error ? error : strerror (-result));
  free (error);
  return status;
}

/* Asks, unless it was answered on the command line. */
static bool
agree (void *arg)
{
  const bool *has_yes = arg;
  char answer[16];

  if (*has_yes)
    return true;
  fputs ("Shall this be written?  A copy of the store, made before, is a good thing to have."
         "  (yes/no) ", stdout);
  fflush (stdout);
  return fgets (answer, sizeof answer, stdin) != NULL && strcmp (answer, "yes\n") == 0;
}

int
client_check (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "check STORE [--json | --repair [--yes]]",
    .help = "Reads all metadata of a store that nobody has open and says what is wrong with it.\n"
            "--repair then says what can be put right, and what is given up for that, and asks;\n"
            "--yes answers.  Without it nothing is changed.\n"
            "Exit status: 0 clean, 1 damaged, 2 unusable.\n",
    .options = OPTION_JSON | OPTION_REPAIR | OPTION_YES,
    .operands_min = 1, .operands_max = 1,
  };
  struct client_arguments arguments;
  struct ucred server;
  bool is_repair, is_json, has_yes;
  int fd, status;

  if (!client_parse (argc, argv, &syntax, &arguments, &status))
    return status;
  const char *store = arguments.operands[0];

  is_repair = (arguments.options & OPTION_REPAIR) != 0;
  is_json = (arguments.options & OPTION_JSON) != 0;
  has_yes = (arguments.options & OPTION_YES) != 0;
  if (is_json ? is_repair || has_yes : has_yes && !is_repair) {
    fprintf (stderr, "lacuna: check: --yes goes with --repair, and --json with neither\n");
    return CLIENT_WRONG_USAGE;
  }

  fd = control_connect (store, &server);
  if (fd >= 0) {
    close (fd);
    client_error (store, NULL, "process %d serves it; a store is checked when nobody has it open",
                  (int) server.pid);
    return CHECKER_UNUSABLE;
  }
  status = is_repair ? checker_repair (store, stdout, agree, &has_yes)
                     : checker_run (store, stdout, is_json);
  return client_flush (store, status) == status ? status : CHECKER_UNUSABLE;
}
