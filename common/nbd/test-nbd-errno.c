/* SPDX-License-Identifier: BSD-2-Clause */
/* test-nbd-errno.c - no failure leaves as a number that a client does not expect of the command,
 * and every text is one that all clients survive. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/text.h"
#include "nbd/nbd-errno.h"

#define ERRNO_MAX 4095
#define COMMANDS (NBD_CMD_COUNT + 1)   /* and one that there is not */

static enum nbd_error
error_of_errno (unsigned command, int number)
{
  return nbd_failure (command, nbd_cause_of_errno (-number)).error;
}

static void
check_text (const char *text)
{
  size_t length;

  assert_non_null (text);
  length = strlen (text);
  assert_true (length > 1 && length < 990 && text_is_utf8 (text, length));
  assert_int_equal (text[length - 1], '.');
}

/* The numbers of the protocol.  EOVERFLOW is for what cannot be split, ENOTSUP for FAST_ZERO. */
static bool
is_expected (unsigned command, enum nbd_cause cause, enum nbd_error error)
{
  switch ((int) error) {
  case 1: case 5: case 12: case 22: case 28: case 108:
    return true;
  case 75:
    return cause == NBD_CAUSE_TOO_LONG_TO_SPLIT;
  case 95:
    return command == NBD_CMD_WRITE_ZEROES && cause == NBD_CAUSE_NOT_FAST;
  default:
    return false;
  }
}

static void
test_every_cause (void **state)
{
  (void) state;
  for (unsigned command = 0; command < COMMANDS; command++) {
    assert_int_equal (nbd_failure (command, NBD_CAUSE_NONE).error, NBD_SUCCESS);
    for (unsigned cause = NBD_CAUSE_NONE + 1; cause <= NBD_CAUSE_IO; cause++) {
      struct nbd_failure failure = nbd_failure (command, cause);

      assert_true (is_expected (command, cause, failure.error));
      check_text (failure.text);
    }
  }
}

static void
test_every_errno (void **state)
{
  static const struct { int number; enum nbd_error error; } known[] = {
    { 0, NBD_SUCCESS },
    { EPERM, NBD_EPERM }, { EACCES, NBD_EPERM }, { EROFS, NBD_EPERM },
    { EIO, NBD_EIO }, { ENODEV, NBD_EIO }, { EUCLEAN, NBD_EIO }, { ETIMEDOUT, NBD_EIO },
    { ENOMEM, NBD_ENOMEM }, { EINVAL, NBD_EINVAL },
    { ENOSPC, NBD_ENOSPC }, { EDQUOT, NBD_ENOSPC }, { EFBIG, NBD_ENOSPC },
    { ESHUTDOWN, NBD_ESHUTDOWN },
    /* What a device cannot do is its failure: ENOTSUP is an answer to FAST_ZERO, and no other. */
    { EOPNOTSUPP, NBD_EIO }, { ENOSYS, NBD_EIO },
  };

  (void) state;
  for (unsigned command = 0; command < COMMANDS; command++) {
    for (int number = 1; number <= ERRNO_MAX; number++)
      assert_int_not_equal (error_of_errno (command, number), NBD_SUCCESS);
    for (size_t i = 0; i < ARRAY_COUNT (known); i++)
      assert_int_equal (error_of_errno (command, known[i].number), known[i].error);
  }
}

/* What reaches beyond the end is no space to those that bring data, and no such place to others. */
static void
test_beyond_end (void **state)
{
  (void) state;
  for (unsigned command = 0; command < NBD_CMD_COUNT; command++) {
    bool brings = command == NBD_CMD_WRITE || command == NBD_CMD_WRITE_ZEROES;

    assert_int_equal (nbd_failure (command, NBD_CAUSE_BEYOND_END).error,
                      brings ? NBD_ENOSPC : NBD_EINVAL);
  }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_every_cause),
    cmocka_unit_test (test_every_errno),
    cmocka_unit_test (test_beyond_end),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
