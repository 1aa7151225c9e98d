#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The plugin under each of nbdkit's filters that somebody may stack on it, and under nbdkit's own TLS.

Each row of the table is one nbdkit.  Through its filters the disk is read as the row before has left it, then written,
zeroed and trimmed at random against a model, then looked at in the way that this filter calls for.  The last row is
the server, which has no filter.
"""

import os
import random
import socket
import struct
import subprocess
import time

import nbd
from harness import BLOCK, KIB, MIB, Server, error_of, extents_of, lacuna, require_plugin, run_tests, tmp

require_plugin()
seed = int(os.environ.get("LACUNA_SEED", random.randrange(1 << 32)))
print(f"LACUNA_SEED={seed}", flush=True)
rng = random.Random(seed)

SIZE = 16 * MIB
FILTER_DIRECTORY = [line.split("=", 1)[1].strip() for line in
                    subprocess.run(["nbdkit", "--dump-config"], stdout=subprocess.PIPE, text=True).stdout.splitlines()
                    if line.startswith("filterdir=")][0]
LOG = os.path.join(tmp, "filter.log")
CONTROL = os.path.join(tmp, "pause.sock")
TRIGGER = os.path.join(tmp, "error.trigger")
EXTENTS = os.path.join(tmp, "extents")
KEYS = os.path.join(tmp, "keys.psk")


def retried(function, *arguments):
    """Under the error filter anything may fail, and is tried again; the number of failures is counted."""
    while True:
        try:
            return function(*arguments)
        except nbd.Error as error:
            assert retried.is_allowed and error.errno == "EIO", error
            retried.failures += 1


retried.is_allowed = False
retried.failures = 0


def read_all(h, size):
    return b"".join(retried(h.pread, min(MIB, size - at), at) for at in range(0, size, MIB))


def exercise(h, model, count, trims):
    """Random changes; MODEL (a bytearray) follows."""
    fua = [0, nbd.CMD_FLAG_FUA] if h.can_fua() else [0]
    for _ in range(count):
        length = rng.choice([1, 511, 512, BLOCK, 3 * BLOCK + 7, 64 * KIB, 300 * KIB])
        offset = rng.randrange(0, len(model) - length)
        if rng.random() < 0.7:
            offset -= offset % BLOCK
        part = slice(offset, offset + length)
        kind = rng.choice(["write", "write", "read", "zero", "trim", "flush", "cache"])
        if kind == "write":
            data = rng.randbytes(length)
            retried(h.pwrite, data, offset, rng.choice(fua))
            model[part] = data
        elif kind == "zero" and h.can_zero():
            flags = rng.choice([0, nbd.CMD_FLAG_NO_HOLE]) | rng.choice(fua)
            retried(h.zero, length, offset, flags)
            model[part] = bytes(length)
        elif kind == "trim" and h.can_trim() and trims:
            retried(h.trim, length, offset, rng.choice(fua))
            got = retried(h.pread, length, offset)
            assert all(a in (0, b) for a, b in zip(got, model[part])), "a trim made data that is neither old nor zero"
            model[part] = got
        elif kind == "flush" and h.can_flush():
            retried(h.flush)
        elif kind == "cache" and h.can_cache():
            retried(h.cache, length, offset)
        else:
            assert retried(h.pread, length, offset) == model[part], f"read of {length} bytes at {offset}"


def zeros_first(h, model):
    """Space that a zero without NO_HOLE gave back is a hole, unless the filter says that nothing is."""
    h.pwrite(b"\1" * MIB, 4 * MIB)
    h.zero(MIB, 4 * MIB)
    model[4 * MIB:5 * MIB] = bytes(MIB)
    return extents_of(h, 4 * MIB, MIB)


# --- what is special about a filter: functions (row, handle, model) ---

def check_extentlist(server, h, model):
    assert extents_of(h, 0, SIZE) == [(MIB, 0), (MIB, 3), (SIZE - 2 * MIB, 0)], extents_of(h, 0, SIZE)


def check_noextents(server, h, model):
    assert zeros_first(h, model)[0] == (MIB, 0)


def check_holes(server, h, model):
    assert zeros_first(h, model)[0] == (MIB, 3)


def check_discard(server, h, model):
    assert h.can_fua()
    h.pwrite(b"fua", 0, nbd.CMD_FLAG_FUA)
    model[0:3] = b"fua"


def check_log(server, h, model):
    h.pwrite(b"seen", 12345)
    model[12345:12349] = b"seen"
    said = open(LOG).read()
    assert "Write" in said and "offset=0x3039 count=0x4" in said, said[-500:]


def check_stats(server, h, model):
    h.shutdown()
    server.stop()
    said = open(LOG).read()
    assert "write:" in said and "read:" in said, said


def check_errors(server, h, model):
    assert retried.failures > 0, "the filter has made no errors"


def check_multi_conn(server, h, model):
    assert h.can_multi_conn()
    other = server.connect("disk")
    h.pwrite(b"one", 777)
    h.flush()
    model[777:780] = b"one"
    assert other.pread(3, 777) == b"one"
    other.shutdown()


def check_no_zero(server, h, model):
    assert not h.can_zero()


def check_pause(server, h, model):
    control = socket.socket(socket.AF_UNIX)
    control.connect(CONTROL)
    control.sendall(b"p")
    assert control.recv(1) == b"P"
    cookie = h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"late")), 99)
    h.poll(200)
    assert not h.aio_command_completed(cookie), "a request was answered during the pause"
    control.sendall(b"r")
    assert control.recv(1) == b"R"
    while not h.aio_command_completed(cookie):
        h.poll(-1)
    control.close()
    model[99:103] = b"late"


def check_read_only(server, h, model):
    assert h.is_read_only()
    assert error_of(h.pwrite, b"x", 0) in ("EPERM", "EROFS")
    assert h.pread(SIZE, 0) == model


def check_retry(server, h, model):
    """The first try fails; the filter opens the disk anew, and tries again."""
    open(TRIGGER, "w").close()
    cookie = h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"again")), 4321)
    h.poll(300)
    os.unlink(TRIGGER)
    while not h.aio_command_completed(cookie):
        h.poll(-1)
    model[4321:4326] = b"again"


def check_plain_client(server, h, model):
    """What a client sees that does not speak TLS: not the disk."""
    plain = nbd.NBD()
    plain.connect_unix(server.sock)
    assert plain.get_size() < SIZE and b"secret place" in plain.pread(plain.get_size(), 0)
    plain.shutdown()


def check_refused(server, h, model):
    plain = nbd.NBD()
    assert error_of(plain.connect_unix, server.sock), "a client without TLS came in"


# --- the table: filters, parameters, options of nbdkit, what of the disk is seen, what is special ---

class Row:
    def __init__(self, filters, *parameters, options=(), view=(0, SIZE), check=None, is_kept=True, exercise=40,
                 errors=False, tls=False, cache="80M", trims=True):
        self.filters = filters.split()
        self.parameters = list(parameters)
        self.options = list(options)
        self.start, self.size = view
        self.check = check
        self.is_kept = is_kept        # what is written reaches the disk
        self.exercise = exercise      # so many requests
        self.errors = errors
        self.tls = tls
        self.cache = cache            # None: the filter has a parameter of this name
        self.trims = trims            # what a TRIM leaves stays what it is


PSK = ["--tls-psk=" + KEYS]
ROWS = [
    # First, for the others write over the table of partitions.
    Row("partition", "partition=1", view=(MIB, 12 * MIB)),
    Row("offset", "offset=1M", "range=8M", view=(MIB, 8 * MIB)),
    Row("", check=check_holes),
    Row("blocksize", "minblock=4K", "maxdata=64K", "maxlen=1M"),
    # It passes TRIM by what it has cached: that reads as before, and otherwise once it has gone.
    Row("cache", "cache=writeback", cache=None, trims=False),
    Row("cow", is_kept=False),
    Row("delay", "delay-read=2ms", "delay-write=2ms"),
    Row("error", "error-rate=10%", "error=EIO", errors=True, exercise=120, check=check_errors),
    Row("extentlist", "extentlist=" + EXTENTS, check=check_extentlist),
    Row("noextents", check=check_noextents),
    Row("fua", "fuamode=emulate", check=check_discard),
    Row("fua", "fuamode=discard", check=check_discard),
    Row("fua", "fuamode=pass", check=check_discard),
    Row("log", "logfile=" + LOG, check=check_log),
    Row("multi-conn", check=check_multi_conn),
    Row("multi-conn", "multi-conn-mode=emulate", check=check_multi_conn),
    Row("nozero", check=check_no_zero),
    Row("nozero", "zeromode=emulate"),
    Row("nozero", "zeromode=notrim"),
    Row("pause", "pause-control=" + CONTROL, check=check_pause),
    Row("rate", "rate=2G"),
    Row("readahead"),
    Row("readonly", exercise=0, check=check_read_only),
    Row("retry error", "retries=20", "retry-delay=1", "retry-exponential=no", "error=EIO", "error-pwrite-rate=100%",
        "error-pwrite-file=" + TRIGGER, check=check_retry),
    Row("stats", "statsfile=" + LOG, check=check_stats),
    Row("truncate", "truncate=10M", view=(0, 10 * MIB)),
    Row("tls-fallback", "tlsreadme=secret place", options=["--tls=on", *PSK], tls=True, check=check_plain_client),
    Row("", options=["--tls=require", *PSK], tls=True, check=check_refused),
]


def connect(server, row):
    h = nbd.NBD()
    h.set_export_name("disk")
    h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    h.set_strict_mode(0)
    if row.tls:
        h.set_tls(nbd.TLS_REQUIRE)
        h.set_tls_psk_file(KEYS)
        h.set_tls_username("alice")
    h.connect_unix(server.sock)
    return h


def run_row(server, row, model):
    """One nbdkit, from its start to its end."""
    filters, options = [], list(row.options)
    for name in row.filters:
        if name == "readonly" and not os.path.exists(f"{FILTER_DIRECTORY}/nbdkit-readonly-filter.so"):
            options.append("--readonly")      # nbdkit before 1.38 has no filter for it
        else:
            filters.append("--filter=" + name)
    server.cache = row.cache
    server.options = filters + options + row.parameters
    server.start()
    h = connect(server, row)
    seen = slice(row.start, row.start + row.size)
    mine = bytearray(model[seen])
    assert h.get_size() == row.size, h.get_size()
    retried.is_allowed, retried.failures = row.errors, 0
    assert read_all(h, row.size) == mine, "what was there before reads otherwise"
    exercise(h, mine, row.exercise, row.trims)
    if row.check:
        row.check(server, h, mine)
    if server.process:
        assert read_all(h, row.size) == mine, "what was written reads otherwise"
        if h.can_flush():
            retried(h.flush)
        h.shutdown()
        server.stop()
    if row.is_kept:
        model[seen] = mine


def test_filters():
    model = bytearray(SIZE)
    # One partition, from 1M on, of 12M.
    model[446:462] = struct.pack("<B3sB3sII", 0, b"\0\0\0", 0x83, b"\0\0\0", MIB // 512, 12 * MIB // 512)
    model[510:512] = b"\x55\xaa"
    open(EXTENTS, "w").write(f"0 {MIB}\n{MIB} {MIB} hole,zero\n{2 * MIB} {SIZE - 2 * MIB}\n")
    with open(os.open(KEYS, os.O_WRONLY | os.O_CREAT, 0o600), "w") as keys:
        keys.write("alice:" + rng.randbytes(32).hex() + "\n")
    server = Server({"disk": SIZE})
    server.start()
    h = server.connect()
    h.pwrite(model, 0)
    h.shutdown()
    server.stop()
    server.front_end = "plugin"
    for row in ROWS:
        start = time.monotonic()
        what = " ".join(row.filters + row.parameters + row.options) or "no filter"
        try:
            run_row(server, row, model)
        except BaseException:
            print(f"{what}: FAILED", flush=True)
            raise
        print(f"{what}: {time.monotonic() - start:.1f} s", flush=True)
    server.front_end, server.options, server.cache = "server", [], "80M"
    server.start()
    h = server.connect()
    assert read_all(h, SIZE) == model
    h.shutdown()
    server.stop()
    lacuna("check", server.path)


run_tests(globals())
