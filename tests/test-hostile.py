#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What has brought other NBD servers down.  Each test names what it would have caught; after each the server must still
serve, and nothing of a sanitizer's may be in its log."""

import os
import random
import signal
import socket
import struct
import threading
import time

from harness import GIB, KIB, MIB, Server, lacuna, run_tests
from wire import *

SIZE = 64 * MIB
server = Server({"disk": SIZE, "big": 1 << 62}).start()
uri = f"nbd+unix:///disk?socket={server.sock}"


def is_well():
    c = Wire(uri)
    assert c.option(LIST)[-1][0] == ACK
    assert c.go()[-1][0] == ACK
    assert len(c.read(0, 4096)) == 4096
    c.request(DISC, 0, 0)


def handshake(*options):
    data = struct.pack(">I", 3)
    for number, payload in options:
        data += struct.pack(">QII", OPTION_MAGIC, number, len(payload)) + payload
    return data


def name_option(name, *rest):
    return struct.pack(">I", len(name)) + name + b"".join(rest)


def greeted():
    """A connection that has the hello: those that are leaving may still count as one peer's."""
    while True:
        c = Wire(uri, None)
        try:
            c.get(18)
            return c
        except Closed:
            pass


def test_leaving_after_every_byte():
    """CVE-2011-1925, CVE-2013-7441, CVE-2017-7539: a client that leaves within the negotiation, by FIN and by RST."""
    query = struct.pack(">II", 1, 15) + b"base:allocation"
    data = handshake((LIST, b""), (STRUCTURED_REPLY, b""), (SET_META, name_option(b"disk", query)),
                     (GO, name_option(b"nothing", b"\0\0")), (GO, name_option(b"disk", b"\0\1\0\3")))
    data += request(READ, 0, 4096) + request(WRITE, 4096, 5) + b"hello" + request(BLOCK_STATUS, 0, MIB)
    for length in range(len(data) + 1):
        for linger in (b"", struct.pack("ii", 1, 0)):
            c = greeted()
            if linger:
                c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            try:
                c.put(data[:length])
            except ConnectionError:
                pass
            c.close()
    is_well()


def test_lengths_that_do_not_fit():
    """CVE-2022-26495, CVE-2022-26496: lengths inside an option that its own length does not have room for."""
    wrong = [struct.pack(">I", length) + rest
             for length in (0xFFFFFFFF, 0xFFFFFFFE, 0x80000000, 0x7FFFFFFF, 65536, 4097, 5, 1)
             for rest in (b"", b"\0", b"disk", b"disk\0", b"disk\xff\xff", b"disk" + bytes(2000))]
    wrong += [b"", b"\0", b"\0\0\0", name_option(b"disk"), name_option(b"disk", b"\0"), name_option(b"disk", b"\xff\xff"),
              name_option(b"disk", b"\0\2\0\3"), name_option(b"disk", b"\0\0\0"), name_option(b"di\0k", b"\0\0"),
              name_option(b"\xff\xfe", b"\0\0"), name_option(b"disk", b"\xff\xff", bytes(4000))]
    for option in (INFO, GO, LIST_META, SET_META):
        for data in wrong:
            c = Wire(uri)
            c.option(STRUCTURED_REPLY)
            kind = c.result(option, data)
            assert kind in (ERR_INVALID, ERR_UNKNOWN), (option, data[:40], hex(kind))
            assert c.go()[-1][0] == ACK
    for count, queries in ((0xFFFFFFFF, b""), (1, b""), (2, struct.pack(">I", 3) + b"a:b"), (1, struct.pack(">I", 0xFFFFFFFF)),
                           (1, struct.pack(">I", 4) + b"a:b"), (0, b"more"), (1, struct.pack(">I", 4097) + bytes(4097))):
        for option in (LIST_META, SET_META):
            c = Wire(uri)
            c.option(STRUCTURED_REPLY)
            assert c.result(option, name_option(b"disk", struct.pack(">I", count), queries)) == ERR_INVALID


def test_long_names():
    """CVE-2017-15118, CVE-2020-10761: names around every limit, in every option; and error texts that stay short."""
    for length in (254, 255, 256, 257, 1023, 1024, 4095, 4096, 4097, 5000):
        for letter in (b"x", "ü".encode()):
            name = (letter * length)[:length - length % len(letter)]
            for option in (INFO, GO):
                c = Wire(uri)
                kind, text = c.option(option, name_option(name, b"\0\0"))[-1]
                assert kind in (ERR_UNKNOWN, ERR_INVALID) and 0 < len(text) < 990, (length, hex(kind))
            for option in (LIST_META, SET_META):
                c = Wire(uri)
                c.option(STRUCTURED_REPLY)
                kind, text = c.option(option, name_option(name, bytes(4)))[-1]
                assert kind in (ERR_UNKNOWN, ERR_INVALID) and 0 < len(text) < 990
            c = Wire(uri)
            c.put_option(EXPORT_NAME, name)
            assert c.is_closed()
    is_well()


def test_very_many_queries():
    """QEMU issue 4843: a SET_META_CONTEXT that is much too long."""
    for count, length in ((1000, 10), (3000, 4), (20000, 4), (1, 4096), (3, 4096), (4, 4096)):
        c = Wire(uri)
        c.option(STRUCTURED_REPLY)
        queries = (struct.pack(">I", length) + b"x" * length) * count
        data = name_option(b"disk", struct.pack(">I", count), queries)
        assert c.result(SET_META, data) in (ACK, ERR_TOO_BIG), (count, length)
        assert c.go()[-1][0] == ACK
        assert c.ask(BLOCK_STATUS, 0, 4096) == EINVAL


def test_out_of_order():
    """CVE-2019-14851: what belongs to one phase comes in the other."""
    c = Wire(uri)
    c.put(request(READ, 0, 512))
    assert c.is_closed()
    c = Wire(uri)
    c.go()
    c.put_option(LIST)
    c.put(bytes(100))
    assert c.is_closed()
    rng = random.Random(1)
    for _ in range(200):
        c = Wire(uri)
        try:
            for _ in range(rng.randrange(1, 20)):
                option = rng.choice([LIST, STRUCTURED_REPLY, EXTENDED_HEADERS, STARTTLS, INFO, LIST_META, SET_META, 4, 99])
                data = rng.choice([b"", name_option(b"disk", b"\0\0"), name_option(b"disk", bytes(4)),
                                   name_option(b"disk", struct.pack(">II", 1, 5) + b"base:"), rng.randbytes(20)])
                c.option(option, data)
            c.go()
            for _ in range(20):
                command = rng.randrange(12)
                if command in (DISC, WRITE):
                    continue
                c.request(command, rng.choice([0, SIZE, rng.getrandbits(64)]), rng.choice([0, 512, rng.getrandbits(31)]),
                          rng.choice([0, 0, 1 << rng.randrange(5), rng.getrandbits(5)]))
        except (Closed, ConnectionError):
            pass
        c.close()
    is_well()


def test_payloads_around_every_buffer():
    """CVE-2005-3534, CVE-2011-0530: lengths around the sizes of buffers."""
    for extended in (False, True):
        c = Wire(uri)
        if extended:
            c.option(EXTENDED_HEADERS)
        c.go()
        for around in (28, 32, 512, 4096, 16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 136 * KIB, MIB, 32 * MIB):
            for length in (around - 29, around - 1, around, around + 1, around + 28, around + 32):
                if length <= 0 or (extended and length > 32 * MIB):
                    continue
                data = random.randbytes(length)
                error = c.write(3, data)
                assert error == (0 if length <= 32 * MIB else EINVAL), (length, error)
                if error == 0 and length < 2 * MIB:
                    assert c.read(3, length) == data
        assert c.ask(TRIM, 0, SIZE) == 0
    c = Wire(uri)
    c.go()
    c.request(WRITE, 0, 64 * MIB + 1)
    assert c.is_closed(), "nobody waits for so much"
    for command in (READ, TRIM, WRITE_ZEROES, CACHE, BLOCK_STATUS, FLUSH):
        c = Wire(uri)
        c.go()
        assert c.ask(command, 0, 0xFFFFFFFF) in (EINVAL, ENOSPC), command


def test_status_of_very_much():
    """CVE-2025-47711, CVE-2025-47712: the longest BLOCK_STATUS over an extent that is longer still."""
    for extended in (False, True):
        c = Wire(f"nbd+unix:///big?socket={server.sock}")
        c.option(EXTENDED_HEADERS if extended else STRUCTURED_REPLY)
        c.meta(SET_META, b"base:allocation", b"qemu:allocation-depth")
        c.go()
        for offset in (0, 1, 4095, (1 << 32) - 1, (1 << 62) - 0xFFFFFFFF, (1 << 61) + 7):
            for length in (0xFFFFFFFF, 0xFFFFF000, 0x80000000):
                for flags in (0, REQ_ONE):
                    status = c.status(offset, length, flags)
                    assert status == {1: [(length, 3)], 2: [(length, 0)]}, (offset, length, status)
        assert c.ask(CACHE, 0, 0xFFFFFFFF) == 0 and c.ask(TRIM, 1, 0xFFFFFFFF) == 0
        assert c.ask(WRITE_ZEROES, 4097, 0xFFFFFFFF) == 0


def test_signals_under_load():
    """CVE-2015-0847: work in signal handlers."""
    stop = threading.Event()
    failed, rounds = [], []

    def load():
        try:
            c = Wire(uri)
            c.go()
            while not stop.is_set():
                rounds.append(0)
                assert c.write(0, b"x" * 65536) == 0 and c.read(0, 65536) == b"x" * 65536
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    # `systemctl reload' sends this one to a server that has no files to read again, too.
    os.kill(server.pid, signal.SIGHUP)
    deadline = time.monotonic() + 60
    while "there is nothing to be read again" not in open(server.errors).read():
        assert server.process.poll() is None and time.monotonic() < deadline, "SIGHUP"
        time.sleep(0.01)
    while len(rounds) < 300 and not failed:
        os.kill(server.pid, random.choice([signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG, signal.SIGCONT, signal.SIGPIPE]))
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed, failed


def test_idle_clients():
    """CVE-2017-9524, CVE-2019-14850: who only connects opens no disk."""
    own = Server({"disk": MIB}).start()
    idle = [Wire(f"nbd+unix:///disk?socket={own.sock}") for _ in range(20)]
    for c in idle[:10]:
        c.option(LIST)
        c.go(number=INFO)
    lacuna("delete", own.path, "disk")
    for c in idle:
        assert c.go()[-1][0] == ERR_UNKNOWN
    own.stop()


def test_stop_with_idle_clients():
    """CVE-2024-7409: the server ends while clients are in the handshake, in whatever state."""
    for _ in range(3):
        own = Server({"disk": SIZE}).start()
        clients = []
        for i in range(20):
            c = Wire(f"nbd+unix:///disk?socket={own.sock}")
            if i % 4 == 1:
                c.put(struct.pack(">QI", OPTION_MAGIC, GO))
            elif i % 4 == 2:
                c.go()
                c.request(WRITE, 0, MIB, payload=bytes(1000))
            elif i % 4 == 3:
                c.go()
                c.put(b"".join(request(READ, 0, MIB, cookie=j) for j in range(100)))
            clients.append(c)
        stopper = threading.Thread(target=own.stop)
        stopper.start()
        for c in clients:
            c.is_closed()
        stopper.join()


run_tests(globals())
server.stop()
