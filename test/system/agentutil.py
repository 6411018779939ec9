# SPDX-License-Identifier: MIT
"""A program with an agent, and clients for it written from what is documented."""
import contextlib
import glob
import http.client
import os
import re
import select
import socket
import subprocess
import sys
import time

import sysutil
from sysutil import EBB, Fail

WAITS = 'import sys\nsys.stdin.read()\n'


def require(condition, text):
    if not condition:
        raise Fail(text)


class Unix(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path, timeout=10):
        super().__init__('localhost', timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Target:
    """Python on Ebb with an agent; code runs in it and should read its standard input."""

    def __init__(self, code=WAITS, options=None, extra=None, argv=None, **kw):
        self.home = sysutil.tempdir(0o700)
        env = {'HOME': self.home, 'XDG_RUNTIME_DIR': self.home, 'XDG_CONFIG_HOME': '',
               'GOPS_CONFIG_DIR': ''}
        env.update(extra or {})
        self.options = {'http': '127.0.0.1:0'} if options is None else options
        self.process = sysutil.spawn(EBB, argv or [sys.executable, '-S', '-c', code], self.options,
                                     env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE, **kw)
        self.pid = self.process.pid
        self.where = None
        if self.options.get('http', '').endswith(':0'):
            self.where = self.said(r'ebb: http listens at (\S+)\n')
        elif self.options.get('http', '').startswith('unix:'):
            self.where = self.options['http'].replace('%p', str(self.pid))
            # The program does not go on before the agent listens; it only has to be started.
            sysutil.wait_for(self.listens, 10, 'the socket', self.process)

    def listens(self):
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.where[5:]) == 0

    def said(self, pattern, seconds=10):
        """What the program has written to stderr, up to a line like this."""
        text, end = '', time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.process.stderr], [], [], 0.1)[0]:
                part = os.read(self.process.stderr.fileno(), 4096).decode()
                if not part:
                    break
                text += part
            match = re.search(pattern, text)
            if match:
                return match.group(1)
        raise Fail('not said within %d s: %s; said: %r' % (seconds, pattern, text))

    def line(self):
        return self.process.stdout.readline().decode().strip()

    @property
    def port(self):
        return int(self.where.rsplit(':', 1)[1])

    def client(self, timeout=10):
        if self.where.startswith('unix:'):
            return Unix(self.where[5:], timeout)
        host, port = self.where.rsplit(':', 1)
        return http.client.HTTPConnection(host.strip('[]'), int(port), timeout=timeout)

    def ask(self, path, method='GET', body=None, headers=None, timeout=10):
        """(status, headers, body) of one request."""
        client = self.client(timeout)
        client.request(method, path, body, headers or {})
        reply = client.getresponse()
        data = reply.read()
        client.close()
        return reply.status, reply.headers, data

    def get(self, path, **kw):
        status, _, data = self.ask(path, **kw)
        require(status == 200, '%s: %d %r' % (path, status, data[:200]))
        return data

    def raw(self, data, seconds=10):
        """What comes back for these bytes, till the other side closes."""
        with socket.create_connection(('127.0.0.1', self.port), timeout=seconds) as client:
            client.sendall(data)
            return read_all(client)

    def metric(self, name):
        text = self.get('/metrics').decode()
        return float(re.search(r'(?m)^%s(?:\{.*\})? (\S+)$' % name, text).group(1))

    def port_file(self, folder=None):
        return os.path.join(folder or os.path.join(self.home, '.config', 'gops'), str(self.pid))

    def gops_port(self, folder=None):
        path = self.port_file(folder)
        sysutil.wait_for(lambda: os.path.exists(path) and os.path.getsize(path), 10,
                         'the port file', self.process)
        with open(path) as file:
            return int(file.read())

    def threads(self):
        names = []
        for path in glob.glob('/proc/%d/task/*/comm' % self.pid):
            with contextlib.suppress(OSError), open(path) as comm:
                names.append(comm.read().strip())
        return sorted(names)

    def alive(self):
        require(self.process.poll() is None,
                'the program has ended: %s' % sysutil.ended(self.process.poll()))

    def finish(self):
        """Lets it come to its own end."""
        self.process.stdin.close()
        status = self.process.wait(15)
        require(status == 0, 'it does not end well: %s; %s'
                % (sysutil.ended(status), sysutil.tail(self.process.stderr.read())))
        self.stop()

    def stop(self):
        sysutil.kill(self.process)


def read_all(client):
    data = b''
    while True:
        part = client.recv(1 << 16)
        if not part:
            return data
        data += part


def gops(port, data, seconds=40):
    """gops' client: one write, then read to the end."""
    with socket.create_connection(('127.0.0.1', port), timeout=seconds) as client:
        client.sendall(data)
        return read_all(client)


def switches(pid):
    total = 0
    for path in glob.glob('/proc/%d/task/*/status' % pid):
        with open(path) as file:
            total += sum(int(n) for n in re.findall(r'ctxt_switches:\s+(\d+)', file.read()))
    return total


def become(uid):
    """What turns a child process into another user's."""
    def change():
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    return change


def as_user(uid, code, *args):
    """Runs a python script as another user, off Ebb; what it prints."""
    python = '/usr/bin/python3' if os.path.exists('/usr/bin/python3') else sys.executable
    done = subprocess.run([python, '-c', code] + [str(a) for a in args], preexec_fn=become(uid),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=40)
    return done.stdout if done.returncode == 0 else 'failed: ' + sysutil.tail(done.stderr)
