# SPDX-License-Identifier: MIT
"""A small Redis client: the wire protocol (RESP 2), pipelined, and a load of mixed values."""
import random
import socket

SMALLEST_BYTES, LARGEST_BYTES = 16, 1024
BATCH_COUNT = 2000


class RedisError(Exception):
    """The server answered with an error."""


class Client:
    """One connection. call() waits for the answer; a batch is sent whole and then read whole."""

    def __init__(self, port, timeout_s=60):
        self.socket = socket.create_connection(('127.0.0.1', port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile('rb', 1 << 16)

    def close(self):
        self.file.close()
        self.socket.close()

    def call(self, *words):
        self.socket.sendall(encode(words))
        return self.read()

    def batch(self, commands, count):
        """Sends encoded commands and reads count answers, all of which must be well."""
        self.socket.sendall(commands)
        return [self.read() for _ in range(count)]

    def read(self):
        line = self.file.readline()
        if not line.endswith(b'\r\n'):
            raise ConnectionError('the server closed the connection')
        kind, rest = line[:1], line[1:-2]
        if kind == b'+':
            return rest
        if kind == b'-':
            raise RedisError(rest.decode())
        if kind == b':':
            return int(rest)
        if kind == b'$':
            size = int(rest)
            return None if size < 0 else self.file.read(size + 2)[:-2]
        if kind == b'*':
            return None if int(rest) < 0 else [self.read() for _ in range(int(rest))]
        raise RedisError('unknown answer %r' % line)


def encode(words):
    parts = [b'*%d\r\n' % len(words)]
    for word in words:
        if not isinstance(word, bytes):
            word = str(word).encode()
        parts.append(b'$%d\r\n%s\r\n' % (len(word), word))
    return b''.join(parts)


def info(client, section='memory'):
    """INFO as a dictionary of strings."""
    text = client.call('INFO', section).decode()
    return dict(line.split(':', 1) for line in text.splitlines() if ':' in line)


class Load:
    """SET commands with values of 16 to 1024 bytes until goal_bytes of values have been sent.

    kept_every   one key in so many goes to database 1 instead of 0 (0: none)
    step()       sends the next batch; False when the goal has been reached
    """

    def __init__(self, client, goal_bytes, kept_every=0, seed=1):
        self.client = client
        self.goal_bytes = goal_bytes
        self.kept_every = kept_every
        self.random = random.Random(seed)
        self.sent_bytes = 0
        self.key_count = 0
        self.kept_count = 0
        self.stock = self.random.randbytes(1 << 16)

    def value(self):
        size = self.random.randint(SMALLEST_BYTES, LARGEST_BYTES)
        start = self.random.randrange(len(self.stock) - size)
        return self.stock[start:start + size]

    def step(self):
        if self.sent_bytes >= self.goal_bytes:
            return False
        plain, kept = [], []
        for _ in range(BATCH_COUNT):
            value = self.value()
            key = b'key:%09d' % self.key_count
            command = b'*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n' % (
                len(key), key, len(value), value)
            keep = self.kept_every and self.key_count % self.kept_every == 0
            (kept if keep else plain).append(command)
            self.key_count += 1
            self.sent_bytes += len(value)
        self._send(plain)
        if kept:
            self.client.call('SELECT', 1)
            self._send(kept)
            self.client.call('SELECT', 0)
            self.kept_count += len(kept)
        return True

    def _send(self, commands):
        self.client.batch(b''.join(commands), len(commands))

    def run(self):
        while self.step():
            pass
