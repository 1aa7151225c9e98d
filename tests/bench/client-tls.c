/* SPDX-License-Identifier: BSD-2-Clause */
/* client-tls.c - the client's bytes by TLS 1.3, always with the same cipher, whoever serves.  The
 * server's certificate is not looked at: what it costs to check it is no part of what is measured.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "client.h"

#define CIPHER "TLS_AES_128_GCM_SHA256"
#define RECORD_BYTES 16384

void
client_tls_begin (struct client *client)
{
  SSL_CTX *context = SSL_CTX_new (TLS_client_method ());
  SSL *ssl;

  if (!context || SSL_CTX_set_min_proto_version (context, TLS1_3_VERSION) != 1
      || SSL_CTX_set_ciphersuites (context, CIPHER) != 1)
    client_die ("no TLS 1.3 with %s", CIPHER);
  /* OpenSSL says goodbye to a server that may have hung up already. */
  signal (SIGPIPE, SIG_IGN);
  SSL_CTX_set_mode (context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  ssl = SSL_new (context);
  if (!ssl || SSL_set_fd (ssl, client->fd) != 1 || SSL_connect (ssl) != 1)
    client_die ("the TLS handshake has failed: %s", ERR_error_string (ERR_get_error (), NULL));
  SSL_CTX_free (context);
  client->ssl = ssl;
}

void
client_tls_end (struct client *client)
{
  SSL_shutdown (client->ssl);
  SSL_free (client->ssl);
}

/* Until the socket can be used again. */
static void
wait_for (struct client *client, short events)
{
  struct pollfd poll_fd = { .fd = client->fd, .events = events };

  client->syscalls++;
  (void) poll (&poll_fd, 1, -1);
}

/* What became of a call that RESULT is of: whether it is to be made again. */
static int
wanted (struct client *client, int result)
{
  int error = SSL_get_error (client->ssl, result);

  if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
    client_die ("TLS: %s", error == SSL_ERROR_ZERO_RETURN ? "the server hung up"
                                                          : ERR_error_string (ERR_get_error (), NULL));
  return error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
}

ssize_t
client_tls_receive (struct client *client, void *data, size_t size, bool is_waiting)
{
  size_t received = 0, part;

  while (received < size) {
    int result = SSL_read_ex (client->ssl, (uint8_t *) data + received, size - received, &part);

    client->syscalls++;
    if (result == 1) {
      received += part;
      continue;
    }
    result = wanted (client, result);
    if (received > 0 || !is_waiting)
      break;
    wait_for (client, (short) result);
  }
  if (received > 0)
    return (ssize_t) received;
  errno = EAGAIN;
  return -1;
}

ssize_t
client_tls_send (struct client *client, const struct iovec *segments, size_t count)
{
  static uint8_t record[RECORD_BYTES];
  const void *data = segments[0].iov_base;
  size_t size = segments[0].iov_len, sent;
  int result;

  if (count > 1 && size < RECORD_BYTES) {
    size = 0;
    for (size_t i = 0; i < count && size < RECORD_BYTES; i++) {
      size_t part = MIN (segments[i].iov_len, RECORD_BYTES - size);

      memcpy (record + size, segments[i].iov_base, part);
      size += part;
    }
    data = record;
  }
  result = SSL_write_ex (client->ssl, data, size, &sent);
  if (result == 1)
    return (ssize_t) sent;
  wanted (client, result);
  errno = EAGAIN;
  return -1;
}
