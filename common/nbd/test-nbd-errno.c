/* SPDX-License-Identifier: BSD-2-Clause */
/* test-nbd-errno.c - no errno of the engine leaves as a number that a client does not expect of
 * the command, and every text is one that all clients survive. */
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

static void
check_text (const char *text)
{
  size_t length;

  assert_non_null (text);
  length = strlen (text);
  assert_true (length > 1 && length < 990 && text_is_utf8 (text, length));
  assert_int_equal (text[length - 1], '.');
}

static void
test_causes (void **state)
{
  static const enum nbd_error wanted[] = {
    [NBD_CAUSE_UNKNOWN_COMMAND] = NBD_EINVAL,
    [NBD_CAUSE_FLAGS] = NBD_EINVAL,
    [NBD_CAUSE_PAYLOAD_TOO_LONG] = NBD_EINVAL,
    [NBD_CAUSE_FLUSH_RANGE] = NBD_EINVAL,
    [NBD_CAUSE_NO_CONTEXT] = NBD_EINVAL,
    [NBD_CAUSE_READ_ONLY] = NBD_EPERM,
    [NBD_CAUSE_SHUTDOWN] = NBD_ESHUTDOWN,
  };

  (void) state;
  for (size_t i = 0; i < ARRAY_COUNT (wanted); i++) {
    struct nbd_failure failure = nbd_failure_of_cause ((enum nbd_cause) i);

    assert_int_equal (failure.error, wanted[i]);
    check_text (failure.text);
  }
}

/* The numbers of the protocol, and which command may get which. */
static bool
is_expected (enum nbd_command command, enum nbd_error error)
{
  switch ((int) error) {
  case 1: case 5: case 12: case 22: case 28: case 108:
    return true;
  case 75:
    return command == NBD_CMD_READ;
  case 95:
    return command == NBD_CMD_WRITE_ZEROES;
  default:
    return false;
  }
}

static void
test_every_errno (void **state)
{
  (void) state;
  for (unsigned command = 0; command < NBD_CMD_COUNT; command++) {
    assert_int_equal (nbd_error_from_errno (command, 0), NBD_SUCCESS);
    for (int number = 1; number <= ERRNO_MAX; number++) {
      struct nbd_failure failure = nbd_failure_of_error (command, -number);

      assert_true (is_expected (command, failure.error));
      assert_int_equal (failure.error, nbd_error_from_errno (command, -number));
      check_text (failure.text);
    }
  }
}

static void
test_known_errnos (void **state)
{
  static const struct { int number; enum nbd_error error; } known[] = {
    { EPERM, NBD_EPERM }, { EACCES, NBD_EPERM }, { EROFS, NBD_EPERM },
    { EIO, NBD_EIO }, { ENODEV, NBD_EIO }, { EUCLEAN, NBD_EIO }, { ETIMEDOUT, NBD_EIO },
    { ENOMEM, NBD_ENOMEM }, { EINVAL, NBD_EINVAL },
    { ENOSPC, NBD_ENOSPC }, { EDQUOT, NBD_ENOSPC }, { EFBIG, NBD_ENOSPC },
    { ESHUTDOWN, NBD_ESHUTDOWN },
  };

  (void) state;
  for (unsigned command = 0; command < NBD_CMD_COUNT; command++)
    for (size_t i = 0; i < ARRAY_COUNT (known); i++)
      assert_int_equal (nbd_error_from_errno (command, -known[i].number), known[i].error);
  assert_int_equal (nbd_error_from_errno (NBD_CMD_READ, -EOVERFLOW), NBD_EOVERFLOW);
  assert_int_equal (nbd_error_from_errno (NBD_CMD_WRITE, -EOVERFLOW), NBD_EINVAL);
  assert_int_equal (nbd_error_from_errno (NBD_CMD_WRITE_ZEROES, -EOPNOTSUPP), NBD_ENOTSUP);
  assert_int_equal (nbd_error_from_errno (NBD_CMD_TRIM, -EOPNOTSUPP), NBD_EINVAL);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_causes),
    cmocka_unit_test (test_every_errno),
    cmocka_unit_test (test_known_errnos),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
