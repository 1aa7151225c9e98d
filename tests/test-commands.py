#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Every command with every flag, at any byte, and the right error for what cannot be."""

import random

import nbd
from harness import BLOCK, GIB, KIB, MIB, Server, all_extents_of, error_of, extents_of, run_tests

SIZE = 8 * GIB
HOLE, ZERO = nbd.STATE_HOLE, nbd.STATE_ZERO

server = Server({"disk": SIZE}).start()
h = server.connect()


def test_what_is_offered():
    assert h.get_size() == SIZE
    assert not h.is_read_only() and not h.is_rotational()
    for can in (h.can_cache, h.can_df, h.can_fast_zero, h.can_flush, h.can_fua, h.can_multi_conn, h.can_trim, h.can_zero):
        assert can(), can.__name__
    assert h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    assert h.get_block_size(nbd.SIZE_MINIMUM) == 1
    assert h.get_block_size(nbd.SIZE_PREFERRED) == BLOCK
    assert h.get_block_size(nbd.SIZE_MAXIMUM) == 32 * MIB


def test_any_byte():
    rng = random.Random(1)
    model = bytearray(64 * KIB)
    base = 1 * MIB - 8 * KIB
    for _ in range(300):
        start = rng.randrange(len(model))
        length = rng.randrange(1, len(model) - start + 1)
        if rng.random() < 0.7:
            length = min(length, 6000)
        data = rng.randbytes(length)
        if rng.random() < 0.2:
            data = bytes(length)
            h.zero(length, base + start)
        else:
            h.pwrite(data, base + start)
        model[start:start + length] = data
        start = rng.randrange(len(model))
        length = rng.randrange(1, len(model) - start + 1)
        assert h.pread(length, base + start) == model[start:start + length]
    assert h.pread(len(model), base) == model


def test_fua_is_accepted_everywhere():
    fua = nbd.CMD_FLAG_FUA
    h.pwrite(b"x" * 5000, 2 * MIB, fua)
    assert h.pread(5000, 2 * MIB, fua) == b"x" * 5000
    h.trim(BLOCK, 2 * MIB, fua)
    h.zero(BLOCK, 2 * MIB, fua)
    h.zero(BLOCK, 2 * MIB, fua | nbd.CMD_FLAG_NO_HOLE)
    h.flush(fua)
    h.cache(BLOCK, 2 * MIB, fua)
    assert extents_of(h, 2 * MIB, BLOCK, fua)


def test_block_status():
    at = 16 * MIB
    h.trim(16 * MIB, at)
    h.pwrite(b"d" * 64 * KIB, at)
    h.zero(64 * KIB, at + 64 * KIB, nbd.CMD_FLAG_NO_HOLE)
    h.pwrite(b"d" * 64 * KIB, at + 128 * KIB)
    h.zero(64 * KIB, at + 128 * KIB)
    h.pwrite(b"d" * BLOCK, at + 256 * KIB)
    h.trim(BLOCK, at + 256 * KIB)
    expected = [(at, 64 * KIB, 0), (at + 64 * KIB, 64 * KIB, ZERO), (at + 128 * KIB, 384 * KIB, HOLE | ZERO)]
    for _ in range(2):
        assert all_extents_of(h, at, 512 * KIB) == expected, all_extents_of(h, at, 512 * KIB)
        h.flush()
    # The same question at odd bytes, and with REQ_ONE.
    one = extents_of(h, at + 1000, 200 * KIB, nbd.CMD_FLAG_REQ_ONE)
    assert one == [(64 * KIB - 1000, 0)], one
    one = extents_of(h, at + 1000, 100, nbd.CMD_FLAG_REQ_ONE)
    assert one == [(100, 0)], one
    # A disk that is nearly all hole says so at once.
    assert extents_of(h, 2 * GIB, 2 * GIB) == [(2 * GIB, HOLE | ZERO)]
    assert all_extents_of(h, 4 * GIB, 4 * GIB) == [(4 * GIB, 4 * GIB, HOLE | ZERO)]


def test_trim():
    at = 40 * MIB
    h.pwrite(b"a" * 4 * BLOCK, at)
    # Whole blocks read as zeros, parts of blocks at the edges stay.
    h.trim(2 * BLOCK + 200, at + BLOCK - 100)
    assert h.pread(4 * BLOCK, at) == b"a" * BLOCK + bytes(2 * BLOCK) + b"a" * BLOCK
    h.trim(100, at)
    assert h.pread(BLOCK, at) == b"a" * BLOCK


def test_zero():
    at = 44 * MIB
    for flags in (0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO):
        h.pwrite(b"a" * 4 * BLOCK, at)
        h.zero(2 * BLOCK + 200, at + BLOCK - 100, flags)
        assert h.pread(4 * BLOCK, at) == b"a" * (BLOCK - 100) + bytes(2 * BLOCK + 200) + b"a" * (BLOCK - 100), flags
        # Into the block that is zeroed now, and may be unwritten.
        h.pwrite(b"b", at + 2 * BLOCK + 7)
        assert h.pread(BLOCK, at + 2 * BLOCK) == bytes(7) + b"b" + bytes(BLOCK - 8), flags


def test_long_requests():
    data = random.Random(2).randbytes(32 * MIB)
    h.pwrite(data, 64 * MIB + 1)
    assert h.pread(32 * MIB, 64 * MIB + 1) == data
    most = (1 << 32) - 512
    h.cache(most, 0)
    h.trim(most, 0)
    h.zero(most, 4 * GIB)
    h.zero(most, 0, nbd.CMD_FLAG_FAST_ZERO)
    assert h.pread(32 * MIB, 64 * MIB + 1) == bytes(32 * MIB)
    assert h.pread(BLOCK, SIZE - BLOCK) == bytes(BLOCK)


def test_read_in_one_piece():
    pieces = []

    def callback(data, offset, status, error):
        pieces.append((offset, len(data), status))
        return 0

    h.pwrite(b"x" * BLOCK, 128 * MIB)
    data = h.pread_structured(16 * BLOCK, 128 * MIB, callback, nbd.CMD_FLAG_DF)
    assert data == b"x" * BLOCK + bytes(15 * BLOCK)
    assert len(pieces) == 1, pieces
    pieces.clear()
    data = h.pread_structured(16 * BLOCK, 128 * MIB, callback)
    assert data == b"x" * BLOCK + bytes(15 * BLOCK)


def test_errors():
    end = SIZE
    for offset, length in ((end, 1), (end - 1, 2), (end + BLOCK, BLOCK), ((1 << 63) - 1, 4096), ((1 << 64) - 4096, 8192)):
        for name, function, error in (
                ("read", lambda: h.pread(length, offset), "EINVAL"),
                ("write", lambda: h.pwrite(b"x" * length, offset), "ENOSPC"),
                ("zero", lambda: h.zero(length, offset), "ENOSPC"),
                ("trim", lambda: h.trim(length, offset), "EINVAL"),
                ("cache", lambda: h.cache(length, offset), "EINVAL"),
                ("status", lambda: extents_of(h, offset, length), "EINVAL")):
            if offset < 1 << 63:
                got = error_of(function)
                assert got == error, (name, offset, length, got)
    # A flag that the command does not have.
    for name, function in (
            ("read", lambda: h.pread(BLOCK, 0, nbd.CMD_FLAG_NO_HOLE)),
            ("write", lambda: h.pwrite(b"x" * BLOCK, 0, nbd.CMD_FLAG_DF)),
            ("trim", lambda: h.trim(BLOCK, 0, nbd.CMD_FLAG_NO_HOLE)),
            ("zero", lambda: h.zero(BLOCK, 0, nbd.CMD_FLAG_REQ_ONE)),
            ("cache", lambda: h.cache(BLOCK, 0, nbd.CMD_FLAG_DF)),
            ("flush", lambda: h.flush(nbd.CMD_FLAG_NO_HOLE)),
            ("status", lambda: extents_of(h, 0, BLOCK, nbd.CMD_FLAG_FAST_ZERO))):
        got = error_of(function)
        assert got == "EINVAL", (name, got)
    assert h.pread(BLOCK, 0) == bytes(BLOCK), "a refused write changed something, or the connection is out of step"


def test_nothing_at_all():
    assert error_of(h.pwrite, b"", 0) is None
    assert error_of(h.trim, 0, 0) is None
    assert error_of(h.zero, 0, 0) is None
    assert error_of(h.cache, 0, 0) is None
    assert error_of(lambda: extents_of(h, 0, 0)) == "EINVAL"
    h.flush()


def test_simple_replies():
    simple = server.connect(structured=False, contexts=())
    assert not simple.get_structured_replies_negotiated()
    assert not simple.can_df()
    simple.pwrite(b"s" * 10000, 200 * MIB + 5)
    assert simple.pread(10002, 200 * MIB + 4) == bytes(1) + b"s" * 10000 + bytes(1)
    assert error_of(simple.pread, 1, SIZE) == "EINVAL"
    assert error_of(simple.pwrite, b"x", SIZE) == "ENOSPC"
    simple.trim(BLOCK, 0)
    simple.zero(BLOCK, 0)
    simple.flush()
    simple.shutdown()


def test_no_context():
    plain = server.connect(contexts=())
    assert error_of(lambda: extents_of(plain, 0, BLOCK)) == "EINVAL"
    assert plain.pread(1, 0) == b"\0"
    plain.shutdown()


def test_the_only_disk_is_the_default():
    default = server.connect("")
    assert default.get_size() == SIZE
    default.shutdown()
    assert error_of(server.connect, "no such disk") is not None


def test_stays():
    h.pwrite(b"stay", 300 * MIB)
    h.shutdown()
    server.stop()
    server.start("--readonly")
    readonly = server.connect()
    assert readonly.is_read_only()
    assert readonly.pread(6, 300 * MIB - 1) == b"\0stay\0"
    for name, function in (
            ("write", lambda: readonly.pwrite(b"x" * BLOCK, 0)),
            ("trim", lambda: readonly.trim(BLOCK, 0)),
            ("zero", lambda: readonly.zero(BLOCK, 0))):
        assert error_of(function) == "EPERM", name
    assert readonly.pread(6, 300 * MIB - 1) == b"\0stay\0"
    readonly.shutdown()
    server.stop()


run_tests(globals())
