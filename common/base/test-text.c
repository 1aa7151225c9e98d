/* SPDX-License-Identifier: BSD-2-Clause */
/* test-text.c - sizes and UTF-8, against tables and against slower ways to say the same.
 *
 * LACUNA_SEED=n replays one seed. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/test-seed.h"
#include "base/text.h"

static void
expect_size (const char *text, uint64_t wanted)
{
  uint64_t bytes = 1;

  if (text_parse_size (text, &bytes, NULL) != 0 || bytes != wanted)
    fail_msg ("\"%s\": %" PRIu64 ", not %" PRIu64, text, bytes, wanted);
}

static void
expect_no_size (const char *text, int error, const char *reason)
{
  uint64_t bytes = 4711;
  const char *why = NULL;

  if (text_parse_size (text, &bytes, &why) != error || !strstr (why, reason) || bytes != 4711)
    fail_msg ("\"%s\": %s", text, why ? why : "accepted");
  assert_int_equal (text_parse_size (text, &bytes, NULL), error);
}

static void
test_sizes (void **state)
{
  static const char units[] = "KMGTPE";

  (void) state;
  expect_size ("0", 0);
  expect_size ("0E", 0);
  expect_size ("007", 7);
  expect_size ("4096", 4096);
  expect_size ("512M", 512 * MIB);
  expect_size ("18446744073709551615", UINT64_MAX);
  expect_size ("15E", UINT64_C (15) << 60);
  expect_size ("17179869183G", UINT64_C (17179869183) << 30);
  for (unsigned i = 0; i < 6; i++) {
    char text[] = { '3', units[i], '\0' };

    expect_size (text, UINT64_C (3) << 10 * (i + 1));
    text[1] += 'a' - 'A';
    expect_size (text, UINT64_C (3) << 10 * (i + 1));
  }
}

static void
test_no_sizes (void **state)
{
  static const char *const not_sizes[] = { "ten", "K", " 1", "+1", "\xc2\xb2", "/", ":" };
  static const char *const not_units[] = { "1Q", "1GG", "1 G", "1GiB", "0x10", "1e9", "1 ", "4096B" };

  (void) state;
  expect_no_size ("", -EINVAL, "missing");
  expect_no_size ("-", -EINVAL, "negative");
  expect_no_size ("-4096", -EINVAL, "negative");
  expect_no_size ("1.5G", -EINVAL, "whole number");
  for (size_t i = 0; i < ARRAY_COUNT (not_sizes); i++)
    expect_no_size (not_sizes[i], -EINVAL, "not a size");
  for (size_t i = 0; i < ARRAY_COUNT (not_units); i++)
    expect_no_size (not_units[i], -EINVAL, "unknown unit");
  expect_no_size ("18446744073709551616", -ERANGE, "too large");
  expect_no_size ("99999999999999999999999999", -ERANGE, "too large");
  expect_no_size ("16E", -ERANGE, "too large");
  expect_no_size ("17179869184G", -ERANGE, "too large");
}

static void
test_numbers (void **state)
{
  static const char *const none[] = { "", "-1", "+1", " 1", "1 ", "1K", "x", "0", "257", "0x10",
                                      "18446744073709551616" };
  uint64_t number = 4711;

  (void) state;
  assert_true (text_parse_number ("1", 1, 256, &number) && number == 1);
  assert_true (text_parse_number ("256", 1, 256, &number) && number == 256);
  assert_true (text_parse_number ("18446744073709551615", 0, UINT64_MAX, &number));
  assert_int_equal (number, UINT64_MAX);
  for (size_t i = 0; i < ARRAY_COUNT (none); i++)
    if (text_parse_number (none[i], 1, 256, &number))
      fail_msg ("\"%s\" is no number from 1 to 256", none[i]);
}

/* What is written can be read again: exactly, or to half of the last digit that is shown. */
static void
run_written (void)
{
  char text[TEXT_SIZE_MAX], unit;
  unsigned whole, tenths;
  uint64_t read;

  for (unsigned i = 0; i < 20000; i++) {
    uint64_t bytes = random_number () >> random_below (64);

    if (random_below (2))
      bytes &= ~((UINT64_C (1) << random_below (64)) - 1);
    assert_int_equal (text_parse_size (text_exact_size (bytes, text), &read, NULL), 0);
    assert_int_equal (read, bytes);
    if (bytes < 1024)
      continue;
    assert_ptr_equal (text_human_size (bytes, text), text);
    tenths = 0;
    if (sscanf (text, "%u.%u %ciB", &whole, &tenths, &unit) != 3)
      assert_int_equal (sscanf (text, "%u %ciB", &whole, &unit), 2);
    assert_true (whole >= 1 && whole < 1024 && tenths < 10);
    long double one = (UINT64_C (1) << 10 * (strchr ("KMGTPE", unit) - "KMGTPE" + 1));
    long double off = (whole + tenths / 10.0L) - bytes / one;

    /* The remainder counts in 1/1024 of the unit. */
    if (off < -0.0501L - 1 / 1024.0L || off > 0.0501L + 1 / 1024.0L)
      fail_msg ("%" PRIu64 " is not %s", bytes, text);
  }
}

static void
test_written (void **state)
{
  static const struct { uint64_t bytes; const char *human, *exact; } sizes[] = {
    { 0, "0 B", "0" },
    { 1, "1 B", "1" },
    { 1023, "1023 B", "1023" },
    { 1024, "1 KiB", "1K" },
    { 1536, "1.5 KiB", "1536" },
    { 4097, "4 KiB", "4097" },
    { 20 * GIB, "20 GiB", "20G" },
    { 3 * GIB / 2, "1.5 GiB", "1536M" },
    { MIB - 1, "1 MiB", "1048575" },
    { 1023 * KIB, "1023 KiB", "1023K" },
    { INT64_MAX - 4095, "8 EiB", "9007199254740988K" },
    { UINT64_MAX, "16 EiB", "18446744073709551615" },
  };
  char text[TEXT_SIZE_MAX];

  (void) state;
  for (size_t i = 0; i < ARRAY_COUNT (sizes); i++) {
    assert_string_equal (text_human_size (sizes[i].bytes, text), sizes[i].human);
    assert_string_equal (text_exact_size (sizes[i].bytes, text), sizes[i].exact);
  }
  for_each_seed (run_written);
}

/* --- UTF-8: every code point, and every way not to be one --- */

/* Writes POINT as if it had LENGTH bytes, whether or not that is its form. */
static void
encode (uint32_t point, size_t length, char *text)
{
  static const uint8_t first[] = { 0, 0, 0xc0, 0xe0, 0xf0, 0xf8 };

  for (size_t i = length - 1; i > 0; i--, point >>= 6)
    text[i] = (char) (0x80 | (point & 0x3f));
  text[0] = (char) (first[length] | point);
}

static void
test_utf8 (void **state)
{
  char text[8] = "";

  (void) state;
  assert_true (text_is_utf8 ("", 0));
  assert_true (text_is_utf8 ("Lücke \xe2\x98\x83 \xf0\x9f\x92\xbe", 15));
  assert_false (text_is_utf8 ("a\0b", 3));
  for (uint32_t point = 1; point < 0x80; point++) {
    text[0] = (char) point;
    assert_true (text_is_utf8 (text, 1));
  }
  for (size_t length = 2; length <= 4; length++)
    for (uint32_t point = 0; point < UINT32_C (1) << (5 * length + 1); point++) {
      uint32_t least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
      bool is_surrogate = point >= 0xd800 && point < 0xe000;

      encode (point, length, text);
      if (text_is_utf8 (text, length) != (point >= least && point <= 0x10ffff && !is_surrogate))
        fail_msg ("U+%04x in %zu bytes", point, length);
    }
}

/* A valid text is valid cut between characters only, and with no byte of a character changed. */
static void
run_utf8_damage (void)
{
  char text[64];

  for (unsigned i = 0; i < 2000; i++) {
    size_t length = 0, ends[16], count = 1 + random_below (15);

    for (size_t j = 0; j < count; j++) {
      static const uint32_t points[] = { 0, 0, 0xe4, 0x2603, 0x1f4be };
      size_t bytes = 1 + random_below (4);

      if (bytes == 1)
        text[length] = (char) (1 + random_below (127));
      else
        encode (points[bytes], bytes, text + length);
      ends[j] = length += bytes;
    }
    for (size_t at = 1, j = 0; at <= length; at++) {
      j += at > ends[j];
      assert_int_equal (text_is_utf8 (text, at), at == ends[j]);
    }
    size_t at = random_below (length);
    char old = text[at];

    text[at] = (char) (0xf5 + random_below (11));      /* in no text at all */
    assert_false (text_is_utf8 (text, length));
    text[at] = (char) (old & 0x80 ? old & 0x7f : old | 0x80);
    assert_false (text_is_utf8 (text, length));
  }
}

static void
test_utf8_damage (void **state)
{
  (void) state;
  for_each_seed (run_utf8_damage);
}

static void
test_uuids (void **state)
{
  static const char *const wrong[] = {
    "", "0", "00000000-0000-0000-0000-000000000000", "0123456789abcdef0123456789abcdef",
    "01234567-89ab-cdef-0123-456789abcdeg", "01234567-89ab-cdef-0123-456789abcde",
    "01234567-89ab-cdef-0123-456789abcdef0", "01234567-89ab-cdef-01234-56789abcdef",
    " 1234567-89ab-cdef-0123-456789abcdef",
  };
  uint8_t uuid[16];
  char text[TEXT_UUID_SIZE];

  (void) state;
  assert_true (text_parse_uuid ("01234567-89aB-CDef-0123-456789abcdEF", uuid));
  assert_string_equal (text_uuid (uuid, text), "01234567-89ab-cdef-0123-456789abcdef");
  assert_int_equal (uuid[5], 0xab);
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
    assert_false (text_parse_uuid (wrong[i], uuid));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_sizes),
    cmocka_unit_test (test_no_sizes),
    cmocka_unit_test (test_numbers),
    cmocka_unit_test (test_written),
    cmocka_unit_test (test_uuids),
    cmocka_unit_test (test_utf8),
    cmocka_unit_test (test_utf8_damage),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
