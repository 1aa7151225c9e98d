/* SPDX-License-Identifier: BSD-2-Clause */
/* check.h - what must be true in a program without bugs.
 *
 * CHECK stays on in release builds: it stands for our own promises only (lock
 * order, ownership, states), never for what a client or a device can cause.
 * CHECK_SLOW costs more than it may in production (walks, recounts); it is on
 * when configured with --enable-slow-checks, as the test builds are.
 */
#ifndef LACUNA_CHECK_H
#define LACUNA_CHECK_H

#include <stdbool.h>
#include <stdint.h>

/* Prints the failed expression with its place and aborts. */
void check_failed (const char *expression, const char *file, int line,
                   const char *function) __attribute__ ((noreturn, cold));

#define CHECK(expression)                                                     \
  (__builtin_expect (!!(expression), 1)                                       \
     ? (void) 0                                                               \
     : check_failed (#expression, __FILE__, __LINE__, __func__))

#ifdef LACUNA_SLOW_CHECKS
#define CHECK_SLOW(expression) CHECK (expression)
#else
#define CHECK_SLOW(expression) ((void) sizeof (!!(expression)))
#endif

#endif
