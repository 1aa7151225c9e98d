#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The arena gets its space while the server serves already: kill -9 meanwhile loses nothing that was answered; if others
take the space meanwhile, the server says so and ends, and loses nothing either."""

import errno
import os
import signal
import subprocess

from harness import MIB, Server, lacuna, run_tests, tmp

ROUNDS = 5


def is_growing(server):
    stat = os.stat(server.arena)
    return stat.st_blocks * 512 < stat.st_size


def pattern(round, at):
    return bytes([round + 1, at % 251]) * 2048


def write(server, round):
    """A window of it, not flushed."""
    h = server.connect()
    for at in range(64):
        h.pwrite(pattern(round, at), at * 4096)
    h.pwrite(bytes([round + 1]) * 16 * MIB, 16 * MIB)


def verify(server, round):
    h = server.connect()
    for at in range(64):
        assert h.pread(4096, at * 4096) == pattern(round, at), f"block {at} of round {round} is lost"
    assert h.pread(16 * MIB, 16 * MIB) == bytes([round + 1]) * 16 * MIB, f"the long write of round {round} is lost"
    h.shutdown()


def test_kill_while_growing():
    server = Server({"disk": 64 * MIB}, cache="1G")
    growing = 0
    for round in range(ROUNDS):
        server.start()
        write(server, round)
        growing += is_growing(server)
        server.kill()
        server.start()
        verify(server, round)
        assert not is_growing(server), "an arena that was taken over has all of its space"
        server.stop()
    print(f"{growing} of {ROUNDS} were killed while the arena was growing")


def test_full_meanwhile():
    """A small tmpfs, which is filled while the server stands still."""
    place = os.path.join(tmp, "small")
    os.mkdir(place)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1100m", "none", place]).returncode:
        print("needs root to mount a small file system")
        return
    filler = os.path.join(place, "filler")
    try:
        server = Server({"disk": 64 * MIB}, cache="1G")
        server.arena = os.path.join(place, "arena")
        ended = 0
        for round in range(ROUNDS):
            server.start()
            write(server, round)
            server.process.send_signal(signal.SIGSTOP)
            with open(filler, "wb", buffering=0) as file:
                try:
                    while file.write(bytes(MIB)):
                        pass
                except OSError as problem:
                    assert problem.errno == errno.ENOSPC
            was_growing = is_growing(server)
            server.process.send_signal(signal.SIGCONT)
            if was_growing:
                assert server.process.wait(60) == 1
                assert f"the arena {server.arena} needs" in server.last_words(), server.last_words()
                server.process = None
                ended += 1
            else:
                server.kill()
            os.unlink(filler)
            server.start()
            verify(server, round)
            server.stop()
        print(f"{ended} of {ROUNDS} ended because others took the space")
        # And known before.
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 300 * MIB)
        try:
            server.start()
            assert False, "the arena does not fit, and the server starts"
        except AssertionError as problem:
            assert "ended before it was ready" in str(problem), problem
        assert f"the arena {server.arena} needs" in server.last_words(), server.last_words()
        server.process = None
        os.unlink(filler)
        server.start()
        verify(server, ROUNDS - 1)
        server.stop()
        lacuna("check", server.path)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


run_tests(globals())
