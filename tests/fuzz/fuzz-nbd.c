/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz-nbd.c - NBD: options in any order, with lengths that fit or do not; then requests,
 * likewise. */
#include <string.h>

#include "base/bytes.h"
#include "nbd/nbd-protocol.h"
#include "fuzz.h"

static const char *const names[] = { "disk", "big", "", "none", "di\001k", "base:allocation" };
static const char *const queries[] = {
  "base:allocation", "base:", "qemu:allocation-depth", "qemu:", "x-none:x", ":", "",
};

static void
put_text (struct output_bytes *bytes, struct input *input, const char *text)
{
  uint32_t length = (uint32_t) strlen (text);

  put_number (bytes, input_pick (input, 32) == 0 ? input_number (input) : length, 4);
  put (bytes, text, length);
}

/* The data of an option, as it should be, or nearly. */
static void
put_data (struct output_bytes *bytes, struct input *input, uint32_t option)
{
  uint8_t noise[64];
  unsigned count;

  switch (option) {
  case NBD_OPT_EXPORT_NAME:
    put (bytes, "disk", 4);
    break;
  case NBD_OPT_INFO:
  case NBD_OPT_GO:
    put_text (bytes, input, names[input_pick (input, ARRAY_COUNT (names))]);
    count = input_pick (input, 4);
    put_number (bytes, count, 2);
    for (unsigned i = 0; i < count; i++)
      put_number (bytes, input_pick (input, 5), 2);
    break;
  case NBD_OPT_LIST_META_CONTEXT:
  case NBD_OPT_SET_META_CONTEXT:
    put_text (bytes, input, names[input_pick (input, ARRAY_COUNT (names))]);
    count = input_pick (input, 4);
    put_number (bytes, count, 4);
    for (unsigned i = 0; i < count; i++)
      put_text (bytes, input, queries[input_pick (input, ARRAY_COUNT (queries))]);
    break;
  }
  if (input_pick (input, 16) == 0)
    put (bytes, noise, input_bytes (input, noise, input_pick (input, sizeof noise)));
}

static void
put_option (struct output_bytes *bytes, struct input *input)
{
  static const uint32_t options[] = {
    NBD_OPT_LIST, NBD_OPT_STRUCTURED_REPLY, NBD_OPT_SET_META_CONTEXT, NBD_OPT_LIST_META_CONTEXT,
    NBD_OPT_INFO, NBD_OPT_STARTTLS, NBD_OPT_EXTENDED_HEADERS, 4, 99, NBD_OPT_ABORT,
    NBD_OPT_EXPORT_NAME, NBD_OPT_GO,
  };
  static struct output_bytes data;
  uint32_t option = options[input_pick (input, ARRAY_COUNT (options))];

  data.length = 0;
  put_data (&data, input, option);
  put_number (bytes, input_pick (input, 64) == 0 ? input_number (input) : NBD_OPTION_MAGIC, 8);
  put_number (bytes, option, 4);
  put_number (bytes, input_pick (input, 32) == 0 ? input_number (input) : data.length, 4);
  put (bytes, data.data, data.length);
}

/* What most clients do; returns whether headers are extended now. */
static bool
put_usual (struct output_bytes *bytes, struct input *input)
{
  unsigned how = input_pick (input, 4);
  const char *name = names[input_pick (input, 2)];
  uint32_t length = (uint32_t) strlen (name);

  if (how > 0) {
    put_number (bytes, NBD_OPTION_MAGIC, 8);
    put_number (bytes, how == 1 ? NBD_OPT_STRUCTURED_REPLY : NBD_OPT_EXTENDED_HEADERS, 4);
    put_number (bytes, 0, 4);
    put_number (bytes, NBD_OPTION_MAGIC, 8);
    put_number (bytes, NBD_OPT_SET_META_CONTEXT, 4);
    put_number (bytes, 4 + length + 4 + 4 + 15 + 4 + 21, 4);
    put_number (bytes, length, 4);
    put (bytes, name, length);
    put_number (bytes, 2, 4);
    put_number (bytes, 15, 4);
    put (bytes, "base:allocation", 15);
    put_number (bytes, 21, 4);
    put (bytes, "qemu:allocation-depth", 21);
  }
  put_number (bytes, NBD_OPTION_MAGIC, 8);
  put_number (bytes, NBD_OPT_GO, 4);
  put_number (bytes, 4 + length + 2, 4);
  put_number (bytes, length, 4);
  put (bytes, name, length);
  put_number (bytes, 0, 2);
  return how > 1;
}

static void
put_payload (struct output_bytes *bytes, uint64_t length)
{
  static const uint8_t data[8192];

  for (uint64_t left = MIN (length, 65536); left > 0; left -= MIN (left, sizeof data))
    put (bytes, data, MIN (left, sizeof data));
}

/* A filter of BLOCK_STATUS; returns its length. */
static uint64_t
put_filter (struct output_bytes *filter, struct input *input)
{
  unsigned count = input_pick (input, 4);

  filter->length = 0;
  put_number (filter, input_number (input), 8);
  for (unsigned i = 0; i < count; i++)
    put_number (filter, input_pick (input, 4), 4);
  return filter->length;
}

static void
put_request (struct output_bytes *bytes, struct input *input, bool is_extended)
{
  static struct output_bytes filter;
  unsigned command = input_pick (input, 10);
  unsigned flags = input_pick (input, 4) ? 0 : (unsigned) input_take (input, 1);
  uint64_t offset = input_number (input), length = input_number (input), payload = 0;
  bool is_honest = input_pick (input, 32) > 0, has_filter = false;

  if (command == NBD_CMD_WRITE) {
    length = is_honest ? length % 65536 : length;
    flags |= is_extended && is_honest ? NBD_CMD_FLAG_PAYLOAD_LEN : 0;
    payload = length;
  } else if (command == NBD_CMD_BLOCK_STATUS && is_extended && input_pick (input, 2)) {
    length = put_filter (&filter, input);
    flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
    has_filter = true;
  } else if (command == NBD_CMD_READ) {
    length = length % (1 << 20);
  } else if (command == NBD_CMD_FLUSH && is_honest) {
    offset = length = 0;
  }
  put_number (bytes, is_extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC, 4);
  put_number (bytes, flags, 2);
  put_number (bytes, command, 2);
  put_number (bytes, bytes->length, 8);
  put_number (bytes, offset, 8);
  put_number (bytes, length, is_extended ? 8 : 4);
  if (has_filter)
    put (bytes, filter.data, filter.length);
  else if (is_extended ? (flags & NBD_CMD_FLAG_PAYLOAD_LEN) != 0 : command == NBD_CMD_WRITE)
    put_payload (bytes, payload ? payload : length);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static struct output_bytes bytes;
  struct input input = { data, data + size };
  unsigned options, requests;
  bool is_extended = false;
  uint8_t noise[256];

  world_start ();
  bytes.length = 0;
  put_number (&bytes, input_pick (&input, 16) ? 3 : input_take (&input, 4), 4);
  options = input_pick (&input, 8);
  requests = input_pick (&input, 40);
  for (unsigned i = 0; i < options; i++)
    put_option (&bytes, &input);
  if (input_pick (&input, 8))
    is_extended = put_usual (&bytes, &input);
  for (unsigned i = 0; i < requests; i++)
    put_request (&bytes, &input, is_extended);
  if (input_pick (&input, 8) == 0)
    put (&bytes, noise, input_bytes (&input, noise, sizeof noise));
  world_lend (input_pick (&input, 4) != 3);
  world_talk (&bytes, &input);
  return 0;
}
