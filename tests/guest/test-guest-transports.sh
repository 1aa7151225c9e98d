#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The server and the kernel's client in one guest, by the ways that the other tests do not go; and the guest's kernel does the
# server's encryption (kTLS), which not every host's kernel can.

source "${top_srcdir:-.}/tests/functions.sh"
source "$top_srcdir/tests/guest/guest.sh"

"$top_srcdir/tests/make-certificates" "$tmp/certificates"
port=$(free_port)
guest_forward=",hostfwd=tcp:127.0.0.1:$port-:10809"
# As programs, they are in /sbin of the guest.
guest_start "$LACUNA" "$tmp/certificates"/server/{server-cert,server-key}.pem "$tmp/certificates"/server/keys.psk \
  "$tmp/certificates"/alice/{ca-cert,client-cert,client-key}.pem

guest "lacuna init /tmp/store && lacuna create /tmp/store disk 32M"
guest "lacuna serve /tmp/store -U /tmp/sock -i 0.0.0.0 -p 10809 --cache 80M --arena off --tls on \
  --tls-certificates /sbin --tls-verify-peer --tls-psk /sbin/keys.psk >/tmp/said 2>&1 & server=\$!; \
  until [ \$(grep -c ready: /tmp/said) = 2 ]; do kill -0 \$server || break; sleep 0.1; done; cat /tmp/said >&2; kill -0 \$server"
guest "dd if=/dev/urandom of=/tmp/data bs=64k count=32"

# round WAY ARGUMENTS...: what is written by this way is read by it, and again after it was attached anew.
round ()
{
  local way=$1 attach
  shift
  attach="nbd-client $* /dev/nbd0 -N disk"
  guest "$attach && blkdiscard /dev/nbd0 && dd if=/tmp/data of=/dev/nbd0 bs=64k oflag=direct && \
    blockdev --flushbufs /dev/nbd0 && cmp -n 2097152 /tmp/data /dev/nbd0 && nbd-client -d /dev/nbd0"
  guest "until $attach; do sleep 0.1; done; cmp -n 2097152 /tmp/data /dev/nbd0 && nbd-client -d /dev/nbd0"
  echo "nbd-client, $way: yes"
}

tls="-enable-tls -certfile /sbin/client-cert.pem -keyfile /sbin/client-key.pem -cacertfile /sbin/ca-cert.pem -tlshostname localhost"
round "Unix" -unix /tmp/sock
round "Unix, TLS" -unix /tmp/sock "$tls"

sent ()
{
  guest "awk '\$1 == \"TlsTxSw\" { print \$2 }' /proc/net/tls_stat"
  echo "$guest_output"
}

guest "test -e /proc/net/tls_stat && echo yes || echo no"
has_ktls=$guest_output
[ "$has_ktls" = no ] || before=$(sent)
round "TCP, TLS" 127.0.0.1 10809 "$tls"

# A client on the host takes new keys; where the kernel encrypts it cannot have one of the server's: the server ends it.
new_keys ()
{
  PYTHONPATH=$top_srcdir/tests /usr/bin/python3 -B - "$port" "$tmp/certificates/server/keys.psk" "$1" <<'END'
import sys
from tlswire import *
c = Wire(f"nbd://127.0.0.1:{sys.argv[1]}/disk")
assert c.result(STARTTLS) == ACK
c.socket = GnuTLS(c.socket, "alice", key_of(sys.argv[2], "alice"))
assert c.go()[-1][0] == ACK and c.write(0, b"first") == 0
for i in range(5):
    c.socket.new_key(False)
    assert c.write(0, bytes([i]) * 100000) == 0 and c.read(0, 100000) == bytes([i]) * 100000
if sys.argv[3] == "yes":
    c.socket.new_key(True)
    assert c.is_closed()
else:
    new_keys_beside_requests(c)
END
}
new_keys "$has_ktls"
guest "cat /tmp/said >&2; [ $has_ktls = no ] || grep -q 'it demands a new key' /tmp/said"
guest "kill \$server; wait \$server"
guest "lacuna check /tmp/store"
[ "$has_ktls" = yes ] || skip "the guest's kernel has no TLS (module tls); all else has passed"
after=$(sent)
[ "$after" -gt "$before" ] || fail "the kernel could have done the encryption of the server, and did not"
echo "kTLS: $((after - before)) connections"
