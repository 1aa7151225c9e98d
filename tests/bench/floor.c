/* SPDX-License-Identifier: BSD-2-Clause */
/* floor.c - what an NBD server costs at the very least: a disk in memory, batched socket I/O, one
 * copy of the data.
 *
 *   floor [-u PATH | -p PORT] SIZE
 *
 * All requests that one recv brought are answered by one send; the data of READs is copied into it,
 * that of WRITEs out of what was received (long payloads are received into their place).  It checks
 * nothing but what would crash it, serves one thread per connection with plain blocking calls, and
 * is good for nothing else than to tell how far away from it a real server is.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "nbd/nbd-protocol.h"

#define INPUT_BYTES (256 * KIB)
#define OUTPUT_BYTES (2 * MIB)
#define SEND_BUFFER_BYTES 212992       /* as Lacuna's transport.c */

static uint8_t *disk;
static uint64_t disk_size;

struct connection {
  int fd;
  uint8_t input[INPUT_BYTES], output[OUTPUT_BYTES];
  size_t input_start, input_end, output_end;
};

static void
die (const char *what)
{
  fprintf (stderr, "floor: %s: %s\n", what, strerror (errno));
  exit (1);
}

/* --- socket --- */

/* False: the connection is over. */
static bool
flush_output (struct connection *connection)
{
  size_t sent = 0;

  while (sent < connection->output_end) {
    ssize_t step = send (connection->fd, connection->output + sent,
                         connection->output_end - sent, MSG_NOSIGNAL);

    if (step <= 0)
      return false;
    sent += (size_t) step;
  }
  connection->output_end = 0;
  return true;
}

/* Room for SIZE bytes of answer; NULL: the connection is over. */
static void *
output_room (struct connection *connection, size_t size)
{
  void *room;

  if (connection->output_end + size > OUTPUT_BYTES && !flush_output (connection))
    return NULL;
  room = connection->output + connection->output_end;
  connection->output_end += size;
  return room;
}

/* Until there are SIZE bytes of input; what is to be answered is answered before it waits. */
static bool
need_input (struct connection *connection, size_t size)
{
  while (connection->input_end - connection->input_start < size) {
    ssize_t received;

    if (!flush_output (connection))
      return false;
    memmove (connection->input, connection->input + connection->input_start,
             connection->input_end - connection->input_start);
    connection->input_end -= connection->input_start;
    connection->input_start = 0;
    received = recv (connection->fd, connection->input + connection->input_end,
                     INPUT_BYTES - connection->input_end, 0);
    if (received <= 0)
      return false;
    connection->input_end += (size_t) received;
  }
  return true;
}

static bool
take_payload (struct connection *connection, uint8_t *to, size_t size)
{
  size_t step = MIN (connection->input_end - connection->input_start, size);

  memcpy (to, connection->input + connection->input_start, step);
  connection->input_start += step;
  if (step == size)
    return true;
  if (size - step > INPUT_BYTES / 8)
    return flush_output (connection)
           && recv (connection->fd, to + step, size - step, MSG_WAITALL)
                == (ssize_t) (size - step);
  if (!need_input (connection, size - step))
    return false;
  return take_payload (connection, to + step, size - step);
}

/* --- handshake --- */

static bool
option_reply (struct connection *connection, uint32_t option, uint32_t type, const void *data,
              uint32_t length)
{
  struct nbd_option_reply reply = {
    to_be64 (NBD_OPTION_REPLY_MAGIC), to_be32 (option), to_be32 (type), to_be32 (length)
  };
  uint8_t *room = output_room (connection, sizeof reply + length);

  if (!room)
    return false;
  memcpy (room, &reply, sizeof reply);
  if (length > 0)
    memcpy (room + sizeof reply, data, length);
  return true;
}

static bool
shake_hands (struct connection *connection)
{
  struct nbd_hello hello = {
    to_be64 (NBD_MAGIC), to_be64 (NBD_OPTION_MAGIC), to_be16 (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES)
  };
  struct nbd_info_export info = {
    to_be16 (NBD_INFO_EXPORT), to_be64 (disk_size),
    to_be16 (NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA | NBD_SEND_TRIM
             | NBD_SEND_WRITE_ZEROES | NBD_CAN_MULTI_CONN)
  };

  memcpy (output_room (connection, sizeof hello), &hello, sizeof hello);
  if (!need_input (connection, sizeof (be32)))
    return false;
  connection->input_start += sizeof (be32);
  for (;;) {
    struct nbd_option option;
    uint32_t kind, length;

    if (!need_input (connection, sizeof option))
      return false;
    memcpy (&option, connection->input + connection->input_start, sizeof option);
    kind = from_be32 (option.option);
    length = from_be32 (option.length);
    if (length > INPUT_BYTES / 2 || !need_input (connection, sizeof option + length))
      return false;
    connection->input_start += sizeof option + length;
    if (kind != NBD_OPT_GO && kind != NBD_OPT_INFO) {
      if (!option_reply (connection, kind, NBD_REP_ERR_UNSUP, NULL, 0))
        return false;
      continue;
    }
    if (!option_reply (connection, kind, NBD_REP_INFO, &info, sizeof info)
        || !option_reply (connection, kind, NBD_REP_ACK, NULL, 0))
      return false;
    if (kind == NBD_OPT_GO)
      return true;
  }
}

/* --- transmission --- */

static bool
serve_request (struct connection *connection, const struct nbd_request *request)
{
  uint64_t offset = from_be64 (request->offset);
  uint32_t length = from_be32 (request->length);
  uint16_t command = from_be16 (request->command);
  struct nbd_simple_reply reply = {
    to_be32 (NBD_SIMPLE_REPLY_MAGIC), to_be32 (NBD_SUCCESS), request->cookie
  };
  size_t size = sizeof reply;
  uint8_t *room;

  if (command == NBD_CMD_DISC || from_be32 (request->magic) != NBD_REQUEST_MAGIC
      || offset > disk_size || length > disk_size - offset)
    return false;
  if (command == NBD_CMD_WRITE && !take_payload (connection, disk + offset, length))
    return false;
  if (command == NBD_CMD_WRITE_ZEROES)
    memset (disk + offset, 0, length);
  if (command == NBD_CMD_READ)
    size += length;
  if (size > OUTPUT_BYTES || !(room = output_room (connection, size)))
    return false;
  memcpy (room, &reply, sizeof reply);
  if (command == NBD_CMD_READ)
    memcpy (room + sizeof reply, disk + offset, length);
  return true;
}

static void *
serve (void *argument)
{
  struct connection *connection = argument;
  struct nbd_request request;
  bool is_open = shake_hands (connection);

  while (is_open && need_input (connection, sizeof request)) {
    memcpy (&request, connection->input + connection->input_start, sizeof request);
    connection->input_start += sizeof request;
    is_open = serve_request (connection, &request);
  }
  flush_output (connection);
  close (connection->fd);
  free (connection);
  return NULL;
}

/* --- listening --- */

static int
listen_unix (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM, 0);

  if (strlen (path) >= sizeof address.sun_path)
    errno = ENAMETOOLONG, die (path);
  strcpy (address.sun_path, path);
  if (fd < 0 || bind (fd, (struct sockaddr *) &address, sizeof address) < 0)
    die (path);
  return fd;
}

static int
listen_tcp (const char *port)
{
  struct sockaddr_in address = {
    .sin_family = AF_INET, .sin_port = htons ((uint16_t) atoi (port)),
    .sin_addr.s_addr = htonl (INADDR_LOOPBACK)
  };
  int fd = socket (AF_INET, SOCK_STREAM, 0), on = 1;

  setsockopt (fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (fd < 0 || bind (fd, (struct sockaddr *) &address, sizeof address) < 0)
    die (port);
  return fd;
}

int
main (int argc, char **argv)
{
  int fd = -1, option;

  while ((option = getopt (argc, argv, "u:p:")) != -1)
    if (option != '?')
      fd = option == 'u' ? listen_unix (optarg) : listen_tcp (optarg);
  if (fd < 0 || optind + 1 != argc) {
    fputs ("floor [-u PATH | -p PORT] SIZE\n", stderr);
    return 2;
  }
  signal (SIGPIPE, SIG_IGN);
  disk_size = strtoull (argv[optind], NULL, 10);
  disk = mmap (NULL, disk_size, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (disk == MAP_FAILED || listen (fd, 64) < 0)
    die ("start");
  for (;;) {
    int client = accept (fd, NULL, NULL), on = 1, bytes = SEND_BUFFER_BYTES;
    struct connection *connection = calloc (1, sizeof *connection);
    pthread_t thread;

    if (client < 0 || !connection)
      die ("accept");
    setsockopt (client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt (client, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    connection->fd = client;
    if (pthread_create (&thread, NULL, serve, connection) != 0)
      die ("thread");
    pthread_detach (thread);
  }
}
