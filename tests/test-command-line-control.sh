# SPDX-License-Identifier: BSD-2-Clause
# The control socket: found by itself, survives a killed server, takes any input, and no client of it
# holds up another.

source "${top_srcdir:-.}/tests/functions.sh" || exit 1
requires_program "$LACUNA" /usr/bin/python3
requires /usr/bin/python3 -c 'import nbd'

# fragment COUNT: a disk `pieces` with so many extents, no data.
fragment ()
{
  "$LACUNA" create "$store" pieces $(($1 * 8192))
  /usr/bin/python3 - "$(uri pieces)" "$1" <<'END'
import nbd, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
pending = []
for i in range (int (sys.argv[2])):
    while h.aio_in_flight () > 64:
        h.poll (-1)
    pending.append (h.aio_zero (4096, i * 8192, flags=nbd.CMD_FLAG_NO_HOLE))
    pending = [cookie for cookie in pending if not h.aio_command_completed (cookie)]
while h.aio_in_flight ():
    h.poll (-1)
for cookie in pending:
    h.aio_command_completed (cookie)
h.shutdown ()
END
}

# The socket's place, as control.h says.
control_path ()
{
  local user directory
  user=$(id -u)
  if [ "$user" = 0 ]; then
    directory=/run/lacuna
  else
    directory=/run/user/$user/lacuna
  fi
  [ -d "$directory" ] || directory=/tmp/lacuna-$user
  printf '%s/file-%x-%x.sock' "$directory" $(stat -c '%d %i' "$store")
}

check_finding ()
{
  local path
  path=$(control_path)
  [ -S "$path" ] || fail "no socket at $path"
  [ "$(stat -c %a "$path")" = 600 ] || fail 'the socket has the wrong mode'
  [ "$(stat -c %a "${path%/*}")" = 700 ] || fail 'the directory has the wrong mode'
  # Any name of the file will do; another file does not.
  ln "$store" "$tmp/hard"
  ln -s "$store" "$tmp/soft"
  (cd "$tmp" && "$LACUNA" stat hard) | grep -q "^server: *process $server_pid$"
  "$LACUNA" stat "$tmp/soft" | grep -q "^server: *process $server_pid$"
  "$LACUNA" init "$tmp/another"
  "$LACUNA" stat "$tmp/another" | grep -q '^server: *none'
}

check_killed ()
{
  local path
  path=$(control_path)
  "$LACUNA" create "$store" survivor 1M
  kill_server
  [ -S "$path" ] || fail 'a killed server leaves its socket'
  "$LACUNA" list "$store" | grep -q '^survivor '
  "$LACUNA" stat "$store" | grep -q '^server: *none'
  # What was left for a store that is gone goes, too.
  /usr/bin/python3 -c 'import socket, sys; socket.socket (socket.AF_UNIX).bind (sys.argv[1])' "${path%/*}/file-0-0.sock"
  start_server
  "$LACUNA" stat "$store" | grep -q "^server: *process $server_pid$"
  [ ! -e "${path%/*}/file-0-0.sock" ] || fail 'a dead socket is left'
}

# Another user sees nothing and changes nothing.
check_other_user ()
{
  if [ "$(id -u)" != 0 ] || ! setpriv --reuid 65534 --clear-groups true 2>/dev/null; then
    echo 'not root: no other user'
    return
  fi
  chmod 755 "$tmp"
  fails 1 "^lacuna: $store: " setpriv --reuid 65534 --clear-groups "$LACUNA" list "$store"
  fails 1 "^lacuna: $store: " setpriv --reuid 65534 --clear-groups "$LACUNA" delete "$store" survivor
}

check_protocol ()
{
  /usr/bin/python3 - "$(control_path)" "$server_pid" "$LACUNA" "$store" <<'END'
import json, socket, subprocess, sys, time

path, pid, lacuna, store = sys.argv[1:]

class Client:
    def __init__ (self):
        self.socket = socket.socket (socket.AF_UNIX)
        self.socket.settimeout (30)
        self.socket.connect (path)
        self.file = self.socket.makefile ("rb")

    def send (self, data):
        if not isinstance (data, bytes):
            data = json.dumps (data).encode () + b"\n"
        self.socket.sendall (data)

    def answer (self):
        pieces = []
        while True:
            line = json.loads (self.file.readline ())
            if "piece" not in line:
                return line, pieces
            pieces.append (line["piece"])

    def ask (self, data):
        self.send (data)
        return self.answer ()[0]

def memory ():
    with open (f"/proc/{pid}/status") as file:
        return next (int (line.split ()[1]) for line in file if line.startswith ("VmRSS"))

# What is no request is answered, and the next one works.
client = Client ()
for bad in (b"\n", b"{\n", b"}\n", b"hello\n", b"{}{}\n", b"{} x\n", b"\x00\n", b'{"command": "list"}\x00\n',
            b"\xff\xfe\n", b"[" * 5000 + b"]" * 5000 + b"\n", b"1\n", b'"list"\n', b"null\n", b"[]\n", b"{}\n",
            b'{"command": 1}\n', b'{"command": "serve"}\n', b'{"command": "li\\u0000st"}\n',
            b'{"command": "create"}\n', b'{"command": "create", "disk": 1, "size": 4096}\n',
            b'{"command": "create", "disk": "x"}\n', b'{"command": "create", "disk": "x", "size": "4096"}\n',
            b'{"command": "create", "disk": "x", "size": -4096}\n',
            b'{"command": "create", "disk": "x", "size": 4096.0}\n',
            b'{"command": "create", "disk": "x", "size": 1e300}\n',
            b'{"command": "create", "disk": "x", "size": 99999999999999999999999999}\n',
            b'{"command": "create", "disk": "a\\u0000b", "size": 4096}\n',
            b'{"command": "create", "disk": "\\u0007", "size": 4096}\n',
            b'{"command": "create", "disk": "\xff", "size": 4096}\n',
            b'{"command": "create", "disk": "", "size": 4096}\n',
            b'{"command": "create", "disk": "' + b"x" * 256 + b'", "size": 4096}\n',
            b'{"command": "map", "disk": null}\n', b'{"command": "info", "disk": null}\n',
            b'{"command": "resize", "disk": "pieces", "size": 4096}\n',
            b'{"command": "resize", "disk": "pieces", "size": 4096, "relative": 7}\n',
            b'{"command": "resize", "disk": "pieces", "size": 4096, "relative": null}\n',
            b'{"command": "resize", "disk": "pieces", "size": 4096, "relative": "*"}\n',
            b'{"command": "punch", "disk": "pieces", "offset": 0}\n',
            b'{"command": "insert-range", "disk": "pieces", "offset": 0}\n',
            b'{"command": "insert-range", "disk": "pieces", "offset": 0, "length": 4096, "request_id": 7}\n',
            b'{"command": "collapse-range", "disk": "pieces", "offset": 0, "length": 4096, "request_id": null}\n',
            b'{"command": "rename", "disk": "pieces", "new_name": []}\n'):
    answer = client.ask (bad)
    assert "error" in answer, (bad, answer)
    assert "done" in client.ask ({"command": "info"}), bad
names = [disk["name"] for piece in [Client ()] for disk in
         (piece.send ({"command": "list"}), piece.answer ())[1][1][0]["disks"]]
assert "x" not in names, names

# White space around it, many at once, in small pieces, and after the sending side was shut down.
assert "done" in client.ask (b' \t{"command": "info"} \r\n')
client.send (b'{"command": "info"}\n' * 3000)
for i in range (3000):
    assert "done" in client.answer ()[0]
for byte in b'{"command": "info"}\n':
    client.send (bytes ([byte]))
assert "done" in client.answer ()[0]
client.send (b'{"command": "info"}\n' * 3)
client.socket.shutdown (socket.SHUT_WR)
for i in range (3):
    assert "done" in client.answer ()[0]
assert client.file.readline () == b""

# A line without end.
client = Client ()
try:
    client.send (b"x" * (1 << 20))
except BrokenPipeError:
    pass
assert "too long" in json.loads (client.file.readline ())["error"]
try:
    assert client.file.readline () == b""
except ConnectionResetError:
    pass

# The whole map: contiguous, complete.
client = Client ()
client.send ({"command": "map", "disk": "pieces"})
answer, pieces = client.answer ()
assert "done" in answer and len (pieces) > 10
at, before = 0, None
for extent in (extent for piece in pieces for extent in piece["extents"]):
    assert extent["offset"] == at and extent["type"] != before, extent
    at += extent["length"]
    before = extent["type"]
client.send ({"command": "info", "disk": "pieces"})
assert at == client.answer ()[0]["done"]["size"]

# Clients that ask and do not fetch: the server answers others, and keeps little for them.
before = memory ()
stalled = [Client () for i in range (30)]
for client in stalled:
    client.send ({"command": "map", "disk": "pieces"})
for i in range (5):
    start = time.monotonic ()
    subprocess.run ([lacuna, "list", store], check=True, stdout=subprocess.DEVNULL)
    assert time.monotonic () - start < 60
time.sleep (0.5)
growth = memory () - before
with open (f"/proc/{pid}/maps") as file:
    libraries = file.read ()
# Sanitizers keep what was freed.
is_sanitized = "libasan" in libraries or "libtsan" in libraries
assert is_sanitized or growth < 30 * 1500, f"{growth} KiB for 30 clients that do not fetch"
# Half of them go away, the others get all of it.
for client in stalled[::2]:
    client.file.close ()
    client.socket.close ()
for client in stalled[1::2]:
    assert client.answer ()[1] == pieces

# So many that the next has to wait, until one goes.
crowd = [Client () for i in range (80)]
late = crowd[-1]
late.send ({"command": "info"})
for client in crowd[:40]:
    client.file.close ()
    client.socket.close ()
assert "done" in late.answer ()[0]
END
}

# A change that is asked for while the server ends is done and answered, or refused; never half.
check_stop ()
{
  local i
  for i in $(seq 40); do
    "$LACUNA" create "$store" "late-$i" 1M 2>>"$tmp/late" && echo "late-$i" >>"$tmp/done" &
  done
  stop_server
  wait
  [ ! -e "$(control_path)" ] || fail 'the socket is left'
  "$LACUNA" list "$store" >"$tmp/list"
  for i in $(cat "$tmp/done" 2>/dev/null); do
    grep -q "^$i " "$tmp/list" || fail "$i was made, and is not there"
  done
}

"$LACUNA" init "$store"
start_server
check_finding
check_killed
check_other_user
fragment 20000
check_protocol
check_stop
"$LACUNA" check "$store"
