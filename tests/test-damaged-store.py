#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Each block of a store's metadata in turn is zeroed, overwritten, or has one bit turned.  Then the store is refused
with a message, or serves exactly what it served before: never a crash, never other data.

LACUNA_SEED=N damages the same blocks in the same way; LACUNA_DAMAGES=N is how many (default 16, long variant all).
"""

import os
import random
import re
import subprocess

import nbd
import harness
from harness import BLOCK, KIB, LONG, MIB, Server, lacuna, run_tests

seed = int(os.environ.get("LACUNA_SEED", random.randrange(1 << 32)))
most = int(os.environ.get("LACUNA_DAMAGES", 1 << 30 if LONG else 16))
print(f"LACUNA_SEED={seed}", flush=True)
rng = random.Random(seed)

DATA = b"data" * (BLOCK // 4)
DISKS = {"disk": 64 * MIB, "other": 16 * MIB, "empty": 4 * MIB}


def make():
    server = Server(DISKS).start()
    h = server.connect()
    for _ in range(600):
        h.pwrite(DATA, rng.randrange(64 * MIB // BLOCK) * BLOCK)
    for _ in range(20):
        h.trim(1 * MIB, rng.randrange(64) * MIB)
    h.flush()
    h.shutdown()
    other = server.connect("other")
    other.pwrite(DATA * 16, 1 * MIB)
    other.zero(64 * KIB, 2 * MIB, nbd.CMD_FLAG_NO_HOLE)
    other.shutdown()
    server.stop()
    return server.path


def metadata_of(path):
    """Blocks that are neither holes nor what the disks hold."""
    places = []
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        at = 0
        while at < end:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            hole = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            for place in range(at - at % BLOCK, hole, BLOCK):
                block = os.pread(file.fileno(), BLOCK, place)
                if any(block) and block != DATA:
                    places.append(place)
            at = hole
    return places


def content(path):
    """What a client sees of all disks; None if the store is refused, which must be said well."""
    script = " && ".join(f'nbdcopy "nbd+unix:///{disk}?socket=$unixsocket" {path}.{disk} && sha256sum <{path}.{disk}'
                         for disk in DISKS)
    result = subprocess.run(
        [harness.LACUNA, "serve", path, "-U", path + ".sock", "--cache", "80M", "--arena", path + ".arena", "--run",
         script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert result.returncode >= 0 and result.returncode < 128, (result.returncode, result.stderr)
    assert not re.search("Sanitizer|runtime error|check_failed", result.stderr), result.stderr
    if result.returncode != 0:
        assert path in result.stderr or "nbdcopy" in result.stderr, result.stderr
        return None
    return result.stdout


def damage(path, places):
    how = rng.choice(["zeroed", "overwritten", "bit"])
    with open(path, "r+b") as file:
        for place in places:
            file.seek(place)
            block = bytearray(file.read(BLOCK))
            if how == "zeroed":
                block = bytes(BLOCK)
            elif how == "overwritten":
                block = rng.randbytes(BLOCK)
            else:
                bit = rng.randrange(BLOCK * 8)
                block[bit // 8] ^= 1 << bit % 8
            file.seek(place)
            file.write(block)
    return how


def test_damage():
    path = make()
    before = content(path)
    assert before and len(set(before.split("\n"))) > len(DISKS), before
    assert lacuna("check", path) is not None
    places = metadata_of(path)
    chosen = sorted(rng.sample(places, most)) if most < len(places) else places
    print(f"{len(places)} blocks of metadata, {len(chosen)} are damaged")
    damages = [[place] for place in chosen]
    # One copy of everything may be lost; with more of them gone there is something to refuse.
    damages += [rng.sample(places, rng.randrange(2, len(places))) for _ in range(len(chosen) // 3)]
    copy = path + ".damaged"
    refused = recovered = 0
    for damaged in damages:
        subprocess.run(["cp", "--sparse=always", path, copy], check=True)
        how = damage(copy, damaged)
        check = subprocess.run([harness.LACUNA, "check", copy], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        what = f"blocks {[place // BLOCK for place in damaged]} {how}: check says {check.returncode}: " \
               f"{(check.stdout + check.stderr)[-300:]!r}"
        assert check.returncode in (0, 1, 2), what
        assert not re.search("Sanitizer|runtime error", check.stderr), what
        after = content(copy)
        assert after in (None, before), f"{what}: other data is served"
        refused += after is None
        recovered += after is not None
        for suffix in ("", ".arena", ".sock"):
            if os.path.exists(copy + suffix):
                os.unlink(copy + suffix)
    print(f"{refused} refused, {recovered} served as before")


run_tests(globals())
