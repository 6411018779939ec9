# SPDX-License-Identifier: MIT
"""Redis load: a redis-server under a peer, loaded by redis-benchmark over the loopback.

Model
  The server listens on a free port of 127.0.0.1 and writes nothing to disk. Before the timed part
  keys with known values of 1 to 20,000 bytes are written, afterwards all are read and compared:
  that is the case's own check. seconds is the time of redis-benchmark, peak_rss_bytes the VmHWM of
  the server.

Why this way
  Debian's redis-server is linked against jemalloc. So "glibc" means: libc.so.6 in LD_PRELOAD, in
  front of it. Which library malloc is bound to is read once per peer from the dynamic linker
  (LD_DEBUG=bindings), not believed.

Go  none
"""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time

START_SECONDS_MAX = 10
LOAD_SECONDS_MAX = 120
# Requests per command, by size of the run.
REQUESTS = {"smoke": 1000, "quick": 10000, "full": 100000}
COMMANDS = "set,get,incr,lpush,rpush,lpop,sadd,hset,zadd,mset"
KEY_COUNT = 2000

_bindings = {}


class LoadError(Exception):
    """The load could not be run or its data came back wrong."""


def missing():
    """missing says in words what the load lacks on this machine, or None."""
    for program in ("redis-server", "redis-benchmark"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None


def libc_path():
    """libc_path of the C library this machine's programs use, as mapped into this process."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        for line in file:
            path = line.split()[-1]
            if re.search(r"/libc(-[0-9.]+)?\.so(\.6)?$", path):
                return path
    raise LoadError("no libc.so.6 among the mappings")


def environment(peer):
    """environment of the server: for glibc, its malloc in front of the linked jemalloc."""
    result = peer.environment()
    if peer.path is None:
        result["LD_PRELOAD"] = libc_path()
    return result


def check_binding(peer):
    """check_binding fails unless the server's malloc is bound to the peer's library."""
    if peer.name not in _bindings:
        variables = environment(peer)
        variables.update({"LD_DEBUG": "bindings", "LD_BIND_NOW": "1"})
        done = subprocess.run(["redis-server", "--version"], env=variables, text=True,
                              capture_output=True, check=False)
        pattern = r"binding file \S*redis-server \[0\] to (\S+) \[0\]: normal symbol `malloc'"
        found = re.search(pattern, done.stderr)
        _bindings[peer.name] = found.group(1) if found else "nothing"
    if not peer.serves(_bindings[peer.name]):
        raise LoadError(f"redis-server's malloc is bound to {_bindings[peer.name]}")
    return _bindings[peer.name]


def free_port():
    """free_port asks the kernel for a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def value_of(index):
    """value_of key number index: its length and bytes follow from the number."""
    length = 1 + index * index % 20000
    return (f"{index:08d}" * (length // 8 + 1))[:length].encode()


def command(*words):
    """command encodes one request."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


class Client:
    """A connection that sends many requests and reads their replies in order."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.file = self.socket.makefile("rb")

    def close(self):
        """close the connection."""
        self.file.close()
        self.socket.close()

    def reply(self):
        """reply reads one status, number or string."""
        line = self.file.readline()
        if line[:1] == b"$":
            length = int(line[1:])
            return self.file.read(length + 2)[:-2] if length >= 0 else None
        if line[:1] not in (b"+", b":"):
            raise LoadError(f"redis answered {line!r}")
        return line[1:].strip()

    def put_known(self):
        """put_known writes the keys that verify reads, 100 requests at a time."""
        for start in range(0, KEY_COUNT, 100):
            indexes = range(start, start + 100)
            self.socket.sendall(b"".join(command("SET", f"known:{i}", value_of(i))
                                         for i in indexes))
            for _ in indexes:
                self.reply()

    def verify(self):
        """verify reads every known key back, 100 requests at a time."""
        for start in range(0, KEY_COUNT, 100):
            indexes = range(start, start + 100)
            self.socket.sendall(b"".join(command("GET", f"known:{i}") for i in indexes))
            for index in indexes:
                if self.reply() != value_of(index):
                    raise LoadError(f"key {index} came back changed")


def start_server(peer, folder, port):
    """start_server starts redis-server and waits until it answers."""
    server = subprocess.Popen(
        ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "",
         "--appendonly", "no", "--dir", folder, "--daemonize", "no"],
        env=environment(peer), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + START_SECONDS_MAX
    try:
        while time.monotonic() < end:
            if server.poll() is not None:
                raise LoadError(f"redis-server ended with status {server.returncode}")
            try:
                return server, Client(port)
            except OSError:
                time.sleep(0.02)
        raise LoadError("redis-server did not answer")
    except BaseException:
        stop_server(server)
        raise


def stop_server(server):
    """stop_server ends the server this run started."""
    server.terminate()
    try:
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def peak_rss_bytes(pid):
    """peak_rss_bytes is VmHWM of the server."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise LoadError("no VmHWM of the server")


def cpu_seconds(pid):
    """cpu_seconds the server has used so far."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port, requests):
    """load runs redis-benchmark and returns its seconds."""
    start = time.monotonic()
    done = subprocess.run(
        ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-q", "-n", str(requests),
         "-r", "100000", "-P", "16", "-c", "16", "-d", "100", "-t", COMMANDS],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LOAD_SECONDS_MAX,
        check=False)
    seconds = time.monotonic() - start
    if done.returncode != 0:
        raise LoadError(f"redis-benchmark ended with status {done.returncode}")
    return seconds


def run(peer, size):
    """run one load and return what a bench program would print."""
    reason = missing()
    if reason:
        raise LoadError(reason)
    malloc_from = check_binding(peer)
    with tempfile.TemporaryDirectory(prefix="ebb-bench-redis-") as folder:
        port = free_port()
        server, client = start_server(peer, folder, port)
        try:
            client.put_known()
            cpu = cpu_seconds(server.pid)
            seconds = load(port, REQUESTS[size])
            cpu = cpu_seconds(server.pid) - cpu
            client.verify()
            client.close()
            peak = peak_rss_bytes(server.pid)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise LoadError(f"redis load: {error}") from error
        finally:
            stop_server(server)
    return {"name": "redis", "size": size, "seconds": seconds, "cpu_seconds": cpu,
            "operations": REQUESTS[size] * len(COMMANDS.split(",")), "peak_rss_bytes": peak,
            "checksum": f"{KEY_COUNT:016x}", "malloc_from": malloc_from}
