/* SPDX-License-Identifier: BSD-2-Clause */
/* test-oracle.c - who judges the judge: small histories whose verdict is known. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "oracle.h"

static struct oracle oracle;
static struct oracle_disk disk;
static uint64_t now;
static unsigned failed;

/* What is in the sector: change 0 is zeros. */
static const uint8_t *
content (uint64_t change)
{
  static uint8_t data[SECTOR_SIZE];

  if (change == 0)
    memset (data, 0, sizeof data);
  else
    oracle_pattern (disk.incarnation, change, 0, data, sizeof data);
  return data;
}

static void
begin_history (void)
{
  oracle_disk_clear (&disk);
  oracle_disk_init (&oracle, &disk, 4 * BLOCK_SIZE);
}

static uint64_t
begin (bool is_zero)
{
  uint64_t change = oracle_change (&oracle);

  oracle_begin (&disk, change, is_zero, 0, SECTOR_SIZE, ++now);
  return change;
}

static void
end (uint64_t change, bool is_fua)
{
  oracle_end (&disk, change, 0, SECTOR_SIZE, true, is_fua, ++now);
}

static uint64_t
write_all (bool is_fua)
{
  uint64_t change = begin (false);

  end (change, is_fua);
  return change;
}

static void
expect (const char *what, bool expected, bool verdict)
{
  if (expected != verdict) {
    printf ("FAIL %s: should %sbe legal (%s)\n", what, expected ? "" : "not ",
            verdict ? "" : oracle.message);
    failed++;
  }
}

static bool
reads_data (const uint8_t *data)
{
  uint64_t begun = ++now;

  return oracle_judge (&oracle, &disk, 0, SECTOR_SIZE, data, begun, ++now);
}

static bool
reads (uint64_t change)
{
  return reads_data (content (change));
}

static bool
found (enum crash_kind kind, uint64_t change)
{
  return oracle_judge_recovered (&oracle, &disk, kind, 0, SECTOR_SIZE, content (change), ++now);
}

static void
flush (void)
{
  oracle_flushed (&disk, ++now);
}

static void
test_live (void)
{
  uint64_t a, b, late;

  begin_history ();
  expect ("zeros at first", true, reads (0));
  a = begin (false);
  expect ("a write that runs: old", true, reads (0));
  expect ("a write that runs: new", true, reads (a));
  end (a, false);
  expect ("new after new", true, reads (a));
  expect ("zeros after a write ended", false, reads (0));
  b = write_all (false);
  expect ("an overwritten value", false, reads (a));
  late = ++now;
  a = write_all (false);
  expect ("a read that began before the overwrite", true,
          oracle_judge (&oracle, &disk, 0, SECTOR_SIZE, content (b), late, ++now));
  expect ("a change of nobody", false, reads (4711));
}

static void
test_inversion (void)
{
  uint64_t a, b;

  begin_history ();
  a = begin (false);
  b = begin (false);
  expect ("one of two", true, reads (a));
  expect ("the other of two", true, reads (b));
  expect ("the first again", false, reads (a));
}

static void
test_kill (void)
{
  uint64_t a, b;

  begin_history ();
  a = write_all (false);
  b = begin (false);
  oracle_crash (&disk, ++now);
  expect ("kill: acknowledged, the next one running", true, found (CRASH_KILL, a));
  expect ("kill: what was not there cannot come later", false, reads (b));
  begin_history ();
  a = write_all (false);
  oracle_crash (&disk, ++now);
  expect ("kill: an acknowledged write lost", false, found (CRASH_KILL, 0));
  begin_history ();
  a = write_all (false);
  oracle_crash (&disk, ++now);
  expect ("kill: kept", true, found (CRASH_KILL, a));
  oracle_crash (&disk, ++now);
  expect ("kill, then power cut, without a FLUSH", true, found (CRASH_POWER, 0));
  expect ("and then it stays so", false, reads (a));
  begin_history ();
  a = begin (false);
  oracle_crash (&disk, ++now);
  expect ("kill: what was running was done", true, found (CRASH_KILL, a));
  flush ();
  oracle_crash (&disk, ++now);
  expect ("what a FLUSH after recovery covers", false, found (CRASH_POWER, 0));
}

static void
test_power (void)
{
  uint64_t a, b;

  begin_history ();
  a = write_all (false);
  oracle_crash (&disk, ++now);
  expect ("power: not flushed, lost", true, found (CRASH_POWER, 0));
  begin_history ();
  a = write_all (false);
  flush ();
  b = write_all (false);
  oracle_crash (&disk, ++now);
  expect ("power: flushed, lost", false, found (CRASH_POWER, 0));
  begin_history ();
  a = write_all (true);
  b = begin (true);
  oracle_crash (&disk, ++now);
  expect ("power: FUA, then a trim that ran", true, found (CRASH_POWER, 0));
  begin_history ();
  a = write_all (false);
  b = write_all (true);
  oracle_crash (&disk, ++now);
  expect ("power: older than a durable one", false, found (CRASH_POWER, a));
  begin_history ();
  b = write_all (true);
  oracle_crash (&disk, ++now);
  expect ("power: FUA kept", true, found (CRASH_POWER, b));
}

static void
test_parts (void)
{
  uint8_t data[SECTOR_SIZE];
  uint64_t a, b;

  begin_history ();
  a = write_all (false);
  b = oracle_change (&oracle);
  oracle_begin (&disk, b, false, 100, 50, ++now);
  oracle_end (&disk, b, 100, 50, true, false, ++now);
  memcpy (data, content (a), sizeof data);
  expect ("a part that was overwritten, and is not", false,
          reads_data (data));
  oracle_pattern (disk.incarnation, b, 100, data + 100, 50);
  expect ("a part overwritten", true, reads_data (data));
  begin_history ();
  a = begin (false);
  memcpy (data, content (a), 256);
  memset (data + 256, 0, 256);
  expect ("a torn sector", false, reads_data (data));
}

/* --- sector 0 is cloned to sector 1 --- */

static uint64_t
begin_clone (void)
{
  uint64_t change = oracle_change (&oracle);

  oracle_clone_begin (&disk, change, SECTOR_SIZE, SECTOR_SIZE, &disk, 0, ++now);
  return change;
}

static void
end_clone (uint64_t change)
{
  oracle_end (&disk, change, SECTOR_SIZE, SECTOR_SIZE, true, true, ++now);
}

/* The target holds what CHANGE wrote to the source. */
static bool
target_reads (uint64_t change)
{
  uint64_t begun = ++now;

  return oracle_judge (&oracle, &disk, SECTOR_SIZE, SECTOR_SIZE, content (change), begun, ++now);
}

static void
target_found (uint64_t clone, const uint8_t *data, bool *was_done, bool *was_not_done)
{
  *was_done = *was_not_done = false;
  oracle_clone_found (&disk, CRASH_POWER, clone, SECTOR_SIZE, SECTOR_SIZE, data, ++now, was_done,
                      was_not_done);
}

static void
test_clone (void)
{
  uint64_t a, b, c, clone;
  bool was_done, was_not_done;

  begin_history ();
  a = write_all (false);
  clone = begin_clone ();
  expect ("clone: before it is done", true, target_reads (0));
  expect ("clone: while it is being done", true, target_reads (a));
  b = begin (false);
  oracle_clone_add (&disk, clone, now, SECTOR_SIZE, SECTOR_SIZE, &disk, 0, b, now);
  end_clone (clone);
  expect ("clone: what was written meanwhile", true, target_reads (b));
  end (b, false);
  c = write_all (false);
  expect ("clone: what was written later", false, target_reads (c));
  expect ("clone: and what was there before", false, target_reads (0));
  /* Cut off: done as a whole, or not. */
  begin_history ();
  a = write_all (true);
  clone = begin_clone ();
  oracle_crash (&disk, ++now);
  target_found (clone, content (a), &was_done, &was_not_done);
  expect ("clone: found done", true, was_done && !was_not_done);
  target_found (clone, content (0), &was_done, &was_not_done);
  expect ("clone: found not done", true, !was_done && was_not_done);
  /* Once it has been told it is durable. */
  begin_history ();
  a = write_all (false);
  clone = begin_clone ();
  end_clone (clone);
  oracle_crash (&disk, ++now);
  expect ("power: a clone kept", true,
          oracle_judge_recovered (&oracle, &disk, CRASH_POWER, SECTOR_SIZE, SECTOR_SIZE,
                                  content (a), ++now));
  begin_history ();
  a = write_all (false);
  end_clone (begin_clone ());
  oracle_crash (&disk, ++now);
  expect ("power: a clone lost", false,
          oracle_judge_recovered (&oracle, &disk, CRASH_POWER, SECTOR_SIZE, SECTOR_SIZE,
                                  content (0), ++now));
}

int
main (void)
{
  test_live ();
  test_inversion ();
  test_kill ();
  test_power ();
  test_parts ();
  test_clone ();
  oracle_disk_clear (&disk);
  printf ("%s oracle\n", failed ? "FAIL" : "ok");
  return failed != 0;
}
