/* SPDX-License-Identifier: BSD-2-Clause */
/* test-access.c - files of rules, right and wrong; and who gets what by them. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "access.h"

static char last_message[1024];

static void
on_message (enum log_level level, const char *message)
{
  (void) level;
  snprintf (last_message, sizeof last_message, "%s", message);
}

static enum access_rights
ask (const char *text, const struct identity *identity, const char *disk)
{
  struct access *access = access_parse ("rules", text, strlen (text));
  enum access_rights rights;

  if (!access)
    fail_msg ("`%s' was not read: %s", text, last_message);
  rights = access_of (access, identity, disk);
  access_free (access);
  return rights;
}

static void
test_wrong (void **state)
{
  static const struct { const char *text, *message; } wrong[] = {
    { "write", "line 1: which disk?" },
    { "write disk", "line 1: who may do that?" },
    { "write disk # any", "line 1: who may do that?" },
    { "\n\nadmin disk any", "line 3: admin is no right" },
    { "write d*sk any", "at its end" },
    { "write ** any", "at its end" },
    { "write \"disk any", "not closed" },
    { "write \"\" any", "missing" },
    { "write disk everybody", "is nobody" },
    { "write disk psk:", "is nobody" },
    { "write disk ps:alice", "is nobody" },
    { "write disk psk:alice+", "missing" },
    { "write disk psk:alice +net:::1", "missing" },
    { "write disk uid:no-such-user-here", "no such user" },
    { "write disk uid:-1", "no such user" },
    { "write disk uid:4294967295", "no such user" },
    { "write disk net:localhost", "no address" },
    { "write disk net:192.0.2", "no address" },
    { "write disk net:192.0.2.1/33", "how many" },
    { "write disk net:192.0.2.0/", "how many" },
    { "write disk net:192.0.2.0/24x", "how many" },
    { "write disk net:192.0.2.0/-1", "how many" },
    { "write disk net:192.0.2.1/24", "behind those that count" },
    { "write disk net:2001:db8::/129", "how many" },
    { "write disk net:2001:db8::1/64", "behind those that count" },
    { "write disk any\n\xff", "UTF-8" },
  };

  (void) state;
  for (size_t i = 0; i < ARRAY_COUNT (wrong); i++) {
    struct access *access = access_parse ("rules", wrong[i].text, strlen (wrong[i].text));

    if (access || !strstr (last_message, wrong[i].message))
      fail_msg ("`%s': %s", wrong[i].text, access ? "was read" : last_message);
  }
  assert_null (access_parse ("rules", "write disk any\0", 15));
}

static void
test_disks (void **state)
{
  static const char text[]
    = "# who may do what\r\n"
      "\n"
      "  read   vm-*           any\r\n"
      "write\tvm-1             any # more\n"
      "resize \"vm 2\"  any\n"
      "write  \"lit*\"          any\n"
      "write  say\\\"\\\\\"         any\n"
      "resize vm-1x            psk:alice";
  const struct identity nobody = { 0 };

  (void) state;
  assert_int_equal (ask (text, &nobody, "vm-"), ACCESS_READ);
  assert_int_equal (ask (text, &nobody, "vm-9"), ACCESS_READ);
  assert_int_equal (ask (text, &nobody, "vm-1"), ACCESS_WRITE);
  assert_int_equal (ask (text, &nobody, "vm-1x"), ACCESS_READ);
  assert_int_equal (ask (text, &nobody, "vm 2"), ACCESS_RESIZE);
  assert_int_equal (ask (text, &nobody, "vm"), ACCESS_NONE);
  assert_int_equal (ask (text, &nobody, "lit*"), ACCESS_WRITE);
  assert_int_equal (ask (text, &nobody, "literal"), ACCESS_NONE);
  assert_int_equal (ask ("read * any", &nobody, "anything"), ACCESS_READ);
  assert_int_equal (ask ("", &nobody, "anything"), ACCESS_NONE);
}

static void
set_address (struct identity *identity, const char *text)
{
  char mapped[64];

  snprintf (mapped, sizeof mapped, "%s%s", strchr (text, ':') ? "" : "::ffff:", text);
  assert_int_equal (inet_pton (AF_INET6, mapped, identity->address), 1);
  identity->has_address = true;
}

/* The table that would have caught CVE-2013-6410. */
static void
test_addresses (void **state)
{
  static const struct { const char *net, *address; bool is_in; } table[] = {
    { "192.0.2.7", "192.0.2.7", true },         { "192.0.2.7", "192.0.2.8", false },
    { "192.0.2.7/32", "192.0.2.7", true },      { "192.0.2.7/32", "192.0.2.6", false },
    { "192.0.2.0/24", "192.0.2.0", true },      { "192.0.2.0/24", "192.0.2.255", true },
    { "192.0.2.0/24", "192.0.3.0", false },     { "192.0.2.0/24", "192.0.1.255", false },
    { "192.0.2.0/25", "192.0.2.127", true },    { "192.0.2.0/25", "192.0.2.128", false },
    { "192.0.2.128/25", "192.0.2.128", true },  { "192.0.2.128/25", "192.0.2.127", false },
    { "10.0.0.0/8", "10.255.255.255", true },   { "10.0.0.0/8", "11.0.0.0", false },
    { "128.0.0.0/1", "128.0.0.0", true },       { "128.0.0.0/1", "127.255.255.255", false },
    { "0.0.0.0/0", "255.255.255.255", true },   { "0.0.0.0/0", "2001:db8::1", false },
    { "::/0", "192.0.2.7", true },              { "::/0", "2001:db8::1", true },
    { "2001:db8::/32", "2001:db8:ffff::1", true }, { "2001:db8::/32", "2001:db9::", false },
    { "2001:db8::/33", "2001:db8:7fff::", true },  { "2001:db8::/33", "2001:db8:8000::", false },
    { "::1", "::1", true },                     { "::1", "0.0.0.1", false },
    { "::ffff:192.0.2.7", "192.0.2.7", true },  { "::ffff:192.0.2.0/120", "192.0.2.9", true },
    { "::192.0.2.7", "192.0.2.7", false },
  };

  (void) state;
  for (size_t i = 0; i < ARRAY_COUNT (table); i++) {
    struct identity identity = { 0 };
    char text[128];

    snprintf (text, sizeof text, "write disk net:%s", table[i].net);
    assert_int_equal (ask (text, &identity, "disk"), ACCESS_NONE);
    set_address (&identity, table[i].address);
    if (ask (text, &identity, "disk") != (table[i].is_in ? ACCESS_WRITE : ACCESS_NONE))
      fail_msg ("%s, %s", table[i].net, table[i].address);
  }
}

static void
test_identities (void **state)
{
  char *names[] = { (char *) "dns:Alice.example", (char *) "email:alice@x.example",
                    (char *) "uri:urn:x" };
  struct identity alice = {
    .is_tls = true, .has_uid = true, .uid = 1000, .user = "alice",
    .subject = (char *) "CN=alice + 1,O=Lacuna", .names = names, .name_count = ARRAY_COUNT (names),
  };
  const struct identity nobody = { 0 };
  static const char *const yes[] = {
    "any", "tls", "psk:alice", "uid:1000", "dns:alice.EXAMPLE", "email:alice@x.example",
    "uri:urn:x", "\"dn:CN=alice + 1,O=Lacuna\"", "dn:\"CN=alice + 1,O=Lacuna\"",
    "psk:bob uid:1000", "psk:bob+tls uid:1000+psk:alice+tls", "psk:bob+uid:1000 tls",
  };
  static const char *const no[] = {
    "psk:Alice", "psk:alic", "psk:alice1", "uid:0", "dns:example", "dns:x.alice.example",
    "email:ALICE@x.example", "dn:CN=alice", "net:0.0.0.0/0", "net:::/0", "psk:alice+uid:1",
    "uid:1+psk:alice uid:2+tls", "psk:alice+net:::/0", "dns:email:alice@x.example",
  };
  char text[256];

  (void) state;
  for (size_t i = 0; i < ARRAY_COUNT (yes); i++) {
    snprintf (text, sizeof text, "write disk %s", yes[i]);
    if (ask (text, &alice, "disk") != ACCESS_WRITE)
      fail_msg ("not alice: %s", yes[i]);
    if (ask (text, &nobody, "disk") != (i == 0 ? ACCESS_WRITE : ACCESS_NONE))
      fail_msg ("nobody: %s", yes[i]);
  }
  for (size_t i = 0; i < ARRAY_COUNT (no); i++) {
    snprintf (text, sizeof text, "write disk %s", no[i]);
    if (ask (text, &alice, "disk") != ACCESS_NONE)
      fail_msg ("alice: %s", no[i]);
  }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_wrong),
    cmocka_unit_test (test_disks),
    cmocka_unit_test (test_addresses),
    cmocka_unit_test (test_identities),
  };

  log_set_sink (on_message);
  return cmocka_run_group_tests (tests, NULL, NULL);
}
