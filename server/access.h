/* SPDX-License-Identifier: BSD-2-Clause */
/* access.h - who may do what with which disk (`lacuna serve --access FILE`; lacuna-serve(1) has the
 * format of the file).
 *
 * A file is read whole, or not at all; what was read does not change any more, so that any thread
 * may ask it.
 */
#ifndef LACUNA_ACCESS_H
#define LACUNA_ACCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define IDENTITY_USER_MAX 128      /* bytes */

/* Each one contains those before. */
enum access_rights { ACCESS_NONE, ACCESS_READ, ACCESS_WRITE, ACCESS_RESIZE };

/* Who a client is, as far as it has shown. */
struct identity {
  bool is_tls;
  bool has_uid, has_address;
  uid_t uid;                       /* of the process at the other end of a Unix socket */
  uint8_t address[16];             /* IPv6; IPv4 is mapped into it */
  char user[IDENTITY_USER_MAX + 1];   /* whose pre-shared key it has; "": none */
  char *subject;                   /* of its certificate, as in RFC 2253; NULL: none */
  char **names;                    /* of it, too: "dns:...", "email:...", "uri:..." */
  unsigned name_count;
};

void identity_free (struct identity *identity);

struct access;

/* Reads the file; NULL after a message. */
struct access *access_read (const char *path);
/* The same of LENGTH bytes that are called PATH in messages. */
struct access *access_parse (const char *path, const char *text, size_t length);
void access_free (struct access *access);

/* Whether there are rules about certificates, or about keys: they need a server that asks for
 * them. */
bool access_has_certificates (const struct access *access);
bool access_has_keys (const struct access *access);

enum access_rights access_of (const struct access *access, const struct identity *identity,
                              const char *disk);

#endif
