/* SPDX-License-Identifier: BSD-2-Clause */
/* client-attach.c - attach-resize: tells this host's kernel that a disk attached as /dev/nbdN has
 * another size.
 *
 * The kernel asks for the size when it attaches, and never again.  It is told by generic netlink
 * (NBD_CMD_RECONFIGURE), or, if the device was attached by ioctl, by ioctl: each device knows one
 * of the two ways only.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <linux/fs.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/nbd.h>
#include <linux/netlink.h>

#undef BLOCK_SIZE               /* linux/fs.h has one of its own */

#include "base/bytes.h"
#include "client.h"

#define NBD_MAJOR 43
#define ANSWER_SECONDS 30          /* the kernel freezes the queue of the device first */

/* --- one netlink message --- */

struct message {
  struct nlmsghdr header;
  struct genlmsghdr generic;
  uint8_t attributes[4096 - sizeof (struct nlmsghdr) - sizeof (struct genlmsghdr)];
};

static void
message_init (struct message *message, uint16_t family, uint8_t command)
{
  *message = (struct message) {
    .header = {
      .nlmsg_len = NLMSG_LENGTH (GENL_HDRLEN),
      .nlmsg_type = family,
      .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
    },
    .generic = { .cmd = command, .version = 1 },
  };
}

static void
message_add (struct message *message, uint16_t type, const void *data, size_t length)
{
  struct nlattr attribute = { .nla_len = (uint16_t) (NLA_HDRLEN + length), .nla_type = type };
  uint8_t *at = (uint8_t *) message + message->header.nlmsg_len;

  memcpy (at, &attribute, sizeof attribute);
  memcpy (at + NLA_HDRLEN, data, length);
  message->header.nlmsg_len += (uint32_t) NLA_ALIGN (NLA_HDRLEN + length);
}

/* Sends the message and waits until it was carried out.  What came before the acknowledgement, if
 * anything, is in *ANSWER.  0, or negative errno. */
static int
message_ask (int fd, struct message *message, struct message *answer)
{
  union {
    struct nlmsghdr header;
    struct message message;
    uint8_t bytes[8192];
  } received;
  struct nlmsgerr result;

  memset (answer, 0, sizeof *answer);
  if (send (fd, message, message->header.nlmsg_len, 0) == -1)
    return -errno;
  for (;;) {
    ssize_t length = recv (fd, &received, sizeof received, 0);

    if (length == -1 && errno == EINTR)
      continue;
    if (length == -1)
      return errno == EAGAIN ? -ETIMEDOUT : -errno;
    if (!NLMSG_OK (&received.header, (uint32_t) length))
      return -EPROTO;
    if (received.header.nlmsg_type == NLMSG_ERROR) {
      memcpy (&result, NLMSG_DATA (&received.header), sizeof result);
      return result.error;
    }
    memcpy (answer, &received, MIN ((size_t) length, sizeof *answer));
  }
}

/* --- generic netlink --- */

static int
netlink_open (void)
{
  struct timeval timeout = { .tv_sec = ANSWER_SECONDS };
  int fd = socket (AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);

  if (fd != -1)
    setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  return fd == -1 ? -errno : fd;
}

/* The number that the kernel has given to the family "nbd", or negative errno. */
static int
netlink_family (int fd)
{
  struct message message, answer;
  size_t at = NLMSG_LENGTH (GENL_HDRLEN);
  struct nlattr attribute;
  int error;

  message_init (&message, GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
  message_add (&message, CTRL_ATTR_FAMILY_NAME, NBD_GENL_FAMILY_NAME, sizeof NBD_GENL_FAMILY_NAME);
  error = message_ask (fd, &message, &answer);
  if (error)
    return error;
  while (at + sizeof attribute <= MIN (answer.header.nlmsg_len, sizeof answer)) {
    memcpy (&attribute, (uint8_t *) &answer + at, sizeof attribute);
    if (attribute.nla_type == CTRL_ATTR_FAMILY_ID) {
      uint16_t family;

      memcpy (&family, (uint8_t *) &answer + at + NLA_HDRLEN, sizeof family);
      return family;
    }
    if (attribute.nla_len < sizeof attribute)
      break;
    at += NLA_ALIGN (attribute.nla_len);
  }
  return -EPROTO;
}

/* What the device was attached with, and the kernel wants to hear again; "" is nothing. */
static void
read_backend (unsigned index, char backend[256])
{
  char path[64];
  FILE *file;

  snprintf (path, sizeof path, "/sys/block/nbd%u/backend", index);
  backend[0] = '\0';
  file = fopen (path, "re");
  if (file) {
    if (fgets (backend, 256, file))
      backend[strcspn (backend, "\n")] = '\0';
    fclose (file);
  }
}

static int
resize_by_netlink (unsigned index, uint64_t size)
{
  struct message message, answer;
  uint32_t number = index;
  char backend[256];
  int fd = netlink_open (), family, error;

  if (fd < 0)
    return fd;
  family = netlink_family (fd);
  error = family;
  if (family > 0) {
    message_init (&message, (uint16_t) family, NBD_CMD_RECONFIGURE);
    message_add (&message, NBD_ATTR_INDEX, &number, sizeof number);
    message_add (&message, NBD_ATTR_SIZE_BYTES, &size, sizeof size);
    read_backend (index, backend);
    if (*backend != '\0')
      message_add (&message, NBD_ATTR_BACKEND_IDENTIFIER, backend, strlen (backend) + 1);
    error = message_ask (fd, &message, &answer);
  }
  close (fd);
  return error;
}

/* --- the command --- */

/* The number N of /dev/nbdN, however the path is written; negative after a message. */
static int
device_index (const char *path, int fd)
{
  char link[64], target[4096];
  struct stat status;
  const char *name;
  ssize_t length;

  if (fstat (fd, &status) == -1 || !S_ISBLK (status.st_mode)
      || major (status.st_rdev) != NBD_MAJOR) {
    client_error (path, NULL, "not an NBD device");
    return -1;
  }
  snprintf (link, sizeof link, "/sys/dev/block/%u:%u", major (status.st_rdev),
            minor (status.st_rdev));
  length = readlink (link, target, sizeof target - 1);
  target[length > 0 ? length : 0] = '\0';
  name = strrchr (target, '/');
  if (!name || strncmp (name, "/nbd", 4) != 0
      || strspn (name + 4, "0123456789") != strlen (name + 4)) {
    client_error (path, NULL, "not an NBD device as a whole");
    return -1;
  }
  return atoi (name + 4);
}

/* The kernel says yes, too, when a device is not attached. */
static int
check_size (const char *path, int fd, uint64_t size)
{
  uint64_t now;

  if (ioctl (fd, BLKGETSIZE64, &now) == 0 && now == size)
    return CLIENT_DONE;
  return client_error (path, NULL, "the kernel did not take the new size; is the device attached?");
}

static int
resize_device (const char *path, int fd, uint64_t size)
{
  int index = device_index (path, fd), error;

  if (index < 0)
    return CLIENT_FAILED;
  error = resize_by_netlink ((unsigned) index, size);
  if (error && ioctl (fd, NBD_SET_SIZE, (unsigned long) size) == 0)
    error = 0;
  if (error)
    return client_error (path, NULL, "the kernel does not take the new size: %s",
                         strerror (-error));
  return check_size (path, fd, size);
}

int
client_attach_resize (int argc, char **argv)
{
  static const struct client_syntax syntax = {
    .usage = "attach-resize DEVICE SIZE",
    .help = "Tells the kernel that the disk attached as DEVICE (/dev/nbd0) has another size,\n"
            "after `lacuna resize' on the server.  The file system on it grows by resize2fs or\n"
            "xfs_growfs.\n",
    .operands_min = 2, .operands_max = 2,
  };
  struct client_arguments arguments;
  const char *path;
  uint64_t size;
  int status, fd;

  if (!client_parse (argc, argv, &syntax, &arguments, &status))
    return status;
  path = arguments.operands[0];
  if (!client_parse_size (path, NULL, "SIZE", arguments.operands[1], &size))
    return CLIENT_FAILED;
  if (size == 0 || size % 4096 != 0)
    return client_error (path, NULL, "the size of a disk is a multiple of 4096");
  fd = open (path, O_RDONLY | O_CLOEXEC);
  if (fd == -1)
    return client_error (path, NULL, "%s", strerror (errno));
  status = resize_device (path, fd, size);
  close (fd);
  return status;
}
