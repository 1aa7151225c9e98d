/* SPDX-License-Identifier: BSD-2-Clause */
/* log.h - messages to the person who runs the program.
 *
 * One line each, whole sentences, no trailing newline in FORMAT.  The default
 * sink writes "lacuna: " and the message to stderr; the plugin installs its own.
 * Any thread may log.  Nothing is logged per request.
 */
#ifndef LACUNA_LOG_H
#define LACUNA_LOG_H

#include <stdarg.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

typedef void log_sink (enum log_level level, const char *message);

/* Replaces the sink (NULL: the default one) and returns nothing; call before
 * threads are started. */
void log_set_sink (log_sink *sink);

/* Messages above LEVEL are dropped; the default is LOG_INFO. */
void log_set_level (enum log_level level);

void log_message (enum log_level level, const char *format, ...)
  __attribute__ ((format (printf, 2, 3)));

#define log_error(...) log_message (LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_message (LOG_WARNING, __VA_ARGS__)
#define log_info(...) log_message (LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_message (LOG_DEBUG, __VA_ARGS__)

#endif
