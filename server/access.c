/* SPDX-License-Identifier: BSD-2-Clause */
/* access.c - see access.h.
 *
 * A line is a rule: a right, the disks that it is about, and who has it.
 *
 *   write  root   psk:alice  uid:1000
 *   read   vm-*   net:192.0.2.0/24+psk:bob
 *
 * Rules only ever give; their order does not matter.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"
#include "access.h"

#define FILE_BYTES_MAX (1024 * 1024)
#define WORD_MAX 1024
#define ADDRESS_BITS 128

enum condition_kind {
  CONDITION_ANY, CONDITION_TLS, CONDITION_KEY, CONDITION_SUBJECT, CONDITION_NAME, CONDITION_UID,
  CONDITION_NET,
};

/* Something that must hold of a client. */
struct condition {
  enum condition_kind kind;
  bool goes_on;                    /* the next one must hold, too */
  char *text;                      /* KEY, SUBJECT, NAME */
  uid_t uid;
  uint8_t address[16];
  unsigned bits;                   /* of the address that count */
};

struct rule {
  enum access_rights rights;
  char *disk;
  bool is_prefix;                  /* any disk whose name begins so */
  struct condition *conditions;
  size_t count;
};

struct access {
  struct rule *rules;
  size_t count;
};

/* Where a file is being read. */
struct reader {
  const char *path;
  const char *at, *end;
  unsigned line;
  bool has_failed;
};

static bool __attribute__ ((format (printf, 2, 3)))
fail (struct reader *reader, const char *format, ...)
{
  char message[512];
  va_list args;

  va_start (args, format);
  vsnprintf (message, sizeof message, format, args);
  va_end (args);
  if (!reader->has_failed)
    log_error ("%s: line %u: %s", reader->path, reader->line, message);
  reader->has_failed = true;
  return false;
}

/* --- words --- */

static bool
is_blank (char c)
{
  return c == ' ' || c == '\t' || c == '\r';
}

static bool
at_line_end (const struct reader *reader)
{
  return reader->at == reader->end || *reader->at == '\n' || *reader->at == '#';
}

static void
skip_blanks (struct reader *reader)
{
  while (reader->at < reader->end && is_blank (*reader->at))
    reader->at++;
}

/* Reads a word, up to a blank or a character of STOP; what is in double quotes has no meaning of
 * its own, and is told by *IS_QUOTED. */
static bool
read_word (struct reader *reader, const char *stop, char word[WORD_MAX], bool *is_quoted)
{
  bool in_quotes = false;
  size_t length = 0;

  *is_quoted = false;
  for (; reader->at < reader->end && *reader->at != '\n'; reader->at++) {
    char c = *reader->at;

    if (c == '"') {
      in_quotes = !in_quotes;
      *is_quoted = true;
      continue;
    }
    if (!in_quotes && (is_blank (c) || strchr (stop, c)))
      break;
    if (in_quotes && c == '\\' && reader->at + 1 < reader->end && reader->at[1] != '\n')
      c = *++reader->at;
    if (length == WORD_MAX - 1)
      return fail (reader, "a word is longer than %d bytes", WORD_MAX - 1);
    word[length++] = c;
  }
  word[length] = '\0';
  if (in_quotes)
    return fail (reader, "a quote is not closed");
  if (length == 0)
    return fail (reader, "a word is missing");
  return true;
}

/* --- conditions --- */

static void
map_ipv4 (const void *from, uint8_t address[16])
{
  memset (address, 0, 10);
  memset (address + 10, 0xff, 2);
  memcpy (address + 12, from, 4);
}

static bool
parse_net (struct reader *reader, struct condition *condition, char *text)
{
  char *slash = strchr (text, '/');
  bool is_ipv4;
  uint64_t bits;
  struct in_addr ipv4;

  if (slash)
    *slash = '\0';
  is_ipv4 = inet_pton (AF_INET, text, &ipv4) == 1;
  if (is_ipv4)
    map_ipv4 (&ipv4, condition->address);
  else if (inet_pton (AF_INET6, text, condition->address) != 1)
    return fail (reader, "net:%s is no address", text);
  bits = is_ipv4 ? 32 : 128;
  if (slash && !text_parse_number (slash + 1, 0, bits, &bits))
    return fail (reader, "net:%s/%s: behind the address stands how many of its bits count", text,
                 slash + 1);
  condition->bits = (unsigned) bits + (is_ipv4 ? 96 : 0);
  for (unsigned i = condition->bits; i < ADDRESS_BITS; i++)
    if (condition->address[i / 8] & 0x80 >> i % 8)
      return fail (reader, "net:%s/%s: there are bits behind those that count", text, slash + 1);
  return true;
}

static bool
parse_uid (struct reader *reader, struct condition *condition, const char *text)
{
  const struct passwd *user;
  uint64_t number;

  if (text_parse_number (text, 0, UINT32_MAX - 1, &number)) {
    condition->uid = (uid_t) number;
    return true;
  }
  user = getpwnam (text);
  if (!user)
    return fail (reader, "uid:%s: there is no such user on this host", text);
  condition->uid = user->pw_uid;
  return true;
}

static bool
parse_text (struct reader *reader, struct condition *condition, const char *text)
{
  condition->text = strdup (text);
  return condition->text ? true : fail (reader, "%s", strerror (ENOMEM));
}

static bool
fail_nobody (struct reader *reader, const char *word)
{
  return fail (reader, "%s is nobody: any, tls, psk:, dn:, dns:, email:, uri:, uid: or net:",
               word);
}

static bool
parse_condition (struct reader *reader, struct condition *condition, char *word)
{
  char *colon = strchr (word, ':'), *value = colon ? colon + 1 : word;
  size_t length = (size_t) (value - word);

  if (strcmp (word, "any") == 0 || strcmp (word, "tls") == 0) {
    condition->kind = *word == 'a' ? CONDITION_ANY : CONDITION_TLS;
    return true;
  }
  if (!colon || *value == '\0')
    return fail_nobody (reader, word);
  if (strncmp (word, "psk:", length) == 0) {
    condition->kind = CONDITION_KEY;
    return parse_text (reader, condition, value);
  }
  if (strncmp (word, "dn:", length) == 0) {
    condition->kind = CONDITION_SUBJECT;
    return parse_text (reader, condition, value);
  }
  if (strncmp (word, "dns:", length) == 0 || strncmp (word, "email:", length) == 0
      || strncmp (word, "uri:", length) == 0) {
    condition->kind = CONDITION_NAME;
    return parse_text (reader, condition, word);
  }
  if (strncmp (word, "uid:", length) == 0) {
    condition->kind = CONDITION_UID;
    return parse_uid (reader, condition, value);
  }
  if (strncmp (word, "net:", length) == 0) {
    condition->kind = CONDITION_NET;
    return parse_net (reader, condition, value);
  }
  return fail_nobody (reader, word);
}

/* --- rules --- */

static bool
read_condition (struct reader *reader, struct rule *rule)
{
  struct condition *conditions = realloc (rule->conditions, (rule->count + 1) * sizeof *conditions);
  struct condition *condition;
  char word[WORD_MAX];
  bool is_quoted;

  if (!conditions)
    return fail (reader, "%s", strerror (ENOMEM));
  rule->conditions = conditions;
  condition = &conditions[rule->count++];
  memset (condition, 0, sizeof *condition);
  if (!read_word (reader, "+", word, &is_quoted) || !parse_condition (reader, condition, word))
    return false;
  condition->goes_on = reader->at < reader->end && *reader->at == '+';
  if (condition->goes_on)
    reader->at++;
  else
    skip_blanks (reader);
  return true;
}

static bool
read_rights (struct reader *reader, struct rule *rule)
{
  static const char *const rights[] = {
    [ACCESS_READ] = "read", [ACCESS_WRITE] = "write", [ACCESS_RESIZE] = "resize",
  };
  char word[WORD_MAX];
  bool is_quoted;

  if (!read_word (reader, "", word, &is_quoted))
    return false;
  for (unsigned i = ACCESS_READ; i < ARRAY_COUNT (rights); i++)
    if (strcmp (word, rights[i]) == 0)
      rule->rights = (enum access_rights) i;
  return rule->rights != ACCESS_NONE ? true
         : fail (reader, "%s is no right: read, write or resize", word);
}

static bool
read_disk (struct reader *reader, struct rule *rule)
{
  char word[WORD_MAX], *star;
  bool is_quoted;

  if (at_line_end (reader))
    return fail (reader, "which disk?");
  if (!read_word (reader, "", word, &is_quoted))
    return false;
  star = is_quoted ? NULL : strchr (word, '*');
  if (star && star[1] != '\0')
    return fail (reader, "%s: a * stands for the rest of a name, at its end", word);
  rule->is_prefix = star != NULL;
  if (star)
    *star = '\0';
  rule->disk = strdup (word);
  return rule->disk ? true : fail (reader, "%s", strerror (ENOMEM));
}

static bool
read_rule (struct reader *reader, struct rule *rule)
{
  if (!read_rights (reader, rule))
    return false;
  skip_blanks (reader);
  if (!read_disk (reader, rule))
    return false;
  skip_blanks (reader);
  if (at_line_end (reader))
    return fail (reader, "who may do that?");
  do {
    if (!read_condition (reader, rule))
      return false;
  } while (rule->conditions[rule->count - 1].goes_on || !at_line_end (reader));
  return true;
}

/* A line, with its end. */
static bool
read_line (struct reader *reader, struct access *access)
{
  struct rule *rules;

  skip_blanks (reader);
  if (!at_line_end (reader)) {
    rules = realloc (access->rules, (access->count + 1) * sizeof *rules);
    if (!rules)
      return fail (reader, "%s", strerror (ENOMEM));
    access->rules = rules;
    memset (&rules[access->count], 0, sizeof *rules);
    if (!read_rule (reader, &rules[access->count++]))
      return false;
  }
  while (reader->at < reader->end && *reader->at != '\n')
    reader->at++;
  if (reader->at < reader->end)
    reader->at++;
  reader->line++;
  return true;
}

struct access *
access_parse (const char *path, const char *text, size_t length)
{
  struct access *access = calloc (1, sizeof *access);
  struct reader reader = { .path = path, .at = text, .end = text + length, .line = 1 };

  if (!access) {
    log_error ("%s: %s", path, strerror (ENOMEM));
    return NULL;
  }
  if (!text_is_utf8 (text, length))
    fail (&reader, "it is not a text in UTF-8");
  while (!reader.has_failed && reader.at < reader.end)
    read_line (&reader, access);
  if (!reader.has_failed)
    return access;
  access_free (access);
  return NULL;
}

struct access *
access_read (const char *path)
{
  struct access *access = NULL;
  char *text = malloc (FILE_BYTES_MAX + 1);
  FILE *file = fopen (path, "re");
  size_t length;

  if (!text || !file) {
    log_error ("%s: %s", path, strerror (errno));
  } else {
    length = fread (text, 1, FILE_BYTES_MAX + 1, file);
    if (ferror (file))
      log_error ("%s: %s", path, strerror (errno));
    else if (length > FILE_BYTES_MAX)
      log_error ("%s: it is longer than 1 MiB", path);
    else
      access = access_parse (path, text, length);
  }
  if (file)
    fclose (file);
  free (text);
  return access;
}

void
access_free (struct access *access)
{
  if (!access)
    return;
  for (size_t i = 0; i < access->count; i++) {
    for (size_t j = 0; j < access->rules[i].count; j++)
      free (access->rules[i].conditions[j].text);
    free (access->rules[i].conditions);
    free (access->rules[i].disk);
  }
  free (access->rules);
  free (access);
}

/* --- questions --- */

static bool
has_kind (const struct access *access, enum condition_kind one, enum condition_kind other)
{
  for (size_t i = 0; i < access->count; i++)
    for (size_t j = 0; j < access->rules[i].count; j++) {
      enum condition_kind kind = access->rules[i].conditions[j].kind;

      if (kind == one || kind == other)
        return true;
    }
  return false;
}

bool
access_has_certificates (const struct access *access)
{
  return has_kind (access, CONDITION_SUBJECT, CONDITION_NAME);
}

bool
access_has_keys (const struct access *access)
{
  return has_kind (access, CONDITION_KEY, CONDITION_KEY);
}

static bool
is_in_net (const struct condition *condition, const uint8_t address[16])
{
  for (unsigned i = 0; i < condition->bits; i++)
    if ((condition->address[i / 8] ^ address[i / 8]) & 0x80 >> i % 8)
      return false;
  return true;
}

static bool
has_name (const struct identity *identity, const char *name)
{
  for (unsigned i = 0; i < identity->name_count; i++)
    if (strncmp (name, "dns:", 4) == 0 ? strcasecmp (name, identity->names[i]) == 0
                                       : strcmp (name, identity->names[i]) == 0)
      return true;
  return false;
}

static bool
holds (const struct condition *condition, const struct identity *identity)
{
  switch (condition->kind) {
  case CONDITION_ANY:
    return true;
  case CONDITION_TLS:
    return identity->is_tls;
  case CONDITION_KEY:
    return strcmp (condition->text, identity->user) == 0;
  case CONDITION_SUBJECT:
    return identity->subject && strcmp (condition->text, identity->subject) == 0;
  case CONDITION_NAME:
    return has_name (identity, condition->text);
  case CONDITION_UID:
    return identity->has_uid && condition->uid == identity->uid;
  case CONDITION_NET:
    return identity->has_address && is_in_net (condition, identity->address);
  }
  return false;
}

static bool
is_about (const struct rule *rule, const char *disk)
{
  return rule->is_prefix ? strncmp (rule->disk, disk, strlen (rule->disk)) == 0
                         : strcmp (rule->disk, disk) == 0;
}

/* Whether one of those that the rule names is the client. */
static bool
is_for (const struct rule *rule, const struct identity *identity)
{
  bool all = true;

  for (size_t i = 0; i < rule->count; i++) {
    all = all && holds (&rule->conditions[i], identity);
    if (rule->conditions[i].goes_on)
      continue;
    if (all)
      return true;
    all = true;
  }
  return false;
}

enum access_rights
access_of (const struct access *access, const struct identity *identity, const char *disk)
{
  enum access_rights rights = ACCESS_NONE;

  for (size_t i = 0; i < access->count; i++) {
    const struct rule *rule = &access->rules[i];

    if (rule->rights > rights && is_about (rule, disk) && is_for (rule, identity))
      rights = rule->rights;
  }
  return rights;
}

void
identity_free (struct identity *identity)
{
  free (identity->subject);
  for (unsigned i = 0; i < identity->name_count; i++)
    free (identity->names[i]);
  free (identity->names);
  memset (identity, 0, sizeof *identity);
}
