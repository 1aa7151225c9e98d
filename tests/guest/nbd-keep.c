/* SPDX-License-Identifier: BSD-2-Clause */
/* nbd-keep.c - attach /dev/nbdN to a server, and attach it again whenever the server comes back.
 *
 *   nbd-keep ADDRESS PORT EXPORT N CONNECTIONS
 *
 * The Linux driver can hold requests back while its connections are dead, and send again what was
 * in flight, if it is told to (NBD_ATTR_DEAD_CONN_TIMEOUT, NBD_ATTR_TIMEOUT), and takes new sockets
 * later (NBD_CMD_RECONFIGURE).  nbd-client 3.24 uses neither: with -persist a restarted server
 * still means I/O errors.  This program does, so that a file system in the guest can live through
 * the death of the server.
 *
 * It needs only what the protocol and <linux/nbd-netlink.h> say, and runs in the guest's tests
 * only.
 */
#define _GNU_SOURCE 1            /* POLLRDHUP */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 16
#define RETRY_US 100000
#define REQUEST_TIMEOUT_S 3      /* then a request is sent again on a live connection */
#define DEAD_TIMEOUT_S 120       /* so long may the server be away */

static void
die (const char *what)
{
  fprintf (stderr, "nbd-keep: %s: %s\n", what, strerror (errno));
  exit (1);
}

static int
write_all (int fd, const void *data, size_t length)
{
  for (const char *p = data; length > 0; ) {
    ssize_t n = send (fd, p, length, MSG_NOSIGNAL);
    if (n <= 0)
      return -1;
    p += n;
    length -= n;
  }
  return 0;
}

static int
read_all (int fd, void *data, size_t length)
{
  return recv (fd, data, length, MSG_WAITALL) == (ssize_t) length ? 0 : -1;
}

/* The fixed newstyle handshake up to NBD_OPT_GO; 0 if the connection is in transmission then. */
static int
handshake (int fd, const char *export, uint64_t *size, uint16_t *flags)
{
  struct __attribute__ ((packed)) { uint64_t magic, option_magic; uint16_t flags; } hello;
  struct __attribute__ ((packed)) {
    uint32_t flags;
    uint64_t magic;
    uint32_t option, length, name_length;
  } go;
  struct __attribute__ ((packed)) { uint64_t magic; uint32_t option, type, length; } reply;
  struct __attribute__ ((packed)) { uint16_t type; uint64_t size; uint16_t flags; } info;
  uint16_t no_infos = 0;
  size_t name_length = strlen (export);
  char data[4096];

  if (read_all (fd, &hello, sizeof hello))
    return -1;
  go.flags = htobe32 (1);      /* fixed newstyle */
  go.magic = htobe64 (0x49484156454f5054);
  go.option = htobe32 (7);     /* GO */
  go.length = htobe32 (4 + name_length + 2);
  go.name_length = htobe32 (name_length);
  if (write_all (fd, &go, sizeof go) || write_all (fd, export, name_length)
      || write_all (fd, &no_infos, 2))
    return -1;
  for (;;) {
    if (read_all (fd, &reply, sizeof reply) || be32toh (reply.length) > sizeof data
        || read_all (fd, data, be32toh (reply.length)))
      return -1;
    if (be32toh (reply.type) == 1)   /* ACK */
      return 0;
    if (be32toh (reply.type) != 3)   /* INFO */
      return -1;
    memcpy (&info, data, sizeof info);
    if (info.type == 0) {            /* EXPORT */
      *size = be64toh (info.size);
      *flags = be16toh (info.flags);
    }
  }
}

static int
connect_to (const struct sockaddr_in *address, const char *export, uint64_t *size, uint16_t *flags)
{
  struct timeval limit = { .tv_sec = 5 }, none = { 0 };
  int one = 1, fd = socket (AF_INET, SOCK_STREAM, 0);

  if (fd < 0)
    die ("socket");
  setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect (fd, (const struct sockaddr *) address, sizeof *address)
      || handshake (fd, export, size, flags)) {
    close (fd);
    return -1;
  }
  setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
  return fd;
}

/* --- generic netlink --- */

static char message[4096];

static void
message_start (uint16_t type, uint8_t command)
{
  struct nlmsghdr *header = (struct nlmsghdr *) message;
  struct genlmsghdr *generic = NLMSG_DATA (header);

  memset (message, 0, sizeof message);
  header->nlmsg_type = type;
  header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  header->nlmsg_len = NLMSG_LENGTH (GENL_HDRLEN);
  generic->cmd = command;
  generic->version = 1;
}

static struct nlattr *
message_add (uint16_t type, const void *data, size_t length)
{
  struct nlmsghdr *header = (struct nlmsghdr *) message;
  struct nlattr *attribute = (struct nlattr *) (message + NLMSG_ALIGN (header->nlmsg_len));

  attribute->nla_type = type;
  attribute->nla_len = NLA_HDRLEN + length;
  if (length > 0)
    memcpy ((char *) attribute + NLA_HDRLEN, data, length);
  header->nlmsg_len = NLMSG_ALIGN (header->nlmsg_len) + NLA_ALIGN (attribute->nla_len);
  return attribute;
}

static void
nest_end (struct nlattr *nest)
{
  struct nlmsghdr *header = (struct nlmsghdr *) message;

  nest->nla_len = message + header->nlmsg_len - (char *) nest;
}

/* Sends the message, reads the answers up to the acknowledgement, and returns the family's id if
 * one said it. */
static int
message_send (int netlink)
{
  char answer[8192];
  int family = 0;

  if (send (netlink, message, ((struct nlmsghdr *) message)->nlmsg_len, 0) < 0)
    die ("netlink send");
  for (;;) {
    ssize_t n = recv (netlink, answer, sizeof answer, 0);

    if (n < 0)
      die ("netlink receive");
    for (struct nlmsghdr *h = (struct nlmsghdr *) answer; NLMSG_OK (h, n); h = NLMSG_NEXT (h, n)) {
      if (h->nlmsg_type == NLMSG_ERROR) {
        struct nlmsgerr *error = NLMSG_DATA (h);

        errno = -error->error;
        return error->error ? error->error : family;
      }
      char *end = (char *) h + h->nlmsg_len;
      for (char *p = (char *) NLMSG_DATA (h) + GENL_HDRLEN; p + NLA_HDRLEN <= end; ) {
        struct nlattr *attribute = (struct nlattr *) p;

        if (h->nlmsg_type == GENL_ID_CTRL && attribute->nla_type == CTRL_ATTR_FAMILY_ID)
          family = *(uint16_t *) (p + NLA_HDRLEN);
        p += NLA_ALIGN (attribute->nla_len);
      }
    }
  }
}

static void
add_sockets (const int *fds, int count)
{
  struct nlattr *sockets = message_add (NLA_F_NESTED | NBD_ATTR_SOCKETS, NULL, 0);

  for (int i = 0; i < count; i++) {
    struct nlattr *item = message_add (NLA_F_NESTED | NBD_SOCK_ITEM, NULL, 0);
    uint32_t fd = fds[i];

    message_add (NBD_SOCK_FD, &fd, sizeof fd);
    nest_end (item);
  }
  nest_end (sockets);
}

int
main (int argc, char **argv)
{
  if (argc != 6) {
    fprintf (stderr, "usage: nbd-keep ADDRESS PORT EXPORT N CONNECTIONS\n");
    return 2;
  }
  struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons (atoi (argv[2])) };
  uint32_t index = atoi (argv[4]);
  int count = atoi (argv[5]), fds[CONNECTIONS_MAX];
  uint64_t size = 0, timeout = REQUEST_TIMEOUT_S, dead = DEAD_TIMEOUT_S, block_size = 4096;
  uint64_t server_flags;
  uint16_t flags = 0;

  if (inet_pton (AF_INET, argv[1], &address.sin_addr) != 1 || count < 1 || count > CONNECTIONS_MAX)
    return 2;
  for (int i = 0; i < count; i++)
    if ((fds[i] = connect_to (&address, argv[3], &size, &flags)) < 0)
      die ("cannot connect");

  int netlink = socket (AF_NETLINK, SOCK_RAW, NETLINK_GENERIC);
  if (netlink < 0)
    die ("netlink");
  message_start (GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
  message_add (CTRL_ATTR_FAMILY_NAME, NBD_GENL_FAMILY_NAME, sizeof NBD_GENL_FAMILY_NAME);
  int family = message_send (netlink);
  if (family <= 0)
    die ("the kernel has no NBD netlink family");

  server_flags = flags;
  message_start (family, NBD_CMD_CONNECT);
  message_add (NBD_ATTR_INDEX, &index, sizeof index);
  message_add (NBD_ATTR_SIZE_BYTES, &size, sizeof size);
  message_add (NBD_ATTR_BLOCK_SIZE_BYTES, &block_size, sizeof block_size);
  message_add (NBD_ATTR_SERVER_FLAGS, &server_flags, sizeof server_flags);
  message_add (NBD_ATTR_TIMEOUT, &timeout, sizeof timeout);
  message_add (NBD_ATTR_DEAD_CONN_TIMEOUT, &dead, sizeof dead);
  add_sockets (fds, count);
  if (message_send (netlink) < 0)
    die ("NBD_CMD_CONNECT");
  printf ("nbd-keep: attached, %d connections\n", count);
  fflush (stdout);

  for (;;) {
    struct pollfd polls[CONNECTIONS_MAX];

    for (int i = 0; i < count; i++)
      polls[i] = (struct pollfd) { .fd = fds[i], .events = POLLRDHUP };
    if (poll (polls, count, -1) < 0)
      die ("poll");
    for (int i = 0; i < count; i++) {
      if (!polls[i].revents)
        continue;
      close (fds[i]);
      do
        usleep (RETRY_US);
      while ((fds[i] = connect_to (&address, argv[3], &size, &flags)) < 0);
      message_start (family, NBD_CMD_RECONFIGURE);
      message_add (NBD_ATTR_INDEX, &index, sizeof index);
      add_sockets (&fds[i], 1);
      /* After a detach there is nothing left to keep. */
      if (message_send (netlink) < 0)
        return 0;
      printf ("nbd-keep: connection %d is back\n", i);
      fflush (stdout);
    }
  }
}
