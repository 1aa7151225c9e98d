#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Four clients with 2 GiB of requests in flight: the server takes no more memory than its cache, makes the clients wait
instead, and answers a fifth one."""

import os
import select
import socket
import struct
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


def serve(handles):
    """Whichever of them can go on."""
    poll = select.poll()
    by_fd = {h.aio_get_fd(): h for h in handles if h.aio_in_flight()}
    for fd, h in by_fd.items():
        direction = h.aio_get_direction()
        poll.register(fd, (select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0)
                      | (select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0))
    for fd, events in poll.poll(1000):
        h = by_fd[fd]
        if events & (select.POLLIN | select.POLLHUP):
            h.aio_notify_read()
        elif events & select.POLLOUT:
            h.aio_notify_write()


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
        serve(handles)
        most = max(most, server.status("VmRSS") - before)
    bystander.stop = True
    bystander.join()
    longest = bystander.longest
    print(f"{most // 1024} MiB more memory; a READ of another client took {longest * 1000:.0f} ms at most")
    # The cache is 80 MiB, and may not have been touched before; the rest is the allocator's.
    assert most < 176 * 1024
    assert longest < 5
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


class Stalled:
    """A client that sends what it likes, and reads nothing."""

    READ, WRITE = 0, 1

    def __init__(self):
        self.handle = server.connect()
        self.socket = socket.socket(fileno=os.dup(self.handle.aio_get_fd()))
        self.socket.settimeout(20)

    def request(self, command, offset, length, payload=b""):
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, command, 1, offset, length) + payload)

    def vanish(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def test_stalled():
    """Clients that stop in the middle of 32 MiB, that wait for memory for as much, that ask for much and fetch nothing:
    small requests of others do not notice.  Then they go, one of them while it waits."""
    half, waits, slow, slow_too = [Stalled() for _ in range(4)]
    half.request(Stalled.WRITE, 0, LENGTH, b"x" * MIB)
    time.sleep(0.1)
    waits.request(Stalled.WRITE, LENGTH, LENGTH)
    for i in range(32):
        slow.request(Stalled.READ, i * MIB, MIB)
        slow_too.request(Stalled.READ, i * MIB, MIB // 2)
    time.sleep(0.2)
    bystander = Bystander()
    h = server.connect("other")
    for i in range(100):
        h.pwrite(b"small" * 100, i * BLOCK)
    h.pwrite(b"longer" * 100000, MIB)
    bystander.stop = True
    bystander.join()
    print(f"beside them a READ took {bystander.longest * 1000:.0f} ms at most")
    assert bystander.longest < 5
    for client in (waits, half, slow, slow_too):
        client.vanish()
    h.shutdown()
    h = server.connect()
    h.pwrite(payload.to_bytearray(), 2 * LENGTH)
    assert h.pread(LENGTH, 2 * LENGTH) == payload.to_bytearray()
    h.shutdown()


run_tests(globals())
server.stop()
