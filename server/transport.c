/* SPDX-License-Identifier: BSD-2-Clause */
/* transport.c - bytes to and from a client: plain sockets and pipes.
 *
 * Never waits, never logs: what went wrong is the connection's to judge.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server.h"

/* Two full replies of 128 KiB and more fit; measured: 1 MiB reads gain a quarter on Unix sockets
 * and more than half on TCP, and four times as much is worse than the default. */
#define SEND_BUFFER_BYTES 212992

#define KEEPALIVE_IDLE_SECONDS 60
#define KEEPALIVE_INTERVAL_SECONDS 15
#define KEEPALIVE_COUNT 4
#define UNACKNOWLEDGED_MS 120000

static ssize_t
plain_result (ssize_t count)
{
  if (count >= 0)
    return count;
  return errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : -errno;
}

static ssize_t
socket_receive (struct transport *transport, const struct iovec *segments, unsigned count)
{
  struct msghdr message = { .msg_iov = (struct iovec *) segments, .msg_iovlen = count };

  return plain_result (recvmsg (transport->receive_fd, &message, 0));
}

static ssize_t
socket_send (struct transport *transport, const struct iovec *segments, unsigned count)
{
  struct msghdr message = { .msg_iov = (struct iovec *) segments, .msg_iovlen = count };

  return plain_result (sendmsg (transport->send_fd, &message, MSG_NOSIGNAL));
}

static ssize_t
pipe_receive (struct transport *transport, const struct iovec *segments, unsigned count)
{
  return plain_result (readv (transport->receive_fd, segments, (int) count));
}

static ssize_t
pipe_send (struct transport *transport, const struct iovec *segments, unsigned count)
{
  return plain_result (writev (transport->send_fd, segments, (int) count));
}

void
transport_close_plain (struct transport *transport)
{
  close (transport->receive_fd);
  if (transport->send_fd != transport->receive_fd)
    close (transport->send_fd);
}

static const struct transport_class socket_class = { socket_receive, socket_send,
                                                    transport_close_plain, true };
static const struct transport_class pipe_class = { pipe_receive, pipe_send, transport_close_plain,
                                                  true };

static bool
is_socket (int fd)
{
  int type;
  socklen_t length = sizeof type;

  return getsockopt (fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0;
}

/* Each of these may fail without harm: not every socket has every option. */
static void
socket_tune (int fd)
{
  int on = 1, bytes = SEND_BUFFER_BYTES;
  int idle = KEEPALIVE_IDLE_SECONDS, interval = KEEPALIVE_INTERVAL_SECONDS;
  int count = KEEPALIVE_COUNT;
  unsigned unacknowledged = UNACKNOWLEDGED_MS;

  setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  /* A peer whose host is gone is noticed: in two minutes, if nothing is sent to it or if something
   * is. */
  setsockopt (fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  setsockopt (fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged, sizeof unacknowledged);
  setsockopt (fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

static void
set_nonblocking (int fd)
{
  int flags = fcntl (fd, F_GETFL);

  if (flags != -1 && !(flags & O_NONBLOCK))
    fcntl (fd, F_SETFL, flags | O_NONBLOCK);
}

void
transport_init_plain (struct transport *transport, int receive_fd, int send_fd)
{
  memset (transport, 0, sizeof *transport);
  transport->receive_fd = receive_fd;
  transport->send_fd = send_fd;
  set_nonblocking (receive_fd);
  set_nonblocking (send_fd);
  transport->class = is_socket (receive_fd) && is_socket (send_fd) ? &socket_class : &pipe_class;
  if (transport->class == &socket_class)
    socket_tune (send_fd);
}

static void
identify_address (const struct sockaddr_storage *address, struct identity *identity)
{
  static const uint8_t mapped[12] = { [10] = 0xff, 0xff };

  if (address->ss_family == AF_INET) {
    memcpy (identity->address, mapped, sizeof mapped);
    memcpy (identity->address + sizeof mapped,
            &((const struct sockaddr_in *) address)->sin_addr, 4);
  } else if (address->ss_family == AF_INET6) {
    memcpy (identity->address, &((const struct sockaddr_in6 *) address)->sin6_addr, 16);
  } else {
    return;
  }
  identity->has_address = true;
}

void
transport_identify (int fd, struct identity *identity)
{
  struct sockaddr_storage address = { 0 };
  socklen_t length = sizeof address;
  struct ucred peer;

  if (getpeername (fd, (struct sockaddr *) &address, &length) == -1)
    return;
  identify_address (&address, identity);
  length = sizeof peer;
  if (address.ss_family == AF_UNIX
      && getsockopt (fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0) {
    identity->has_uid = true;
    identity->uid = peer.uid;
  }
}

bool
transport_peer_is_gone (const struct transport *transport)
{
  struct pollfd poll_fd = { .fd = transport->receive_fd, .events = POLLRDHUP };

  return poll (&poll_fd, 1, 0) == 1 && (poll_fd.revents & (POLLRDHUP | POLLHUP | POLLERR));
}
