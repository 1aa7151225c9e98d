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

int
client_check (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "check STORE [--json]",
    .help = "Reads all metadata of a store that nobody has open and says what is wrong with it.\n"
            "Nothing is changed.  Exit status: 0 clean, 1 damaged, 2 unusable.\n",
    .options = OPTION_JSON,
    .operands_min = 1, .operands_max = 1,
  };
  struct client_arguments arguments;
  struct ucred server;
  int fd, status;

  if (!client_parse (argc, argv, &syntax, &arguments, &status))
    return status;
  const char *store = arguments.operands[0];

  fd = control_connect (store, &server);
  if (fd >= 0) {
    close (fd);
    client_error (store, NULL, "process %d serves it; a store is checked when nobody has it open",
                  (int) server.pid);
    return CHECKER_UNUSABLE;
  }
  status = checker_run (store, stdout, (arguments.options & OPTION_JSON) != 0);
  return client_flush (store, status) == status ? status : CHECKER_UNUSABLE;
}
