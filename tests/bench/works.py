# SPDX-License-Identifier: BSD-2-Clause
"""What is measured: sessions of works.

A session is what is done with one server on one new disk, in order, so that filling a disk serves many measurements.
Each is a function of the run (see bench.py) and of a server that has not been started.  A work has a name, which is the
row of the table, and is measured with server and client pinned in one way:

  split  a processor for the server, another one for the client
  same   one for both: what a request costs, with nobody waiting for a processor to wake up
  free   wherever the system puts them
"""

import os
import subprocess
import time

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# How a figure is read: requests/s, MB/s, microseconds or seconds; True: more is better.
UNITS = {"requests/s": True, "MB/s": True, "us": False, "s": False, "ms": False, "MB": False}


def rate(result):
    return result["requests"] / result["seconds"]


def rate_flushed(result):
    return result["requests"] / (result["seconds"] + result["flush_seconds"])


def megabytes(result):
    return result["bytes"] / result["seconds"] / 1e6


def megabytes_flushed(result):
    return result["bytes"] / (result["seconds"] + result["flush_seconds"]) / 1e6


def p50(result):
    return result["p50_us"]


def p99(result):
    return result["p99_us"]


def fill(run, server, length, *more):
    run.load(server, "-b", "1m", "-q", "4", "-l", str(length), "-n", str(length // MIB), "--sequential",
             *more, "write")


def flush(run, server):
    """What was measured before is not to be made durable at the cost of what comes now."""
    run.load(server, "-n", "1", "-l", "4k", "--final-flush", "write")


def cached(run, server):
    """All that fits into the cache."""
    length = 512 * MIB
    span = ["-l", str(length)]
    server.create(1 * GIB)
    server.start("split")
    for _ in range(2):
        fill(run, server, length, "--final-flush")
    run.load(server, *span, "-b", "1m", "-q", "4", "-n", str(length // MIB), "--sequential", "read")
    for pin in "same", "split":
        run.measure(server, "read 4k QD1", pin, "requests/s", rate, *span, "read")
    run.measure(server, "read 4k QD1, p50", "split", "us", p50, *span, "read", reuse="read 4k QD1")
    for pin in "same", "split":
        run.measure(server, "read 4k QD32", pin, "requests/s", rate, *span, "-q", "32", "read")
    run.measure(server, "read 4k 4 x QD32", "split", "requests/s", rate, *span, "-c", "4", "-q", "32", "read")
    run.measure(server, "read 1M", "split", "MB/s", megabytes, *span, "-b", "1m", "-q", "4", "--sequential", "read")
    run.measure(server, "write 1M, over data", "split", "MB/s", megabytes, *span, "-b", "1m", "-q", "4",
                "--sequential", "write")
    for pin in "same", "split":
        flush(run, server)
        run.measure(server, "write 4k QD32, over data", pin, "requests/s", rate, *span, "-q", "32", "write")
    flush(run, server)
    run.measure(server, "write 4k QD32, FLUSH after each 32", "split", "requests/s", rate, *span, "-q", "32",
                "-F", "32", "write")
    run.measure(server, "write 4k FUA QD1, p50", "split", "us", p50, *span, "--fua", "write")
    # The same without a client: 128 KiB, or 4, and what makes them durable.
    server.stop()
    for work, unit, figure, size in (
            ("write 4k QD32, FLUSH after each 32", "requests/s", lambda iops: 32 * iops, "128k"),
            ("write 4k FUA QD1, p50", "us", lambda iops: 1e6 / iops, "4k")):
        run.device(server, work, unit, figure, "write", f"--bs={size}", "--ioengine=psync", "--fdatasync=1",
                   f"--size={length}")


def thin(run, server):
    """First writes, where there is nothing yet."""
    server.create(8 * GIB)
    server.start("split")
    length = run.scale(1 * GIB)
    run.measure(server, "write 1M, thin, with FLUSH", "split", "MB/s", megabytes_flushed, "-b", "1m", "-q", "4", "-l",
                str(length), "-n", str(length // MIB), "--sequential", "--final-flush", "write", counts=False)
    server.destroy()
    server.create(8 * GIB)
    server.start("split")
    # Not more: where ext4 discards what is freed, deleting the files of other servers takes a millisecond per write.
    args = ["-q", "32", "-n", str(run.scale(20_000)), "--final-flush", "write"]
    run.measure(server, "write 4k QD32, thin", "split", "requests/s", rate, *args, counts=False)
    run.measure(server, "write 4k QD32, thin, with FLUSH", "split", "requests/s", rate_flushed, *args,
                reuse="write 4k QD32, thin")


def cold(run, server):
    """What no cache has."""
    length = run.scale(4 * GIB)
    server.cache = "256M"
    server.create(length)
    server.start("split")
    fill(run, server, length, "--final-flush")
    server.stop()
    server.forget_pages()
    run.device(server, "read 4k QD32, not cached", "requests/s", float, "read", "--bs=4k", "--ioengine=io_uring",
               "--iodepth=32", "--readonly")
    server.forget_pages()
    server.start("split")
    run.measure(server, "read 4k QD32, not cached", "split", "requests/s", rate, "-q", "32", "read")


def deallocate(run, server):
    """TRIM and WRITE_ZEROES."""
    gib = run.scale(1 * GIB)
    server.create(8 * GIB)
    server.start("split")
    fill(run, server, gib, "--final-flush")
    for name, flags in ("", ()), (", NO_HOLE", ("--no-hole",)):
        run.measure(server, f"WRITE_ZEROES 1 GiB over data{name}", "split", "us", p50, "-b", str(gib), "-l", str(gib),
                    "-n", "1", *flags, "zeroes", counts=False)
        fill(run, server, gib, "--final-flush")
    for name, flags in ("", ()), (", NO_HOLE", ("--no-hole",)):
        run.measure(server, f"WRITE_ZEROES 1 GiB over a hole{name}", "split", "us", p50, "-b", str(gib), "-o",
                    str(2 * GIB), "-l", str(gib), "-n", "1" if flags else "8", *flags, "zeroes", counts=False)
    before = server.allocated()
    requests = gib // (256 * KIB)
    run.measure(server, "TRIM 64k QD16", "split", "requests/s", rate, "-b", "64k", "-q", "16", "-l", str(gib), "-n",
                str(requests), "trim", counts=False)
    # 0.22 of it is given back if pieces are chosen at random, some twice; half of that is expected at least.
    began = time.monotonic()
    while server.allocated() > before - gib // 9 and time.monotonic() < began + 30:
        time.sleep(0.05)
    run.note(server, "TRIM 64k QD16: space back after", "s", time.monotonic() - began)
    fragments = 20_000
    run.load(server, "-b", "16k", "-s", str(8 * GIB // fragments // 4096 * 4096), "-q", "32", "-n", str(fragments),
             "--sequential", "--final-flush", "write")
    run.measure(server, "TRIM of 8 GiB in 20,000 fragments", "split", "ms", lambda result: result["seconds"] * 1e3,
                "-b", "2g", "-q", "4", "-n", "4", "--sequential", "trim", counts=False)


def mixed(run, server):
    """Reads while another client trims and writes elsewhere."""
    server.create(2 * GIB)
    server.start("split")
    fill(run, server, 1 * GIB, "--final-flush")
    run.load(server, "-l", "512m", "-b", "1m", "-q", "4", "-n", "512", "--sequential", "read")
    with run.background(server, "-o", "512m", "-l", "512m", "-b", "64k", "-r", "1000", "-t", str(run.seconds + 2),
                        "churn"):
        time.sleep(0.5)
        run.measure(server, "read 4k QD1 beside 500 TRIM + WRITE 64k/s, p99", "split", "us", p99, "-l", "512m", "read",
                    counts=False)


def status(run, server):
    """Many extents: to walk over, and to start with."""
    extents = run.scale(100_000)
    server.cache = "256M"
    server.create(1 * GIB)
    server.start("split")
    run.load(server, "-s", "8k", "-q", "32", "-n", str(extents // 2), "--sequential", "--final-flush", "write")
    if server.has_status:
        run.measure(server, "BLOCK_STATUS, one extent each, of 100,000", "split", "requests/s", rate, "-b", "4095m",
                    "-l", str(extents * 4096), "--one", "status")
    if server.stores:
        server.stop()
        began = time.monotonic()
        server.start("split")
        run.load(server, "-n", "1", "-l", "4k", "read")
        run.note(server, "start with 100,000 extents, to the first read", "ms", (time.monotonic() - began) * 1e3)
        run.note(server, "memory then, without what is shared", "MB", server.memory() / 1e6)


def tcp(run, server):
    """Over loopback."""
    length = 512 * MIB
    span = ["-l", str(length)]
    server.create(1 * GIB)
    server.start("split", tcp=True)
    fill(run, server, length, "--final-flush")
    run.measure(server, "TCP: read 4k QD32", "split", "requests/s", rate, *span, "-q", "32", "read")
    run.measure(server, "TCP: read 1M", "split", "MB/s", megabytes, *span, "-b", "1m", "-q", "4", "--sequential",
                "read")
    run.measure(server, "TCP: write 1M, over data", "split", "MB/s", megabytes, *span, "-b", "1m", "-q", "4",
                "--sequential", "write")


def tls(run, server):
    """Over loopback, encrypted with the same cipher by all."""
    length = 512 * MIB
    span = ["-l", str(length)]
    server.create(1 * GIB)
    server.start("split", tcp=True, certificates=run.certificates())
    fill(run, server, length, "--final-flush")
    run.measure(server, "TLS: read 4k QD32", "split", "requests/s", rate, *span, "-q", "32", "read")
    run.measure(server, "TLS: read 1M", "split", "MB/s", megabytes, *span, "-b", "1m", "-q", "4", "--sequential",
                "read")
    run.measure(server, "TLS: write 1M, over data", "split", "MB/s", megabytes, *span, "-b", "1m", "-q", "4",
                "--sequential", "write")
    flush(run, server)
    run.measure(server, "TLS: write 4k QD32, over data", "split", "requests/s", rate, *span, "-q", "32", "write")


def copy(run, server):
    """The tools that people use, with a file system's image."""
    image = run.image()
    size = os.path.getsize(image)
    null = f"driver=null-co,size={size}"
    convert = ["qemu-img", "convert", "-n", "-f", "raw"]
    # The page cache of the others holds all of it.
    server.cache = "2G"

    def timed(name, *command):
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        run.note(server, name, "s", time.monotonic() - began, pin="free")

    server.create(size)
    server.start()
    timed("nbdcopy of a 4 GiB image", "nbdcopy", "--flush", image, server.uri())
    timed("nbdcopy to null", "nbdcopy", server.uri(), "null:")
    if server.stores:
        run.note(server, "allocated after nbdcopy", "MB", server.allocated() / 1e6)
    server.destroy()
    server.create(size)
    server.start()
    timed("qemu-img convert of a 4 GiB image", *convert, "-O", "raw", image, server.uri())
    timed("qemu-img convert to null", *convert, "--target-image-opts", server.uri(), null)


# In the order of the table; and who takes part.
SESSIONS = (
    (cached, lambda server: True),
    (thin, lambda server: True),
    (cold, lambda server: server.stores),
    (deallocate, lambda server: server.trims and server.stores and server.name != "nbd-server"),
    (mixed, lambda server: server.stores or server.name == "floor"),
    (status, lambda server: server.has_status and server.stores),
    (tcp, lambda server: server.name not in ("qemu-nbd-direct", "qemu-nbd-qcow2")),
    (tls, lambda server: server.speaks_tls and server.name not in ("qemu-nbd-direct", "qemu-nbd-qcow2")),
    (copy, lambda server: True),
)
COUNTED_SESSIONS = (cached, tcp, tls)
QUICK_SESSIONS = (
    (cached, lambda server: server.name in ("lacuna", "qemu-nbd", "nbdkit-file", "floor")),
)
