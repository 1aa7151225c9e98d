#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A backup reads the whole disk, six times the cache; what is read again and again must stay in the cache meanwhile.
Judged by what the server reads from the device, as the kernel counts it."""

import random
import subprocess

from harness import KIB, MIB, Server, run_tests

SIZE = 512 * MIB
HOT = 16 * MIB
server = Server({"disk": SIZE}).start()


def read_hot(h):
    """All of the working set, in pieces, in any order; returns bytes read from the device for it."""
    before = server.status("read_bytes")
    places = list(range(0, HOT, 16 * KIB))
    random.Random(8).shuffle(places)
    for place in places:
        # Scattered over the disk, so that nobody takes it for a sequential reader.
        h.pread(16 * KIB, place * (SIZE // HOT))
    return server.status("read_bytes") - before


def test_scan():
    h = server.connect()
    for at in range(0, SIZE, 16 * MIB):
        h.pwrite(random.Random(at).randbytes(16 * MIB), at)
    h.shutdown()
    server.stop()
    server.start()
    h = server.connect()
    cold = read_hot(h)
    for _ in range(3):
        warm = read_hot(h)
    print(f"working set of {HOT // MIB} MiB: cold {cold // KIB} KiB, warm {warm // KIB} KiB read from the device")
    assert cold >= HOT, "the host's page cache was read, not the device: this proves nothing" if cold == 0 else cold
    assert warm < HOT // 20
    before = server.status("read_bytes")
    subprocess.run(["nbdcopy", f"nbd+unix:///disk?socket={server.sock}", "null:"], check=True)
    scan = server.status("read_bytes") - before
    after = read_hot(h)
    print(f"the scan read {scan // MIB} MiB; then the working set needs {after // KIB} KiB from the device")
    assert scan > SIZE // 2
    assert after < HOT // 4
    h.shutdown()
    server.stop()


run_tests(globals())
