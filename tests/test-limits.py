#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a client may cost, before and after it has chosen a disk: time, connections, options, bytes."""

import json
import os
import socket
import ssl
import struct
import subprocess
import threading
import time

from harness import LONG, MIB, Server, lacuna, run_tests, tmp
from wire import *

HANDSHAKE_SECONDS = 10
PER_PEER = 32
SIZE = 64 * MIB

certificates = os.path.join(tmp, "certificates")
subprocess.run([os.path.join(os.path.dirname(os.path.abspath(__file__)), "make-certificates"), certificates], check=True)
server = Server({"disk": SIZE}, "-i", "127.0.0.1", "-p", "0", "--tls", "on", "--tls-certificates",
                certificates + "/server", *(["--user", "root"] if os.getuid() == 0 else [])).start()
local = f"nbd+unix:///disk?socket={server.sock}"
tcp = next(line.split()[1] for line in open(server.errors) if "127.0.0.1" in line) + "/disk"


def test_is_confined():
    assert server.status("Seccomp") == 2 and server.status("NoNewPrivs") == 1
    if os.getuid() != 0:
        return
    own = Server({"disk": MIB})
    os.chmod(tmp, 0o777)
    os.chmod(os.path.dirname(own.arena), 0o777)
    os.chown(own.path, 65534, 65534)
    assert own.start("--user", "nobody").status("Uid") == 65534
    c = Wire(f"nbd+unix:///disk?socket={own.sock}")
    assert c.go()[-1][0] == ACK and c.write(0, b"nobody") == 0
    lacuna("resize", own.path, "disk", "2M")
    own.stop()


def test_handshake_deadline():
    """However it is spent: in silence, in the middle of an option, in TLS, or byte by byte."""
    def seconds(start):
        began = time.monotonic()
        c = Wire(local)
        start(c)
        c.is_closed()
        taken[start.__name__] = time.monotonic() - began

    def silence(c):
        pass

    def half_an_option(c):
        c.put(struct.pack(">QI", OPTION_MAGIC, GO))

    def data_missing(c):
        c.put_option(GO, b"few", length=1000)

    def tls_silence(c):
        assert c.result(STARTTLS) == ACK

    def tls_hello_missing(c):
        assert c.result(STARTTLS) == ACK
        c.put(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")

    def after_tls(c):
        c.starttls(ssl.create_default_context(cafile=certificates + "/ca-cert.pem"))

    def drip(c):
        try:
            for i in range(600):
                c.put(struct.pack(">QII", OPTION_MAGIC, 99, 400)[i:i + 1] or b"x")
                time.sleep(0.1)
        except ConnectionError:
            pass

    def no_answers(c):
        """Leaves in order, but takes no answers: neither those to the options, nor the last one."""
        leaving = []
        for count in range(16, 48):
            d = Wire(f"nbd+unix:///x?socket={names.sock}")
            d.put(struct.pack(">QII", OPTION_MAGIC, LIST, 0) * count + struct.pack(">QII", OPTION_MAGIC, ABORT, 0))
            leaving.append(d)
        deadline = time.monotonic() + 60
        while json.loads(lacuna("stat", names.path, "--json"))["counters"]["server_connections"] > 0:
            assert time.monotonic() < deadline, "they are still there"
            time.sleep(0.1)

    def options(c):
        try:
            for i in range(60):
                c.option(LIST)
                time.sleep(1)
        except (Closed, ConnectionError):
            pass

    names = Server({f"{i:02}" * 127: MIB for i in range(55)}, "--threads", "1").start()
    taken = {}
    threads = [threading.Thread(target=seconds, args=(start,)) for start in
               (silence, half_an_option, data_missing, tls_silence, tls_hello_missing, after_tls, drip, options, no_answers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(threads), taken
    names.stop()
    for name, time_taken in taken.items():
        assert HANDSHAKE_SECONDS - 1 < time_taken < 50, (name, time_taken)


def test_options():
    c = Wire(local)
    for i in range(63):
        assert c.result(99) == ERR_UNSUP
    c.put_option(99)
    assert c.is_closed(), "64 options and no disk"
    # What is too long is thrown away and answered, to a limit that counts for all of it.
    c = Wire(local)
    for option, error in ((GO, ERR_TOO_BIG), (SET_META, ERR_TOO_BIG), (99, ERR_UNSUP)):
        assert c.result(option, bytes(300000)) == error
    c.put_option(99, length=300000)
    assert c.is_closed()
    # Options that have no data say so, however much it is; and nobody is kept.
    c = Wire(local)
    for option, error in ((INFO, ERR_TOO_BIG), (LIST_META, ERR_TOO_BIG), (LIST, ERR_INVALID), (STARTTLS, ERR_INVALID),
                          (STRUCTURED_REPLY, ERR_INVALID), (EXTENDED_HEADERS, ERR_INVALID), (4, ERR_UNSUP), (ABORT, ACK)):
        assert c.result(option, bytes(20000)) == error, option
    assert c.is_closed()
    for option in (GO, INFO, LIST, SET_META, STARTTLS, 99, EXPORT_NAME):
        for length in (0xFFFFFFFF, 0x7FFFFFFF, 1 << 25):
            c = Wire(local)
            c.put_option(option, length=length)
            assert c.is_closed(), "nobody waits for so much"
    assert Wire(local).go()[-1][0] == ACK


def test_handshakes_of_one_peer():
    served = Wire(local)
    served.go()
    for uri, other in ((local, tcp), (tcp, local)):
        waiting = [Wire(uri, None) for _ in range(3 * PER_PEER)]
        greeted = []
        for c in waiting:
            try:
                c.get(18)
                greeted.append(c)
            except Closed:
                pass
        assert len(greeted) == PER_PEER, len(greeted)
        assert served.read(0, 512) == bytes(512), "who is through the handshake does not count"
        assert Wire(other).go()[-1][0] == ACK, "other peers come in"
        # A place is free as soon as somebody chooses a disk, or leaves.
        greeted[0].put(struct.pack(">I", 3))
        assert greeted[0].go()[-1][0] == ACK
        assert Wire(uri).go()[-1][0] == ACK
        for c in waiting:
            c.close()


def test_stalled():
    """Who holds memory, and neither sends nor takes anything, goes after two minutes; who is only silent stays."""
    if not LONG:
        return
    silent, reader, writer = Wire(local), Wire(local), Wire(local)
    for c in (silent, reader, writer):
        c.go()
    reader.put(b"".join(request(READ, 0, MIB, cookie=i) for i in range(100)))
    writer.request(WRITE, 0, MIB, payload=b"half of it")
    began, deadline = time.monotonic(), time.monotonic() + 200
    while json.loads(lacuna("stat", server.path, "--json"))["counters"]["server_connections"] > 1:
        assert time.monotonic() < deadline, "they are still there"
        time.sleep(0.5)
    assert time.monotonic() - began > 100
    assert silent.read(0, 512) == bytes(512)


def test_many_requests():
    """More in flight than may be, and replies that nobody fetches: memory stays bounded, others are served."""
    before = server.status("VmRSS")
    slow = []
    for i in range(8):
        c = Wire(local)
        c.go()
        c.socket.setblocking(False)
        data = b"".join(request(READ, 0, 32 * MIB, cookie=j) for j in range(1000)) * 4
        try:
            while data:
                data = data[c.socket.send(data):]
        except BlockingIOError:
            pass
        slow.append(c)
    other = Wire(local)
    other.go()
    for i in range(100):
        assert other.read(i * 4096, 4096) == bytes(4096)
    assert other.write(0, b"x" * MIB) == 0
    assert server.status("VmRSS") - before < 300 * 1024, (before, server.status("VmRSS"))
    for c in slow:
        c.close()
    assert other.read(0, 1) == b"x"


run_tests(globals())
server.stop()
