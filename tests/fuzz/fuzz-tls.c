/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz-tls.c - TLS: what comes before STARTTLS, with it, and after it; a handshake with a
 * certificate or with a key, of either version, whose bytes are cut off, changed or added to
 * anywhere; and requests in it, likewise.
 *
 * The client is OpenSSL's, between two buffers; what leaves the one is tampered with on its way. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "base/bytes.h"
#include "base/check.h"
#include "nbd/nbd-protocol.h"
#include "fuzz.h"

#define USER "fuzz"
#define KEY "000102030405060708090a0b0c0d0e0f"
#define TURNS_MAX 400

static char directory[] = "/dev/shm/lacuna-fuzz-tls-XXXXXX", keys[64];
static SSL_CTX *client_context;

/* --- what the server is given --- */

static const char *
path_of (const char *name)
{
  static char path[128];

  snprintf (path, sizeof path, "%s/%s", directory, name);
  return path;
}

static void
remove_files (void)
{
  unlink (path_of ("server-cert.pem"));
  unlink (path_of ("server-key.pem"));
  unlink (keys);
  rmdir (directory);
}

static void
make_certificate (void)
{
  EVP_PKEY *key = EVP_EC_gen ("P-256");
  X509 *certificate = X509_new ();
  X509_NAME *name = X509_get_subject_name (certificate);
  FILE *file;

  X509_gmtime_adj (X509_getm_notBefore (certificate), 0);
  X509_gmtime_adj (X509_getm_notAfter (certificate), 86400);
  X509_NAME_add_entry_by_txt (name, "CN", MBSTRING_ASC, (const uint8_t *) "fuzz", -1, -1, 0);
  X509_set_issuer_name (certificate, name);
  X509_set_pubkey (certificate, key);
  CHECK (X509_sign (certificate, key, EVP_sha256 ()) > 0);
  file = fopen (path_of ("server-cert.pem"), "w");
  CHECK (file && PEM_write_X509 (file, certificate) == 1 && fclose (file) == 0);
  file = fopen (path_of ("server-key.pem"), "w");
  CHECK (file && PEM_write_PrivateKey (file, key, NULL, NULL, 0, NULL, NULL) == 1
         && fclose (file) == 0);
  X509_free (certificate);
  EVP_PKEY_free (key);
}

static void
start (void)
{
  FILE *file;

  if (client_context)
    return;
  CHECK (mkdtemp (directory));
  atexit (remove_files);
  make_certificate ();
  snprintf (keys, sizeof keys, "%s/keys.psk", directory);
  umask (077);
  file = fopen (keys, "w");
  CHECK (file && fputs (USER ":" KEY "\n", file) >= 0 && fclose (file) == 0);
  world_set_tls (directory, keys);
  world_start ();
  client_context = SSL_CTX_new (TLS_client_method ());
  CHECK (client_context);
}

/* --- the client --- */

/* What is done to the bytes on their way. */
struct tampering {
  uint64_t at;                     /* in all that was sent: here it happens */
  enum { TAMPER_NOT, TAMPER_CUT, TAMPER_CHANGE, TAMPER_ADD } how;
  uint8_t with;
};

struct client {
  int fd;
  SSL *ssl;
  BIO *in, *out;
  uint64_t sent;
  bool is_open;
  struct tampering tampering;
};

static unsigned
on_psk (SSL *ssl, const char *hint, char *identity, unsigned identity_max, unsigned char *psk,
        unsigned psk_max)
{
  (void) ssl;
  (void) hint;
  (void) identity_max;
  (void) psk_max;
  strcpy (identity, USER);
  for (unsigned i = 0; i < 16; i++)
    psk[i] = (uint8_t) i;
  return 16;
}

static void
send_all (struct client *client, const uint8_t *data, size_t length)
{
  for (unsigned turn = 0; length > 0 && turn < TURNS_MAX && client->is_open; turn++) {
    ssize_t sent = send (client->fd, data, length, MSG_NOSIGNAL);

    if (sent > 0) {
      data += sent;
      length -= (size_t) sent;
    } else if (errno != EAGAIN) {
      client->is_open = false;
    }
    world_turn ();
  }
}

/* Sends what the client has to say, and does to it what is to be done. */
static void
pass_on (struct client *client, uint8_t *data, size_t length)
{
  const struct tampering *tampering = &client->tampering;
  uint64_t at = tampering->at - client->sent;
  bool is_here = tampering->how != TAMPER_NOT && tampering->at >= client->sent && at < length;

  client->sent += length;
  if (!is_here) {
    send_all (client, data, length);
    return;
  }
  if (tampering->how == TAMPER_CHANGE)
    data[at] ^= tampering->with | 1;
  send_all (client, data, tampering->how == TAMPER_CHANGE ? length : at);
  if (tampering->how == TAMPER_CUT)
    shutdown (client->fd, SHUT_WR);
  if (tampering->how != TAMPER_ADD)
    return;
  for (unsigned i = 0; i <= tampering->with; i++)
    send_all (client, &tampering->with, 1);
  send_all (client, data + at, length - at);
}

/* Bytes both ways, as many as there are. */
static void
exchange (struct client *client)
{
  uint8_t data[16384];
  ssize_t length;

  while ((length = BIO_read (client->out, data, sizeof data)) > 0)
    pass_on (client, data, (size_t) length);
  world_turn ();
  while ((length = recv (client->fd, data, sizeof data, 0)) > 0)
    BIO_write (client->in, data, (int) length);
  client->is_open &= length == -1 && errno == EAGAIN;
}

static bool
shake_hands (struct client *client)
{
  for (unsigned turn = 0; turn < TURNS_MAX && client->is_open; turn++) {
    int result = SSL_connect (client->ssl);
    int error = SSL_get_error (client->ssl, result);

    exchange (client);
    if (result == 1)
      return true;
    if (error != SSL_ERROR_WANT_READ)
      return false;
    ERR_clear_error ();
  }
  return false;
}

/* Sends records; takes what comes. */
static void
talk (struct client *client, const struct output_bytes *bytes, struct input *pieces)
{
  uint8_t data[16384];
  size_t sent = 0, length;

  for (unsigned turn = 0; turn < TURNS_MAX && client->is_open && sent < bytes->length; turn++) {
    size_t piece = 1 + (size_t) input_take (pieces, 2);

    if (SSL_write_ex (client->ssl, bytes->data + sent, MIN (piece, bytes->length - sent), &length))
      sent += length;
    exchange (client);
    while (SSL_read_ex (client->ssl, data, sizeof data, &length))
      ;
  }
}

static void
put_option (struct output_bytes *bytes, uint32_t option, const void *data, uint32_t length)
{
  put_number (bytes, NBD_OPTION_MAGIC, 8);
  put_number (bytes, option, 4);
  put_number (bytes, length, 4);
  put (bytes, data, length);
}

/* What a client sends inside: mostly right. */
static void
put_session (struct output_bytes *bytes, struct input *input)
{
  static const uint8_t payload[32768];
  unsigned requests = input_pick (input, 8);

  if (input_pick (input, 4) == 1)
    put_option (bytes, NBD_OPT_STARTTLS, NULL, 0);
  put_option (bytes, NBD_OPT_GO, "\0\0\0\4disk\0\0", 10);
  for (unsigned i = 0; i < requests; i++) {
    unsigned command = input_pick (input, 2) ? NBD_CMD_WRITE : NBD_CMD_READ;
    uint32_t length = (uint32_t) input_take (input, 2) % sizeof payload;

    put_number (bytes, NBD_REQUEST_MAGIC, 4);
    put_number (bytes, command, 4);
    put_number (bytes, i, 8);
    put_number (bytes, input_take (input, 3), 8);
    put_number (bytes, length, 4);
    if (command == NBD_CMD_WRITE)
      put (bytes, payload, length);
  }
}

/* In the clear: options, STARTTLS, and what should not come before the answer to it. */
static void
put_beginning (struct output_bytes *bytes, struct input *input)
{
  uint8_t noise[64];
  unsigned before = input_pick (input, 4);

  put_number (bytes, 3, 4);
  if (before == 1)
    put_option (bytes, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
  else if (before == 2)
    put_option (bytes, NBD_OPT_LIST, NULL, 0);
  else if (before == 3)
    put (bytes, noise, input_bytes (input, noise, input_pick (input, sizeof noise)));
  put_option (bytes, NBD_OPT_STARTTLS, "data", input_pick (input, 16) == 1 ? 4 : 0);
  if (input_pick (input, 8) == 1)
    put_option (bytes, NBD_OPT_GO, "\0\0\0\4disk\0\0", 10);
  else if (input_pick (input, 8) == 1)
    put (bytes, noise, input_bytes (input, noise, input_pick (input, sizeof noise)));
}

/* Up to the acknowledgement of STARTTLS, the last answer: all that comes is thrown away. */
static void
begin (struct client *client, const struct output_bytes *bytes)
{
  uint8_t data[16384];

  send_all (client, bytes->data, bytes->length);
  for (unsigned turn = 0; turn < 8; turn++) {
    world_turn ();
    while (recv (client->fd, data, sizeof data, 0) > 0)
      ;
  }
}

static void
client_init (struct client *client, struct input *input)
{
  unsigned how = input_pick (input, 4);

  client->fd = world_connect ();
  fcntl (client->fd, F_SETFL, O_NONBLOCK);
  client->ssl = SSL_new (client_context);
  client->in = BIO_new (BIO_s_mem ());
  client->out = BIO_new (BIO_s_mem ());
  CHECK (client->ssl && client->in && client->out);
  SSL_set_bio (client->ssl, client->in, client->out);
  SSL_set_connect_state (client->ssl);
  if (how & 1)
    SSL_set_max_proto_version (client->ssl, TLS1_2_VERSION);
  if (how & 2)
    SSL_set_psk_client_callback (client->ssl, on_psk);
  client->sent = 0;
  client->is_open = true;
  client->tampering.how = input_pick (input, 4);
  client->tampering.at = input_take (input, 2) % 4096;
  client->tampering.with = (uint8_t) input_take (input, 1);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static struct output_bytes bytes;
  struct input input = { data, data + size };
  struct client client;

  start ();
  client_init (&client, &input);
  bytes.length = 0;
  put_beginning (&bytes, &input);
  begin (&client, &bytes);
  if (shake_hands (&client)) {
    bytes.length = 0;
    put_session (&bytes, &input);
    talk (&client, &bytes, &input);
    if (input_pick (&input, 2)) {
      SSL_shutdown (client.ssl);
      exchange (&client);
    }
  }
  close (client.fd);
  SSL_free (client.ssl);
  ERR_clear_error ();
  world_settle ();
  return 0;
}
