#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What one connection was told is written, every other connection reads; and a FLUSH on any covers them all."""

import random

import nbd
from harness import BLOCK, KIB, MIB, Server, run_tests

server = Server({"disk": 256 * MIB, "other": 64 * MIB}).start()


def test_seen_by_all():
    connections = [server.connect() for _ in range(4)]
    rng = random.Random(3)
    for i in range(400):
        writer = rng.choice(connections)
        offset = rng.randrange(64 * KIB)
        data = rng.randbytes(rng.randrange(1, 9000))
        writer.pwrite(data, offset)
        for reader in connections:
            assert reader.pread(len(data), offset) == data, i
        if i % 10 == 0:
            writer.trim(64 * KIB + 16 * KIB, 0)
            for reader in connections:
                assert not any(reader.pread(64 * KIB, 0)), i
    for h in connections:
        h.shutdown()


def test_many_connections():
    connections = [server.connect() for _ in range(100)]
    for i, h in enumerate(connections):
        h.pwrite(bytes([i]) * BLOCK, i * BLOCK)
    data = connections[0].pread(100 * BLOCK, 0)
    assert data == b"".join(bytes([i]) * BLOCK for i in range(100))
    for h in connections[::2]:
        h.shutdown()
    # The others just vanish.
    del connections


def test_disks_are_apart():
    a, b = server.connect("disk"), server.connect("other")
    a.pwrite(b"a" * MIB, 0)
    assert not any(b.pread(MIB, 0))
    b.pwrite(b"b" * MIB, 0)
    assert a.pread(MIB, 0) == b"a" * MIB
    a.trim(MIB, 0)
    a.flush()
    assert b.pread(MIB, 0) == b"b" * MIB
    a.shutdown()
    b.shutdown()


def test_listed():
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_unix(server.sock)
    names = []
    assert h.opt_list(lambda name, description: names.append(name) or 0) == 2
    assert sorted(names) == ["disk", "other"], names
    h.set_export_name("other")
    h.opt_go()
    assert h.get_size() == 64 * MIB
    h.shutdown()


run_tests(globals())
server.stop()
