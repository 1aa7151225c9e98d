/* SPDX-License-Identifier: BSD-2-Clause */
/* client-change.c - create, resize, rename, delete, punch, collapse-range, insert-range,
 * clone-range.  What is done is durable; nothing is printed, but that it had been done already. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/text.h"
#include "client.h"

static void
request_add_bytes (struct json_object *request, const char *key, uint64_t bytes)
{
  json_object_object_add (request, key, json_object_new_uint64 (bytes));
}

static int
client_change (const char *store, const char *disk, struct json_object *request)
{
  struct client_call call = { .store = store, .disk = disk, .request = request };

  return client_run (&call);
}

int
client_create (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "create STORE DISK SIZE",
    .help = "Makes a thin disk: it takes no space until something is written to it.\n"
            "SIZE is a multiple of 4096: bytes, or 512M, 20G, 1T.\n",
    .operands_min = 3, .operands_max = 3,
  };
  struct client_arguments arguments;
  struct json_object *request;
  uint64_t size;
  int status;

  if (!client_parse (argc, argv, &syntax, &arguments, &status))
    return status;
  const char *store = arguments.operands[0], *disk = arguments.operands[1];

  if (!client_parse_size (store, disk, "SIZE", arguments.operands[2], &size))
    return CLIENT_FAILED;
  request = client_request ("create", disk);
  request_add_bytes (request, "size", size);
  return client_change (store, disk, request);
}

int
client_resize (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "resize STORE DISK SIZE|+SIZE|-SIZE [--shrink]",
    .help = "Gives the disk another size: SIZE, or more or less by so much than it has.\n"
            "\n"
            "  --shrink   the disk may become smaller; what lies beyond its new end is lost\n",
    .options = OPTION_SHRINK,
    .operands_min = 3, .operands_max = 3,
  };
  struct client_arguments arguments;
  struct json_object *request;
  uint64_t size;
  int status;

  if (!client_parse (argc, argv, &syntax, &arguments, &status))
    return status;
  const char *store = arguments.operands[0], *disk = arguments.operands[1];
  const char *text = arguments.operands[2];
  const char *relative = text[0] == '+' ? "+" : text[0] == '-' ? "-" : NULL;

  if (!client_parse_size (store, disk, "SIZE", relative ? text + 1 : text, &size))
    return CLIENT_FAILED;
  request = client_request ("resize", disk);
  request_add_bytes (request, "size", size);
  if (relative)
    json_object_object_add (request, "relative", json_object_new_string (relative));
  if (arguments.options & OPTION_SHRINK)
    json_object_object_add (request, "shrink", json_object_new_boolean (true));
  return client_change (store, disk, request);
}

int
client_rename (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "rename STORE DISK NEW",
    .help = "Gives the disk another name.  Clients that are connected notice nothing.\n",
    .operands_min = 3, .operands_max = 3,
  };
  struct client_arguments arguments;
  struct json_object *request;
  int status;

  if (!client_parse (argc, argv, &syntax, &arguments, &status))
    return status;
  request = client_request ("rename", arguments.operands[1]);
  json_object_object_add (request, "new_name", json_object_new_string (arguments.operands[2]));
  return client_change (arguments.operands[0], arguments.operands[1], request);
}

int
client_delete (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "delete STORE DISK",
    .help = "Deletes the disk and all that is on it, unless somebody is connected to it.\n",
    .operands_min = 2, .operands_max = 2,
  };
  struct client_arguments arguments;
  int status;

  if (!client_parse (argc, argv, &syntax, &arguments, &status))
    return status;
  return client_change (arguments.operands[0], arguments.operands[1],
                        client_request ("delete", arguments.operands[1]));
}

int
client_punch (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "punch STORE DISK OFFSET LENGTH",
    .help = "Makes a hole: the range reads as zeros afterwards, to the byte, and the space of all\n"
            "whole blocks in it is given back.\n"
            "OFFSET and LENGTH are bytes, or 512M, 20G, 1T.\n",
    .operands_min = 4, .operands_max = 4,
  };
  struct client_arguments arguments;
  struct json_object *request;
  uint64_t offset, length;
  int status;

  if (!client_parse (argc, argv, &syntax, &arguments, &status))
    return status;
  const char *store = arguments.operands[0], *disk = arguments.operands[1];

  if (!client_parse_size (store, disk, "OFFSET", arguments.operands[2], &offset)
      || !client_parse_size (store, disk, "LENGTH", arguments.operands[3], &length))
    return CLIENT_FAILED;
  request = client_request ("punch", disk);
  request_add_bytes (request, "offset", offset);
  request_add_bytes (request, "length", length);
  return client_change (store, disk, request);
}

/* --- what must not be done twice --- */

static void
print_already_done (struct client_call *call, struct json_object *result)
{
  struct json_object *value;

  (void) call;
  if (json_object_object_get_ex (result, "already_done", &value)
      && json_object_get_boolean (value))
    puts ("already done");
}

/* Runs a request that is done once, however often it is asked for under its id: the user's, or a
 * new one. */
static int
client_change_once (const char *store, const char *disk, struct json_object *request,
                    const char *request_id)
{
  struct client_call call = {
    .store = store, .disk = disk, .request = request, .on_result = print_already_done,
  };
  char text[TEXT_UUID_SIZE];
  uint8_t id[16];

  if (request_id == NULL) {
    if (getrandom (id, sizeof id, 0) != sizeof id) {
      json_object_put (request);
      return client_error (store, disk, "no random numbers could be had: %s", strerror (errno));
    }
    request_id = text_uuid (id, text);
  }
  json_object_object_add (request, "request_id", json_object_new_string (request_id));
  return client_run (&call);
}

static int
client_shift (int argc, char **argv, const struct client_syntax *syntax)
{
  struct client_arguments arguments;
  struct json_object *request;
  uint64_t offset, length;
  int status;

  if (!client_parse (argc, argv, syntax, &arguments, &status))
    return status;
  const char *store = arguments.operands[0], *disk = arguments.operands[1];

  if (!client_parse_size (store, disk, "OFFSET", arguments.operands[2], &offset)
      || !client_parse_size (store, disk, "LENGTH", arguments.operands[3], &length))
    return CLIENT_FAILED;
  request = client_request (argv[0], disk);
  request_add_bytes (request, "offset", offset);
  request_add_bytes (request, "length", length);
  return client_change_once (store, disk, request, arguments.request_id);
}

#define REQUEST_ID_HELP                                                                            \
  "OFFSET and LENGTH are multiples of 4096: bytes, or 512M, 20G, 1T.\n"                            \
  "\n"                                                                                             \
  "  --request-id UUID   done once, however often it is asked for under this id\n"

int
client_collapse (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "collapse-range STORE DISK OFFSET LENGTH [--request-id UUID]",
    .help = "Takes the range out of the disk: what lies behind it moves down to OFFSET, and the\n"
            "disk is smaller by LENGTH.\n"
            REQUEST_ID_HELP,
    .options = OPTION_REQUEST_ID,
    .operands_min = 4, .operands_max = 4,
  };

  return client_shift (argc, argv, &syntax);
}

int
client_insert (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "insert-range STORE DISK OFFSET LENGTH [--request-id UUID]",
    .help = "Inserts a hole into the disk: what lies from OFFSET on moves up by LENGTH, and the\n"
            "disk is larger by so much.\n"
            REQUEST_ID_HELP,
    .options = OPTION_REQUEST_ID,
    .operands_min = 4, .operands_max = 4,
  };

  return client_shift (argc, argv, &syntax);
}

int
client_clone (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "clone-range STORE SRC OFFSET LENGTH DST OFFSET [--request-id UUID]",
    .help = "Makes the range of the disk SRC appear in DST, which may be the same disk, at the\n"
            "second OFFSET, without copying it: both share the blocks until one is written to.\n"
            REQUEST_ID_HELP,
    .options = OPTION_REQUEST_ID,
    .operands_min = 6, .operands_max = 6,
  };
  struct client_arguments arguments;
  struct json_object *request;
  uint64_t offset, length, target_offset;
  int status;

  if (!client_parse (argc, argv, &syntax, &arguments, &status))
    return status;
  const char *store = arguments.operands[0], *source = arguments.operands[1];
  const char *target = arguments.operands[4];

  if (!client_parse_size (store, source, "OFFSET", arguments.operands[2], &offset)
      || !client_parse_size (store, source, "LENGTH", arguments.operands[3], &length)
      || !client_parse_size (store, target, "OFFSET", arguments.operands[5], &target_offset))
    return CLIENT_FAILED;
  request = client_request ("clone-range", source);
  request_add_bytes (request, "offset", offset);
  request_add_bytes (request, "length", length);
  json_object_object_add (request, "target", json_object_new_string (target));
  request_add_bytes (request, "target_offset", target_offset);
  return client_change_once (store, source, request, arguments.request_id);
}
