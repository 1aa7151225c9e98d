/* SPDX-License-Identifier: BSD-2-Clause */
/* tls.c - certificates and keys, and their reload.
 *
 * All of it hangs on one SSL_CTX, which is replaced as a whole: a connection keeps the one that it
 * began with.  The files are those of nbdkit, qemu and nbd-client:
 *
 *   DIRECTORY/server-cert.pem, server-key.pem   who we are
 *   DIRECTORY/ca-cert.pem                       who may say who clients are (--tls-verify-peer)
 *   DIRECTORY/ca-crl.pem                        if it is there: whose word does not count any more
 *   FILE                                        lines of USER:HEXADECIMAL-KEY (--tls-psk)
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/log.h"
#include "server.h"
#include "tls.h"

#define PSK_KEY_MIN 16             /* bytes; less can be guessed */
#define PSK_KEY_MAX 64
#define PSK_LINE_MAX 1024
#define READ_BUFFER_BYTES (64 * 1024)

struct tls {
  const struct serve_options *options;
  pthread_mutex_t mutex;           /* leaf; protects: */
  SSL_CTX *context;
};

struct psk {
  char user[IDENTITY_USER_MAX + 1];
  uint8_t key[PSK_KEY_MAX];
  size_t length;
};

/* Belongs to an SSL_CTX. */
struct psk_table {
  struct psk *keys;
  size_t count;
};

static int table_index = -1;       /* of a psk_table in an SSL_CTX */

const char *
tls_reason (void)
{
  unsigned long error = ERR_peek_error ();
  const char *text = ERR_reason_error_string (error);

  ERR_clear_error ();
  return text ? text : "unknown reason";
}

/* --- pre-shared keys --- */

static void
table_free (void *parent, void *pointer, CRYPTO_EX_DATA *data, int index, long number,
            void *argument)
{
  struct psk_table *table = pointer;

  (void) parent;
  (void) data;
  (void) index;
  (void) number;
  (void) argument;
  if (!table)
    return;
  if (table->keys)
    OPENSSL_cleanse (table->keys, table->count * sizeof *table->keys);
  free (table->keys);
  free (table);
}

static int
hex_digit (char c)
{
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* USER:KEY; false with *WHY. */
static bool
parse_psk (const char *line, struct psk *psk, const char **why)
{
  const char *colon = strchr (line, ':');
  size_t user = colon ? (size_t) (colon - line) : 0, digits = colon ? strlen (colon + 1) : 0;

  *why = "not USER:KEY, with a key in hexadecimal";
  if (user == 0 || digits % 2 != 0)
    return false;
  *why = "the user's name is longer than 128 bytes";
  if (user > IDENTITY_USER_MAX)
    return false;
  *why = "a key has 16 to 64 bytes, each two hexadecimal digits";
  if (digits < 2 * PSK_KEY_MIN || digits > 2 * PSK_KEY_MAX)
    return false;
  memcpy (psk->user, line, user);
  psk->user[user] = '\0';
  psk->length = digits / 2;
  for (size_t i = 0; i < psk->length; i++) {
    int high = hex_digit (colon[1 + 2 * i]), low = hex_digit (colon[2 + 2 * i]);

    if (high < 0 || low < 0)
      return false;
    psk->key[i] = (uint8_t) (high << 4 | low);
  }
  return true;
}

static const struct psk *
find_psk (const struct psk_table *table, const char *user)
{
  for (size_t i = 0; i < table->count; i++)
    if (strcmp (table->keys[i].user, user) == 0)
      return &table->keys[i];
  return NULL;
}

/* One line of the file; empty ones and comments are none.  False after a message. */
static bool
add_psk (struct psk_table *table, const char *path, unsigned number, char *line)
{
  struct psk psk = { .length = 0 }, *keys;
  const char *why;

  line[strcspn (line, "\r\n")] = '\0';
  if (*line == '\0' || *line == '#')
    return true;
  if (!parse_psk (line, &psk, &why)) {
    log_error ("%s: line %u: %s", path, number, why);
    return false;
  }
  if (find_psk (table, psk.user)) {
    log_error ("%s: line %u: the user has a key already", path, number);
    return false;
  }
  keys = realloc (table->keys, (table->count + 1) * sizeof *keys);
  if (!keys) {
    log_error ("%s: %s", path, strerror (ENOMEM));
    return false;
  }
  keys[table->count++] = psk;
  table->keys = keys;
  return true;
}

/* Others must not read keys. */
static void
warn_of_mode (const char *path, FILE *file)
{
  struct stat status;

  if (fstat (fileno (file), &status) == 0 && S_ISREG (status.st_mode)
      && status.st_mode & S_IROTH)
    log_warning ("%s: all users of this host can read the keys", path);
}

static bool
read_psk_file (struct psk_table *table, const char *path)
{
  FILE *file = fopen (path, "re");
  char line[PSK_LINE_MAX];
  bool is_good = true;

  if (!file) {
    log_error ("%s: %s", path, strerror (errno));
    return false;
  }
  warn_of_mode (path, file);
  for (unsigned number = 1; is_good && fgets (line, sizeof line, file); number++)
    is_good = add_psk (table, path, number, line);
  if (is_good && table->count == 0) {
    log_error ("%s: there is no key in it", path);
    is_good = false;
  }
  fclose (file);
  OPENSSL_cleanse (line, sizeof line);
  return is_good;
}

/* OpenSSL asks for the key of a user. */
static unsigned
on_psk (SSL *ssl, const char *identity, unsigned char *key, unsigned max)
{
  const struct psk_table *table = SSL_CTX_get_ex_data (SSL_get_SSL_CTX (ssl), table_index);
  const struct psk *psk = table ? find_psk (table, identity) : NULL;

  if (!psk || psk->length > max)
    return 0;
  memcpy (key, psk->key, psk->length);
  tls_set_user (ssl, psk->user);
  return (unsigned) psk->length;
}

/* A key goes with the hash SHA-256: its suites come first, or clients that have a key and no
 * certificate would be asked for one where we have both. */
static bool
load_psk (SSL_CTX *context, const char *path)
{
  static const char suites[]
    = "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384";
  struct psk_table *table = calloc (1, sizeof *table);

  if (!table || !SSL_CTX_set_ex_data (context, table_index, table)) {
    free (table);
    log_error ("%s: %s", path, strerror (ENOMEM));
    return false;
  }
  SSL_CTX_set_ciphersuites (context, suites);
  SSL_CTX_set_psk_server_callback (context, on_psk);
  return read_psk_file (table, path);
}

/* --- certificates --- */

/* A key that is encrypted is not asked a password for: nobody may be there, and all would wait. */
static int
on_password (char *password, int size, int is_writing, void *argument)
{
  bool *is_encrypted = argument;

  (void) password;
  (void) size;
  (void) is_writing;
  *is_encrypted = true;
  return -1;
}

/* Why OpenSSL did not take a file. */
static const char *
file_reason (const char *path)
{
  const char *reason = tls_reason ();

  return access (path, R_OK) == -1 ? strerror (errno) : reason;
}

/* The path of NAME in DIRECTORY; PATH itself, for use in an expression. */
static const char *
path_in (const char *directory, const char *name, char path[4096])
{
  snprintf (path, 4096, "%s/%s", directory, name);
  return path;
}

/* False after a message. */
static bool
load_key (SSL_CTX *context, const char *path)
{
  bool is_encrypted = false, is_loaded;
  const char *reason;

  SSL_CTX_set_default_passwd_cb (context, on_password);
  SSL_CTX_set_default_passwd_cb_userdata (context, &is_encrypted);
  is_loaded = SSL_CTX_use_PrivateKey_file (context, path, SSL_FILETYPE_PEM) == 1;
  SSL_CTX_set_default_passwd_cb (context, NULL);
  SSL_CTX_set_default_passwd_cb_userdata (context, NULL);
  if (is_loaded)
    return true;
  reason = file_reason (path);
  log_error ("%s: %s", path, is_encrypted ? "it is encrypted: decrypt it (openssl pkey), and let its"
             " mode protect it" : reason);
  return false;
}

static bool
load_own (SSL_CTX *context, const char *directory)
{
  char path[4096];

  if (SSL_CTX_use_certificate_chain_file (context, path_in (directory, "server-cert.pem", path))
      != 1) {
    log_error ("%s: %s", path, file_reason (path));
    return false;
  }
  if (!load_key (context, path_in (directory, "server-key.pem", path)))
    return false;
  if (SSL_CTX_check_private_key (context) != 1) {
    log_error ("%s: not the key of server-cert.pem", path);
    return false;
  }
  return true;
}

/* Whom we believe about clients. */
static bool
load_authorities (SSL_CTX *context, const char *directory)
{
  X509_STORE *store = SSL_CTX_get_cert_store (context);
  char path[4096];

  path_in (directory, "ca-cert.pem", path);
  if (SSL_CTX_load_verify_file (context, path) != 1) {
    log_error ("%s: %s", path, file_reason (path));
    return false;
  }
  SSL_CTX_set_client_CA_list (context, SSL_load_client_CA_file (path));
  path_in (directory, "ca-crl.pem", path);
  if (access (path, F_OK) == -1 && errno == ENOENT)
    return true;
  if (X509_STORE_load_file (store, path) != 1) {
    log_error ("%s: %s", path, file_reason (path));
    return false;
  }
  X509_STORE_set_flags (store, X509_V_FLAG_CRL_CHECK);
  return true;
}

static bool
load_certificates (SSL_CTX *context, const struct serve_options *options)
{
  if (!load_own (context, options->tls_certificates))
    return false;
  if (!options->tls_verify_peer)
    return true;
  SSL_CTX_set_verify (context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
  return load_authorities (context, options->tls_certificates);
}

/* --- the whole --- */

static SSL_CTX *
load_context (const struct serve_options *options)
{
  SSL_CTX *context = SSL_CTX_new (TLS_server_method ());

  if (!context) {
    log_error ("TLS: %s", tls_reason ());
    return NULL;
  }
  SSL_CTX_set_min_proto_version (context, TLS1_2_VERSION);
  /* What was decided about a client holds for its connection alone: nothing is resumed. */
  SSL_CTX_set_options (context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION
                                | SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_ENABLE_KTLS
                                | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_session_cache_mode (context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets (context, 0);
  /* To OpenSSL a pre-shared key is a session, too. */
  SSL_CTX_set_session_id_context (context, (const unsigned char *) "lacuna", 6);
  SSL_CTX_set_dh_auto (context, 1);
  SSL_CTX_set_mode (context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
                             | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead (context, 1);
  SSL_CTX_set_default_read_buffer_len (context, READ_BUFFER_BYTES);
  if ((options->tls_certificates && !load_certificates (context, options))
      || (options->tls_psk && !load_psk (context, options->tls_psk))) {
    SSL_CTX_free (context);
    return NULL;
  }
  return context;
}

struct tls *
tls_open (const struct serve_options *options)
{
  struct tls *tls = calloc (1, sizeof *tls);

  if (!tls) {
    log_error ("%s", strerror (ENOMEM));
    return NULL;
  }
  if (table_index == -1)
    table_index = SSL_CTX_get_ex_new_index (0, NULL, NULL, NULL, table_free);
  tls->options = options;
  tls->context = load_context (options);
  if (!tls->context) {
    free (tls);
    return NULL;
  }
  pthread_mutex_init (&tls->mutex, NULL);
  return tls;
}

bool
tls_reload (struct tls *tls)
{
  SSL_CTX *context = load_context (tls->options), *old;

  if (!context)
    return false;
  pthread_mutex_lock (&tls->mutex);
  old = tls->context;
  tls->context = context;
  pthread_mutex_unlock (&tls->mutex);
  SSL_CTX_free (old);
  return true;
}

void
tls_close (struct tls *tls)
{
  if (!tls)
    return;
  SSL_CTX_free (tls->context);
  pthread_mutex_destroy (&tls->mutex);
  free (tls);
}

SSL *
tls_new (struct tls *tls)
{
  SSL *ssl;

  pthread_mutex_lock (&tls->mutex);
  ssl = SSL_new (tls->context);
  pthread_mutex_unlock (&tls->mutex);
  return ssl;
}
