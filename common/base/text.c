/* SPDX-License-Identifier: BSD-2-Clause */
/* text.c - see text.h. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

static const char units[] = "KMGTPE";

/* Reads digits from *TEXT on and moves it behind them. */
static int
parse_digits (const char **text, uint64_t *number)
{
  const char *at = *text;
  uint64_t value = 0;

  if (*at < '0' || *at > '9')
    return -EINVAL;
  for (; *at >= '0' && *at <= '9'; at++)
    if (__builtin_mul_overflow (value, 10, &value)
        || __builtin_add_overflow (value, (uint64_t) (*at - '0'), &value))
      return -ERANGE;
  *text = at;
  *number = value;
  return 0;
}

static int
size_refused (int error, const char *reason, const char **why)
{
  if (why)
    *why = reason;
  return error;
}

int
text_parse_size (const char *text, uint64_t *bytes, const char **why)
{
  static const char too_large[] = "the number is too large";
  const char *at = text, *unit;
  unsigned shift = 0;
  uint64_t value;

  if (*at == '\0')
    return size_refused (-EINVAL, "a size is missing", why);
  if (*at == '-')
    return size_refused (-EINVAL, "a size cannot be negative", why);
  switch (parse_digits (&at, &value)) {
  case -EINVAL:
    return size_refused (-EINVAL, "not a size (write 512M, 20G, 1T, or plain bytes)", why);
  case -ERANGE:
    return size_refused (-ERANGE, too_large, why);
  }
  if (*at == '.')
    return size_refused (-EINVAL, "a size is a whole number (write 1536M, not 1.5G)", why);
  if (*at != '\0') {
    unit = strchr (units, *at >= 'a' ? *at - 'a' + 'A' : *at);
    if (!unit || at[1] != '\0')
      return size_refused (-EINVAL, "unknown unit (K, M, G, T, P, E, or none for bytes)", why);
    shift = 10 * (unsigned) (unit - units + 1);
  }
  if (value > UINT64_MAX >> shift)
    return size_refused (-ERANGE, too_large, why);
  *bytes = value << shift;
  return 0;
}

bool
text_parse_number (const char *text, uint64_t min, uint64_t max, uint64_t *number)
{
  return parse_digits (&text, number) == 0 && *text == '\0' && *number >= min && *number <= max;
}

const char *
text_human_size (uint64_t bytes, char text[TEXT_SIZE_MAX])
{
  uint64_t whole, tenths;
  unsigned unit = 0;

  if (bytes < 1024) {
    snprintf (text, TEXT_SIZE_MAX, "%" PRIu64 " B", bytes);
    return text;
  }
  while (unit < 5 && bytes >> (10 * (unit + 2)) != 0)
    unit++;
  whole = bytes >> (10 * (unit + 1));
  /* The remainder in 1/1024 of the unit is exact enough for one decimal. */
  tenths = ((bytes >> (10 * unit) & 1023) * 10 + 512) / 1024;
  if (tenths == 10) {
    tenths = 0;
    whole++;
  }
  if (whole == 1024 && unit < 5) {
    whole = 1;
    unit++;
  }
  if (tenths)
    snprintf (text, TEXT_SIZE_MAX, "%" PRIu64 ".%" PRIu64 " %ciB", whole, tenths, units[unit]);
  else
    snprintf (text, TEXT_SIZE_MAX, "%" PRIu64 " %ciB", whole, units[unit]);
  return text;
}

const char *
text_exact_size (uint64_t bytes, char text[TEXT_SIZE_MAX])
{
  unsigned unit = 0;

  while (bytes != 0 && bytes % 1024 == 0 && unit < 6) {
    bytes /= 1024;
    unit++;
  }
  if (unit == 0)
    snprintf (text, TEXT_SIZE_MAX, "%" PRIu64, bytes);
  else
    snprintf (text, TEXT_SIZE_MAX, "%" PRIu64 "%c", bytes, units[unit - 1]);
  return text;
}

/* Whether a dash stands before byte I of a UUID. */
static bool
uuid_has_dash (unsigned i)
{
  return i == 4 || i == 6 || i == 8 || i == 10;
}

const char *
text_uuid (const uint8_t uuid[16], char text[TEXT_UUID_SIZE])
{
  char *at = text;

  for (unsigned i = 0; i < 16; i++)
    at += snprintf (at, 4, "%s%02x", uuid_has_dash (i) ? "-" : "", uuid[i]);
  return text;
}

bool
text_parse_uuid (const char *text, uint8_t uuid[16])
{
  static const char digits[] = "0123456789abcdef";
  unsigned sum = 0;

  for (unsigned i = 0; i < 16; i++) {
    if (uuid_has_dash (i) && *text++ != '-')
      return false;
    uuid[i] = 0;
    for (unsigned half = 0; half < 2; half++, text++) {
      const char *digit = *text != '\0' ? strchr (digits, tolower ((unsigned char) *text)) : NULL;

      if (digit == NULL)
        return false;
      uuid[i] = uuid[i] << 4 | (digit - digits);
    }
    sum |= uuid[i];
  }
  return *text == '\0' && sum != 0;
}

/* How many bytes the character at AT takes, 0 if it is none. */
static size_t
utf8_length (const unsigned char *at, size_t left)
{
  size_t length = at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3
                  : at[0] < 0xf5 ? 4 : 0;

  if (length == 0 || length > left || at[0] == 0)
    return 0;
  for (size_t i = 1; i < length; i++)
    if ((at[i] & 0xc0) != 0x80)
      return 0;
  /* Overlong forms, surrogates, and what lies past U+10FFFF show in the second byte. */
  if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f)
      || (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f))
    return 0;
  return length;
}

bool
text_is_utf8 (const char *text, size_t length)
{
  const unsigned char *at = (const unsigned char *) text;

  while (length > 0) {
    size_t step = utf8_length (at, length);

    if (step == 0)
      return false;
    at += step;
    length -= step;
  }
  return true;
}
