# SPDX-License-Identifier: MIT
"""examples/thumbs.c, compiled as its header says and run with an agent; what it is told."""
import os
import re
import subprocess
import urllib.error
import urllib.request

import sysutil
from agentutil import Target, require

SOURCE = os.path.join(sysutil.REPO, 'examples', 'thumbs.c')
MB = 1000 * 1000


def compiled():
    """The path of the program that the line in its header makes."""
    with open(SOURCE) as file:
        line = re.search(r'(?m)^//     (cc .*)$', file.read()).group(1)
    folder = sysutil.tempdir()
    os.symlink(os.path.dirname(SOURCE), os.path.join(folder, 'examples'))
    done = subprocess.run(line, shell=True, cwd=folder, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    require(done.returncode == 0 and not done.stdout, '%s: %s' % (line, done.stdout.decode()))
    return os.path.join(folder, 'thumbs')


class Thumbs(Target):
    """The service; port is the agent's, as ever, its own is own_port."""

    def __init__(self, program, rate=200, **options):
        self.own_port = sysutil.free_port()
        super().__init__(argv=[program, '--port', str(self.own_port), '--rate', str(rate)],
                         options=dict({'http': '127.0.0.1:0'}, **options),
                         cwd=os.path.dirname(program))
        sysutil.wait_port(self.own_port, self.process)

    def tell(self, path):
        """(status, body) of an order."""
        try:
            with urllib.request.urlopen('http://127.0.0.1:%d%s' % (self.own_port, path),
                                        timeout=20) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def order(self, path):
        status, body = self.tell(path)
        require(status == 200, '%s: %d %r' % (path, status, body))
        return body

    def number(self, name):
        """A number of its first page."""
        return int(re.search(r'(?m)^%s +(\d+)$' % name, self.order('/').decode()).group(1))
