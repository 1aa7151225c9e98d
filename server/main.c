/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c - which command it is. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config.h"

#include "base/bytes.h"
#include "client.h"
#include "server.h"

static const struct { const char *name; client_command *run; } commands[] = {
  { "attach-resize", client_attach_resize },
  { "collapse-range", client_collapse }, { "insert-range", client_insert },
  { "clone-range", client_clone },
  { "check", client_check },   { "create", client_create }, { "delete", client_delete },
  { "info", client_info },     { "init", client_init },     { "list", client_list },
  { "map", client_map },       { "punch", client_punch },   { "rename", client_rename },
  { "resize", client_resize }, { "serve", serve_main },     { "stat", client_stat },
};

static const char usage[] =
  "Usage: lacuna COMMAND ...\n"
  "\n"
  "Serves thin disks over NBD.  A store is a file or a block device with any number of disks.\n"
  "\n"
  "  init STORE [--capacity SIZE] [--force]          make a store\n"
  "  serve STORE [OPTIONS]                           serve its disks; see lacuna serve --help\n"
  "  create STORE DISK SIZE                          make a disk\n"
  "  list STORE [--json]                             the disks\n"
  "  info STORE [DISK] [--json]                      all about the store, or a disk\n"
  "  map STORE DISK [--json]                         its extents: data, hole, zero\n"
  "  resize STORE DISK SIZE|+SIZE|-SIZE [--shrink]   give a disk another size\n"
  "  rename STORE DISK NEW                           give a disk another name\n"
  "  punch STORE DISK OFFSET LENGTH                  make a hole, give the space back\n"
  "  collapse-range STORE DISK OFFSET LENGTH         take a range out, what is behind moves down\n"
  "  insert-range STORE DISK OFFSET LENGTH           insert a hole, what is behind moves up\n"
  "  clone-range STORE SRC OFFSET LENGTH DST OFFSET  the same blocks in another place, or disk\n"
  "  delete STORE DISK                               delete a disk\n"
  "  stat STORE [--json]                             live counters of the running server\n"
  "  attach-resize DEVICE SIZE                       tell the kernel of a new size of /dev/nbdN\n"
  "  check STORE [--json | --repair [--yes]]         look for damage, while nobody has it open\n"
  "\n"
  "Sizes are bytes, or 512M, 20G, 1T.  All but init and check work whether or not the store is\n"
  "being served.  Exit status: 0 done, 1 failed, 2 wrong usage.\n"
  "lacuna COMMAND --help tells more; so do lacuna(1) and lacuna-serve(1).\n";

/* A store that was opened where standard output or error had been closed would get what is written
 * there.  Those that are missing are taken, for the other direction, so that their use still
 * fails. */
static bool
take_standard_fds (void)
{
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
    if (fcntl (fd, F_GETFD) == -1 && errno == EBADF
        && open ("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
      return false;
  return true;
}

int
main (int argc, char **argv)
{
  if (!take_standard_fds ())
    return CLIENT_FAILED;
  if (argc < 2) {
    fputs (usage, stderr);
    return CLIENT_WRONG_USAGE;
  }
  if (strcmp (argv[1], "--help") == 0 || strcmp (argv[1], "-h") == 0) {
    fputs (usage, stdout);
    return client_flush (NULL, CLIENT_DONE);
  }
  if (strcmp (argv[1], "--version") == 0 || strcmp (argv[1], "-V") == 0) {
    puts (PACKAGE_STRING);
    return client_flush (NULL, CLIENT_DONE);
  }
  for (size_t i = 0; i < ARRAY_COUNT (commands); i++)
    if (strcmp (argv[1], commands[i].name) == 0)
      return commands[i].run (argc - 1, argv + 1);
  fprintf (stderr, "lacuna: unknown %s %s; lacuna --help names them all\n",
           argv[1][0] == '-' ? "option" : "command", argv[1]);
  return CLIENT_WRONG_USAGE;
}
