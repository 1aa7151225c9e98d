/* SPDX-License-Identifier: BSD-2-Clause */
/* client-show.c - list, info, map, stat: tables for people, or JSON. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/text.h"
#include "client.h"

#define JSON_FOR_PEOPLE                                                       \
  (JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE)
#define JSON_ON_A_LINE (JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE)

static uint64_t
get_bytes (struct json_object *object, const char *key)
{
  return json_object_get_uint64 (json_object_object_get (object, key));
}

static const char *
get_text (struct json_object *object, const char *key)
{
  const char *text = json_object_get_string (json_object_object_get (object, key));

  return text != NULL ? text : "";
}

static void
print_json (struct json_object *object)
{
  puts (json_object_to_json_string_ext (object, JSON_FOR_PEOPLE));
}

/* --- fields of a store or a disk, in the order in which they are shown --- */

enum field_kind { FIELD_TEXT, FIELD_NUMBER, FIELD_BYTES, FIELD_TIME, FIELD_SWITCH };

struct field {
  const char *key;
  const char *label;
  enum field_kind kind;
};

static const struct field store_fields[] = {
  { "uuid", "UUID", FIELD_TEXT },
  { "mode", "mode", FIELD_TEXT },
  { "kind", "kind", FIELD_TEXT },
  { "direct_io", "direct I/O", FIELD_SWITCH },
  { "format_version", "format version", FIELD_NUMBER },
  { "disks", "disks", FIELD_NUMBER },
  { "capacity", "capacity", FIELD_BYTES },
  { "used", "used", FIELD_BYTES },
  { "shared", "shared", FIELD_BYTES },
  { "free", "free", FIELD_BYTES },
  { "reserved", "reserved", FIELD_BYTES },
  { "pending", "pending", FIELD_BYTES },
  { "undiscarded", "undiscarded", FIELD_BYTES },
  { "withheld", "withheld", FIELD_BYTES },
  { "metadata", "metadata", FIELD_BYTES },
  { "allocated", "allocated", FIELD_BYTES },
  { "opened", "times opened", FIELD_NUMBER },
};

static const struct field disk_fields[] = {
  { "name", "name", FIELD_TEXT },
  { "uuid", "UUID", FIELD_TEXT },
  { "size", "size", FIELD_BYTES },
  { "allocated", "allocated", FIELD_BYTES },
  { "mapped", "mapped", FIELD_BYTES },
  { "not_placed_yet", "not placed yet", FIELD_BYTES },
  { "extents", "extents", FIELD_NUMBER },
  { "connections", "connections", FIELD_NUMBER },
  { "created", "created", FIELD_TIME },
  { "damaged", "damaged", FIELD_SWITCH },
};

static void
print_bytes (uint64_t bytes)
{
  char text[TEXT_SIZE_MAX];

  printf ("%s", text_human_size (bytes, text));
  if (bytes >= KIB)
    printf (" (%" PRIu64 " bytes)", bytes);
}

static void
print_time (time_t time)
{
  char text[64];
  struct tm parts;

  if (localtime_r (&time, &parts) != NULL
      && strftime (text, sizeof text, "%Y-%m-%d %H:%M:%S %z", &parts) > 0)
    printf ("%s", text);
}

static void
print_fields (struct json_object *object, const struct field *fields, size_t count)
{
  for (size_t i = 0; i < count; i++) {
    const struct field *field = &fields[i];
    uint64_t number = get_bytes (object, field->key);

    printf ("%s:%*s", field->label, (int) (16 - strlen (field->label)), "");
    switch (field->kind) {
    case FIELD_TEXT:
      printf ("%s", get_text (object, field->key));
      break;
    case FIELD_NUMBER:
      printf ("%" PRIu64, number);
      break;
    case FIELD_BYTES:
      if (json_object_object_get (object, field->key) == NULL)
        printf ("no limit");
      else
        print_bytes (number);
      break;
    case FIELD_TIME:
      print_time ((time_t) number);
      break;
    case FIELD_SWITCH:
      printf ("%s", number ? "yes" : "no");
      break;
    }
    putchar ('\n');
  }
}

/* --- info --- */

/* Without a server the command itself has opened the store, and only to read: that says nothing
 * about the store. */
static void
hide_own_mode (const struct client_call *call, struct json_object *store)
{
  if (call->server == 0)
    json_object_object_add (store, "mode", json_object_new_string ("ok"));
}

static void
info_on_result (struct client_call *call, struct json_object *result)
{
  if (call->disk == NULL)
    hide_own_mode (call, result);
  if (call->owner != NULL)
    print_json (result);
  else if (call->disk != NULL)
    print_fields (result, disk_fields, ARRAY_COUNT (disk_fields));
  else
    print_fields (result, store_fields, ARRAY_COUNT (store_fields));
}

int
client_info (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "info STORE [DISK] [--json]",
    .help = "Tells all about the store, or about one disk.\n",
    .options = OPTION_JSON,
    .operands_min = 1, .operands_max = 2,
  };
  struct client_arguments arguments;
  int status;

  if (!client_parse (argc, argv, &syntax, &arguments, &status))
    return status;
  struct client_call call = {
    .store = arguments.operands[0], .disk = arguments.operands[1], .only_reads = true,
    .request = client_request ("info", arguments.operands[1]),
    .on_result = info_on_result,
    .owner = arguments.options & OPTION_JSON ? &arguments : NULL,
  };

  return client_run (&call);
}

/* --- list: all of it, for the width of the columns --- */

static void
list_on_piece (struct client_call *call, struct json_object *piece)
{
  struct json_object *disks = json_object_object_get (piece, "disks");

  for (size_t i = 0; i < json_object_array_length (disks); i++)
    json_object_array_add (call->owner, json_object_get (json_object_array_get_idx (disks, i)));
}

/* Columns that a UTF-8 text takes, as far as each character takes one. */
static int
text_width (const char *text)
{
  int width = 0;

  for (; *text != '\0'; text++)
    width += (*text & 0xc0) != 0x80;
  return width;
}

static void
print_list (struct json_object *disks)
{
  size_t count = json_object_array_length (disks);
  char size[TEXT_SIZE_MAX], allocated[TEXT_SIZE_MAX];
  int width = text_width ("NAME");

  for (size_t i = 0; i < count; i++)
    width = MAX (width, text_width (get_text (json_object_array_get_idx (disks, i), "name")));
  printf ("%-*s  %10s  %10s\n", width, "NAME", "SIZE", "ALLOCATED");
  for (size_t i = 0; i < count; i++) {
    struct json_object *disk = json_object_array_get_idx (disks, i);
    const char *name = get_text (disk, "name");

    printf ("%s%*s  %10s  %10s%s\n", name, width - text_width (name), "",
            text_human_size (get_bytes (disk, "size"), size),
            text_human_size (get_bytes (disk, "allocated"), allocated),
            get_bytes (disk, "damaged") ? "  damaged" : "");
  }
}

int
client_list (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "list STORE [--json]",
    .help = "Lists the disks.\n",
    .options = OPTION_JSON,
    .operands_min = 1, .operands_max = 1,
  };
  struct client_arguments arguments;
  struct json_object *disks;
  int status;

  if (!client_parse (argc, argv, &syntax, &arguments, &status))
    return status;
  disks = json_object_new_array ();
  struct client_call call = {
    .store = arguments.operands[0], .only_reads = true,
    .request = client_request ("list", NULL),
    .on_piece = list_on_piece, .owner = disks,
  };

  status = client_run (&call);
  if (status == CLIENT_DONE) {
    if (arguments.options & OPTION_JSON)
      print_json (disks);
    else
      print_list (disks);
    status = client_flush (call.store, status);
  }
  json_object_put (disks);
  return status;
}

/* --- map: printed as it comes, it may be long --- */

struct map_output {
  bool is_json;
  bool has_begun;
};

static void
map_begin (struct map_output *output)
{
  if (!output->is_json)
    printf ("%19s  %19s  %s\n", "OFFSET", "LENGTH", "TYPE");
  output->has_begun = true;
}

static void
map_on_piece (struct client_call *call, struct json_object *piece)
{
  struct map_output *output = call->owner;
  struct json_object *extents = json_object_object_get (piece, "extents");

  for (size_t i = 0; i < json_object_array_length (extents); i++) {
    struct json_object *extent = json_object_array_get_idx (extents, i);
    bool is_first = !output->has_begun;

    if (is_first)
      map_begin (output);
    if (output->is_json)
      printf ("%s %s", is_first ? "[" : ",\n ",
              json_object_to_json_string_ext (extent, JSON_ON_A_LINE));
    else
      printf ("%19" PRIu64 "  %19" PRIu64 "  %s\n", get_bytes (extent, "offset"),
              get_bytes (extent, "length"), get_text (extent, "type"));
  }
}

static void
map_on_result (struct client_call *call, struct json_object *result)
{
  struct map_output *output = call->owner;

  (void) result;
  if (output->is_json)
    puts (output->has_begun ? " ]" : "[ ]");
}

int
client_map (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "map STORE DISK [--json]",
    .help = "Lists the extents of the disk: offset and length in bytes, and what is there.\n"
            "\n"
            "  data   something was written\n"
            "  zero   space is taken, reads as zeros\n"
            "  hole   no space is taken, reads as zeros\n",
    .options = OPTION_JSON,
    .operands_min = 2, .operands_max = 2,
  };
  struct client_arguments arguments;
  int status;

  if (!client_parse (argc, argv, &syntax, &arguments, &status))
    return status;
  struct map_output output = { .is_json = arguments.options & OPTION_JSON };
  struct client_call call = {
    .store = arguments.operands[0], .disk = arguments.operands[1], .only_reads = true,
    .request = client_request ("map", arguments.operands[1]),
    .on_piece = map_on_piece, .on_result = map_on_result, .owner = &output,
  };

  return client_run (&call);
}

/* --- stat --- */

static void
stat_on_result (struct client_call *call, struct json_object *result)
{
  struct json_object *server, *store = json_object_object_get (result, "store");

  hide_own_mode (call, store);
  if (call->owner == NULL) {
    if (call->server != 0)
      printf ("server:          process %d\n", (int) call->server);
    else
      printf ("server:          none; the counters are of this command\n");
    print_fields (store, store_fields, ARRAY_COUNT (store_fields));
    putchar ('\n');
    json_object_object_foreach (json_object_object_get (result, "counters"), name, value)
      printf ("%-32s %20" PRIu64 "\n", name, json_object_get_uint64 (value));
    return;
  }
  server = json_object_new_object ();
  json_object_object_add (server, "running", json_object_new_boolean (call->server != 0));
  json_object_object_add (server, "pid",
                          call->server != 0 ? json_object_new_int (call->server) : NULL);
  json_object_object_add (result, "server", server);
  print_json (result);
}

int
client_stat (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "stat STORE [--json]",
    .help = "Shows the counters of the process that serves the store, since it opened it.\n",
    .options = OPTION_JSON,
    .operands_min = 1, .operands_max = 1,
  };
  struct client_arguments arguments;
  int status;

  if (!client_parse (argc, argv, &syntax, &arguments, &status))
    return status;
  struct client_call call = {
    .store = arguments.operands[0], .only_reads = true,
    .request = client_request ("stat", NULL),
    .on_result = stat_on_result,
    .owner = arguments.options & OPTION_JSON ? &arguments : NULL,
  };

  return client_run (&call);
}
