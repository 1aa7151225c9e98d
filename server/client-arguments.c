/* SPDX-License-Identifier: BSD-2-Clause */
/* client-arguments.c - command lines, sizes, and messages; see client.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/text.h"
#include "client.h"

static const struct { const char *name; unsigned option; } known_options[] = {
  { "--json", OPTION_JSON },
  { "--shrink", OPTION_SHRINK },
  { "--force", OPTION_FORCE },
  { "--repair", OPTION_REPAIR },
  { "--yes", OPTION_YES },
  { "--capacity", OPTION_CAPACITY },
  { "--request-id", OPTION_REQUEST_ID },
};

static bool __attribute__ ((format (printf, 4, 5)))
wrong_usage (const char *command, const struct client_syntax *syntax, int *status,
             const char *format, ...)
{
  va_list args;

  fprintf (stderr, "lacuna: %s: ", command);
  va_start (args, format);
  vfprintf (stderr, format, args);
  va_end (args);
  fprintf (stderr, "\nUsage: lacuna %s\n", syntax->usage);
  *status = CLIENT_WRONG_USAGE;
  return false;
}

/* Which of the command's options TEXT is, 0: none; *VALUE: what follows a "=" in it, or NULL. */
static unsigned
find_option (const struct client_syntax *syntax, const char *text, const char **value)
{
  size_t length = strcspn (text, "=");

  *value = text[length] == '=' ? text + length + 1 : NULL;
  for (size_t i = 0; i < ARRAY_COUNT (known_options); i++)
    if ((syntax->options & known_options[i].option) != 0
        && strlen (known_options[i].name) == length
        && memcmp (known_options[i].name, text, length) == 0)
      return known_options[i].option;
  return 0;
}

bool
client_parse (int argc, char **argv, const struct client_syntax *syntax,
              struct client_arguments *arguments, int *status)
{
  unsigned count = 0;
  bool only_operands = false;

  memset (arguments, 0, sizeof *arguments);
  for (int i = 1; i < argc; i++) {
    const char *text = argv[i], *value;
    unsigned option;

    if (only_operands || text[0] != '-' || text[1] == '\0' || (text[1] >= '0' && text[1] <= '9')) {
      if (count == syntax->operands_max)
        return wrong_usage (argv[0], syntax, status, "%s is one operand too many", text);
      arguments->operands[count++] = text;
      continue;
    }
    if (strcmp (text, "--") == 0) {
      only_operands = true;
      continue;
    }
    if (strcmp (text, "--help") == 0 || strcmp (text, "-h") == 0) {
      printf ("Usage: lacuna %s\n\n%s", syntax->usage, syntax->help);
      *status = client_flush (NULL, CLIENT_DONE);
      return false;
    }
    option = find_option (syntax, text, &value);
    if (option == 0)
      return wrong_usage (argv[0], syntax, status, "unknown option %s", text);
    arguments->options |= option;
    if (option == OPTION_CAPACITY || option == OPTION_REQUEST_ID) {
      if (value == NULL && i + 1 == argc)
        return wrong_usage (argv[0], syntax, status, "%s needs a value", text);
      value = value != NULL ? value : argv[++i];
      *(option == OPTION_CAPACITY ? &arguments->capacity : &arguments->request_id) = value;
    }
    else if (value != NULL)
      return wrong_usage (argv[0], syntax, status, "%.*s takes no value",
                          (int) strcspn (text, "="), text);
  }
  if (count < syntax->operands_min)
    return wrong_usage (argv[0], syntax, status, "operands are missing");
  return true;
}

/* A name as the user gave it may hold anything: what could confuse a terminal is escaped. */
static void
print_name (const char *name)
{
  bool is_utf8 = text_is_utf8 (name, strlen (name));

  for (const unsigned char *at = (const unsigned char *) name; *at != '\0'; at++)
    if (*at < 0x20 || *at == 0x7f || (*at >= 0x80 && !is_utf8))
      fprintf (stderr, "\\x%02x", *at);
    else
      putc (*at, stderr);
  fputs (": ", stderr);
}

int
client_error (const char *store, const char *disk, const char *format, ...)
{
  va_list args;

  fflush (stdout);              /* in the order it happened */
  fputs ("lacuna: ", stderr);
  if (store != NULL)
    print_name (store);
  if (disk != NULL)
    print_name (disk);
  va_start (args, format);
  vfprintf (stderr, format, args);
  va_end (args);
  putc ('\n', stderr);
  return CLIENT_FAILED;
}

bool
client_parse_size (const char *store, const char *disk, const char *what, const char *text,
                   uint64_t *bytes)
{
  const char *why;

  if (text_parse_size (text, bytes, &why) == 0)
    return true;
  client_error (store, disk, "%s \"%s\": %s", what, text, why);
  return false;
}

int
client_flush (const char *store, int status)
{
  if (fflush (stdout) != 0 || ferror (stdout))
    return client_error (store, NULL, "standard output: %s", strerror (errno));
  return status;
}
