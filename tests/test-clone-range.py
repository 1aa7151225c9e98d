#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""clone-range: what is cloned reads the same and goes its own way afterwards, takes its space once, is given back by the last
who has it, and is copied on write, which a full store refuses; with a server and without one, killed in between, beside
clients that write.  LACUNA_SEED=N replays a history."""

import json
import os
import random
import subprocess
import threading
import time
import uuid

import nbd
from harness import BLOCK, KIB, LACUNA, LONG, MIB, Server, error_of, extents_of, lacuna, run_tests

seed = int(os.environ.get("LACUNA_SEED", random.randrange(1 << 32)))
print(f"LACUNA_SEED={seed}")

SIZE = 4 * MIB
server = Server({"one": SIZE, "two": SIZE})
models = {"one": bytearray(SIZE), "two": bytearray(SIZE)}


def clone(source, offset, length, target, to, *options):
    return lacuna("clone-range", server.path, source, str(offset), str(length), target, str(to), *options)


def model_clone(source, offset, length, target, to):
    models[target][to:to + length] = models[source][offset:offset + length]


def info(store=None):
    return json.loads(lacuna("info", (store or server).path, "--json"))


def refused(*arguments, text, disk="one"):
    result = subprocess.run([LACUNA, "clone-range", server.path, *arguments], stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1 and text in result.stderr, (arguments, result)
    assert result.stderr.startswith(f"lacuna: {server.path}: {disk}: "), result.stderr


def assert_same():
    for disk, model in models.items():
        h = server.connect(disk)
        data = h.pread(SIZE, 0)
        if data != model:
            first = next(i for i in range(SIZE) if data[i] != model[i])
            raise AssertionError(f"byte {first} of {disk} is {data[first]}, not {model[first]}")
        h.shutdown()


def wait_for(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def change(disk, handles, draw):
    offset = draw.randrange(SIZE)
    length = min(draw.randrange(1, 20 * BLOCK), SIZE - offset)
    kind = draw.randrange(5)
    if kind < 3:
        data = draw.randbytes(length)
        handles[disk].pwrite(data, offset, draw.choice((0, 0, nbd.CMD_FLAG_FUA)))
    else:
        data = bytes(length)
        handles[disk].zero(length, offset, draw.choice((0, nbd.CMD_FLAG_NO_HOLE)))
    models[disk][offset:offset + length] = data


def random_clone(draw):
    source, target = draw.choice(("one", "two")), draw.choice(("one", "two"))
    length = draw.randrange(1, 200) * BLOCK
    offset = draw.randrange((SIZE - length) // BLOCK + 1) * BLOCK
    to = draw.randrange((SIZE - length) // BLOCK + 1) * BLOCK
    if source == target and abs(offset - to) < length:
        return
    clone(source, offset, length, target, to)
    model_clone(source, offset, length, target, to)


def test_history():
    draw = random.Random(seed)
    for step in range(40 if LONG else 5):
        server.start()
        handles = {disk: server.connect(disk) for disk in models}
        for _ in range(80):
            if draw.randrange(5) == 0:
                random_clone(draw)
            else:
                change(draw.choice(("one", "two")), handles, draw)
        assert_same()
        if draw.randrange(2):
            server.kill()
        else:
            server.stop()
            lacuna("check", server.path)
        random_clone(draw)
    server.start()
    assert_same()
    server.stop()
    lacuna("check", server.path)


def test_wrong():
    """What is wrong is refused, with a server and without one, and changes nothing."""
    server.start()
    for _ in range(2):
        refused("one", "0", "0", "two", "0", text="greater than zero")
        refused("one", "0", "512", "two", "0", text="length 512 is not a multiple of 4096")
        refused("one", "1", "4096", "two", "0", text="offset 1 is not a multiple of 4096")
        refused("one", "0", "4096", "two", "2", text="offset 2 is not a multiple of 4096")
        refused("one", "4M", "4K", "two", "0", text="ends beyond the disk")
        refused("one", "0", "8M", "two", "0", text="ends beyond the disk")
        refused("one", "0", "8K", "two", str(SIZE - BLOCK), text="beyond the target")
        refused("one", "0", "8K", "one", "4K", text="overlap")
        refused("one", "0", "8K", "nobody", "4K", text="no disk of the name of the target")
        refused("one", "0", "8K", "\xff\n", "4K", text="the target: ")
        refused("nobody", "0", "8K", "one", "4K", text="no disk of this name", disk="nobody")
        refused("one", "-4096", "8K", "two", "4K", text="negative")
        refused("one", "0", "8K", "two", "0", "--request-id", "x", text="is no UUID")
        if server.process:
            server.stop()
    server.start("--readonly")
    refused("one", "0", "8K", "two", "0", text="read-only")
    assert_same()
    server.stop()


def test_again():
    """Under one id it is done once, also after a kill, and by a command without a server."""
    name = str(uuid.uuid4())
    server.start()
    h = server.connect("one")
    h.pwrite(b"1" * 64 * KIB, 0)
    assert clone("one", 0, 64 * KIB, "two", MIB, "--request-id", name) == ""
    h.pwrite(b"2" * 64 * KIB, 0)
    assert clone("one", 0, 64 * KIB, "two", MIB, "--request-id", name) == "already done\n"
    server.kill()
    assert clone("one", 0, 64 * KIB, "two", MIB, "--request-id", name) == "already done\n"
    models["one"][:64 * KIB] = b"2" * 64 * KIB
    models["two"][MIB:MIB + 64 * KIB] = b"1" * 64 * KIB
    server.start()
    assert_same()
    server.stop()


def test_beside_writers():
    """A clone is one moment of the source, block by block, whatever is written meanwhile."""
    server.start()
    for disk in models:
        h = server.connect(disk)
        h.zero(SIZE, 0)
    stopping = threading.Event()
    last = [0]                   # rounds that have ended

    def write():
        h = server.connect("one")
        for number in range(1, 1 << 30):
            for block in range(64):
                h.pwrite(number.to_bytes(8, "big") * (BLOCK // 8), block * BLOCK)
            last[0] = number
            if stopping.is_set():
                return

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    h = server.connect("two")
    for _ in range(100 if LONG else 15):
        before = last[0]
        clone("one", 0, 64 * BLOCK, "two", MIB)
        after = last[0]
        data = bytes(h.pread(64 * BLOCK, MIB))
        for block in range(64):
            cells = {data[at:at + 8] for at in range(block * BLOCK, (block + 1) * BLOCK, 8)}
            assert len(cells) == 1, "a block is torn"
            number = int.from_bytes(cells.pop(), "big")
            assert before <= number <= after + 1, (before, number, after)
        assert h.pread(64 * BLOCK, MIB) == data, "the clone follows its source"
    stopping.set()
    writer.join()
    server.stop()
    lacuna("check", server.path)


def test_space():
    """Shared blocks take their space once, and the last one who has them gives them back."""
    store = Server({"one": 64 * MIB, "two": 64 * MIB}).start()
    one, two = store.connect("one"), store.connect("two")
    one.pwrite(random.randbytes(16 * MIB), 0)
    one.flush()
    wait_for(lambda: info(store)["used"] == 16 * MIB, "the data has no place")
    taken = store.allocated()
    assert info(store)["shared"] == 0
    for _ in range(2):
        lacuna("clone-range", store.path, "one", "0", "16M", "two", "32M")
        assert two.pread(16 * MIB, 32 * MIB) == one.pread(16 * MIB, 0)
        assert info(store)["used"] == 16 * MIB and info(store)["shared"] == 16 * MIB
        assert store.allocated() < taken + MIB
    two.pwrite(b"x" * 4 * MIB, 32 * MIB)
    two.flush()
    wait_for(lambda: info(store)["used"] == 20 * MIB and info(store)["shared"] == 12 * MIB, "4 MiB are copied")
    assert one.pread(4 * MIB, 0) != two.pread(4 * MIB, 32 * MIB)
    # Trimming one side gives nothing back but what it has alone.
    one.trim(64 * MIB, 0)
    one.flush()
    wait_for(lambda: info(store)["used"] == 16 * MIB and info(store)["shared"] == 0, "the first side is trimmed")
    wait_for(lambda: store.allocated() < taken + MIB, "what one side had alone is given back")
    assert store.allocated() > 15 * MIB
    assert two.pread(4 * MIB, 32 * MIB) == b"x" * 4 * MIB
    for h in (one, two):
        h.shutdown()
    del one, two
    wait_for(lambda: json.loads(lacuna("info", store.path, "two", "--json"))["connections"] == 0, "a connection stays")
    lacuna("delete", store.path, "two")
    wait_for(lambda: store.allocated() < taken - 15 * MIB, "the last one gives all back")
    store.stop()
    lacuna("check", store.path)


def test_depth():
    """What is shared is told apart by qemu:allocation-depth, and by nothing else: base:allocation is one extent."""
    store = Server({"one": 16 * MIB, "two": 16 * MIB}).start()
    base, depth = nbd.CONTEXT_BASE_ALLOCATION, "qemu:allocation-depth"

    def status_of(h, context, flags=0):
        return extents_of(h, 0, 16 * MIB, flags, context)

    one, two, plain = (store.connect(disk, contexts=contexts)
                       for disk, contexts in (("one", [depth]), ("two", [base, depth]), ("two", [base])))
    one.pwrite(b"s" * 8 * MIB, 0)
    assert status_of(one, depth) == [(8 * MIB, 1), (8 * MIB, 0)]
    lacuna("clone-range", store.path, "one", "0", "4M", "two", "2M")
    assert status_of(one, depth) == [(4 * MIB, 2), (4 * MIB, 1), (8 * MIB, 0)]
    two.pwrite(b"w" * 2 * MIB, 0)
    two.pwrite(b"w" * MIB, 3 * MIB)
    expected = [(2 * MIB, 1), (MIB, 2), (MIB, 1), (2 * MIB, 2), (10 * MIB, 0)]
    assert status_of(two, depth) == expected
    assert status_of(two, base) == [(6 * MIB, 0), (10 * MIB, 3)]
    assert status_of(plain, base, nbd.CMD_FLAG_REQ_ONE) == [(6 * MIB, 0)]
    two.flush()
    assert status_of(two, depth) == expected
    # The last one who has it has it for himself, once that is durable.
    one.trim(16 * MIB, 0)
    one.flush()
    assert status_of(two, depth) == [(6 * MIB, 1), (10 * MIB, 0)]
    for h in (one, two, plain):
        h.shutdown()
    store.stop()


def test_full():
    """Where there is no room, what is shared cannot be overwritten, and what is not can."""
    store = Server({"one": 128 * MIB, "two": 128 * MIB}, capacity="64M").start()
    one, two = store.connect("one"), store.connect("two")
    one.pwrite(b"s" * 4 * MIB, 0)
    lacuna("clone-range", store.path, "one", "0", "4M", "two", "0")
    at = 8 * MIB
    for step in (MIB, BLOCK):
        while error_of(one.pwrite, b"f" * step, at) is None:
            at += step
    one.flush()
    for h in (one, two):
        assert error_of(h.pwrite, b"x" * BLOCK, MIB) == "ENOSPC"
        assert error_of(h.pwrite, b"x", MIB) == "ENOSPC"
        assert error_of(h.zero, BLOCK, MIB, nbd.CMD_FLAG_NO_HOLE) == "ENOSPC"
        assert h.pread(4 * MIB, 0) == b"s" * 4 * MIB
    one.pwrite(b"g" * MIB, 8 * MIB)
    one.flush()
    one.zero(MIB, 9 * MIB, nbd.CMD_FLAG_NO_HOLE)
    # Cloning, and giving up, need no room; the one who is left alone has it for himself.
    lacuna("clone-range", store.path, "one", "8M", "1M", "two", "64M")
    assert error_of(one.pwrite, b"h" * BLOCK, 8 * MIB) == "ENOSPC"
    two.trim(MIB, 64 * MIB)
    one.pwrite(b"h" * MIB, 8 * MIB)
    two.trim(4 * MIB, 0)
    one.pwrite(b"i" * 4 * MIB, 0)
    one.flush()
    assert one.pread(4 * MIB, 0) == b"i" * 4 * MIB and not any(two.pread(4 * MIB, 0))
    store.stop()
    lacuna("check", store.path)


run_tests(globals())
