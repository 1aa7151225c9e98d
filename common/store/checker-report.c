/* SPDX-License-Identifier: BSD-2-Clause */
/* checker-report.c - findings of the checker, as lines for people or as one JSON object. */
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdlib.h>

#include "store/checker-internal.h"

/* A store whose every leaf is damaged has millions of findings; nobody reads more than these. */
#define FINDINGS_SHOWN_MAX 1000

struct checker_report {
  const char *path;                /* NULL: a reader */
  FILE *out;
  struct json_object *findings;    /* NULL: lines for people */
  bool is_quiet;
  uint64_t problems, notes, hidden;
};

static const char *const severity_names[] = { "note", "repairable", "damage" };

struct checker_report *
checker_report_create (const char *path, FILE *out, bool json)
{
  struct checker_report *report = calloc (1, sizeof *report);

  if (report == NULL) {
    fputs ("lacuna: not enough memory to check the store\n", stderr);
    exit (CHECKER_UNUSABLE);
  }
  report->path = path;
  report->out = out;
  report->findings = json ? json_object_new_array () : NULL;
  return report;
}

void
checker_report_quiet (struct checker_report *report, bool is_quiet)
{
  report->is_quiet = is_quiet;
}

static void
checker_add_json (struct json_object *findings, enum checker_severity severity,
                  struct checker_where where, const char *text, const char *consequence)
{
  struct json_object *finding = json_object_new_object ();

  json_object_object_add (finding, "severity", json_object_new_string (severity_names[severity]));
  json_object_object_add (finding, "structure", json_object_new_string (where.structure));
  if (where.place != CHECKER_NO_PLACE)
    json_object_object_add (finding, "place", json_object_new_uint64 (where.place));
  if (where.disk != NULL) {
    json_object_object_add (finding, "disk", json_object_new_string (where.disk->name));
    json_object_object_add (finding, "disk_id", json_object_new_uint64 (where.disk->id));
  }
  json_object_object_add (finding, "what", json_object_new_string (text));
  if (consequence != NULL)
    json_object_object_add (finding, "consequence", json_object_new_string (consequence));
  json_object_array_add (findings, finding);
}

static void
checker_print (FILE *out, enum checker_severity severity, struct checker_where where,
               const char *text, const char *consequence)
{
  fprintf (out, "%s: %s", severity_names[severity], where.structure);
  if (where.place != CHECKER_NO_PLACE)
    fprintf (out, " at place %" PRIu64, where.place);
  if (where.disk != NULL && where.disk->name[0] != '\0')
    fprintf (out, " of disk '%s'", where.disk->name);
  else if (where.disk != NULL)
    fprintf (out, " of deleted disk %" PRIu64, where.disk->id);
  fprintf (out, ": %s", text);
  if (consequence != NULL)
    fprintf (out, "; %s", consequence);
  fputc ('\n', out);
}

void
checker_find (struct checker *checker, enum checker_severity severity, struct checker_where where,
              const char *consequence, const char *format, ...)
{
  struct checker_report *report = checker->report;
  char text[1024];
  va_list arguments;

  if (report->is_quiet)
    return;
  if (severity == CHECKER_NOTE)
    ++report->notes;
  else
    ++report->problems;
  if (report->problems + report->notes > FINDINGS_SHOWN_MAX) {
    ++report->hidden;
    return;
  }
  va_start (arguments, format);
  vsnprintf (text, sizeof text, format, arguments);
  va_end (arguments);
  if (report->findings != NULL)
    checker_add_json (report->findings, severity, where, text, consequence);
  else
    checker_print (report->out, severity, where, text, consequence);
}

static void
checker_report_finish (struct checker_report *report, struct json_object *object)
{
  if (object != NULL) {
    fprintf (report->out, "%s\n",
             json_object_to_json_string_ext (object, JSON_C_TO_STRING_PRETTY));
    json_object_put (object);
  }
  free (report);
}

static void
checker_uuid_text (const uint8_t *uuid, char *text)
{
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10)
      *text++ = '-';
    sprintf (text, "%02x", uuid[i]);
    text += 2;
  }
}

/* Disks that have a name, after all that the journal says. */
static uint64_t
checker_living (const struct checker *checker)
{
  uint64_t count = 0;

  for (size_t i = 0; i < checker->disk_count; ++i)
    count += !checker->disks[i].is_dying && !checker->disks[i].is_forgotten;
  return count;
}

static struct json_object *
checker_summary_json (struct checker *checker, struct checker_report *report, const char *uuid)
{
  const struct checker_superblock *super = &checker->super;
  const struct { const char *name; uint64_t value; } numbers[] = {
    { "version", super->version },
    { "sequence", super->sequence },
    { "disks", checker_living (checker) },
    { "extents", checker->extent_count },
    { "owned_blocks", checker->owned },
    { "nodes", checker->node_count },
    { "records", checker->record_count },
    { "items", checker->item_count },
    { "problems", report->problems },
    { "notes", report->notes },
    { "not_shown", report->hidden },
  };
  struct json_object *object = json_object_new_object ();

  json_object_object_add (object, "status",
                          json_object_new_string (report->problems == 0 ? "clean" : "damaged"));
  json_object_object_add (object, "uuid", json_object_new_string (uuid));
  json_object_object_add (object, "closed_in_order", json_object_new_boolean (super->is_clean));
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; ++i)
    json_object_object_add (object, numbers[i].name, json_object_new_uint64 (numbers[i].value));
  json_object_object_add (object, "findings", report->findings);
  return object;
}

int
checker_report_end (struct checker *checker, struct checker_report *report)
{
  int verdict = report->problems == 0 ? CHECKER_CLEAN : CHECKER_DAMAGED;
  struct json_object *object = NULL;
  char uuid[37];

  checker_uuid_text (checker->super.uuid, uuid);
  if (report->findings != NULL)
    object = checker_summary_json (checker, report, uuid);
  else {
    if (report->hidden > 0)
      fprintf (report->out, "%" PRIu64 " more\n", report->hidden);
    if (checker->super.version != 0)
      fprintf (report->out,
               "store %s, %s: %" PRIu64 " disks, %" PRIu64 " extents, %" PRIu64
               " blocks in use, %" PRIu64 " nodes, %" PRIu64 " records in the journal\n",
               uuid, checker->super.is_clean ? "closed in order" : "not closed in order",
               checker_living (checker), checker->extent_count, checker->owned, checker->node_count,
               checker->record_count);
    if (report->problems == 0)
      fputs ("clean\n", report->out);
    else
      fprintf (report->out, "%" PRIu64 " problem%s\n", report->problems,
               report->problems == 1 ? "" : "s");
  }
  checker_report_finish (report, object);
  return verdict;
}

int
checker_report_unusable (struct checker_report *report, const char *format, ...)
{
  struct json_object *object = NULL;
  char text[5120];
  va_list arguments;

  va_start (arguments, format);
  vsnprintf (text, sizeof text, format, arguments);
  va_end (arguments);
  if (report->findings == NULL && report->path == NULL)
    fprintf (report->out, "unusable: %s\n", text);
  else if (report->findings == NULL)
    fprintf (stderr, "lacuna: %s: %s\n", report->path, text);
  else {
    object = json_object_new_object ();
    json_object_object_add (object, "status", json_object_new_string ("unusable"));
    json_object_object_add (object, "why", json_object_new_string (text));
    json_object_object_add (object, "findings", report->findings);
  }
  checker_report_finish (report, object);
  return CHECKER_UNUSABLE;
}
