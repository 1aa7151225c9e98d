/* SPDX-License-Identifier: BSD-2-Clause */
/* sanitizer-first.c - preloaded into nbdkit beside AddressSanitizer or ThreadSanitizer.
 *
 * A sanitizer that a program was not linked with sets itself up in the first allocation.  In nbdkit that is in newlocale,
 * called by the constructor of a library of gnutls, which holds a lock of the C library that the set-up takes again, by
 * the message of a dlsym that fails: the lock is broken from then on.  This library is initialized before all others.
 *
 * And what nbdkit has loaded stays loaded, so that a report at the end can name it.
 */
#include <stdlib.h>

int dlclose (void *handle);
static void first (void) __attribute__ ((constructor));

static void
first (void)
{
  void *volatile memory = malloc (1);   /* that the compiler must not leave out */

  free (memory);
}

int
dlclose (void *handle)
{
  (void) handle;
  return 0;
}
