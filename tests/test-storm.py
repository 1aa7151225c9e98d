#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Clients that stop in the middle of a payload, or take no replies, as many as it needs to hold all the memory that may be
held so: nobody else notices, and they themselves lose nothing, however long they take.

What is judged is that all get their answers, and the right ones; 60 s are for a machine that hangs."""

import json
import os
import random
import time

from harness import BLOCK, KIB, MIB, LONG, Server, lacuna, run_tests
from wire import *

SIZE = 64 * MIB
LENGTHS = [32 * MIB, 5 * MIB] + [MIB] * 8 + [64 * KIB] * 20 + [BLOCK] * (1000 if LONG else 100)
CAME = 1000                  # bytes of each of these payloads


def pattern(seed, length):
    return random.Random(seed).randbytes(length)


def connect(server, disk, how="simple", *contexts):
    c = Wire(f"nbd+unix:///{disk}?socket={server.sock}")
    if how != "simple":
        c.option(STRUCTURED_REPLY if how == "structured" else EXTENDED_HEADERS)
    if contexts:
        c.meta(SET_META, *contexts)
    assert c.go()[-1][0] == ACK
    return c


def wait_for_requests(server, count):
    deadline = time.monotonic() + 60
    while json.loads(lacuna("stat", server.path, "--json"))["counters"]["server_requests"] < count:
        assert time.monotonic() < deadline, "the requests did not come"


def wait_for(server, what, value):
    deadline = time.monotonic() + 60
    while json.loads(lacuna("info", server.path, "disk", "--json"))[what] != value:
        assert time.monotonic() < deadline, f"{what} is not {value}"


class Storm:
    """Clients of the disk `stormy' that hold what they can."""

    def __init__(self, server, readers=6):
        self.server = server
        c = connect(server, "stormy")
        assert c.write(0, pattern("stormy", MIB)) == 0
        c.close()
        self.readers = [connect(server, "stormy") for _ in range(readers)]
        for c in self.readers:
            # One that is longer than a socket holds; what follows it is not even begun to be sent.
            c.put(request(READ, 0, MIB, cookie=1) + request(READ, 0, BLOCK, cookie=2) * 100)
            c.socket_peek(16)
        self.writers = [connect(server, "stormy") for _ in LENGTHS]
        for c, length in zip(self.writers, LENGTHS):
            c.put(request(WRITE, MIB, length) + bytes(CAME))
        wait_for_requests(server, 1 + len(self.readers) + len(self.writers))

    def calm(self):
        """All of them go on, and are answered as if nothing had been."""
        data = pattern("stormy", MIB)
        for c in self.readers:
            for cookie in [1] + [2] * 100:
                length = MIB if cookie == 1 else BLOCK
                assert c.simple(length) == (cookie, 0, data[:length])
            c.close()
        for c, length in zip(self.writers, LENGTHS):
            c.put(bytes(length - CAME))
            assert c.error() == 0
            c.close()


def check_all(server, how, seed, longest=3 * MIB):
    """Every kind of request, around the length of a piece and beside its borders."""
    c = connect(server, "disk", how, b"base:allocation")
    content = bytearray(SIZE)
    for number, (offset, length) in enumerate([
            (0, 1), (4095, 2), (BLOCK, BLOCK), (MIB, 64 * KIB), (MIB + 1, 64 * KIB), (MIB - 5, 64 * KIB + 10),
            (2 * MIB + 512, 200 * KIB), (3 * MIB, MIB), (5 * MIB + 7, MIB + 4099), (30 * MIB + 1, longest)]):
        data = pattern(f"{seed} {number}", length)
        assert c.write(offset, data, FUA if number % 3 == 0 else 0) == 0, (offset, length)
        content[offset:offset + length] = data
        assert c.read(offset, length) == data, (offset, length)
    assert c.read(30 * MIB, longest) == content[30 * MIB:30 * MIB + longest]
    if how != "simple":
        c.request(READ, 2 * MIB + 3, 5 * MIB, DF)
        (kind, data), *rest = c.chunks(2 * MIB + 3)
        assert kind == OFFSET_DATA and data[8:] == content[2 * MIB + 3:7 * MIB + 3]
        assert rest in ([], [(NONE, b"")]), rest
        assert sum(size for size, _ in c.status(0, SIZE)[1]) <= SIZE
    # Many at once, answered in whatever order, and some of them wrong.
    asked = {}
    for i in range(300):
        offset, length = random.Random(seed + i).choice(
            [(i * BLOCK, BLOCK), (i * 512, 512), (7 * i, 100 * KIB), (SIZE, 1), (i * BLOCK, 64 * KIB + 1)])
        asked[i] = (offset, length)
    make = extended_request if how == "extended" else request
    c.put(b"".join(make(READ, offset, length, cookie=i) for i, (offset, length) in asked.items()))
    while asked:
        if how == "simple":
            magic, error, cookie = struct.unpack(">IIQ", c.get(16))
            offset, length = asked.pop(cookie)
            assert error == (EINVAL if offset == SIZE else 0)
            assert error or c.get(length) == content[offset:offset + length]
            continue
        cookie, flags, kind, data = c.chunk()
        offset, length = asked[cookie]
        assert (kind == ERROR) == (offset == SIZE)
        if kind == OFFSET_DATA:
            at, = struct.unpack(">Q", data[:8])
            assert offset <= at and data[8:] == content[at:at + len(data) - 8]
        if flags & DONE:
            del asked[cookie]
    assert c.ask(TRIM, 0, SIZE) == 0 and c.ask(FLUSH, 0, 0) == 0
    assert c.read(30 * MIB, longest) == bytes(longest)
    c.close()


def test_storm():
    server = Server({"stormy": SIZE, "disk": SIZE}, "--threads", "2").start()
    storm = Storm(server)
    # Twice, since connections are dealt to the two threads in turn.
    check_all(server, "simple", 1, 32 * MIB)
    check_all(server, "simple", 2)
    check_all(server, "structured", 3)
    check_all(server, "extended", 4)
    storm.calm()
    # All has been given back: what is lent once more is all there is.
    Storm(server).calm()
    check_all(server, "structured", 9)
    server.stop()


def test_many_extents_that_nobody_takes():
    """Answers to BLOCK_STATUS get shorter for a client that takes none, and are right."""
    server = Server({"disk": SIZE}).start()
    c = connect(server, "disk", "structured", b"base:allocation")
    for i in range(600):
        c.put(request(WRITE, 2 * i * BLOCK, 1) + b"x")
    for i in range(600):
        assert c.error() == 0
    c.put(request(BLOCK_STATUS, 0, 2 * 600 * BLOCK) * 128)
    lengths = set()
    for i in range(128):
        (kind, data), = c.chunks()
        extents = list(struct.iter_unpack(">II", data[4:]))
        assert extents == [(BLOCK, 3 * (j % 2)) for j in range(len(extents))]
        lengths.add(len(extents))
    assert max(lengths) > 500 and min(lengths) >= 1, lengths
    server.stop()


def test_errors_in_the_middle():
    """A piece fails when others have been done: the client is told, or, where that cannot be, cut off."""
    server = Server({"stormy": SIZE, "disk": SIZE}, "--resize", capacity="64M").start()
    storm = Storm(server, readers=7)
    c = connect(server, "stormy")
    assert c.ask(WRITE_ZEROES, 8 * MIB, 24 * MIB, NO_HOLE) == 0
    c.close()
    c = connect(server, "disk", "structured")
    assert c.write(0, pattern(1, 8 * MIB)) == 0
    assert c.write(8 * MIB, bytes(32 * MIB)) == ENOSPC
    assert c.read(0, 8 * MIB) == pattern(1, 8 * MIB)
    assert c.write(0, b"still there") == 0
    # It is shorter when its client takes the rest.
    c.put(request(READ, 0, 32 * MIB) + request(RESIZE, BLOCK, 0, cookie=8))
    wait_for(server, "size", BLOCK)
    found = c.chunks()
    assert found[0][0] == OFFSET_DATA and found[-1][0] == ERROR, found[-1]
    assert chunks_error(found) == ENOSPC, "as what comes later"
    assert c.error(8) == 0
    # In one piece: what was begun is ended, with zeros, and not said to be the last; then comes the error.
    for how in ("structured", "extended"):
        c.close()
        wait_for(server, "connections", 0)
        c = connect(server, "disk", how)
        assert c.ask(RESIZE, SIZE, 0) == 0 and c.write(0, pattern(2, BLOCK)) == 0
        make = extended_request if how == "extended" else request
        c.put(make(READ, 1, 32 * MIB, DF) + make(RESIZE, BLOCK, 0, cookie=8))
        wait_for(server, "size", BLOCK)
        cookie, flags, kind, data = c.chunk(1)
        assert (cookie, flags, kind, len(data)) == (7, 0, OFFSET_DATA, 8 + 32 * MIB)
        assert data[8:] == pattern(2, BLOCK)[1:] + bytes(32 * MIB - BLOCK + 1)
        cookie, flags, kind, data = c.chunk(1)
        assert (cookie, flags, kind) == (7, DONE, ERROR)
        assert c.error(8) == 0
    c.close()
    # Who shares a disk may not shrink it.
    wait_for(server, "connections", 0)
    simple = connect(server, "disk")
    assert simple.ask(RESIZE, SIZE, 0) == 0
    simple.put(request(READ, 0, 32 * MIB) + request(RESIZE, BLOCK, 0, cookie=8))
    wait_for(server, "size", BLOCK)
    assert simple.simple()[:2] == (7, 0)
    assert simple.is_closed()
    simple.close()
    for c in storm.readers + storm.writers:
        c.close()
    server.stop()


def test_newcomers():
    """What is thrown at the handshake is the reception's work, and not that of threads which read and write."""
    server = Server({"disk": SIZE}, "--threads", "2").start()
    c = connect(server, "disk")

    def ticks():
        taken = {"reception": 0, "others": 0}
        for task in os.listdir(f"/proc/{server.pid}/task"):
            name, rest = open(f"/proc/{server.pid}/task/{task}/stat").read().split("(", 1)[1].rsplit(")", 1)
            taken[name if name in taken else "others"] += sum(map(int, rest.split()[11:13]))
        return taken["reception"], taken["others"]

    before = ticks()
    rng = random.Random(1)
    while (now := ticks())[0] < before[0] + 20:
        for _ in range(100):
            newcomer = Wire(f"nbd+unix:///disk?socket={server.sock}", None)
            try:
                newcomer.put(rng.choice([b"", b"\0", rng.randbytes(4096), struct.pack(">IQII", 3, OPTION_MAGIC, LIST, 0) * 9]))
            except ConnectionError:
                pass
            newcomer.close()
    assert now[1] - before[1] <= 10, (before, now)
    assert c.read(0, BLOCK) == bytes(BLOCK)
    server.stop()


def test_who_goes_in_the_middle():
    """Half a long request, in pieces; what was begun of it ends before the next client is served, the rest is dropped."""
    server = Server({"stormy": SIZE, "disk": SIZE}, "--threads", "3").start()
    storm = Storm(server)
    for length in (1, 64 * KIB, 100 * KIB, 10 * MIB, 32 * MIB - 1):
        old, reader = connect(server, "disk"), connect(server, "disk")
        reader.put(request(READ, 0, 32 * MIB) * 3)
        old.put(request(WRITE, 0, 32 * MIB) + bytes(length))
        (reader if length % 2 else old).socket.shutdown(socket.SHUT_WR)
        new = connect(server, "disk")
        assert new.write(0, b"new" * MIB) == 0
        reader.close()
        old.close()
        assert new.read(0, 3 * MIB) == b"new" * MIB
        new.close()
    storm.calm()
    server.stop()


run_tests(globals())
