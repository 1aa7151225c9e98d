#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A disk of 1 TiB is trimmed and zeroed as a whole, empty, and with 100,000 scattered extents: in requests of 4 GiB, and
as one `punch'.  Others are not held up meanwhile, and neither device I/O nor memory grow with the bytes."""

import os
import random
import threading
import time

import nbd
from harness import BLOCK, GIB, MIB, TIB, Server, all_extents_of, lacuna, run_tests

SCATTERED = int(os.environ.get("LACUNA_EXTENTS", 100000))
MOST = (1 << 32) - 512 * 1024 * 2   # a multiple of 1 MiB, just under 4 GiB

server = Server({"disk": TIB, "other": 64 * MIB}).start()


class Bystander(threading.Thread):
    """Another connection, another disk: how long its longest read or write took."""

    def __init__(self):
        super().__init__(daemon=True)
        self.longest = 0
        self.count = 0
        self.stop = False
        self.start()

    def run(self):
        h = server.connect("other")
        rng = random.Random(4)
        while not self.stop:
            start = time.monotonic()
            if self.count % 2:
                h.pwrite(b"b" * BLOCK, rng.randrange(8192) * BLOCK)
            else:
                h.pread(BLOCK, rng.randrange(8192) * BLOCK)
            self.longest = max(self.longest, time.monotonic() - start)
            self.count += 1
            time.sleep(0.002)
        h.shutdown()


def watch(what, function, seconds, device_bytes, memory_kb):
    bystander = Bystander()
    written, memory = server.status("write_bytes"), server.status("VmRSS")
    start = time.monotonic()
    function()
    took = time.monotonic() - start
    bystander.stop = True
    bystander.join()
    written, memory = server.status("write_bytes") - written, server.status("VmRSS") - memory
    print(f"{what}: {took:.2f} s, {written >> 10} KiB written to the device, {memory} KiB more memory; "
          f"{bystander.count} requests of another connection, the longest {bystander.longest * 1000:.0f} ms", flush=True)
    assert took < seconds, what
    assert bystander.longest < 1, what
    assert written < device_bytes, what
    assert memory < memory_kb, what


def all_of_it(request):
    h = server.connect()
    at = 0
    while at < TIB:
        length = min(MOST, TIB - at)
        request(h, length, at)
        at += length
    h.shutdown()


def scatter():
    """Single blocks, none next to another; the places are returned."""
    rng = random.Random(5)
    places = [i * (TIB // SCATTERED // BLOCK) * BLOCK + rng.randrange(64) * 2 * BLOCK for i in range(SCATTERED)]
    h = server.connect()
    buffer = nbd.Buffer.from_bytearray(bytearray(b"s" * BLOCK))
    for place in places:
        while h.aio_in_flight() >= 64:
            h.poll(-1)
        h.aio_pwrite(buffer, place)
    while h.aio_in_flight() > 0:
        h.poll(-1)
    h.flush()
    h.shutdown()
    return places


def check_empty(places):
    h = server.connect()
    assert all_extents_of(h, 0, TIB) == [(0, TIB, nbd.STATE_HOLE | nbd.STATE_ZERO)]
    for place in random.Random(6).sample(places, min(200, len(places))):
        assert not any(h.pread(BLOCK, place))
    h.shutdown()


def test_empty():
    other = 96 * MIB    # what the bystander may write meanwhile
    watch("TRIM of an empty TiB", lambda: all_of_it(lambda h, n, at: h.trim(n, at)), 10, other, 16384)
    watch("WRITE_ZEROES of an empty TiB", lambda: all_of_it(lambda h, n, at: h.zero(n, at)), 10, other, 16384)
    assert server.allocated() < other


def scattered(what, function):
    start = time.monotonic()
    places = scatter()
    print(f"{SCATTERED} extents written in {time.monotonic() - start:.1f} s", flush=True)
    # What freeing writes: items in the journal, and the nodes of a checkpoint; some 100 bytes for an extent.
    watch(f"{what} of {SCATTERED} extents", function, 60, 96 * MIB + SCATTERED * 400, 32768 + SCATTERED // 16)
    check_empty(places)


def test_scattered_zeroes():
    scattered("WRITE_ZEROES", lambda: all_of_it(lambda h, n, at: h.zero(n, at)))


def test_scattered_trim():
    scattered("TRIM", lambda: all_of_it(lambda h, n, at: h.trim(n, at)))


def test_scattered_punch():
    scattered("punch", lambda: lacuna("punch", server.path, "disk", "0", str(TIB)))


def test_exabytes():
    """The largest disk, with dirty blocks far apart: its map and a punch of half of it are one request each."""
    server = Server({"disk": (8 << 60) - BLOCK}).start()
    h = server.connect()
    for offset in (0, 5 << 60, (5 << 60) + TIB):
        h.pwrite(b"x" * BLOCK, offset)
    start = time.monotonic()
    lines = lacuna("map", server.path, "disk").splitlines()
    lacuna("punch", server.path, "disk", "100", str(4 << 60))
    taken = time.monotonic() - start
    print(f"map and punch of exabytes: {taken:.2f} s")
    assert len(lines) == 1 + 6, lines
    assert taken < 5, taken
    assert h.pread(BLOCK, 0) == b"x" * 100 + bytes(BLOCK - 100)
    h.shutdown()
    server.stop()


run_tests(globals())
server.stop()
