#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The units under systemd, which is the guest's first process: the first client starts the server, which is confined as its
# unit says, is reloaded, found by the watchdog when it hangs, and ends in order; the kernel's client sees it all.

source "${top_srcdir:-.}/tests/functions.sh"
source "$top_srcdir/tests/guest/guest.sh"

watchdog=8                      # seconds, instead of the unit's
systemd=/lib/systemd/systemd

requires_program systemctl systemd-sysusers
[ -x $systemd ] || skip "needs systemd"
[ ! -e $systemd-executor ] || skip "this systemd is of more than one program"

# --- the guest's root: what systemd wants to find, and what is installed ---

umask 022
root=$tmp/root
units=$root/usr/lib/systemd/system
own=$root/etc/systemd/system
mkdir -p "$units" "$own"/{multi-user.target.wants,lacuna@x.service.d,lacuna@x.socket.d} "$root"/etc/lacuna \
  "$root"/usr/{bin,lib/sysusers.d} "$root"/{root,run} "$root"/var/lib "$root"/home/somebody
sed 's|@bindir@|/usr/bin|' "$top_srcdir/server/lacuna@.service.in" >"$units/lacuna@.service"
cp "$top_srcdir/server/lacuna@.socket" "$units"
cp "$top_srcdir/server/lacuna.sysusers" "$root/usr/lib/sysusers.d/lacuna.conf"
ln -s /sbin/lacuna "$root/usr/bin/lacuna"

for unit in basic multi-user network shutdown sockets sysinit; do
  cp "/lib/systemd/system/$unit.target" "$units"
done
ln -s /usr/lib/systemd/system/multi-user.target "$own/default.target"
printf '%s\n' '[Manager]' LogTarget=console DefaultStandardOutput=null >"$root/etc/systemd/system.conf"
printf '%s\n' '[Service]' "ExecStart=/bin/sh -c 'exec /init >/dev/console 2>&1'" >"$own/guest.service"
ln -s ../guest.service "$own/multi-user.target.wants"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
echo root:x:0:0::/root:/bin/sh >"$root/etc/passwd"
echo root:x:0: >"$root/etc/group"

# What is here only: leaks are looked for by ptrace, which is none of a server's calls.
cat >"$own/lacuna@x.service.d/test.conf" <<END
[Service]
WatchdogSec=$watchdog
StandardOutput=append:/run/said
Environment=ASAN_OPTIONS=detect_leaks=0
END
printf '%s\n' '[Socket]' ListenStream=127.0.0.1:10809 >"$own/lacuna@x.socket.d/test.conf"
printf '%s\n' STORE=/var/lib/lacuna/x.lacuna 'OPTIONS=--cache 80M --access /etc/lacuna/x.access' >"$root/etc/lacuna/x.conf"
echo 'write disk any' >"$root/etc/lacuna/x.access"
echo secret >"$root/home/somebody/file"

if command -v systemd-analyze >/dev/null; then
  mkdir "$tmp/judged"
  cp "$units/lacuna@.service" "$tmp/judged/lacuna@x.service"
  systemd-analyze security --offline=yes --no-pager "$tmp/judged/lacuna@x.service" 2>/dev/null | tail -n 1 ||
    echo "systemd-analyze cannot judge units that are not loaded"
fi

guest_start $systemd "$(command -v systemctl)" "$(command -v systemd-sysusers)" "$LACUNA" "$root"

# --- what the guest's steps have in common ---

guest "show () { systemctl show -P \$1 lacuna@x.service; }"
guest "wait_until () { t=0; until eval \"\$1\"; do t=\$((t + 1)); [ \$t -lt 400 ] || return 1; sleep 0.1; done; }"
guest "is_running () { [ \"\$(show ActiveState) \$(show SubState)\" = 'active running' ]; }"

# put N: the N-th MiB of data goes to the disk, and is not flushed; get N: the N-th MiB of the disk is that.
guest "dd if=/dev/urandom of=/tmp/data bs=1M count=3"
guest "put () { dd if=/tmp/data of=/dev/nbd0 bs=1M count=1 skip=\$1 seek=\$1 oflag=direct; }"
guest "get () { dd if=/tmp/data of=/tmp/1 bs=1M count=1 skip=\$1 && \
  dd if=/dev/nbd0 of=/tmp/2 bs=1M count=1 skip=\$1 iflag=direct && cmp /tmp/1 /tmp/2; }"

# --- from nothing to a client ---

guest "systemd-sysusers && user=\$(id -u lacuna) && [ \$user != 0 ]"
guest "mkdir -m 700 /var/lib/lacuna && chown lacuna:lacuna /var/lib/lacuna && su -s /bin/sh lacuna -c '\
  lacuna init /var/lib/lacuna/x.lacuna && lacuna create /var/lib/lacuna/x.lacuna disk 64M'"
guest "systemctl start lacuna@x.socket && [ \$(show ActiveState) = inactive ] && \
  nbd-client -unix /run/lacuna-x.sock /dev/nbd0 -N disk && wait_until is_running && pid=\$(show MainPID)"
guest "[ \$(grep -c ^ready: /run/said) = 2 ] && tr '\\000' '\\n' </proc/\$pid/environ >/tmp/environ && \
  grep -x LISTEN_FDS=2 /tmp/environ && grep -x LISTEN_FDNAMES=nbd:nbd /tmp/environ"
guest "wait_until '[ \"\$(show StatusText)\" = \"1 disks, 1 connections\" ]'"
guest "put 0 && blockdev --flushbufs /dev/nbd0 && get 0"
echo "socket: the first client starts the server"

# --- confined ---

# One of the filters is the server's own.
guest "cat /proc/\$pid/status >&2; cat /proc/\$pid/task/*/status | awk -v user=\$user '\
  /^Name:/ { threads++ } \
  /^[UG]id:/ && \$2 == user && \$3 == user && \$4 == user && \$5 == user { good++ } \
  /^Groups:/ && (NF == 1 || NF == 2 && \$2 == user) { good++ } \
  /^Cap/ && \$2 ~ /^0+\$/ { good++ } \
  /^NoNewPrivs:/ && \$2 == 1 { good++ } \
  /^Seccomp:/ && \$2 == 2 { good++ } \
  /^Seccomp_filters:/ && \$2 > 1 { good++ } \
  END { print threads, good; exit !(threads > 0 && good == 11 * threads) }'"
echo "confined: ${guest_output% *} threads"
guest "grep '^Max locked memory *unlimited *unlimited' /proc/\$pid/limits && \
  [ \$(awk '\$2 == \"(reception)\" { print \$19 }' /proc/\$pid/task/*/stat) = 10 ]"
# It would not be the mode of files that keeps it from them.
guest "inside () { nsenter -t \$pid -m \"\$@\"; }; \
  for at in /usr /etc; do touch \$at/new && ! inside touch \$at/newer || break; done 2>&1 | \
    grep -c 'Read-only file system'"
same "$guest_output" 2
guest "test -e /home/somebody/file && ! inside test -e /home/somebody/file && \
  [ \"\$(stat -c '%U %a' /var/lib/lacuna /dev/shm/lacuna-*.arena | tr '\\n' ' ')\" = 'lacuna 700 lacuna 600 ' ]"
guest "lacuna create /var/lib/lacuna/x.lacuna another 1M && lacuna stat /var/lib/lacuna/x.lacuna"

# --- reloaded ---

guest "entered=\$(show ActiveEnterTimestampMonotonic); echo 'read another any' >>/etc/lacuna/x.access"
guest "systemctl reload lacuna@x.service && wait_until 'grep -q \"x.access has been read again\" /run/said' && \
  wait_until is_running"
guest "[ \$(show MainPID) = \$pid ] && nbd-client -c /dev/nbd0 && get 0"
guest "wait_until '[ \"\$(show StatusText)\" = \"2 disks, 1 connections\" ]'"
echo "reload: the client stays"

# --- watched ---

guest "wait_until '[ \$(show WatchdogTimestampMonotonic) -gt \$((entered + $watchdog * 1000000)) ]' && \
  [ \$(show MainPID) = \$pid ] && [ \$(show NRestarts) = 0 ]"
guest "put 1 && kill -STOP \$pid && wait_until '[ \$(show NRestarts) = 1 ] && is_running' && [ \$(show MainPID) != \$pid ]"
grep -q "lacuna@x.service: Watchdog timeout" "$tmp/console" || fail "it was not the watchdog that has restarted the server"
guest "nbd-client -d /dev/nbd0; wait_until 'nbd-client 127.0.0.1 10809 /dev/nbd0 -N disk' && get 0 && get 1"
echo "watchdog: all is there after the restart"

# --- stopped ---

guest "put 2 && systemctl stop lacuna@x.service && \
  [ \"\$(show Result) \$(show ExecMainCode) \$(show ExecMainStatus) \$(show NRestarts)\" = 'success 1 0 1' ]"
guest "lacuna check /var/lib/lacuna/x.lacuna && ! ls -d /dev/shm/lacuna-* && ! ls -d /run/lacuna-x && ! ls -d /tmp/lacuna-*"
guest "nbd-client -d /dev/nbd0; wait_until 'nbd-client -unix /run/lacuna-x.sock /dev/nbd0 -N disk' && wait_until is_running && \
  get 0 && get 1 && get 2 && nbd-client -d /dev/nbd0"
guest "systemctl stop lacuna@x.socket lacuna@x.service && [ \$(show ActiveState) = inactive ]"
guest "cat /run/said >&2; ! grep -E 'ERROR: AddressSanitizer|runtime error:' /run/said"
echo "stop: in order; the next client starts it again"
