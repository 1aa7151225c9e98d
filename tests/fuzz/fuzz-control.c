/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz-control.c - the control socket: commands with members of any kind, and lines that are
 * none. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "fuzz.h"

static const char *const commands[] = {
  "create", "list", "info", "map", "resize", "rename", "delete", "punch", "stat",
  "collapse-range", "insert-range", "clone-range", "none",
};
static const char *const keys[] = {
  "disk", "size", "offset", "length", "new_name", "relative", "shrink", "command", "request",
  "source", "source_offset", "target", "x",
};

static void
put_string (struct output_bytes *bytes, const char *text)
{
  put (bytes, text, strlen (text));
}

static void
put_value (struct output_bytes *bytes, struct input *input)
{
  static const char *const values[] = {
    "\"disk\"", "\"a\"", "\"b\"", "\"\"", "\"+\"", "\"-\"", "true", "null", "{}", "[[[]]]",
    "\"\\u0000\"",
    "-1", "1e999", "\"\xff\"", "\"c\"", "1.5", "\"a/../b\"", "18446744073709551616",
  };
  char number[32];

  if (input_pick (input, 2)) {
    snprintf (number, sizeof number, "%" PRIu64, input_number (input));
    put_string (bytes, number);
  } else {
    put_string (bytes, values[input_pick (input, ARRAY_COUNT (values))]);
  }
}

static void
put_line (struct output_bytes *bytes, struct input *input)
{
  unsigned members = input_pick (input, 6);
  uint8_t noise[64];

  put_string (bytes, "{\"command\": \"");
  put_string (bytes, commands[input_pick (input, ARRAY_COUNT (commands))]);
  put_string (bytes, "\"");
  if (input_pick (input, 4))
    put_string (bytes, input_pick (input, 2) ? ", \"disk\": \"a\"" : ", \"disk\": \"disk\"");
  for (unsigned i = 0; i < members; i++) {
    put_string (bytes, ", \"");
    put_string (bytes, keys[input_pick (input, ARRAY_COUNT (keys))]);
    put_string (bytes, "\": ");
    put_value (bytes, input);
  }
  put_string (bytes, input_pick (input, 16) ? "}\n" : "\n");
  if (input_pick (input, 16) == 0)
    put (bytes, noise, input_bytes (input, noise, sizeof noise));
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static struct output_bytes bytes;
  struct input input = { data, data + size };
  unsigned lines = input_pick (&input, 12);

  world_start ();
  bytes.length = 0;
  for (unsigned i = 0; i < lines; i++)
    put_line (&bytes, &input);
  world_control (&bytes, &input);
  return 0;
}
