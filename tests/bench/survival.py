# SPDX-License-Identifier: BSD-2-Clause
"""survival.py PORT TAGS DO [COUNT] - the client of survival.sh; TAGS is a file of what each block should hold.

wait              until the server answers
fill              writes the whole range once, and flushes
one               COUNT times: a write of 4 KiB, FLUSH
scattered         COUNT times: 32 writes of 4 KiB all over the range, FLUSH
flushed           COUNT new blocks, then FLUSH
unflushed         COUNT new blocks, all acknowledged
judge             what is there of the last two
"""

import json
import os
import random
import sys
import time

import nbd

BLOCK = 4096
RANGE = 64 << 20                # what `one' and `scattered' write to: filled, so no space is taken
NEW = 256 << 20                 # where new blocks are: space is taken


def connect(port):
    h = nbd.NBD()
    h.set_export_name("disk")
    h.connect_tcp("127.0.0.1", str(port))
    return h


def wait(port):
    deadline = time.monotonic() + 120
    while True:
        try:
            return connect(port).shutdown()
        except nbd.Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def content(tag):
    return tag.to_bytes(8, "little") * (BLOCK // 8)


def write_new(h, tags, kind, count):
    """Blocks that have never been written, some apart from each other; all in flight at once."""
    known = tags["blocks"]
    for i in range(count):
        offset = NEW + len(known) * 3 * BLOCK
        known.append([offset, len(known) + 1, kind])
        h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(content(len(known)))), offset)
    while h.aio_in_flight() > 0:
        h.poll(-1)


def rounds(h, count, writes):
    for _ in range(count):
        for offset in random.sample(range(0, RANGE, BLOCK), writes):
            h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(os.urandom(BLOCK))), offset)
        while h.aio_in_flight() > 0:
            h.poll(-1)
        h.flush()


def judge(h, tags):
    for kind in ("flushed", "unflushed"):
        mine = [block for block in tags["blocks"] if block[2] == kind]
        there = sum(h.pread(BLOCK, offset) == content(tag) for offset, tag, _ in mine)
        print(f"{kind}: {there} of {len(mine)} acknowledged are there", end="  ")
    print()
    tags["blocks"] = [[offset, tag, "judged"] for offset, tag, _ in tags["blocks"]]


def main():
    port, file, do = sys.argv[1], sys.argv[2], sys.argv[3]
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    if do == "wait":
        return wait(port)
    tags = json.load(open(file)) if os.path.exists(file) and do != "fill" else {"blocks": []}
    h = connect(port)
    if do == "fill":
        for offset in range(0, RANGE, 1 << 20):
            h.pwrite(os.urandom(1 << 20), offset)
        h.flush()
    elif do == "one":
        rounds(h, count, 1)
    elif do == "scattered":
        rounds(h, count, 32)
    elif do in ("flushed", "unflushed"):
        write_new(h, tags, do, count)
        if do == "flushed":
            h.flush()
    elif do == "judge":
        judge(h, tags)
    h.shutdown()
    json.dump(tags, open(file, "w"))


main()
