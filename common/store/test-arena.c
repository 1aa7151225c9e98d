/* SPDX-License-Identifier: BSD-2-Clause */
/* test-arena.c - arenas are taken over by their own store only, and say why not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#undef BLOCK_SIZE               /* of sys/mount.h */
#include "store/arena.h"

#define FRAMES 100
#define TAIL UINT64_C (65536)

static char directory[64];
static char path[128];
static struct arena_identity identity;

static int
set_up (void **state)
{
  (void) state;
  strcpy (directory, access ("/dev/shm", W_OK) == 0 ? "/dev/shm/lacuna-test-XXXXXX"
                                                    : "/tmp/lacuna-test-XXXXXX");
  if (!mkdtemp (directory))
    return -1;
  snprintf (path, sizeof path, "%s/arena", directory);
  memset (identity.store_uuid, 1, 16);
  memset (identity.arena_id, 2, 16);
  arena_boot_id (identity.boot_id);
  return 0;
}

static int
tear_down (void **state)
{
  (void) state;
  unlink (path);
  return rmdir (directory);
}

static struct arena *
create (bool replace)
{
  char *error;
  struct arena *arena = arena_create (path, &identity, FRAMES, FRAMES, TAIL, replace, &error);

  assert_non_null (arena);
  assert_null (error);
  return arena;
}

static void
expect_refusal (const struct arena_identity *wanted, const char *text)
{
  const char *why = NULL;

  assert_null (arena_take_over (path, wanted, 0, &why));
  assert_non_null (strstr (why, text));
}

static void
test_layout (void **state)
{
  struct arena *arena = create (false);
  uint8_t *end = (uint8_t *) arena->header + arena->length;
  struct stat stat_file;

  (void) state;
  assert_int_equal (stat (path, &stat_file), 0);
  assert_int_equal (stat_file.st_mode & 0777, 0600);
  assert_int_equal (stat_file.st_size, arena->length);
  assert_true ((uint64_t) stat_file.st_blocks * 512 >= arena->length);
  assert_int_equal ((uintptr_t) arena->data % BLOCK_SIZE, 0);
  assert_true ((uint8_t *) (arena->frames + FRAMES) <= arena->tail);
  assert_true (arena->tail + TAIL <= arena->data);
  assert_ptr_equal (arena->data + FRAMES * BLOCK_SIZE, end);
  for (unsigned i = 0; i < FRAMES; i++)
    assert_int_equal (arena->frames[i].disk, 0);
  arena_close (arena, true);
  assert_int_equal (access (path, F_OK), -1);
}

/* A process writes and is killed; the next one finds all of it. */
static void
test_outlives_kill (void **state)
{
  const char *why;
  struct arena *arena;
  int status;
  pid_t pid = fork ();

  (void) state;
  assert_true (pid >= 0);
  if (pid == 0) {
    arena = create (false);
    memset (arena->data, 0x11, FRAMES * BLOCK_SIZE);
    memset (arena->tail, 0x22, TAIL);
    arena->frames[FRAMES - 1].block = 7;
    arena->frames[FRAMES - 1].version = 8;
    atomic_store (&arena->frames[FRAMES - 1].disk, 9);
    atomic_store (&arena->header->tail_end, 1000);
    kill (getpid (), SIGKILL);
  }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFSIGNALED (status));
  arena = arena_take_over (path, &identity, 0, &why);
  assert_non_null (arena);
  assert_int_equal (arena->frame_count, FRAMES);
  assert_int_equal (arena->tail_bytes, TAIL);
  assert_int_equal (arena->data[FRAMES * BLOCK_SIZE - 1], 0x11);
  assert_int_equal (arena->tail[TAIL - 1], 0x22);
  assert_int_equal (arena->tail[0], 0x22);
  assert_int_equal (arena->frames[FRAMES - 1].block, 7);
  assert_int_equal (arena->frames[FRAMES - 1].disk, 9);
  assert_int_equal (arena->header->tail_end, 1000);
  /* A close that keeps it: once more. */
  arena_close (arena, false);
  arena = arena_take_over (path, &identity, 0, &why);
  assert_non_null (arena);
  arena_close (arena, true);
  expect_refusal (&identity, "there is none");
}

static void
test_identity (void **state)
{
  struct arena_identity other;
  struct arena *arena;
  const char *why;
  char *error;

  (void) state;
  arena_close (create (false), false);
  other = identity;
  other.store_uuid[3] ^= 1;
  expect_refusal (&other, "another store");
  other = identity;
  other.arena_id[15] ^= 1;
  expect_refusal (&other, "another state");
  other = identity;
  other.boot_id[0] ^= 1;
  expect_refusal (&other, "started anew");
  other.boot_id[0] ^= 1;
  arena = arena_take_over (path, &other, 0, &why);
  assert_non_null (arena);
  /* Another version's, which may have what was acknowledged. */
  arena->header->magic += UINT64_C (1) << 56;
  arena_close (arena, false);
  expect_refusal (&identity, "another version");
  assert_int_equal (errno, EPROTONOSUPPORT);
  assert_null (arena_create (path, &identity, FRAMES, FRAMES, TAIL, true, &error));
  free (error);
  assert_int_equal (chmod (path, 0644), 0);
  expect_refusal (&identity, "open to others");
  unlink (path);
}

/* Each byte of the header counts; and the length of the file. */
static void
test_damage (void **state)
{
  int fd;

  (void) state;
  arena_close (create (false), false);
  fd = open (path, O_RDWR | O_CLOEXEC);
  assert_true (fd >= 0);
  for (size_t at = 0; at < offsetof (struct arena_header, tail_end); at++) {
    const char *why;
    uint8_t byte, damaged;

    assert_int_equal (pread (fd, &byte, 1, at), 1);
    damaged = byte ^ 0x40;
    assert_int_equal (pwrite (fd, &damaged, 1, at), 1);
    assert_null (arena_take_over (path, &identity, 0, &why));
    assert_int_equal (pwrite (fd, &byte, 1, at), 1);
  }
  assert_int_equal (ftruncate (fd, 2 * BLOCK_SIZE), 0);
  expect_refusal (&identity, "length");
  assert_int_equal (ftruncate (fd, 10), 0);
  expect_refusal (&identity, "too short");
  close (fd);
  unlink (path);
  assert_int_equal (symlink ("/etc/passwd", path), 0);
  expect_refusal (&identity, "cannot be opened");
  unlink (path);
}

static void
test_replace (void **state)
{
  char *error;
  struct arena *arena;

  (void) state;
  arena = create (false);
  arena->data[0] = 1;
  arena_close (arena, false);
  assert_null (arena_create (path, &identity, FRAMES, FRAMES, TAIL, false, &error));
  assert_non_null (strstr (error, path));
  free (error);
  arena = create (true);
  assert_int_equal (arena->data[0], 0);
  arena_close (arena, true);
}

static void
test_no_space (void **state)
{
  struct statvfs info;
  char *error;

  (void) state;
  assert_int_equal (statvfs (directory, &info), 0);
  assert_null (arena_create (path, &identity, info.f_blocks * info.f_frsize / BLOCK_SIZE + 1000, 1,
                             TAIL, false, &error));
  assert_non_null (strstr (error, "--cache SIZE"));
  assert_non_null (strstr (error, "--arena PATH"));
  assert_non_null (strstr (error, path));
  free (error);
  assert_int_equal (access (path, F_OK), -1);

  assert_null (arena_create ("/proc/no/such/place", &identity, FRAMES, FRAMES, TAIL, false, &error));
  assert_non_null (strstr (error, "--arena PATH"));
  free (error);
}

static uint64_t
allocated_bytes (const char *file)
{
  struct stat stat_file;

  assert_int_equal (stat (file, &stat_file), 0);
  return (uint64_t) stat_file.st_blocks * 512;
}

/* One that is killed before it has all of its space: the next one has it. */
static void
test_grows (void **state)
{
  const char *why;
  char *error;
  struct arena *arena;
  int status;
  pid_t pid = fork ();

  (void) state;
  assert_true (pid >= 0);
  if (pid == 0) {
    arena = arena_create (path, &identity, FRAMES, 10, TAIL, false, &error);
    arena_allocate (arena, 10, 20);
    memset (arena->data, 0x11, 30 * BLOCK_SIZE);
    kill (getpid (), SIGKILL);
  }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFSIGNALED (status) && WTERMSIG (status) == SIGKILL);
  assert_true (allocated_bytes (path) < 60 * BLOCK_SIZE);
  arena = arena_take_over (path, &identity, 0, &why);
  assert_non_null (arena);
  assert_int_equal (arena->frames_at_start, FRAMES);
  assert_true (allocated_bytes (path) >= arena->length);
  assert_int_equal (arena->data[30 * BLOCK_SIZE - 1], 0x11);
  arena_close (arena, true);
}

/* The child of test_filled_meanwhile. */
static void
be_filled (const char *file, const char *other)
{
  char *error;
  struct arena *arena = arena_create (file, &identity, FRAMES, 10, TAIL, false, &error);
  int fd = open (other, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  char block[BLOCK_SIZE] = { 1 };

  while (write (fd, block, sizeof block) > 0)
    ;
  memset (arena->data, 0x11, 10 * BLOCK_SIZE);
  arena_allocate (arena, 10, FRAMES - 10);
  _exit (0);
}

/* There was room, and somebody else has it now. */
static void
test_filled_meanwhile (void **state)
{
  char place[128], file[160], other[160], text[1000] = "";
  int status, ends[2];
  const char *why;
  struct arena *arena;
  pid_t pid;

  (void) state;
  snprintf (place, sizeof place, "%s/small", directory);
  snprintf (file, sizeof file, "%s/arena", place);
  snprintf (other, sizeof other, "%s/other", place);
  assert_int_equal (mkdir (place, 0700), 0);
  if (mount ("none", place, "tmpfs", 0, "size=1m") < 0) {
    rmdir (place);
    skip ();
  }
  assert_int_equal (pipe (ends), 0);
  pid = fork ();
  assert_true (pid >= 0);
  if (pid == 0) {
    dup2 (ends[1], STDERR_FILENO);
    be_filled (file, other);
  }
  close (ends[1]);
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (read (ends[0], text, sizeof text - 1) > 0);
  close (ends[0]);
  assert_true (WIFEXITED (status) && WEXITSTATUS (status) == EXIT_FAILURE);
  assert_non_null (strstr (text, file));
  assert_non_null (strstr (text, "--cache SIZE"));
  assert_null (arena_take_over (file, &identity, 0, &why));
  assert_non_null (strstr (why, "allocated"));
  assert_int_equal (unlink (other), 0);
  arena = arena_take_over (file, &identity, 0, &why);
  assert_non_null (arena);
  assert_int_equal (arena->data[10 * BLOCK_SIZE - 1], 0x11);
  arena_close (arena, true);
  assert_int_equal (umount (place), 0);
  assert_int_equal (rmdir (place), 0);
}

static void
test_off (void **state)
{
  char *error;
  struct arena *arena = arena_create (NULL, &identity, FRAMES, FRAMES, TAIL, false, &error);

  (void) state;
  assert_non_null (arena);
  assert_null (arena->path);
  assert_int_equal ((uintptr_t) arena->data % BLOCK_SIZE, 0);
  memset (arena->data, 1, FRAMES * BLOCK_SIZE);
  arena_close (arena, true);
}

static void
test_boot_id (void **state)
{
  uint8_t a[16], b[16], zero[16] = { 0 };

  (void) state;
  arena_boot_id (a);
  arena_boot_id (b);
  assert_memory_equal (a, b, 16);
  assert_memory_not_equal (a, zero, 16);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_layout),
    cmocka_unit_test (test_outlives_kill),
    cmocka_unit_test (test_identity),
    cmocka_unit_test (test_damage),
    cmocka_unit_test (test_replace),
    cmocka_unit_test (test_no_space),
    cmocka_unit_test (test_grows),
    cmocka_unit_test (test_filled_meanwhile),
    cmocka_unit_test (test_off),
    cmocka_unit_test (test_boot_id),
  };

  return cmocka_run_group_tests (tests, set_up, tear_down);
}
