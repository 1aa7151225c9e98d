/* SPDX-License-Identifier: BSD-2-Clause */
/* input.c - see fuzz.h. */
#include <string.h>

#include "fuzz.h"

void
log_nowhere (enum log_level level, const char *message)
{
  (void) level;
  (void) message;
}

uint64_t
input_take (struct input *input, unsigned bytes)
{
  uint64_t number = 0;

  while (bytes-- > 0)
    number = number << 8 | (input->at < input->end ? *input->at++ : 0);
  return number;
}

unsigned
input_pick (struct input *input, unsigned count)
{
  return (unsigned) input_take (input, 1) % count;
}

uint64_t
input_number (struct input *input)
{
  static const uint64_t edges[] = {
    0, 512, 4096, 28, 32, 65536, 1 << 20, 32 << 20, 64 << 20, UINT64_C (1) << 31,
    UINT64_C (1) << 32, UINT64_C (1) << 62, UINT64_C (1) << 63, 0, 8192, 1 << 17,
  };
  unsigned how = input_pick (input, 8);

  if (how == 0)
    return input_take (input, 8);
  if (how < 3)
    return input_take (input, 3);
  if (how < 5)
    return input_take (input, 2) * 512;
  return edges[input_pick (input, sizeof edges / sizeof *edges)] + input_pick (input, 5) - 2;
}

size_t
input_bytes (struct input *input, uint8_t *data, size_t max)
{
  size_t length = (size_t) (input->end - input->at);

  if (length > max)
    length = max;
  memcpy (data, input->at, length);
  input->at += length;
  return length;
}

void
put (struct output_bytes *bytes, const void *data, size_t length)
{
  if (length == 0 || length > sizeof bytes->data - bytes->length)
    return;
  memcpy (bytes->data + bytes->length, data, length);
  bytes->length += length;
}

void
put_number (struct output_bytes *bytes, uint64_t number, unsigned length)
{
  uint8_t data[8];

  for (unsigned i = 0; i < length; i++)
    data[i] = (uint8_t) (number >> 8 * (length - 1 - i));
  put (bytes, data, length);
}
