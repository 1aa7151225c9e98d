/* SPDX-License-Identifier: BSD-2-Clause */
/* client.c - see client.h. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client.h"

#define CONTEXT_NAME "base:allocation"

void
client_die (const char *format, ...)
{
  va_list arguments;

  fputs ("load: ", stderr);
  va_start (arguments, format);
  vfprintf (stderr, format, arguments);
  va_end (arguments);
  fputc ('\n', stderr);
  exit (1);
}

/* --- content --- */

/* What blocks hold behind their first word. */
static uint8_t pattern[BLOCK_SIZE];

static void
pattern_init (void)
{
  uint64_t word = UINT64_C (0x9e3779b97f4a7c15);

  for (size_t i = 0; i < BLOCK_SIZE; i += sizeof word) {
    word ^= word << 13;
    word ^= word >> 7;
    word ^= word << 17;
    memcpy (pattern + i, &word, sizeof word);
  }
}

/* The first word of the block at OFFSET. */
static le64
block_word (uint64_t offset)
{
  return to_le64 (offset / BLOCK_SIZE + UINT64_C (0x4c61637500000000));
}

static bool
is_zero (const uint8_t *data, size_t size)
{
  return data[0] == 0 && memcmp (data, data + 1, size - 1) == 0;
}

/* SIZE bytes of one block, from OFFSET of the disk on. */
static void
check_piece (const struct client *client, const uint8_t *data, uint64_t offset, size_t size)
{
  uint64_t within = offset % BLOCK_SIZE;
  le64 word = block_word (offset);
  size_t head = within < sizeof word ? MIN (sizeof word - within, size) : 0;

  if (memcmp (data, (uint8_t *) &word + within, head) == 0
      && memcmp (data + head, pattern + within + head, size - head) == 0)
    return;
  if (!client->may_read_zeros || !is_zero (data, size))
    client_die ("wrong data at offset %llu", (unsigned long long) offset);
}

static void
check_data (const struct client *client, const uint8_t *data, uint64_t offset, size_t size)
{
  while (size > 0) {
    size_t piece = MIN (BLOCK_SIZE - offset % BLOCK_SIZE, size);

    check_piece (client, data, offset, piece);
    data += piece;
    offset += piece;
    size -= piece;
  }
}

/* The pattern is in the payload already. */
static void
stamp_payload (struct slot *slot)
{
  for (uint64_t at = 0; at < slot->length; at += BLOCK_SIZE) {
    le64 word = block_word (slot->offset + at);

    memcpy (slot->payload + at, &word, sizeof word);
  }
}

/* --- handshake --- */

static void
send_all (struct client *client, const void *data, size_t size)
{
  struct iovec segment = { (void *) data, size };
  ssize_t sent = client->ssl ? client_tls_send (client, &segment, 1)
                             : send (client->fd, data, size, MSG_NOSIGNAL);

  if (sent != (ssize_t) size)
    client_die ("handshake: send: %s", strerror (errno));
}

static void
receive_all (struct client *client, void *data, size_t size)
{
  ssize_t received = 0;

  if (size > 0)
    received = client->ssl ? client_tls_receive (client, data, size, true)
                           : recv (client->fd, data, size, MSG_WAITALL);
  if (received != (ssize_t) size)
    client_die ("handshake: %s", received < 0 ? strerror (errno) : "the server hung up");
}

static void
send_option (struct client *client, uint32_t option, const void *data, uint32_t length)
{
  struct nbd_option header = { to_be64 (NBD_OPTION_MAGIC), to_be32 (option), to_be32 (length) };

  send_all (client, &header, sizeof header);
  if (length > 0)
    send_all (client, data, length);
}

/* Reads replies up to the final one; takes the size of the disk where it is told. */
static void
receive_option_replies (struct client *client, const char *what)
{
  for (;;) {
    struct nbd_option_reply reply;
    struct nbd_info_export info;
    uint8_t data[NBD_STRING_MAX + 64];
    uint32_t length, type;

    receive_all (client, &reply, sizeof reply);
    length = from_be32 (reply.length);
    type = from_be32 (reply.type);
    if (from_be64 (reply.magic) != NBD_OPTION_REPLY_MAGIC || length > sizeof data)
      client_die ("handshake: nonsense in answer to %s", what);
    receive_all (client, data, length);
    if (type & NBD_REP_ERROR (0))
      client_die ("the server refuses %s: %#x %.*s", what, type, (int) length, data);
    if (type == NBD_REP_ACK)
      return;
    if (type != NBD_REP_INFO || length < sizeof info)
      continue;
    memcpy (&info, data, sizeof info);
    if (from_be16 (info.type) == NBD_INFO_EXPORT)
      client->size = from_be64 (info.size);
  }
}

/* The option has a name, N numbers, and perhaps a second string. */
static void
send_named_option (struct client *client, uint32_t option, const char *name, const void *tail,
                   uint32_t tail_length)
{
  uint8_t data[2 * NBD_STRING_MAX];
  uint32_t length = (uint32_t) strlen (name);
  be32 wire = to_be32 (length);

  if (length > NBD_STRING_MAX)
    client_die ("the export's name is too long");
  memcpy (data, &wire, sizeof wire);
  memcpy (data + sizeof wire, name, length);
  memcpy (data + sizeof wire + length, tail, tail_length);
  send_option (client, option, data, (uint32_t) sizeof wire + length + tail_length);
}

static void
shake_hands (struct client *client, const struct client_options *options)
{
  struct nbd_hello hello;
  be32 flags = to_be32 (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
  be16 no_info = to_be16 (0);

  receive_all (client, &hello, sizeof hello);
  if (from_be64 (hello.magic) != NBD_MAGIC || from_be64 (hello.version) != NBD_OPTION_MAGIC)
    client_die ("this is no newstyle NBD server");
  send_all (client, &flags, sizeof flags);
  if (options->wants_tls) {
    send_option (client, NBD_OPT_STARTTLS, NULL, 0);
    receive_option_replies (client, "TLS");
    client_tls_begin (client);
  }
  client->is_structured = options->wants_structured || options->wants_status;
  if (client->is_structured) {
    send_option (client, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    receive_option_replies (client, "structured replies");
  }
  if (options->wants_status) {
    struct {
      be32 count, length;
      char name[sizeof CONTEXT_NAME - 1];
    } __attribute__ ((packed)) query
      = { to_be32 (1), to_be32 (sizeof query.name), CONTEXT_NAME };

    send_named_option (client, NBD_OPT_SET_META_CONTEXT, options->export, &query, sizeof query);
    receive_option_replies (client, CONTEXT_NAME);
  }
  send_named_option (client, NBD_OPT_GO, options->export, &no_info, sizeof no_info);
  receive_option_replies (client, options->export);
}

/* --- connecting --- */

static int
connect_unix (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  if (strlen (path) >= sizeof address.sun_path)
    client_die ("%s: too long for a socket", path);
  strcpy (address.sun_path, path);
  if (fd < 0 || connect (fd, (struct sockaddr *) &address, sizeof address) < 0)
    client_die ("%s: %s", path, strerror (errno));
  return fd;
}

static int
connect_tcp (const char *host, const char *port)
{
  struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
  int error = getaddrinfo (host, port, &hints, &found), fd, on = 1;

  if (error != 0)
    client_die ("%s: %s", host, gai_strerror (error));
  fd = socket (found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect (fd, found->ai_addr, found->ai_addrlen) < 0)
    client_die ("%s:%s: %s", host, port, strerror (errno));
  freeaddrinfo (found);
  setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

void
client_connect (struct client *client, const struct client_options *options)
{
  size_t bytes = align_up (options->request_bytes, BLOCK_SIZE);

  memset (client, 0, sizeof *client);
  pattern_init ();
  client->depth = client->free_count = options->depth;
  client->may_read_zeros = options->may_read_zeros;
  client->slots = calloc (options->depth, sizeof *client->slots);
  if (!client->slots)
    client_die ("no memory");
  for (unsigned i = 0; i < options->depth; i++) {
    client->free[i] = i;
    if (bytes == 0)
      continue;
    client->slots[i].payload = aligned_alloc (BLOCK_SIZE, bytes);
    if (!client->slots[i].payload)
      client_die ("no memory");
    for (size_t at = 0; at < bytes; at += BLOCK_SIZE)
      memcpy (client->slots[i].payload + at, pattern, BLOCK_SIZE);
  }
  client->fd = options->unix_path ? connect_unix (options->unix_path)
                                  : connect_tcp (options->host, options->port);
  shake_hands (client, options);
  if (client->ssl)
    fcntl (client->fd, F_SETFL, O_NONBLOCK);
}

void
client_disconnect (struct client *client)
{
  struct nbd_request wire = {
    .magic = to_be32 (NBD_REQUEST_MAGIC),
    .command = to_be16 (NBD_CMD_DISC),
  };

  send_all (client, &wire, sizeof wire);
  if (client->ssl)
    client_tls_end (client);
  close (client->fd);
  for (unsigned i = 0; i < client->depth; i++)
    free (client->slots[i].payload);
  free (client->slots);
}

/* --- requests --- */

struct slot *
client_queue (struct client *client, uint16_t command, uint16_t flags, uint64_t offset,
              uint32_t length)
{
  unsigned number = client->free[--client->free_count];
  struct slot *slot = &client->slots[number];

  slot->offset = offset;
  slot->length = length;
  slot->command = command;
  slot->is_busy = true;
  slot->status_length = slot->status_extents = 0;
  slot->wire = (struct nbd_request) {
    .magic = to_be32 (NBD_REQUEST_MAGIC),
    .flags = to_be16 (flags),
    .command = to_be16 (command),
    .cookie = to_be64 (number),
    .offset = to_be64 (offset),
    .length = to_be32 (length),
  };
  if (client->output_first == client->output_end)
    client->output_first = client->output_end = 0;
  client->output[client->output_end++] = (struct iovec) { &slot->wire, sizeof slot->wire };
  if (command == NBD_CMD_WRITE) {
    stamp_payload (slot);
    client->output[client->output_end++] = (struct iovec) { slot->payload, length };
  }
  return slot;
}

bool
client_send (struct client *client)
{
  while (client->output_first < client->output_end) {
    struct msghdr message = {
      .msg_iov = client->output + client->output_first,
      .msg_iovlen = client->output_end - client->output_first,
    };
    ssize_t sent = client->ssl ? client_tls_send (client, message.msg_iov, message.msg_iovlen)
                               : sendmsg (client->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

    client->syscalls++;
    if (sent < 0 && errno == EAGAIN) {
      /* So that there is room for whatever can be queued yet. */
      memmove (client->output, client->output + client->output_first,
               message.msg_iovlen * sizeof *client->output);
      client->output_end -= client->output_first;
      client->output_first = 0;
      return false;
    }
    if (sent < 0)
      client_die ("send: %s", strerror (errno));
    while (sent > 0) {
      struct iovec *segment = &client->output[client->output_first];
      size_t step = MIN ((size_t) sent, segment->iov_len);

      segment->iov_base = (uint8_t *) segment->iov_base + step;
      segment->iov_len -= step;
      sent -= (ssize_t) step;
      if (segment->iov_len == 0)
        client->output_first++;
    }
  }
  return true;
}

/* --- replies --- */

static struct slot *
find_slot (struct client *client, uint64_t cookie)
{
  if (cookie >= client->depth || !client->slots[cookie].is_busy)
    client_die ("a reply to a request that was not sent");
  return &client->slots[cookie];
}

static void
fail (const struct slot *slot, uint32_t error)
{
  client_die ("command %u at %llu + %u: error %u", slot->command,
              (unsigned long long) slot->offset, slot->length, error);
}

/* A reply without structure.  True: SLOT is done. */
static bool
take_simple (struct client *client, const struct nbd_simple_reply *reply, struct slot **slot)
{
  *slot = find_slot (client, from_be64 (reply->cookie));
  if (from_be32 (reply->error) != NBD_SUCCESS)
    fail (*slot, from_be32 (reply->error));
  client->input_start += sizeof *reply;
  if ((*slot)->command != NBD_CMD_READ)
    return true;
  client->reading = *slot;
  client->data_at = (*slot)->offset;
  client->data_left = (*slot)->length;
  client->is_last_chunk = true;
  return false;
}

static void
take_status (struct slot *slot, const uint8_t *data, uint32_t length)
{
  const struct nbd_extent *extents = (const struct nbd_extent *) (data + sizeof (be32));

  slot->status_extents = (length - (uint32_t) sizeof (be32)) / (uint32_t) sizeof *extents;
  for (uint32_t i = 0; i < slot->status_extents; i++)
    slot->status_length += from_be32 (extents[i].length);
  if (slot->status_length == 0)
    client_die ("a block status of nothing");
}

/* A chunk whose first AVAILABLE bytes are there; all of them, unless it is data.  0: more must come;
 * else as take_simple. */
static bool
take_chunk (struct client *client, const uint8_t *at, size_t available, struct slot **slot,
            bool *is_short)
{
  struct nbd_chunk chunk;
  be64 offset;
  uint32_t length, type;

  memcpy (&chunk, at, sizeof chunk);
  length = from_be32 (chunk.length);
  type = from_be16 (chunk.type);
  *slot = find_slot (client, from_be64 (chunk.cookie));
  *is_short = available < sizeof chunk + (type == NBD_CHUNK_OFFSET_DATA ? sizeof offset : length);
  if (*is_short)
    return false;
  client->is_last_chunk = from_be16 (chunk.flags) & NBD_CHUNK_DONE;
  client->input_start += sizeof chunk;
  switch (type) {
  case NBD_CHUNK_NONE:
    break;
  case NBD_CHUNK_OFFSET_DATA:
    memcpy (&offset, at + sizeof chunk, sizeof offset);
    client->input_start += sizeof offset;
    client->reading = *slot;
    client->data_at = from_be64 (offset);
    client->data_left = length - sizeof offset;
    return false;
  case NBD_CHUNK_OFFSET_HOLE:
    if (!client->may_read_zeros)
      client_die ("a hole at offset %llu", (unsigned long long) (*slot)->offset);
    client->input_start += length;
    break;
  case NBD_CHUNK_BLOCK_STATUS:
    take_status (*slot, at + sizeof chunk, length);
    client->input_start += length;
    break;
  default:
    fail (*slot, type);
  }
  return client->is_last_chunk;
}

/* Data of the READ whose reply is being taken.  True: it is done. */
static bool
take_data (struct client *client, struct slot **slot)
{
  size_t size = MIN (client->input_end - client->input_start, client->data_left);

  *slot = client->reading;
  check_data (client, client->input + client->input_start, client->data_at, size);
  client->input_start += size;
  client->data_at += size;
  client->data_left -= size;
  if (client->data_left > 0)
    return false;
  client->reading = NULL;
  return client->is_last_chunk;
}

/* The next piece of input.  False: the rest is not whole yet. */
static bool
take_input (struct client *client, struct slot **slot, bool *is_done)
{
  const uint8_t *at = client->input + client->input_start;
  size_t available = client->input_end - client->input_start;
  bool is_short = false;
  be32 magic;

  *is_done = false;
  if (client->reading) {
    *is_done = take_data (client, slot);
    return *is_done || client->input_start < client->input_end;
  }
  if (available < sizeof (struct nbd_simple_reply))
    return false;
  memcpy (&magic, at, sizeof magic);
  if (from_be32 (magic) == NBD_SIMPLE_REPLY_MAGIC) {
    struct nbd_simple_reply reply;

    memcpy (&reply, at, sizeof reply);
    *is_done = take_simple (client, &reply, slot);
    return true;
  }
  if (from_be32 (magic) != NBD_CHUNK_MAGIC)
    client_die ("this is no reply: %#x", from_be32 (magic));
  if (available < sizeof (struct nbd_chunk))
    return false;
  *is_done = take_chunk (client, at, available, slot, &is_short);
  return !is_short;
}

bool
client_receive (struct client *client, void (*done) (void *owner, struct slot *slot),
                void *owner)
{
  ssize_t received;
  struct slot *slot;
  bool is_done;

  memmove (client->input, client->input + client->input_start,
           client->input_end - client->input_start);
  client->input_end -= client->input_start;
  client->input_start = 0;
  if (client->ssl)
    received = client_tls_receive (client, client->input + client->input_end,
                                   CLIENT_INPUT - client->input_end, client->is_waiting);
  else
    received = recv (client->fd, client->input + client->input_end,
                     CLIENT_INPUT - client->input_end, client->is_waiting ? 0 : MSG_DONTWAIT);
  client->syscalls++;
  if (received < 0 && (errno == EAGAIN || errno == EINTR))
    return false;
  if (received <= 0)
    client_die ("recv: %s", received < 0 ? strerror (errno) : "the server hung up");
  client->received_at = clock_ns ();
  client->input_end += (size_t) received;
  while (take_input (client, &slot, &is_done)) {
    if (!is_done)
      continue;
    slot->is_busy = false;
    client->free[client->free_count++] = (unsigned) (slot - client->slots);
    done (owner, slot);
  }
  return true;
}
