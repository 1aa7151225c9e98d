# SPDX-License-Identifier: BSD-2-Clause
"""storm.py --build DIR: 2000 connections, half of them hostile, and what a good client notices of it.

A good client reads 4 KiB blocks that are cached, one after the other, by TCP.  It does so for some seconds while there is
nobody else, and again in a storm; several times each, in turn, so that whatever else the machine does is in both.  In a
storm there are a thousand connections that use the disk as they should, each with a READ every ten seconds, and a thousand
of five hostile kinds, a fifth each, from 125 addresses:

  slow       has a disk, and sends a payload of 1 MiB byte by byte, or takes no replies
  half-open  sends nothing, or half an option, and comes back when it is thrown out
  oversized  an option of 4 GiB, a payload of 2 GiB
  garbage    random bytes instead of the handshake, of TLS, or of a request
  tls        asks for TLS, sends a good first message, for which the server has to sign, and leaves

The last three are disconnected, and come back as often as --rate says, all together.  The generator is one process at
nice 19, so that what is measured is the server, not who gets the processor; what it and the server take of that is told, too.
"""

import argparse
import json
import os
import random
import select
import shutil
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from wire import *

MIB = 1 << 20
ADDRESSES = 125
KINDS = ("slow", "half-open", "oversized", "garbage", "tls")
RESET = struct.pack("ii", 1, 0)


def client_hello():
    """The first message of a TLS handshake; it can be sent again and again."""
    out = ssl.MemoryBIO()
    try:
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def attach(option=GO):
    data = struct.pack(">I", 3) + struct.pack(">QII", OPTION_MAGIC, STRUCTURED_REPLY, 0) * (option == GO)
    name = struct.pack(">I", 4) + b"disk\0\0" if option == GO else b"disk"
    return data + struct.pack(">QII", OPTION_MAGIC, option, len(name)) + name


def half_open(rng):
    return rng.choice([b"", struct.pack(">I", 3), struct.pack(">IQII", 3, OPTION_MAGIC, GO, 1000) + b"few"])


def oversized(rng):
    return rng.choice([struct.pack(">IQII", 3, OPTION_MAGIC, GO, 0xFFFFFFFF),
                       attach(EXPORT_NAME) + request(WRITE, 0, 1 << 31)]) + bytes(4096)


def garbage(rng):
    start = rng.choice([b"", b"", struct.pack(">IQII", 3, OPTION_MAGIC, STARTTLS, 0), attach(EXPORT_NAME)])
    return start + rng.randbytes(rng.choice([64, 4096, 65536]))


class Storm:
    """A process of its own: connects them all, says so on OUT, and goes on until it is killed."""

    def __init__(self, port, count, rate, seed):
        self.port, self.rate = port, rate
        self.rng = random.Random(seed)
        self.epoll = select.epoll()
        self.sockets = {}                # descriptor: (socket, kind)
        self.waiting = []                # kinds that come back as soon as --rate lets them
        self.payloads = []               # sockets that get the next byte of a payload
        self.idle = []                   # sockets of those who are as they should be
        self.hello = client_hello()
        self.count = dict.fromkeys(KINDS, 0)
        self.thrown_out = 0
        self.well = [self.connect("well") for _ in range(count)]
        for i in range(count):
            self.connect(KINDS[i % len(KINDS)])

    def connect(self, kind):
        s = socket.socket()
        number = self.rng.randrange(ADDRESSES)
        s.setsockopt(socket.SOL_IP, 24, 1)   # IP_BIND_ADDRESS_NO_PORT
        s.bind((f"127.0.{1 + (kind == 'well')}.{1 + number}", 0))
        if kind == "slow":
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", self.port))
        s.setblocking(False)
        self.epoll.register(s, select.EPOLLIN)
        self.sockets[s.fileno()] = (s, kind)
        data = {"well": lambda rng: attach(EXPORT_NAME), "slow": self.slow, "half-open": half_open, "oversized": oversized,
                "garbage": garbage, "tls": lambda rng: struct.pack(">IQII", 3, OPTION_MAGIC, STARTTLS, 0) + self.hello}[kind]
        if kind in self.count:
            self.count[kind] += 1
        try:
            s.send(data(self.rng))
        except OSError:
            self.leave(s)
            return None
        if kind == "slow":
            if self.writes:
                self.payloads.append(s)
            else:
                self.epoll.unregister(s)
        return s

    def slow(self, rng):
        self.writes = rng.random() < 0.5
        if self.writes:
            return attach(EXPORT_NAME) + request(WRITE, 0, MIB)
        return attach(EXPORT_NAME) + request(READ, 0, 4096) * 1000

    def leave(self, s):
        _, kind = self.sockets.pop(s.fileno())
        self.thrown_out += 1
        s.close()
        if kind in ("half-open", "oversized", "garbage", "tls"):
            self.waiting.append(kind)
        elif kind == "slow":
            self.waiting.insert(0, kind)

    def hear(self, fd):
        s, kind = self.sockets[fd]
        try:
            data = s.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        # Who has made the server sign goes without a word.
        if kind == "tls" and len(data) > 200:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            data = b""
        if not data:
            self.leave(s)

    def run(self, out):
        began = last = told = time.monotonic()
        due, reads = 0.0, 0.0
        while True:
            for fd, _ in self.epoll.poll(0.01, 256):
                if fd in self.sockets:
                    self.hear(fd)
            now = time.monotonic()
            due = min(due + (now - last) * self.rate, self.rate / 5)
            reads += (now - last) * len(self.well) / 10
            while due >= 1 and self.waiting:
                due -= 1
                self.connect(self.waiting.pop(0))
            for _ in range(int(reads)):
                s = self.rng.choice(self.well)
                if s and s.fileno() in self.sockets:
                    s.send(request(READ, self.rng.randrange(16384) * 4096, 4096))
            reads -= int(reads)
            if int(now) != int(last):
                for s in self.payloads:
                    if s.fileno() in self.sockets:
                        try:
                            s.send(b"x")
                        except OSError:
                            pass
            if now - told > 1:
                told = now
                out.write(json.dumps({"seconds": now - began, "open": len(self.sockets), "came": self.count,
                                      "thrown_out": self.thrown_out}) + "\n")
                out.flush()
            last = now


def cpu_of(pid):
    """Seconds of processor that a process has taken."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(load, port, seconds, server):
    before, began = cpu_of(server), time.monotonic()
    result = json.loads(subprocess.run([load, "-H", "127.0.0.1", "-p", str(port), "-e", "disk", "-b", "4k", "-l", "64m", "-w", "0.3",
                                        "-t", str(seconds), "read"], stdout=subprocess.PIPE, check=True, text=True).stdout)
    result["server_cpu"] = (cpu_of(server) - before) / (time.monotonic() - began)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--rate", type=int, default=500, help="hostile connections per second that come back")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--nice", type=int, default=0, help="of the server and the good client, on a machine that has other work")
    parser.add_argument("--generator-nice", type=int, default=19)
    parser.add_argument("--storm", nargs=2, metavar=("PORT", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.storm:
        os.setpriority(os.PRIO_PROCESS, 0, arguments.generator_nice)
        Storm(int(arguments.storm[0]), arguments.connections // 2, arguments.rate, arguments.storm[1]).run(sys.stdout)

    os.setpriority(os.PRIO_PROCESS, 0, arguments.nice)
    tmp = tempfile.mkdtemp(prefix="lacuna-storm-", dir="/var/tmp")
    lacuna, load = os.path.join(arguments.build, "server/lacuna"), os.path.join(arguments.build, "tests/bench/load")
    subprocess.run([os.path.join(os.path.dirname(HERE), "make-certificates"), tmp + "/certificates"], check=True)
    store = tmp + "/store"
    subprocess.run([lacuna, "init", store], check=True)
    subprocess.run([lacuna, "create", store, "disk", "1G"], check=True)
    server = subprocess.Popen([lacuna, "serve", store, "-p", "0", "--tls", "on", "--tls-certificates", tmp + "/certificates/server"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    storm = None
    try:
        port = int(server.stdout.readline().rsplit(":", 1)[1])
        subprocess.run([load, "-p", str(port), "-e", "disk", "-b", "1m", "-l", "64m", "-n", "64", "--sequential", "write"],
                       stdout=subprocess.DEVNULL, check=True)
        figures = {"quiet": [], "storm": []}
        print("             quiet              storm")
        print("round    p50 us   p99 us    p50 us   p99 us  ratio  server  generator  connections  came back/s")
        for number in range(arguments.rounds):
            quiet = measure(load, port, arguments.seconds, server.pid)
            storm = subprocess.Popen([sys.executable, "-B", os.path.abspath(__file__), *sys.argv[1:], "--storm", str(port), str(number)],
                                     stdout=subprocess.PIPE, text=True)
            first = json.loads(storm.stdout.readline())
            began, cpu = time.monotonic(), cpu_of(storm.pid)
            wild = measure(load, port, arguments.seconds, server.pid)
            taken = (cpu_of(storm.pid) - cpu) / (time.monotonic() - began)
            storm.kill()
            last = json.loads(([""] + storm.stdout.readlines())[-1] or json.dumps(first))
            storm.wait()
            rate = sum(last["came"][k] - first["came"][k] for k in KINDS) / max(1, last["seconds"] - first["seconds"])
            figures["quiet"].append(quiet["p99_us"])
            figures["storm"].append(wild["p99_us"])
            print(f"{number + 1:5}  {quiet['p50_us']:8.1f} {quiet['p99_us']:8.1f}  {wild['p50_us']:8.1f} {wild['p99_us']:8.1f}"
                  f"  {wild['p99_us'] / quiet['p99_us']:5.2f} {100 * wild['server_cpu']:6.0f}% {100 * taken:9.0f}%"
                  f"  {last['open']:11}  {rate:11.0f}", flush=True)
        quiet, wild = (statistics.median(figures[kind]) for kind in ("quiet", "storm"))
        print(f"medians: p99 quiet {quiet:.1f} us, in the storm {wild:.1f} us: {wild / quiet:.2f} times")
    finally:
        if storm and storm.poll() is None:
            storm.kill()
        server.terminate()
        server.wait()
        shutil.rmtree(tmp)


main()
