#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The clients that people have, each by every way that it knows: over a Unix socket and TCP, in the clear, by TLS with
certificates, and with keys.  What each does is checked by its data.  The kernel's client is in tests/guest.

It prints the table that stands in lacuna-internals(7): yes; `-', where the client does not know the way; `none', where it
is not installed."""

import os
import random
import shutil
import ssl
import subprocess

import nbd
from harness import KIB, MIB, Server, run_tests, tmp
from wire import *

SIZE = 32 * MIB
here = os.path.dirname(os.path.abspath(__file__))
certificates = os.path.join(tmp, "certificates")
subprocess.run([os.path.join(here, "make-certificates"), certificates], check=True)
own = certificates + "/server"
alice, keys = certificates + "/alice", certificates + "/alice-keys"
os.mkdir(keys)
shutil.copy(certificates + "/alice.psk", keys + "/keys.psk")

TCP = ("-i", "127.0.0.1", "-p", "0")
plain = Server({"disk": SIZE, "other": MIB}, *TCP).start()
secure = Server({"disk": SIZE, "other": MIB}, *TCP, "--tls", "require", "--tls-certificates", own, "--tls-verify-peer", "--tls-psk",
                own + "/keys.psk").start()

rng = random.Random(1)
image = os.path.join(tmp, "image")
with open(image, "wb") as file:
    file.truncate(SIZE)
    for at in range(0, SIZE, 3 * MIB):
        file.seek(at + 1000)
        file.write(rng.randbytes(MIB))
content = open(image, "rb").read()


class Way:
    """How to come to the disk: TRANSPORT is unix or tcp; SECURITY is plain, x509 or psk."""

    def __init__(self, transport, security):
        self.transport, self.security = transport, security
        self.server = plain if security == "plain" else secure
        self.sock = self.server.sock
        line = next(line for line in open(self.server.errors) if "127.0.0.1" in line)
        self.port = int(line.rsplit(":", 1)[1])

    def uri(self, name="disk"):
        scheme = "nbd" if self.security == "plain" else "nbds"
        user = "alice@" if self.security == "psk" else ""
        query = {"plain": [], "x509": [f"tls-certificates={alice}"], "psk": [f"tls-psk-file={certificates}/alice.psk"]}[self.security]
        if self.transport == "unix":
            return f"{scheme}+unix://{user}/{name}?" + "&".join([f"socket={self.sock}", *query])
        return f"{scheme}://{user}localhost:{self.port}/{name}" + ("?" + "&".join(query) if query else "")

    def qemu(self):
        """Arguments of qemu-img and qemu-io, and the disk."""
        credentials = {"plain": [], "x509": ["--object", f"tls-creds-x509,id=tls,dir={alice},endpoint=client"],
                       "psk": ["--object", f"tls-creds-psk,id=tls,dir={keys},endpoint=client,username=alice"]}[self.security]
        where = (f"server.type=unix,server.path={self.sock}" if self.transport == "unix"
                 else f"server.type=inet,server.host=localhost,server.port={self.port}")
        disk = f"driver=nbd,{where},export=disk"
        if credentials:
            disk += ",tls-creds=tls" + (",tls-hostname=localhost" if self.security == "x509" else "")
        return credentials, disk

    def wire(self, flags=3):
        c = Wire(f"nbd+unix:///disk?socket={self.sock}" if self.transport == "unix" else f"nbd://127.0.0.1:{self.port}/disk", flags)
        if self.security == "x509":
            context = ssl.create_default_context(cafile=certificates + "/ca-cert.pem")
            context.load_cert_chain(alice + "/client-cert.pem", alice + "/client-key.pem")
            c.starttls(context)
        return c

    def check(self, expected=content):
        """What the disk holds now, by a client that was not there."""
        c = Wire(f"nbd+unix:///disk?socket={plain.sock}") if self.server is plain else Way("unix", "x509").wire()
        assert c.go()[-1][0] == ACK and c.read(0, SIZE) == expected

    def clear(self):
        c = Wire(f"nbd+unix:///disk?socket={plain.sock}") if self.server is plain else Way("unix", "x509").wire()
        assert c.go()[-1][0] == ACK and c.ask(TRIM, 0, SIZE) == 0
        c.close()


def run(*command, **more):
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200, **more)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stdout}"
    return result.stdout


def qemu_img(way):
    credentials, disk = way.qemu()
    run("qemu-img", "convert", *credentials, "-f", "raw", "-n", "--target-image-opts", image, disk)
    way.check()
    run("qemu-img", "compare", *credentials, "--image-opts", f"driver=file,filename={image}", disk)


def qemu_io(way):
    credentials, disk = way.qemu()
    run("qemu-io", *credentials, "--image-opts", disk, "-c", "write -P 7 1000 5M", "-c", "read -P 7 1000 5M", "-c", "discard 0 1M",
        "-c", "write -z 1M 4097", "-c", "flush", "-c", "read -P 0 0 1M")
    way.check(bytes(MIB + 4097) + b"\7" * (4 * MIB + 1000 - 4097) + bytes(SIZE - 5 * MIB - 1000))


def nbdcopy(way):
    run("nbdcopy", image, way.uri())
    way.check()
    run("nbdcopy", way.uri(), tmp + "/copy")
    assert open(tmp + "/copy", "rb").read() == content


def nbdinfo(way):
    assert run("nbdinfo", "--size", way.uri()).strip() == str(SIZE)
    said = run("nbdinfo", "--list", way.uri(""))
    assert 'export="disk"' in said and 'export="other"' in said, said
    assert "hole" in run("nbdinfo", "--map", way.uri())


def nbdsh(way):
    """What nbdsh is: libnbd for Python."""
    h = nbd.NBD()
    h.set_uri_allow_local_file(True)
    h.connect_uri(way.uri())
    h.pwrite(content, 0, nbd.CMD_FLAG_FUA)
    assert h.pread(SIZE, 0) == content
    h.shutdown()
    way.check()


def fio(way):
    if way.security != "plain":
        return False           # it has no way to tell libnbd where certificates and keys are
    if "nbd" not in run("fio", "--enghelp").split():
        return None
    run("fio", "--name=x", "--ioengine=nbd", f"--uri={way.uri()}", "--rw=randwrite", "--bs=16k", "--size=8m", "--verify=crc32c",
        "--iodepth=8", cwd=tmp)


def nbdkit_proxy(way):
    where = [f"socket={way.sock}"] if way.transport == "unix" else ["hostname=localhost", f"port={way.port}"]
    tls = {"plain": [], "x509": ["tls=require", f"tls-certificates={alice}"],
           "psk": ["tls=require", f"tls-psk={certificates}/alice.psk", "tls-username=alice"]}[way.security]
    run("nbdkit", "-U", "-", "nbd", *where, "export=disk", *tls, "--run", f'nbdcopy {image} "$uri" && nbdcopy "$uri" {tmp}/copy')
    assert open(tmp + "/copy", "rb").read() == content
    way.check()


def nbd_client_list(way):
    if way.security == "psk":
        return False
    where = ["-unix", way.sock] if way.transport == "unix" else ["localhost", str(way.port)]
    tls = [] if way.security == "plain" else ["-enable-tls", "-certfile", alice + "/client-cert.pem", "-keyfile",
                                              alice + "/client-key.pem", "-cacertfile", alice + "/ca-cert.pem", "-tlshostname", "localhost"]
    said = run("nbd-client", "-l", *where, *tls)
    assert "disk" in said.split() and "other" in said.split(), said


def export_name(way):
    """Clients of 2011 to 2015: they know no other option, and some not even that there are errors."""
    if way.security == "psk":
        return False           # this one is Python's, which has no keys
    for flags in (1, 3) if way.security == "x509" else (0, 1, 3):
        c = way.wire(flags)
        c.put_option(EXPORT_NAME, b"disk")
        assert struct.unpack(">Q", c.get(8))[0] == SIZE
        c.get(2)
        if flags < 2:
            assert c.get(124) == bytes(124)
        assert c.write(0, content[:MIB]) == 0 and c.read(0, MIB) == content[:MIB]
        c.request(DISC, 0, 0)
        c.close()


CLIENTS = {"qemu-img": ("qemu-img", qemu_img), "qemu-io": ("qemu-io", qemu_io), "nbdcopy": ("nbdcopy", nbdcopy),
           "nbdinfo": ("nbdinfo", nbdinfo), "nbdsh (libnbd)": ("python3", nbdsh), "fio": ("fio", fio),
           "nbdkit's plugin nbd": ("nbdkit", nbdkit_proxy), "nbd-client -l": ("nbd-client", nbd_client_list),
           "EXPORT_NAME alone": ("python3", export_name)}
WAYS = [Way(transport, security) for security in ("plain", "x509", "psk") for transport in ("unix", "tcp")]


def test_all():
    os.environ["PATH"] += ":/usr/sbin"
    rows = {}
    for name, (program, client) in CLIENTS.items():
        rows[name] = []
        for way in WAYS:
            if not shutil.which(program):
                rows[name].append("none")
                continue
            way.clear()
            try:
                result = client(way)
            except Exception as error:
                raise AssertionError(f"{name}, {way.transport}, {way.security}: {error}") from error
            rows[name].append({None: "yes", False: "-"}[result])
    print(f"{'':21}plain        X.509        PSK\n{'':21}Unix   TCP   Unix   TCP   Unix   TCP")
    for name, cells in rows.items():
        print(f"{name:21}" + "".join(f"{cell:{6 + i % 2}}" for i, cell in enumerate(cells, 1)).rstrip())


run_tests(globals())
plain.stop()
secure.stop()
