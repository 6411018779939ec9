#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Doors and printers belong to one process: it keeps them when it becomes another program by exec,
as a script does that starts a service; its children have none, and no trace of them in their
environment, unless children=1."""
import sysutil
from sysutil import EBB, Fail

LAST = '''
import os, subprocess
child = subprocess.run(["/bin/sh", "-c", "echo $EBB"], stdout=subprocess.PIPE)
print(os.environ.get("EBB", "").count("stats=exit"), child.stdout.decode().strip())
'''


def said(options, argv):
    """(stdout, how many MemStats were printed)."""
    done = sysutil.run(EBB, argv, options, timeout=30)
    return done.stdout.decode().strip(), done.stderr.count(b'ebb: memstats of process')


def expect(what, have, want):
    if have != want:
        raise Fail('%s: %r, not %r' % (what, have, want))


def test(_):
    python = ['/usr/bin/python3', '-S', '-c', LAST]
    expect('alone', said({'policy': 'never', 'stats': 'exit'}, python), ('1 policy=never', 1))
    through = ['/bin/sh', '-c', 'exec "$@"', 'sh', '/bin/sh', '-c', 'exec "$@"', 'sh'] + python
    expect('through two exec', said({'policy': 'never', 'stats': 'exit'}, through),
           ('1 policy=never', 1))
    expect('only its own', said({'stats': 'exit'}, through), ('1', 1))
    below = ['/bin/sh', '-c', '"$@"; true', 'sh'] + python
    # The shell itself leaves by _exit, and prints nothing.
    expect('in a child', said({'policy': 'never', 'stats': 'exit'}, below), ('0 policy=never', 0))
    text, count = said({'stats': 'exit', 'children': 1}, below)
    if 'stats=exit' not in text or count < 1:
        raise Fail('children=1: %r, printed %d times' % (text, count))
    # Longer than there is room for: nothing is handed on, nothing is damaged.
    long = {'policy': 'never', 'http': 'unix:/nowhere/' + 'x' * 90, 'http_allow': 'uid:0+' * 18 +
            'uid:0', 'recorder_dir': '/' + 'y' * 120, 'stats': 'exit'}
    text, count = said(long, python)
    if 'policy=never' not in text:
        raise Fail('long options: %r' % text)


if __name__ == '__main__':
    sysutil.main(test, __doc__)
