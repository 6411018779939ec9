# SPDX-License-Identifier: MIT
"""A redis-server of a test's own: loopback, a port of its own, nothing kept on disk."""
import os
import sys

import sysutil
from sysutil import EBB, REPO

sys.path.insert(0, os.path.join(REPO, 'tools', 'demo'))
import resp  # noqa: E402  (found through the line above)


class Server:
    """redis-server on Ebb, or on glibc's malloc: Debian's is linked against jemalloc, so glibc's
    own library is put in front there."""

    def __init__(self, kind=EBB, options=None, extra=None, args=()):
        binary = sysutil.need('redis-server', 'redis-server')
        self.kind = kind
        self.dir = sysutil.tempdir()
        self.port = sysutil.free_port()
        argv = [binary, '--port', str(self.port), '--bind', '127.0.0.1', '--save', '',
                '--appendonly', 'no', '--dir', self.dir, '--daemonize', 'no',
                '--enable-debug-command', 'local', '--loglevel', 'warning'] + list(args)
        behind = () if kind == EBB else (sysutil.arch_lib('libc.so.6'),)
        self.log = open(os.path.join(self.dir, 'log'), 'w+b')
        self.process = sysutil.spawn(kind, argv, options, extra, preload_after=behind,
                                     stdin=-3, stdout=self.log, stderr=self.log)
        self.pid = self.process.pid
        sysutil.wait_port(self.port, self.process)
        if kind == EBB:
            sysutil.require_mapped(self.process)

    def client(self):
        return resp.Client(self.port)

    def stop(self):
        sysutil.kill(self.process)
        self.log.close()
