#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The host of a TCP client is gone, with no word of it: the server gives up its connections, with all that they hold, makes durable
what they wrote, and others get their places.

The client's host is a network namespace, joined to the server's by a pair of veth; it vanishes when its address is taken away: what
comes for it is dropped then, and it says nothing more.  The two minutes that the server waits are what its sockets are looked at
for; then they are made two seconds, on the server's own sockets, from outside (LACUNA_LONG: they stay as they are)."""

import ctypes
import json
import os
import resource
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time

from harness import LONG, MIB, SKIP, Server, lacuna, run_tests, tmp
from wire import *

CLONE_NEWNET = 0x40000000
SYS_PIDFD_GETFD = 438
SERVER, CLIENT = "198.51.100.1", "198.51.100.2"
MAC = "02:00:00:00:00:02"
SIZE = 64 * MIB
MORE_FILES = 16            # than it has open may the server open
libc = ctypes.CDLL(None, use_errno=True)


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIP)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


class Host:
    """A network namespace; what is made in `with host:' belongs to it."""

    def __init__(self):
        parent, child = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(parent)
            libc.prctl(1, signal.SIGKILL)
            os.write(child, b"+" if libc.unshare(CLONE_NEWNET) == 0 else b"-")
            while True:
                signal.pause()
        os.close(child)
        self.is_there = os.read(parent, 1) == b"+"
        os.close(parent)

    def __enter__(self):
        self.own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self.enter(f"/proc/{self.pid}/ns/net")

    def __exit__(self, *_):
        assert libc.setns(self.own, CLONE_NEWNET) == 0
        os.close(self.own)

    def enter(self, path):
        fd = os.open(path, os.O_RDONLY)
        assert libc.setns(fd, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(fd)


if os.getuid() != 0 or libc.unshare(CLONE_NEWNET) != 0:
    skip("needs root, to make network namespaces")
host = Host()
if not host.is_there or subprocess.run(["ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "address", MAC, "netns",
                                        str(host.pid)], stderr=subprocess.DEVNULL).returncode != 0:
    skip("needs a kernel with veth")
ip("link", "set", "lo", "up")
ip("address", "add", SERVER + "/24", "dev", "near")
ip("link", "set", "near", "up")
# As behind a router: that nobody is there any more cannot be seen from the link.
ip("neighbour", "replace", CLIENT, "lladdr", MAC, "dev", "near", "nud", "permanent")
with host:
    ip("address", "add", CLIENT + "/24", "dev", "far")
    ip("link", "set", "far", "up")


certificates = os.path.join(tmp, "certificates")
subprocess.run([os.path.join(os.path.dirname(os.path.abspath(__file__)), "make-certificates"), certificates], check=True)
server = Server({"disk": SIZE}, "-i", SERVER, "-p", "0", "--threads", "2", "--tls", "on", "--tls-certificates", certificates + "/server")
server.arena = "off"
server.start()
uri = next(line.split()[1] for line in open(server.errors) if SERVER in line) + "/disk"


def client(flags=3):
    with host:
        return Wire(uri, flags)


def sockets():
    """The server's own, of the connections with the other host."""
    pidfd = os.pidfd_open(server.pid)
    for name in os.listdir(f"/proc/{server.pid}/fd"):
        fd = libc.syscall(SYS_PIDFD_GETFD, pidfd, int(name), 0)
        if fd < 0:
            continue
        try:
            own = socket.socket(fileno=fd)
        except OSError:
            os.close(fd)
            continue
        try:
            if own.family == socket.AF_INET and own.getpeername()[0] == CLIENT:
                yield own
        except OSError:
            pass
        own.close()
    os.close(pidfd)


def judge_sockets():
    """Who is silent is asked after a minute, and three more times, fifteen seconds apart; who should have acknowledged something
    is given up after two minutes, too."""
    count = 0
    for own in sockets():
        count += 1
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        for option, value, soon in ((socket.TCP_KEEPIDLE, 60, 1), (socket.TCP_KEEPINTVL, 15, 1), (socket.TCP_KEEPCNT, 4, 1),
                                    (socket.TCP_USER_TIMEOUT, 120000, 2000)):
            assert own.getsockopt(socket.IPPROTO_TCP, option) == value
            if not LONG:
                own.setsockopt(socket.IPPROTO_TCP, option, soon)
    return count


def in_flight():
    return json.loads(lacuna("stat", server.path, "--json"))["counters"]["cache_in_flight_frames"]


def connections():
    return json.loads(lacuna("stat", server.path, "--json"))["counters"]["server_connections"]


def wait_until(condition, what):
    deadline = time.monotonic() + (300 if LONG else 60)
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_all():
    writer, encrypted, half, reader = (client() for _ in range(4))
    encrypted.starttls(ssl.create_default_context(cafile=certificates + "/ca-cert.pem"))
    for c in (writer, encrypted, half, reader):
        assert c.go()[-1][0] == ACK
    assert writer.write(0, b"w" * MIB) == 0 and encrypted.write(MIB, b"e" * MIB) == 0
    half.request(WRITE, 2 * MIB, MIB, payload=b"h" * 100000)
    reader.put(b"".join(request(READ, 0, MIB, cookie=i) for i in range(100)))
    wait_until(lambda: in_flight() > MIB // 4096, "neither the payload nor the replies hold anything")
    # The others are only silent; and there are so many that nobody else can come in.
    files = len(os.listdir(f"/proc/{server.pid}/fd")) + MORE_FILES
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (files, files))
    silent = [client() for _ in range(MORE_FILES)]
    for c in silent:
        assert c.go()[-1][0] == ACK
    waiting = Wire(f"nbd+unix:///disk?socket={server.sock}", None)
    wait_until(lambda: server.sock + ": clients have to wait" in open(server.errors).read(), "everybody gets in")
    assert judge_sockets() == 4 + len(silent)
    vanished_at = time.monotonic()
    with host:
        ip("address", "flush", "dev", "far")
    waiting.socket.settimeout(300 if LONG else 60)
    waiting.get(18)
    # Said once until somebody gets in, and once more if nobody else could.
    assert open(server.errors).read().count(server.sock + ": clients have to wait") <= 2
    waiting.put(struct.pack(">I", 3))
    assert waiting.go()[-1][0] == ACK
    taken = time.monotonic() - vanished_at
    assert not LONG or 100 < taken < 180, taken
    assert waiting.read(0, MIB) == b"w" * MIB and waiting.read(MIB, MIB) == b"e" * MIB
    wait_until(lambda: connections() == 1, "some of the vanished host's connections are still there")
    assert in_flight() == 0 and next(sockets(), None) is None
    # It sent no FLUSH.
    server.kill()
    server.start()
    c = Wire(f"nbd+unix:///disk?socket={server.sock}")
    assert c.go()[-1][0] == ACK
    assert c.read(0, 3 * MIB) == b"w" * MIB + b"e" * MIB + bytes(MIB)
    server.stop()


try:
    run_tests(globals())
finally:
    os.kill(host.pid, signal.SIGKILL)
    os.waitpid(host.pid, 0)
