/* SPDX-License-Identifier: BSD-2-Clause */
/* transport-tls.c - bytes to and from a client, by TLS.
 *
 * OpenSSL reads and writes the socket itself, and never waits.  Frames go out in records of 16 KiB,
 * gathered in a buffer of the thread's; where the kernel does the encryption (kTLS) they go to it
 * as they are.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/check.h"
#include "server.h"
#include "tls.h"

#define RECORD_BYTES (16 * 1024)   /* the longest there is */

/* As transport's functions have it. */
static int
tls_error (struct transport *transport, int result)
{
  switch (SSL_get_error (transport->ssl, result)) {
  case SSL_ERROR_WANT_READ:
  case SSL_ERROR_WANT_WRITE:
    return -EAGAIN;
  case SSL_ERROR_ZERO_RETURN:
    return 0;
  case SSL_ERROR_SYSCALL:
    transport->is_broken = true;
    return errno == 0 ? -ECONNRESET : -errno;
  default:
    transport->is_broken = true;
    return -EPROTO;
  }
}

static ssize_t
tls_receive (struct transport *transport, const struct iovec *segments, unsigned count)
{
  size_t total = 0, length;

  if (transport->is_deaf)
    return -EPROTO;
  for (unsigned i = 0; i < count; i++)
    for (size_t at = 0; at < segments[i].iov_len; at += length, total += length) {
      int result;

      ERR_clear_error ();
      errno = 0;
      result = SSL_read_ex (transport->ssl, (uint8_t *) segments[i].iov_base + at,
                            segments[i].iov_len - at, &length);
      transport->wants_write = result != 1 && SSL_want_write (transport->ssl);
      if (result == 1 && !transport->is_deaf)
        continue;
      transport->has_more = false;
      result = transport->is_deaf ? -EPROTO : tls_error (transport, result);
      transport->is_deaf = result < 0 && result != -EAGAIN;
      /* What came before the end, or the error, comes first; those are told again. */
      if (total > 0 && result != -EAGAIN)
        transport->has_more = true;
      return total > 0 ? (ssize_t) total : result;
    }
  /* There may be more, and the socket would not tell. */
  transport->has_more = true;
  return (ssize_t) total;
}

/* What fits into one record. */
static size_t
gather (uint8_t *record, const struct iovec *segments, unsigned count)
{
  size_t length = 0;

  for (unsigned i = 0; i < count && length < RECORD_BYTES; i++) {
    size_t step = MIN (segments[i].iov_len, RECORD_BYTES - length);

    memcpy (record + length, segments[i].iov_base, step);
    length += step;
  }
  return length;
}

/* Whether the segments have more than LENGTH bytes. */
static bool
is_longer (const struct iovec *segments, unsigned count, size_t length)
{
  for (unsigned i = 0; i < count; i++) {
    if (segments[i].iov_len > length)
      return true;
    length -= segments[i].iov_len;
  }
  return false;
}

/* OpenSSL hands each record to the socket by itself.  Of those with more behind them TCP is to make
 * packets as long as it can; sockets that are not TCP's refuse, without harm. */
static void
cork (struct transport *transport, bool is_on)
{
  int on = is_on;

  if (transport->is_corked != is_on)
    setsockopt (transport->send_fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
  transport->is_corked = is_on;
}

static ssize_t
tls_send (struct transport *transport, const struct iovec *segments, unsigned count)
{
  static _Thread_local uint8_t record[RECORD_BYTES];
  const void *data = segments[0].iov_base;
  size_t length = segments[0].iov_len, sent;
  int result;

  if (count > 1 && length < RECORD_BYTES) {
    length = gather (record, segments, count);
    data = record;
  }
  if (is_longer (segments, count, length))
    cork (transport, true);
  ERR_clear_error ();
  errno = 0;
  /* After -EAGAIN the same bytes come again, as OpenSSL wants it: nothing gets in front of them. */
  result = SSL_write_ex (transport->ssl, data, length, &sent);
  if (result == 1 && !is_longer (segments, count, sent))
    cork (transport, false);
  if (result == 1)
    return (ssize_t) sent;
  result = tls_error (transport, result);
  return result == 0 ? -EPIPE : result;
}

static ssize_t
ktls_send (struct transport *transport, const struct iovec *segments, unsigned count)
{
  struct msghdr message = { .msg_iov = (struct iovec *) segments, .msg_iovlen = count };
  ssize_t sent;

  if (transport->is_broken)
    return -EPIPE;
  sent = sendmsg (transport->send_fd, &message, MSG_NOSIGNAL);
  if (sent >= 0)
    return sent;
  return errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : -errno;
}

/* The client demands that what it is sent be encrypted by a new key from here on (KeyUpdate of TLS 1.3).
 * OpenSSL has one then, but the kernel goes on with the old one, so that the client could read nothing
 * of what is sent to it. */
static void
on_ktls_message (int is_sent, int version, int type, const void *data, size_t length, SSL *ssl,
                 void *argument)
{
  const uint8_t *message = data;
  struct transport *transport = SSL_get_app_data (ssl);

  (void) version;
  (void) argument;
  if (is_sent || type != SSL3_RT_HANDSHAKE || length != SSL3_HM_HEADER_LENGTH + 1
      || message[0] != SSL3_MT_KEY_UPDATE
      || message[SSL3_HM_HEADER_LENGTH] != SSL_KEY_UPDATE_REQUESTED)
    return;
  transport->is_broken = transport->is_deaf = true;
  transport->reason = "it demands a new key, which the kernel cannot take";
}

static void
tls_transport_close (struct transport *transport)
{
  ERR_clear_error ();
  if (!transport->is_broken && SSL_is_init_finished (transport->ssl))
    SSL_shutdown (transport->ssl);
  SSL_free (transport->ssl);
  transport->ssl = NULL;
  transport_close_plain (transport);
}

static const struct transport_class tls_class = { tls_receive, tls_send, tls_transport_close, false };
static const struct transport_class ktls_class = { tls_receive, ktls_send, tls_transport_close, true };

/* SSL_set_fd also asks the kernel for TLS, as the others do not. */
static bool
set_fds (SSL *ssl, const struct transport *transport)
{
  if (transport->receive_fd == transport->send_fd)
    return SSL_set_fd (ssl, transport->receive_fd) == 1;
  return SSL_set_rfd (ssl, transport->receive_fd) == 1
         && SSL_set_wfd (ssl, transport->send_fd) == 1;
}

int
transport_start_tls (struct transport *transport, struct tls *tls)
{
  SSL *ssl = tls_new (tls);

  if (!ssl || !set_fds (ssl, transport)) {
    SSL_free (ssl);
    return -ENOMEM;
  }
  SSL_set_accept_state (ssl);
  SSL_set_app_data (ssl, transport);
  transport->ssl = ssl;
  transport->class = &tls_class;
  return 0;
}

/* Why a handshake failed. */
static const char *
failure_reason (SSL *ssl, int error)
{
  long verified = SSL_get_verify_result (ssl);

  if (verified != X509_V_OK)
    return X509_verify_cert_error_string (verified);
  if (error == -EPROTO)
    return tls_reason ();
  return error == 0 ? "it was given up" : strerror (-error);
}

int
transport_handshake (struct transport *transport)
{
  int result;

  ERR_clear_error ();
  errno = 0;
  result = SSL_accept (transport->ssl);
  transport->wants_write = result != 1 && SSL_want_write (transport->ssl);
  if (result != 1) {
    result = tls_error (transport, result);
    if (result != -EAGAIN)
      transport->reason = failure_reason (transport->ssl, result);
    return result == 0 ? -ECONNRESET : result;
  }
  /* Some of what follows may have been read with the handshake. */
  transport->has_more = true;
  if (BIO_get_ktls_send (SSL_get_wbio (transport->ssl))) {
    transport->class = &ktls_class;
    SSL_set_msg_callback (transport->ssl, on_ktls_message);
  }
  return 0;
}

/* --- who it is --- */

static char *
subject_of (X509 *certificate)
{
  unsigned long flags = XN_FLAG_RFC2253 & ~(unsigned long) ASN1_STRFLGS_ESC_MSB;
  BIO *memory = BIO_new (BIO_s_mem ());
  char *text, *subject = NULL;
  long length;

  if (memory && X509_NAME_print_ex (memory, X509_get_subject_name (certificate), 0, flags) >= 0) {
    length = BIO_get_mem_data (memory, &text);
    subject = strndup (text, (size_t) length);
  }
  BIO_free (memory);
  return subject;
}

/* One of the names beside the subject; those of a kind that no rule is about are left out. */
static int
add_name (struct identity *identity, const GENERAL_NAME *name)
{
  const char *kind = name->type == GEN_DNS ? "dns" : name->type == GEN_EMAIL ? "email"
                     : name->type == GEN_URI ? "uri" : NULL;
  int length = kind ? ASN1_STRING_length (name->d.ia5) : 0;
  const char *text = kind ? (const char *) ASN1_STRING_get0_data (name->d.ia5) : NULL;

  if (!kind || memchr (text, '\0', (size_t) length))
    return 0;
  if (asprintf (&identity->names[identity->name_count], "%s:%.*s", kind, length, text) == -1)
    return -ENOMEM;
  identity->name_count++;
  return 0;
}

static int
add_names (struct identity *identity, X509 *certificate)
{
  GENERAL_NAMES *names = X509_get_ext_d2i (certificate, NID_subject_alt_name, NULL, NULL);
  int count = names ? sk_GENERAL_NAME_num (names) : 0, error = 0;

  if (count > 0) {
    identity->names = calloc ((size_t) count, sizeof *identity->names);
    error = identity->names ? 0 : -ENOMEM;
  }
  for (int i = 0; error == 0 && i < count; i++)
    error = add_name (identity, sk_GENERAL_NAME_value (names, i));
  GENERAL_NAMES_free (names);
  return error;
}

/* Whether the client has shown that it has the key of the user it has named.  TLS 1.2 asks for the key
 * only when nothing but that counts; TLS 1.3 goes on with certificates, and never looks at the proof,
 * if what else the client offers does not fit the key. */
static bool
has_shown_key (SSL *ssl)
{
  return SSL_version (ssl) < TLS1_3_VERSION || SSL_session_reused (ssl);
}

int
transport_identify_tls (const struct transport *transport, struct identity *identity)
{
  X509 *certificate = SSL_get0_peer_certificate (transport->ssl);

  identity->is_tls = true;
  if (has_shown_key (transport->ssl))
    strcpy (identity->user, transport->user);
  /* One that was not asked for was not verified. */
  if (!certificate || !(SSL_get_verify_mode (transport->ssl) & SSL_VERIFY_PEER)
      || SSL_get_verify_result (transport->ssl) != X509_V_OK)
    return 0;
  identity->subject = subject_of (certificate);
  return identity->subject ? add_names (identity, certificate) : -ENOMEM;
}

void
tls_set_user (SSL *ssl, const char *user)
{
  struct transport *transport = SSL_get_app_data (ssl);

  CHECK (strlen (user) <= IDENTITY_USER_MAX);
  strcpy (transport->user, user);
}
