#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Four clients with 2 GiB of requests in flight: the server takes no more memory than its cache, makes the clients wait
instead, and answers a fifth one."""

import threading
import time

import nbd
from harness import BLOCK, MIB, Server, run_tests

SIZE = 1024 * MIB
LENGTH = 32 * MIB
server = Server({"disk": SIZE, "other": 64 * MIB}).start()


class Bystander(threading.Thread):
    """A fifth client, with small requests."""

    def __init__(self):
        super().__init__(daemon=True)
        self.longest = 0
        self.stop = False
        self.start()

    def run(self):
        h = server.connect("other")
        while not self.stop:
            begin = time.monotonic()
            h.pread(BLOCK, 0)
            self.longest = max(self.longest, time.monotonic() - begin)
            time.sleep(0.01)
        h.shutdown()


def flood(start):
    """START (handle, offset) on four handles, 16 times each, all in flight at once."""
    handles = [server.connect() for _ in range(4)]
    before = server.status("VmRSS")
    most = 0
    for i, h in enumerate(handles):
        for k in range(16):
            start(h, (i * 16 + k) % (SIZE // LENGTH) * LENGTH)
    bystander = Bystander()
    while any(h.aio_in_flight() for h in handles):
        for h in handles:
            if h.aio_in_flight():
                h.poll(5)
        most = max(most, server.status("VmRSS") - before)
    bystander.stop = True
    bystander.join()
    longest = bystander.longest
    print(f"{most // 1024} MiB more memory; a READ of another client took {longest * 1000:.0f} ms at most")
    # The cache is 80 MiB, and may not have been touched before; the rest is the allocator's.
    assert most < 176 * 1024
    assert longest < 10
    for h in handles:
        h.shutdown()


payload = nbd.Buffer.from_bytearray(bytearray(b"payload." * (LENGTH // 8)))
target = nbd.Buffer(LENGTH)


def test_writes():
    flood(lambda h, offset: h.aio_pwrite(payload, offset))
    h = server.connect()
    assert h.pread(LENGTH, 5 * LENGTH) == b"payload." * (LENGTH // 8)
    h.shutdown()


def test_reads():
    flood(lambda h, offset: h.aio_pread(target, offset))
    assert target.to_bytearray() == b"payload." * (LENGTH // 8)


run_tests(globals())
server.stop()
