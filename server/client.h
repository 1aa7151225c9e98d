/* SPDX-License-Identifier: BSD-2-Clause */
/* client.h - the commands of `lacuna`, but for serve.
 *
 * A command parses its arguments, makes a request of them (command.h), has it run, and prints the
 * answer.  Where it runs - in the process that serves the store, or here on a store that nobody has
 * open - is client-run.c's affair alone, and makes no difference to what is printed.
 *
 * Exit status: 0 done; 1 refused or failed, with `lacuna: STORE: DISK: what was wrong` on stderr
 * and nothing changed; 2 wrong usage: a command line that has no meaning.
 */
#ifndef LACUNA_CLIENT_H
#define LACUNA_CLIENT_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum client_status { CLIENT_DONE = 0, CLIENT_FAILED = 1, CLIENT_WRONG_USAGE = 2 };

/* --- client-arguments.c --- */

enum client_option {
  OPTION_JSON = 1,
  OPTION_SHRINK = 2,
  OPTION_FORCE = 4,
  OPTION_REPAIR = 16,
  OPTION_YES = 32,
  OPTION_CAPACITY = 8,            /* has a value */
  OPTION_REQUEST_ID = 64,         /* has a value */
};

#define CLIENT_OPERANDS_MAX 6

struct client_syntax {
  const char *usage;              /* behind "lacuna " */
  const char *help;               /* whole lines */
  unsigned options;               /* those it knows */
  unsigned operands_min, operands_max;
};

struct client_arguments {
  const char *operands[CLIENT_OPERANDS_MAX];   /* NULL: not given */
  unsigned options;               /* those given */
  const char *capacity;
  const char *request_id;
};

/* True if the command line has a meaning; else *STATUS is the exit status, after a message on
 * stderr or, asked with --help, the help on stdout.  An operand may be a negative number. */
bool client_parse (int argc, char **argv, const struct client_syntax *syntax,
                   struct client_arguments *arguments, int *status);

/* Reads TEXT, told as WHAT, as a size; false after a message. */
bool client_parse_size (const char *store, const char *disk, const char *what, const char *text,
                        uint64_t *bytes);

/* `lacuna: STORE: DISK: message`; DISK may be NULL.  Returns CLIENT_FAILED. */
int client_error (const char *store, const char *disk, const char *format, ...)
  __attribute__ ((format (printf, 3, 4)));

/* What was printed has reached stdout: STATUS; else CLIENT_FAILED after a message. */
int client_flush (const char *store, int status);

/* --- client-run.c --- */

struct client_call {
  const char *store;
  const char *disk;               /* for messages; NULL: it is about the store */
  struct json_object *request;    /* client_run takes the reference */
  bool only_reads;                /* a store on a read-only file system will do */
  /* The answer: pieces, then the result (may be NULL).  They keep nothing.  NULL: not wanted. */
  void (*on_piece) (struct client_call *call, struct json_object *piece);
  void (*on_result) (struct client_call *call, struct json_object *result);
  void *owner;
  pid_t server;                   /* set before either: who serves the store; 0: nobody */
};

/* {"command": NAME}, and "disk" if DISK is not NULL. */
struct json_object *client_request (const char *name, const char *disk);

/* Has it run wherever the store is open; the exit status, after a message if it is not 0. */
int client_run (struct client_call *call);

/* --- the commands; argv[0] is the command's name; they return the exit status --- */

typedef int client_command (int argc, char **argv);

client_command client_init, client_check;                          /* client-store.c */
client_command client_create, client_resize, client_rename;        /* client-change.c */
client_command client_delete, client_punch;
client_command client_collapse, client_insert, client_clone;
client_command client_attach_resize;                               /* client-attach.c */
client_command client_list, client_info, client_map, client_stat;  /* client-show.c */

#endif
