#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""collapse-range and insert-range against a model that is moved by hand: with a server and without one, killed in between,
beside clients that read and write, and under clients that know the old size.  LACUNA_SEED=N replays a history."""

import os
import random
import subprocess
import threading
import uuid

import nbd
from harness import BLOCK, LACUNA, LONG, MIB, Server, error_of, lacuna, run_tests

seed = int(os.environ.get("LACUNA_SEED", random.randrange(1 << 32)))
print(f"LACUNA_SEED={seed}")

BLOCKS = 600
server = Server({"disk": BLOCKS * BLOCK, "other": 64 * MIB})
model = bytearray(BLOCKS * BLOCK)


def refused(*arguments, text):
    result = subprocess.run([LACUNA, *arguments], stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1 and text in result.stderr, (arguments, result)
    assert result.stderr.startswith(f"lacuna: {server.path}: disk: "), result.stderr


def collapse(offset, length, *options, disk="disk"):
    global model
    answer = lacuna("collapse-range", server.path, disk, str(offset), str(length), *options)
    if disk == "disk" and not answer:
        del model[offset:offset + length]
    return answer


def insert(offset, length, *options, disk="disk"):
    global model
    answer = lacuna("insert-range", server.path, disk, str(offset), str(length), *options)
    if disk == "disk" and not answer:
        model[offset:offset] = bytes(length)
    return answer


def assert_same():
    h = server.connect()
    assert h.get_size() == len(model), (h.get_size(), len(model))
    for at in range(0, len(model), MIB):
        length = min(MIB, len(model) - at)
        data = h.pread(length, at)
        if data != model[at:at + length]:
            first = next(i for i in range(length) if data[i] != model[at + i])
            raise AssertionError(f"byte {at + first} is {data[first]}, not {model[at + first]}")
    h.shutdown()


def write(h, draw):
    offset = draw.randrange(len(model))
    length = min(draw.randrange(1, 20 * BLOCK), len(model) - offset)
    data = draw.randbytes(length)
    h.pwrite(data, offset, draw.choice((0, 0, nbd.CMD_FLAG_FUA)))
    model[offset:offset + length] = data


def zero(h, draw):
    offset = draw.randrange(len(model))
    length = min(draw.randrange(1, 40 * BLOCK), len(model) - offset)
    h.zero(length, offset, draw.choice((0, nbd.CMD_FLAG_NO_HOLE)))
    model[offset:offset + length] = bytes(length)


def shift(draw):
    blocks = len(model) // BLOCK
    length = draw.randrange(1, 80)
    if blocks > BLOCKS or (blocks > 100 and draw.randrange(2)):
        block = draw.randrange(blocks)
        collapse(block * BLOCK, min(length, blocks - max(block, 1)) * BLOCK)
    else:
        insert(draw.randrange(blocks + 1) * BLOCK, length * BLOCK)


def test_history():
    draw = random.Random(seed)
    for step in range(40 if LONG else 8):
        server.start()
        h = server.connect()
        for _ in range(60):
            draw.choices((write, zero, lambda h, draw: h.flush(), lambda h, draw: shift(draw)), (10, 3, 1, 2))[0](h, draw)
            if server.process and h.get_size() != len(model):
                h = server.connect()
        assert_same()
        if draw.randrange(2):
            server.kill()
        else:
            server.stop()
            lacuna("check", server.path)
        for _ in range(2):
            shift(draw)
    server.start()
    assert_same()


def test_wrong():
    """What is wrong is refused, with a server and without one, and changes nothing."""
    for _ in range(2):
        for command in ("collapse-range", "insert-range"):
            refused(command, server.path, "disk", "0", "0", text="greater than zero")
            refused(command, server.path, "disk", "0", "512", text="length 512 is not a multiple of 4096")
            refused(command, server.path, "disk", "1", "4096", text="offset 1 is not a multiple of 4096")
            refused(command, server.path, "disk", str(len(model) + BLOCK), "4K", text="beyond the disk")
            refused(command, server.path, "disk", "0", "4K", "--request-id", "x", text="is no UUID")
            refused(command, server.path, "disk", "-4096", "4K", text="negative")
        refused("collapse-range", server.path, "disk", str(len(model) - BLOCK), "8K", text="ends beyond the disk")
        refused("collapse-range", server.path, "disk", "0", str(len(model)), text="nothing would be left")
        refused("insert-range", server.path, "disk", "0", str((1 << 63) - BLOCK), text="too large")
        for command in ("collapse-range", "insert-range"):
            result = subprocess.run([LACUNA, command, server.path, "nobody", "0", "4K"], stderr=subprocess.PIPE, text=True)
            assert result.returncode == 1 and "nobody: there is no disk of this name" in result.stderr, result
        if server.process:
            server.stop()
    server.start("--readonly")
    refused("collapse-range", server.path, "disk", "0", "4K", text="read-only")
    assert_same()
    server.stop()
    server.start()


def test_again():
    """Asked for under one id it is done once, also by another server, and after a kill."""
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    h = server.connect()
    write(h, random.Random(1))
    assert collapse(0, 3 * BLOCK, "--request-id", first) == ""
    assert collapse(0, 3 * BLOCK, "--request-id", first.upper()) == "already done\n"
    assert insert(5 * BLOCK, BLOCK, f"--request-id={second}") == ""
    server.kill()
    assert insert(5 * BLOCK, BLOCK, "--request-id", second) == "already done\n"
    server.start()
    assert collapse(0, 3 * BLOCK, "--request-id", first) == "already done\n"
    assert_same()


def test_old_size():
    """A client that knows the old size: what lies beyond the new one is refused; the rest is as it is now."""
    h = server.connect()
    size = h.get_size()
    collapse(0, 10 * BLOCK)
    assert h.pread(BLOCK, 0) == model[:BLOCK]
    assert error_of(h.pread, BLOCK, size - BLOCK) == "EINVAL"
    assert error_of(h.pread, 2 * BLOCK, size - 11 * BLOCK) == "EINVAL"
    assert error_of(h.pwrite, bytes(BLOCK), size - BLOCK) == "ENOSPC"
    assert error_of(h.trim, BLOCK, size - BLOCK) == "EINVAL"
    assert h.pread(BLOCK, size - 11 * BLOCK) == model[-BLOCK:]
    insert(0, 12 * BLOCK)
    assert h.pread(BLOCK, 12 * BLOCK) == model[12 * BLOCK:13 * BLOCK]
    assert server.connect().get_size() == size + 2 * BLOCK
    assert_same()


def tagged(number):
    return number.to_bytes(8, "little") * (BLOCK // 8)


class Beside(threading.Thread):
    """A client that works until it is told to end; what went wrong is raised by finish."""

    def __init__(self, work):
        super().__init__()
        self.work, self.error, self.rounds = work, None, 0
        self.is_ending = threading.Event()
        self.start()

    def run(self):
        try:
            while not self.is_ending.is_set() or self.rounds == 0:
                self.work()
                self.rounds += 1
        except BaseException as error:
            self.error = error

    def finish(self):
        self.is_ending.set()
        self.join()
        if self.error:
            raise self.error
        return self.rounds


def test_beside():
    """Blocks before the range, and other disks, are as if nothing happened; a block behind it is what it was, or what it is
    going to be."""
    global model
    draw = random.Random(seed)
    front, step = 100, 7
    # The history may have left less.
    insert(len(model), max(2 * front * BLOCK - len(model), BLOCK))
    blocks = len(model) // BLOCK
    mine, others = server.connect(), server.connect("other")
    behind, writer = server.connect(), server.connect()

    def work_in_front():
        block = draw.randrange(front)
        number = draw.randrange(1, 1 << 60)
        mine.pwrite(tagged(number), block * BLOCK)
        assert mine.pread(BLOCK, block * BLOCK) == tagged(number)

    def work_elsewhere():
        block = random.randrange(1000)
        others.pwrite(tagged(block), block * BLOCK)
        assert others.pread(BLOCK, block * BLOCK) == tagged(block)

    def read_behind():
        block = random.randrange(front, blocks - step)
        data = behind.pread(BLOCK, block * BLOCK)
        assert data in (tagged(block), tagged(block + step), bytes(BLOCK)), (block, data[:8])

    for block in range(blocks):
        mine.pwrite(tagged(block), block * BLOCK)
    threads = [Beside(work) for work in (work_in_front, work_elsewhere, read_behind)]
    try:
        for _ in range(60 if LONG else 15):
            collapse(front * BLOCK, step * BLOCK)
            insert(front * BLOCK, step * BLOCK)
            # What was inserted is a hole: written again, it is as it was.
            for block in range(front, front + step):
                writer.pwrite(tagged(block), block * BLOCK)
    finally:
        rounds = [thread.finish() for thread in threads]
    print(f"rounds beside: {rounds}")
    h = server.connect()
    assert h.get_size() == blocks * BLOCK
    for block in range(front, blocks):
        assert h.pread(BLOCK, block * BLOCK) == tagged(block), block
    model = bytearray(h.pread(blocks * BLOCK, 0))


def test_end():
    assert_same()
    server.stop()
    lacuna("check", server.path)


run_tests(globals())
