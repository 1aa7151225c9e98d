/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz-access.c - files of rules: words that mean something, and what else there is. */
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "../../server/access.h"
#include "fuzz.h"

static const char *const words[] = {
  "read", "write", "resize", " ", "\n", "disk", "vm-*", "\"", "\\", "#", "+", "any", "tls",
  "psk:alice", "dn:", "CN=alice,O=x", "dns:a", "email:a@b", "uri:u", "uid:0", "uid:", "net:",
  "192.0.2.1", "::1", "/", "24", "0", "129",
  "\t", "*", "read disk any\n", "write * psk:alice+net:192.0.2.0/24 uid:0\n",
};

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static struct output_bytes text;
  static char *names[] = { (char *) "dns:a", (char *) "uri:u" };
  const struct identity identity = {
    .is_tls = true, .has_uid = true, .has_address = true, .address = { [15] = 1 }, .user = "alice",
    .subject = (char *) "CN=alice,O=x", .names = names, .name_count = ARRAY_COUNT (names),
  };
  struct input input = { data, data + size };
  struct access *access;

  log_set_sink (log_nowhere);
  text.length = 0;
  while (input.at < input.end) {
    unsigned word = (unsigned) input_take (&input, 1);

    if (word < 3 * ARRAY_COUNT (words))
      put (&text, words[word % ARRAY_COUNT (words)], strlen (words[word % ARRAY_COUNT (words)]));
    else
      put_number (&text, word, 1);
  }
  access = access_parse ("rules", (const char *) text.data, text.length);
  if (access) {
    access_of (access, &identity, "disk");
    access_of (access, &identity, "vm-1");
    access_has_certificates (access);
    access_has_keys (access);
    access_free (access);
  }
  return 0;
}
