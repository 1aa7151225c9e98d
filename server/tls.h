/* SPDX-License-Identifier: BSD-2-Clause */
/* tls.h - what tls.c and transport-tls.c have between them; nobody else knows OpenSSL. */
#ifndef LACUNA_TLS_H
#define LACUNA_TLS_H

#include <openssl/ssl.h>

struct tls;

/* A new one, with the certificates and keys of this moment; NULL: no memory.  Any thread. */
SSL *tls_new (struct tls *tls);

/* A client has named USER, whose key we have; it still must show that it has it, too. */
void tls_set_user (SSL *ssl, const char *user);

/* What OpenSSL says was wrong first; also empties this thread's queue of errors. */
const char *tls_reason (void);

#endif
