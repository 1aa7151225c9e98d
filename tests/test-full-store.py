#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A store with a capacity is filled to the last block: a write is refused when it comes or never, what block status
calls data can always be overwritten, and TRIM makes room."""

import json
import pathlib
import re
import time

import nbd
from harness import BLOCK, GIB, KIB, MIB, Server, all_extents_of, error_of, lacuna, run_tests

CAPACITY = 96 * MIB

server = Server({"disk": GIB}, capacity=str(CAPACITY)).start()
h = server.connect()


def fill(at):
    """Writes from AT on until there is no room; returns where that was."""
    step = MIB
    while step >= BLOCK:
        error = error_of(h.pwrite, b"f" * step, at)
        if error is None:
            at += step
        else:
            assert error == "ENOSPC", error
            step //= 2
    return at


def marks():
    return re.findall(r"the store is (\d+ % full|full)", pathlib.Path(server.errors).read_text())


def stat_percent():
    return json.loads(lacuna("stat", server.path, "--json"))["counters"]["full_percent"]


def wait_for(condition):
    """The server looks once a second."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_marks():
    assert marks() == []
    for percent in (80, 90, 95):
        before = len(marks())
        while stat_percent() < percent:
            h.pwrite(b"m" * 256 * KIB, test_marks.at)
            test_marks.at += 256 * KIB
        wait_for(lambda: len(marks()) > before)
        assert re.fullmatch(rf"{percent // 10}\d % full", marks()[-1]), marks()
    fill(test_marks.at)
    wait_for(lambda: marks()[-1] == "full")
    assert stat_percent() == 100
    h.trim(GIB, 0)
    h.flush()
    wait_for(lambda: stat_percent() < 50)


test_marks.at = 0


def test_full():
    end = fill(0)
    print(f"{end // KIB} KiB of a store of {CAPACITY // KIB} KiB")
    assert CAPACITY // 2 < end <= CAPACITY
    h.flush()
    assert all_extents_of(h, 0, end) == [(0, end, 0)]
    # Data can be overwritten, whole and in part, and zeros with NO_HOLE keep their place.
    h.pwrite(b"g" * 8 * MIB, 1000)
    h.zero(4 * MIB, 16 * MIB, nbd.CMD_FLAG_NO_HOLE)
    h.pwrite(b"z" * 4 * MIB, 16 * MIB)
    h.flush()
    assert h.pread(8 * MIB, 1000) == b"g" * 8 * MIB
    assert h.pread(4 * MIB, 16 * MIB) == b"z" * 4 * MIB
    # A hole still has no room, however it is asked for.
    assert error_of(h.pwrite, b"x" * BLOCK, 512 * MIB) == "ENOSPC"
    assert error_of(h.pwrite, b"x", 512 * MIB) == "ENOSPC"
    assert error_of(h.zero, BLOCK, 512 * MIB, nbd.CMD_FLAG_NO_HOLE) == "ENOSPC"
    assert not any(h.pread(BLOCK, 512 * MIB))
    # Neither does what needs none ask for it.
    h.zero(256 * MIB, 512 * MIB)
    h.trim(256 * MIB, 512 * MIB)


def test_trim_makes_room():
    for _ in range(5):
        h.trim(32 * MIB, 0)
        h.flush()
        # Freed becomes free when the freeing is durable and has been passed down: the server may take a moment.
        written = 0
        for _ in range(200):
            if error_of(h.pwrite, b"n" * MIB, 512 * MIB + written) is None:
                written += MIB
            else:
                h.flush()
            if written == 31 * MIB:
                break
        assert written == 31 * MIB, written
        assert h.pread(written, 512 * MIB) == b"n" * written
        assert not any(h.pread(32 * MIB, 0))
        h.trim(written, 512 * MIB)
        h.flush()
        fill(0)


def test_stays():
    global h
    fill(0)
    before = h.pread(32 * MIB, 0) + h.pread(32 * MIB, 32 * MIB)
    h.shutdown()
    server.stop()
    server.start()
    h = server.connect()
    assert h.pread(32 * MIB, 0) + h.pread(32 * MIB, 32 * MIB) == before
    h.trim(GIB, 0)
    h.shutdown()
    server.stop()
    assert server.allocated() < 32 * MIB, server.allocated()


run_tests(globals())
