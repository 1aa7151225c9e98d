/* SPDX-License-Identifier: BSD-2-Clause */
/* checker.h - judges a store from outside: is all of it as lacuna-format(5) says?
 *
 * Written from that page, and shares no code with the engine, not even the structures of
 * format.h: an error that both make is then an error of the page.  It reads only, unless it is to
 * repair; the store must not be in use.
 *
 * What it reports has a severity.  `damage`: something is lost, or may be; `repairable`: a second
 * copy still has it; `note`: normal after a crash.  The first two are problems.
 *
 * Blocks the calling thread.  Memory: about 36 bytes per extent, and 48 per item of the journal.
 */
#ifndef LACUNA_CHECKER_H
#define LACUNA_CHECKER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum checker_verdict {
  CHECKER_CLEAN = 0,       /* no problems */
  CHECKER_DAMAGED = 1,     /* problems, all of them named */
  CHECKER_UNUSABLE = 2,    /* no store, not to be opened, open elsewhere, a newer format */
};

/* Where the blocks come from: a file, or memory in tests. */
struct checker_reader {
  /* Fills BLOCK with the 4096 bytes at PLACE < length.  0 or negative errno. */
  int (*read) (void *arg, uint64_t place, void *block);
  uint64_t length;         /* blocks */
  bool is_growing;         /* a file: it may be shorter than the store's capacity */
  void *arg;
  /* For a repair; 0 or negative errno. */
  int (*write) (void *arg, uint64_t place, const void *block);
  int (*flush) (void *arg);
};

/* Both write what they find to OUT, lines for people or one JSON object, and return enum
 * checker_verdict.  The last line for people is "clean" or "N problems"; that a store is unusable
 * checker_run tells on stderr, as all of `lacuna' does, checker_run_reader in OUT. */
int checker_run (const char *path, FILE *out, bool json);
int checker_run_reader (const struct checker_reader *reader, FILE *out, bool json);

/* The same for people, and then says what can be put right, what is given up for that, and asks
 * AGREE; if it agrees, writes, and judges again.  The verdict is the last one. */
int checker_repair (const char *path, FILE *out, bool (*agree) (void *arg), void *arg);
int checker_repair_reader (const struct checker_reader *reader, FILE *out,
                           bool (*agree) (void *arg), void *arg);

#endif
