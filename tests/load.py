# SPDX-License-Identifier: BSD-2-Clause
"""A random load of all commands, from several connections at once, against a model that knows every byte.

Requests in flight never overlap a change in flight, so that the model always knows what a read must return; but they
touch each other at any byte, so most of them share blocks.  A seed gives the same choices again, not the
same timing.
"""

import random
import threading
import time

import nbd
from harness import BLOCK, KIB, MIB

SECTOR = 512


class Mismatch(AssertionError):
    pass


class Operation:
    def __init__(self, kind, offset, length):
        self.kind = kind
        self.offset = offset
        self.end = offset + length
        self.data = None     # what it writes
        self.buffer = None   # what it reads into
        self.extents = []

    def is_change(self):
        return self.kind in ("write", "zero", "trim")

    def conflicts(self, other):
        return (self.offset < other.end and other.offset < self.end and (self.is_change() or other.is_change()))


class Load:
    WEIGHTS = {"read": 30, "write": 40, "zero": 8, "trim": 10, "flush": 3, "cache": 3, "status": 6}

    def __init__(self, size, seed, most=256 * KIB):
        self.size = size
        self.seed = seed
        self.most = most
        self.model = bytearray(size)
        self.mutex = threading.Lock()
        self.running = set()
        self.counts = dict.fromkeys(self.WEIGHTS, 0)
        self.uncertain = []
        self.error = None
        self.stop = False
        self.is_killed = False
        self.rounds = 0

    # --- choosing ---

    def _choose(self, rng):
        kind = rng.choices(list(self.WEIGHTS), list(self.WEIGHTS.values()))[0]
        if kind == "flush":
            return Operation(kind, 0, 0)
        length = min(1 + int(rng.expovariate(1 / (24 * KIB))), self.most)
        if rng.random() < 0.02:
            length = self.most
        if kind in ("zero", "trim") and rng.random() < 0.1:
            length = rng.randrange(1, 8 * MIB)
        # A quarter of the disk gets half of the load.
        area = self.size // 4 if rng.random() < 0.5 else self.size
        offset = rng.randrange(0, max(1, area - length))
        if rng.random() < 0.6:
            offset -= offset % BLOCK
            length = max(BLOCK, length - length % BLOCK)
        elif rng.random() < 0.5:
            offset -= offset % SECTOR
            length = max(SECTOR, length - length % SECTOR)
        return Operation(kind, offset, length)

    def _take(self, rng):
        """A new operation that goes together with those in flight; with its place in `running'."""
        while True:
            operation = self._choose(rng)
            with self.mutex:
                if not any(operation.conflicts(other) for other in self.running):
                    self.running.add(operation)
                    return operation

    # --- doing ---

    def _start(self, h, rng, op):
        length = op.end - op.offset
        fua = nbd.CMD_FLAG_FUA if rng.random() < 0.05 else 0
        if op.kind == "read":
            op.buffer = bytearray(length)     # nbd.Buffer is never freed (libnbd 1.14)
            return h.aio_pread(op.buffer, op.offset)
        if op.kind == "write":
            op.data = rng.randbytes(length)
            return h.aio_pwrite(op.data, op.offset, flags=fua)
        if op.kind == "zero":
            op.data = bytes(length)
            flags = rng.choice([0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO])
            return h.aio_zero(length, op.offset, flags=fua | flags)
        if op.kind == "trim":
            # Whole blocks become zeros, parts of blocks stay.
            first = -(-op.offset // BLOCK) * BLOCK
            last = max(first, op.end // BLOCK * BLOCK)
            with self.mutex:
                op.data = bytes(self.model[op.offset:op.end])
            if first < last:
                op.data = op.data[:first - op.offset] + bytes(last - first) + op.data[last - op.offset:]
            return h.aio_trim(length, op.offset, flags=fua)
        if op.kind == "flush":
            return h.aio_flush()
        if op.kind == "cache":
            return h.aio_cache(length, op.offset)

        def callback(context, offset, entries, error):
            op.extents.extend(zip(entries[::2], entries[1::2]))
            return 0

        return h.aio_block_status(length, op.offset, callback)

    def _finish(self, op):
        """It was acknowledged: judge it, or let the model know."""
        if op.kind == "read":
            got = op.buffer
            with self.mutex:
                expected = self.model[op.offset:op.end]
            if got != expected:
                at = next(i for i in range(len(got)) if got[i] != expected[i])
                raise Mismatch(f"read [{op.offset}, {op.end}): byte {op.offset + at} is {got[at]:#x}, "
                               f"should be {expected[at]:#x}")
        elif op.kind == "status":
            at = op.offset
            if not op.extents:
                raise Mismatch("block status without extents")
            for length, flags in op.extents:
                end = min(at + length, op.end)
                if length == 0 or flags & ~3:
                    raise Mismatch(f"block status: length {length}, flags {flags}")
                with self.mutex:
                    if flags & nbd.STATE_ZERO and any(self.model[at:end]):
                        raise Mismatch(f"block status says zeros in [{at}, {end})")
                at = end
        with self.mutex:
            if op.is_change():
                self.model[op.offset:op.end] = op.data
            self.running.discard(op)
            self.counts[op.kind] += 1

    def _client(self, connect, number, depth):
        rng = random.Random(f"{self.seed} {self.rounds} {number}")
        flights = {}
        try:
            h = connect()
            while flights or not self.stop:
                while len(flights) < depth and not self.stop:
                    op = self._take(rng)
                    try:
                        flights[self._start(h, rng, op)] = op
                    except nbd.Error:
                        flights[object()] = op
                        raise
                for cookie, op in list(flights.items()):
                    if h.aio_command_completed(cookie):
                        del flights[cookie]
                        self._finish(op)
                if flights:
                    h.poll(100)
            h.shutdown()
        except nbd.Error as error:
            # What was answered before the connection ended counts as acknowledged.
            for cookie, op in list(flights.items()):
                if self._is_completed(h, cookie):
                    del flights[cookie]
                    self._finish(op)
            with self.mutex:
                for op in flights.values():
                    self.running.discard(op)
                    if op.is_change():
                        self.uncertain.append(op)
            if not self.is_killed:
                self.error = self.error or error
                self.stop = True
        except BaseException as error:
            self.error = self.error or error
            self.stop = True

    @staticmethod
    def _is_completed(h, cookie):
        try:
            return isinstance(cookie, int) and h.aio_command_completed(cookie)
        except nbd.Error:
            return False

    def begin(self, connect, connections=4, depth=8):
        """From now on, until end ()."""
        self.stop = self.is_killed = False
        self.rounds += 1
        self.threads = [threading.Thread(target=self._client, args=(connect, i, depth), daemon=True)
                        for i in range(connections)]
        for thread in self.threads:
            thread.start()

    def expect_kill(self):
        """What fails from now on is uncertain, and nothing else is wrong with it."""
        self.is_killed = True

    def end(self):
        """Raises what went wrong."""
        self.stop = True
        for thread in self.threads:
            thread.join(120)
            if thread.is_alive():
                raise AssertionError("a request is without an answer for 120 s")
        if self.error:
            raise self.error

    def run(self, connect, seconds, kill=None, connections=4, depth=8):
        """For SECONDS; KILL: a function that kills the server then.  Raises what went wrong."""
        self.begin(connect, connections, depth)
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.stop:
            time.sleep(0.05)
        if kill and not self.error:
            self.expect_kill()
            kill()
        self.end()

    # --- afterwards ---

    def settle(self, h):
        """After a kill: what was in flight is there, or not, sector by sector; then it is known again."""
        for op in self.uncertain:
            got = h.pread(op.end - op.offset, op.offset)
            at = op.offset
            while at < op.end:
                end = min(op.end, (at // SECTOR + 1) * SECTOR)
                part = slice(at - op.offset, end - op.offset)
                if got[part] != op.data[part] and got[part] != self.model[at:end]:
                    raise Mismatch(f"{op.kind} [{op.offset}, {op.end}) in flight at the kill: sector at {at} is neither "
                                   "old nor new")
                at = end
            self.model[op.offset:op.end] = got
        settled = len(self.uncertain)
        self.uncertain = []
        return settled

    def verify(self, h):
        """All of the disk."""
        for at in range(0, self.size, 4 * MIB):
            length = min(4 * MIB, self.size - at)
            got = h.pread(length, at)
            expected = self.model[at:at + length]
            if got != expected:
                bad = next(i for i in range(length) if got[i] != expected[i])
                raise Mismatch(f"byte {at + bad} is {got[bad]:#x}, should be {expected[bad]:#x}")
