#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A long TRIM holds up neither other threads nor its own, and a client that takes no replies holds up nobody.

What is judged is the order of events, never how long they took; 60 s are for a machine that hangs."""

import select
import time

from harness import BLOCK, GIB, MIB, Server, run_tests
from wire import *

EXTENTS = 60000
ROUND = 512                  # requests in flight, while extents are made
GROUPS, READS = 128, 14      # what is asked for while they are trimmed
FIRST, LAST, ELSEWHERE = 1, 2, 3
TURNS = 4                    # of the other's requests, one after the other, within a TRIM of its own thread
REPLIES = 300
DEADLINE = 60


def connect(server, status=False):
    c = Wire(f"nbd+unix:///disk?socket={server.sock}", timeout=DEADLINE)
    if status:
        c.option(STRUCTURED_REPLY)
        c.meta(SET_META, b"base:allocation")
    c.go()
    return c


def make_extents(c):
    """One block, one hole, and so on, from the disk's beginning; no data is written for it."""
    assert c.ask(WRITE_ZEROES, 0, 2 * EXTENTS * BLOCK, NO_HOLE) == 0
    for first in range(0, EXTENTS, ROUND):
        blocks = range(first, min(first + ROUND, EXTENTS))
        c.put(b"".join(request(TRIM, (2 * i + 1) * BLOCK, BLOCK) for i in blocks))
        for _ in blocks:
            assert c.error() == 0


def is_hole(c, offset):
    (length, flags), = c.status(offset, BLOCK, REQ_ONE)[1]
    return flags & 1 != 0


def reads_within(trimmer, reader):
    """How many READs were answered between an answer that says that the range's first block is a hole already, and one
    that says that its last one is none yet.  Many are asked for at once, so that it takes no quick client to see it,
    and more for as long as the TRIM goes on."""
    last = (2 * EXTENTS - 2) * BLOCK
    group = request(BLOCK_STATUS, 0, BLOCK, REQ_ONE, FIRST) + request(BLOCK_STATUS, last, BLOCK, REQ_ONE, LAST)
    # READs of holes: each looks into the map, and locks its range for that.
    group = b"".join(request(READ, GIB // 2 + i * BLOCK, BLOCK, cookie=ELSEWHERE) for i in range(READS)) + group
    trimmer.request(TRIM, 0, last + BLOCK)
    reader.put(group * GROUPS)
    left = GROUPS * (READS + 2)
    found = since = 0
    has_begun = is_over = False
    while left > 0:
        cookie, flags, kind, data = reader.chunk()
        assert not kind >> 15, chunks_error([(kind, data)])
        left -= flags & DONE
        if kind == STATUS:
            is_hole_now = data[-1] & 1 != 0
            if cookie == FIRST and is_hole_now:
                has_begun = True
            elif cookie == LAST and has_begun and not is_hole_now:
                found, since = found + since, 0
        elif flags & DONE and has_begun:
            since += 1
        is_over = is_over or select.select([trimmer.socket], [], [], 0)[0]
        if cookie == LAST and not is_over:
            reader.put(group)
            left += READS + 2
    assert trimmer.error() == 0
    assert is_hole(reader, 0) and is_hole(reader, last)
    return found


def turns_within(trimmer, other):
    """How many requests were received and answered within the TRIM, each sent when the one before it was answered."""
    last = (2 * EXTENTS - 2) * BLOCK
    trimmer.request(TRIM, 0, last + BLOCK)
    turns = 0
    while not is_hole(other, last):
        if is_hole(other, 0) and not is_hole(other, last):
            turns += 1
    assert trimmer.error() == 0
    return turns


def beside_a_trim(threads, count_within, enough):
    """The TRIM may be over before the other client has its turn: then once more."""
    server = Server({"disk": GIB}, "--threads", str(threads)).start()
    trimmer, other = connect(server), connect(server, status=True)
    deadline = time.monotonic() + DEADLINE
    counts = [0]
    while max(counts) < enough:
        assert time.monotonic() < deadline, f"{max(counts)} answers at most within any of {len(counts) - 1} TRIMs"
        make_extents(trimmer)
        counts.append(count_within(trimmer, other))
    print(f"{counts[-1]} answers within TRIM {len(counts) - 1} of {EXTENTS} extents, {threads} thread(s)")
    trimmer.close()
    other.close()
    server.stop()


def test_beside_a_trim():
    beside_a_trim(2, reads_within, 1)


def test_beside_a_trim_on_one_thread():
    """A thread that looked at its sockets only when the TRIM was over would have taken in one request, that which
    came with the TRIM."""
    beside_a_trim(1, turns_within, TURNS)


def test_replies_that_nobody_takes():
    """Both clients on one thread, on one disk; in the end the lazy one takes its replies, and all are right."""
    server = Server({"disk": 64 * MIB}, "--threads", "1").start()
    lazy, other = connect(server), connect(server)
    for i in range(32):
        assert other.write(i * MIB, bytes([i + 1]) * MIB) == 0
    lazy.put(b"".join(request(READ, i % 32 * MIB, MIB, cookie=i) for i in range(REPLIES)))
    # The first one has been begun, so the requests have come.
    assert lazy.socket_peek(16)
    deadline = time.monotonic() + DEADLINE
    for i in range(400):
        data = bytes([i % 255 + 1]) * (4 * BLOCK)
        offset = 32 * MIB + i * 5 % 512 * 4 * BLOCK
        assert other.write(offset, data) == 0
        assert other.read(offset, len(data)) == data
        assert other.read(i % 32 * MIB, BLOCK) == bytes([i % 32 + 1]) * BLOCK
    for i in range(8):
        assert other.write(48 * MIB, bytes([i]) * MIB) == 0
        assert other.read(i * MIB, MIB) == bytes([i + 1]) * MIB
    assert other.ask(TRIM, 48 * MIB, MIB) == 0 and other.ask(FLUSH, 0, 0) == 0
    assert time.monotonic() < deadline
    cookies = set()
    for _ in range(REPLIES):
        cookie, error, data = lazy.simple(MIB)
        assert error == 0 and data == bytes([cookie % 32 + 1]) * MIB, cookie
        cookies.add(cookie)
    assert len(cookies) == REPLIES
    lazy.close()
    other.close()
    server.stop()


run_tests(globals())
