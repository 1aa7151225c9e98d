#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A client whose connection fails sends again, on another one, what had no answer, and goes on.  What it sent on the first
one, and the server had not begun, must not be carried out later."""

import json
import socket
import struct
import threading
import time

from harness import MIB, Server, lacuna, run_tests
from wire import *

SIZE = 64 * MIB
server = Server({"disk": SIZE, "other": SIZE}, "--threads", "3").start()


def connect(disk="disk"):
    c = Wire(f"nbd+unix:///{disk}?socket={server.sock}")
    assert c.go()[-1][0] == ACK
    return c


def leave_behind(disk="disk", command=WRITE):
    """A connection with reads that nobody fetches, and behind them a change; its client has given it up."""
    c = connect(disk)
    c.put(b"".join(request(READ, 0, 2 * MIB, cookie=i) for i in range(32)))
    if command == WRITE:
        c.put(request(WRITE, 32 * MIB, 30000, cookie=99) + b"old" * 10000)
    else:
        c.put(request(command, 32 * MIB, 30000, cookie=99))
    c.socket.shutdown(socket.SHUT_WR)
    return c


def rest(c):
    """How many replies the server still sends, and whether to the change."""
    replies = []
    try:
        while True:
            replies.append(c.simple(0)[0])
            if replies[-1] != 99:
                c.get(2 * MIB)
    except Closed:
        return len(replies), 99 in replies


def test_writes_of_the_past():
    # Often enough that old and new are on the same and on other threads.
    for i in range(9):
        olds = [leave_behind(command=command) for command in ((WRITE,), (TRIM,), (WRITE, WRITE_ZEROES))[i % 3]]
        new = connect()
        assert new.write(32 * MIB, b"new" * 10000) == 0
        for old in olds:
            count, is_done = rest(old)
            assert not is_done, "it was carried out, though its client had come back meanwhile"
        assert new.read(32 * MIB, 30000) == b"new" * 10000
        new.close()


def test_half_a_payload():
    for length in (1, 100000, 3 * MIB - 1):
        old = connect()
        old.put(request(WRITE, 0, 3 * MIB) + bytes(length))
        old.socket.shutdown(socket.SHUT_WR)
        new = connect()
        assert new.write(0, b"new" * MIB) == 0
        assert old.is_closed()
        assert new.read(0, 3 * MIB) == b"new" * MIB


def test_others_are_left_alone():
    # One that has said all it has to say, and takes its time with the answers, as long as nobody comes to its disk.
    old = leave_behind("other")
    new = connect("disk")
    assert rest(old) == (33, True)
    # One that is there is not given up.
    slow = connect()
    slow.put(b"".join(request(READ, 0, 2 * MIB, cookie=i) for i in range(32))
             + request(WRITE, 32 * MIB, 4, cookie=99) + b"slow")
    connect().close()
    for i in range(32):
        assert slow.simple(2 * MIB)[0] < 32
    assert slow.simple()[0] == 99
    assert new.read(32 * MIB, 4) == b"slow"


def say_goodbye(disk="disk", replies=32, leave=socket.SHUT_WR):
    """Reads that nobody fetches, changes behind them, and NBD_CMD_DISC; then it goes."""
    c = connect(disk)
    c.put(b"".join(request(READ, 0, 2 * MIB, cookie=i) for i in range(replies))
          + b"".join(request(WRITE, 32 * MIB + i * 30000, 30000, cookie=99) + b"old" * 10000 for i in range(5))
          + request(WRITE_ZEROES, 32 * MIB, 30000, cookie=99) + request(DISC, 0, 0))
    if leave is None:
        c.close()
    else:
        c.socket.shutdown(leave)
    return c


GOODBYES = bytes(30000) + b"old" * 40000


def test_goodbye():
    """NBD_CMD_DISC: "The server MUST handle all outstanding requests", also if nobody takes the answers, and also if the
    next one comes to the disk meanwhile."""
    eraser = connect()
    for i in range(12):
        assert eraser.write(32 * MIB, b"xyz" * 50000) == 0
        leave = (socket.SHUT_WR, socket.SHUT_RDWR, None)[i % 3]
        old = say_goodbye(replies=(32, 0, 1, 150)[i % 4], leave=leave)
        with connect() as new:
            assert new.read(32 * MIB, 150000) == GOODBYES
        old.close()
    # Without anybody who waits for it.
    for leave in (socket.SHUT_RDWR, None):
        assert eraser.write(32 * MIB, b"xyz" * 50000) == 0
        say_goodbye(leave=leave)
        deadline = time.monotonic() + 60
        while eraser.read(32 * MIB, 150000) != GOODBYES:
            assert time.monotonic() < deadline, "it was not done"
    # Who goes before it knows that it has a disk: whether anything is done is open, but the connection ends.
    for count in (0, 1):
        old = Wire(f"nbd+unix:///disk?socket={server.sock}")
        old.put(struct.pack(">QII", OPTION_MAGIC, LIST, 0) * 8 + struct.pack(">QII", OPTION_MAGIC, GO, 10)
                + old.go_data() + (request(WRITE, 32 * MIB, 2) + b"by") * count + request(DISC, 0, 0))
        old.close()
        while json.loads(lacuna("stat", server.path, "--json"))["counters"]["server_connections"] > 1:
            assert time.monotonic() < deadline, "it has not ended"
        assert eraser.read(32 * MIB, 2) in (bytes(2), b"by")
    # Who takes its answers gets them, if nobody has to wait for that.
    old = say_goodbye("other")
    replies = []
    while len(replies) < 38:
        replies.append(old.simple(0)[0])
        if replies[-1] != 99:
            old.get(2 * MIB)
    assert sorted(replies) == list(range(32)) + [99] * 6
    assert old.is_closed()
    # A payload that ends as if it were a goodbye is none, and neither is one in the middle of a payload.
    for length in (30000, 29000):
        assert eraser.write(32 * MIB, b"new" * 10000) == 0
        old = connect()
        old.put(b"".join(request(READ, 0, 2 * MIB, cookie=i) for i in range(32)) + request(WRITE, 32 * MIB, 30000)
                + b"o" * (length - 28) + request(DISC, 0, 0))
        old.socket.shutdown(socket.SHUT_WR)
        with connect() as new:
            assert new.read(32 * MIB, 30000) == b"new" * 10000
        old.close()
    eraser.close()


def test_many_come_and_go():
    """Everybody waits for everybody, and for nobody in the end."""
    failed = []

    def client(number):
        try:
            for i in range(30):
                c = connect()
                assert c.write(number * 4096, bytes([i]) * 4096) == 0
                c.put(b"".join(request(WRITE, number * 4096, 4096) + bytes([i + 100]) * 4096 for _ in range(i % 4)))
                if i % 3 == 0:
                    c.put(request(DISC, 0, 0))
                c.close()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


def test_stop_meanwhile():
    for i in range(5):
        own = Server({"disk": SIZE}, "--threads", "3").start()
        clients = []
        for j in range(12):
            c = Wire(f"nbd+unix:///disk?socket={own.sock}")
            c.put_option(GO, c.go_data())
            if j % 2:
                c.put(request(WRITE, 0, MIB) + bytes(MIB // 2))
                c.socket.shutdown(socket.SHUT_WR)
            clients.append(c)
        stopper = threading.Thread(target=own.stop)
        stopper.start()
        for c in clients:
            c.is_closed()
        stopper.join()


run_tests(globals())
server.stop()
