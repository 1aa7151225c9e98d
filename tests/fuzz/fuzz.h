/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz.h - what the fuzz targets share.
 *
 * A target is LLVMFuzzerTestOneInput.  Built for libFuzzer (configure CC=clang
 * --enable-sanitize=fuzzer) it looks for new paths; in any other build driver.c runs the files it
 * is given, and then inputs of random bytes: the targets make messages of bytes, so that most of
 * what comes out is well-formed in most of its parts, whatever the bytes.
 */
#ifndef LACUNA_FUZZ_H
#define LACUNA_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* For log_set_sink: what hostile input makes a server say is of no interest. */
void log_nowhere (enum log_level level, const char *message);

/* --- input.c: choices out of bytes; zeros when there are no more --- */

struct input {
  const uint8_t *at, *end;
};

uint64_t input_take (struct input *input, unsigned bytes);
/* Less than COUNT. */
unsigned input_pick (struct input *input, unsigned count);
/* Offsets, lengths, sizes around every limit. */
uint64_t input_number (struct input *input);
/* Up to MAX bytes into DATA; returns how many. */
size_t input_bytes (struct input *input, uint8_t *data, size_t max);

/* --- a message that grows --- */

struct output_bytes {
  uint8_t data[256 * 1024];
  size_t length;
};

/* What does not fit is left out. */
void put (struct output_bytes *bytes, const void *data, size_t length);
void put_number (struct output_bytes *bytes, uint64_t number, unsigned length);   /* big-endian */

/* --- world.c: a server in this process --- */

/* Starts it once, with a store of its own that is removed at exit: the disks `disk' of 64 MiB and
 * `big' of 4 EiB. */
void world_start (void);
/* Before that: it has TLS, with what is in this directory, and with keys or without. */
void world_set_tls (const char *certificates, const char *keys);
/* Whether frames are lent to clients from now on, or all goes in pieces (server/lend.c). */
void world_lend (bool is_lending);
/* A new connection: sends BYTES, in pieces, takes all that comes, and returns when the server has
 * done with it. */
void world_talk (const struct output_bytes *bytes, struct input *pieces);
/* A connection of the caller's own, who closes it; until then, world_turn lets the server work. */
int world_connect (void);
void world_turn (void);
void world_settle (void);   /* until the server has done with all */
/* The same on the control socket. */
void world_control (const struct output_bytes *bytes, struct input *pieces);

#endif
