/* SPDX-License-Identifier: BSD-2-Clause */
/* log.c - see log.h. */
#include <stdio.h>

#include "base/log.h"

static void
log_to_stderr (enum log_level level, const char *message)
{
  /* One call, so that the lines of two threads do not mix. */
  fprintf (stderr, "lacuna: %s%s\n", level == LOG_WARNING ? "warning: " : "",
           message);
}

static log_sink *current_sink = log_to_stderr;
static enum log_level current_level = LOG_INFO;

void
log_set_sink (log_sink *sink)
{
  current_sink = sink ? sink : log_to_stderr;
}

void
log_set_level (enum log_level level)
{
  current_level = level;
}

void
log_message (enum log_level level, const char *format, ...)
{
  char message[1024];
  va_list args;

  if (level > current_level)
    return;
  va_start (args, format);
  vsnprintf (message, sizeof message, format, args);
  va_end (args);
  current_sink (level, message);
}
