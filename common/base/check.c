/* SPDX-License-Identifier: BSD-2-Clause */
/* check.c - see check.h. */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"

void
check_failed (const char *expression, const char *file, int line,
              const char *function)
{
  fprintf (stderr, "lacuna: bug: %s:%d: %s: CHECK (%s) failed\n", file, line,
           function, expression);
  abort ();
}
