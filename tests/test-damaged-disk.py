#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A disk of which a part of the map is gone, both copies: it is named and refused, all others are served, and when it is
deleted the store is as good as any.  (Each node, and what becomes of the space: tests/sim/test-damaged.c.)
"""

import json
import os
import shutil
import struct
import subprocess

import nbd
import harness
from harness import BLOCK, KIB, LACUNA, MIB, Server, lacuna, run_tests

DATA = b"data" * (BLOCK // 4)
DISKS = {"disk": 64 * MIB, "other": 16 * MIB}


def fails(*arguments):
    """What the program says when it fails."""
    result = subprocess.run([LACUNA, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1, (arguments, result)
    return result.stdout + result.stderr


def listed(path):
    return {disk["name"]: disk for disk in json.loads(lacuna("list", path, "--json"))}


def make():
    """A store, closed, and the places of its nodes."""
    server = Server(DISKS).start()
    h = server.connect()
    for block in range(700):
        h.pwrite(DATA, 8 * KIB * block)
    h.shutdown()
    other = server.connect("other")
    other.pwrite(DATA * 100, 1 * MIB)
    other.shutdown()
    server.stop()
    with open(server.path, "rb") as file:
        meta, = struct.unpack("<Q", os.pread(file.fileno(), 8, 88))
        nodes = [place for place in range(4, meta // 2)
                 if any(os.pread(file.fileno(), BLOCK, place * BLOCK))]
    return server, meta, nodes


def damage(path, meta, place):
    with open(path, "r+b") as file:
        for copy in (place, place + meta // 2):
            file.seek(copy * BLOCK + 100)
            file.write(b"rot")


def is_refused(server, disk):
    try:
        server.connect(disk).shutdown()
        return None
    except nbd.Error as error:
        return str(error)


def judge(server):
    """The disk `disk' is damaged: what can be done with it, and with the other."""
    path = server.path
    assert "damaged" in lacuna("list", path).splitlines()[1], lacuna("list", path)
    assert "yes" in [line for line in lacuna("info", path, "disk").splitlines() if line.startswith("damaged")][0]
    server.start()
    for command in (["resize", path, "disk", "+1M"], ["map", path, "disk"],
                    ["collapse-range", path, "disk", "0", "4096"],
                    ["clone-range", path, "other", "0", "4096", "disk", "0"]):
        assert "damaged" in fails(*command), command
    stat = json.loads(lacuna("stat", path, "--json"))
    assert stat["counters"]["damaged_disks"] == 1 and stat["store"]["withheld"] > 0, stat
    assert is_refused(server, "disk"), "a damaged disk was opened"
    other = server.connect("other")
    assert other.pread(100 * BLOCK, 1 * MIB) == DATA * 100
    other.pwrite(DATA, 2 * MIB)
    other.trim(64 * KIB, 1 * MIB)
    other.flush()
    assert other.pread(BLOCK, 2 * MIB) == DATA and other.pread(BLOCK, 1 * MIB) == bytes(BLOCK)
    other.shutdown()
    server.stop()
    said = open(server.errors).read()
    assert "map of disk disk" in said and "cannot be used" in said, said
    assert "of disk 'disk': both copies are invalid" in fails("check", path)


def test_damaged_disk():
    server, meta, nodes = make()
    whole = server.path + ".whole"
    shutil.copyfile(server.path, whole)
    tried = 0
    for place in nodes:
        shutil.copyfile(whole, server.path)
        damage(server.path, meta, place)
        result = subprocess.run([LACUNA, "list", server.path, "--json"], stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True)
        disks = {disk["name"]: disk for disk in json.loads(result.stdout)} if result.returncode == 0 else {}
        if not disks.get("disk", {}).get("damaged"):
            continue
        tried += 1
        judge(server)
        # It is gone, and nothing is left of it.
        lacuna("delete", server.path, "disk")
        lacuna("list", server.path)
        server.start().stop()
        assert list(listed(server.path)) == ["other"]
        assert json.loads(lacuna("info", server.path, "--json"))["withheld"] == 0
        assert lacuna("check", server.path).endswith("clean\n")
        break
    assert tried == 1, nodes


def test_plugin():
    if not shutil.which("nbdkit") or not os.path.exists(harness.PLUGIN):
        return
    server, meta, nodes = make()
    for place in nodes:
        shutil.copyfile(server.path, server.path + ".whole")
        damage(server.path, meta, place)
        if subprocess.run([LACUNA, "list", server.path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True).stdout.count("damaged") == 1:
            break
        shutil.copyfile(server.path + ".whole", server.path)
    server.front_end = "plugin"
    server.start()
    assert is_refused(server, "disk") and not is_refused(server, "other")
    server.stop()
    assert "the disk is damaged" in open(server.errors).read()


run_tests(globals())
