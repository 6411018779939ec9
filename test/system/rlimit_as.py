#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Address space is rationed: python3 works under RLIMIT_AS of its minimum on glibc + 32 MiB.

The minimum is found by bisection: the smallest limit under which a script runs that imports a few
modules, holds some data and starts a thread.
"""
import resource

import sysutil
from sysutil import EBB, GLIBC, Fail, MIB

MORE_BYTES = 32 * MIB
STEP_BYTES = MIB
SCRIPT = '''
import json, re, threading, decimal, subprocess
threading.stack_size(256 * 1024)
rows = [{"i": i, "t": "x" * (i % 50)} for i in range(5000)]
text = json.dumps(rows)
out = []
t = threading.Thread(target=lambda: out.append(len(re.findall("x+", text))))
t.start(); t.join()
print(len(text), out, decimal.Decimal(2).sqrt())
'''


def attempt(kind, limit):
    def before():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return sysutil.run(kind, ['/usr/bin/python3', '-c', SCRIPT], before=before, check=False)


def test(args):
    wanted = sysutil.run(GLIBC, ['/usr/bin/python3', '-c', SCRIPT]).stdout
    low, high = 4 * MIB, 1024 * MIB
    while high - low > STEP_BYTES:
        middle = (low + high) // 2
        done = attempt(GLIBC, middle)
        if done.returncode == 0 and done.stdout == wanted:
            high = middle
        else:
            low = middle
    sysutil.say('on glibc python3 needs %d MiB of address space' % (high // MIB))
    for more in (MORE_BYTES, 2 * MORE_BYTES, 8 * MORE_BYTES):
        done = attempt(EBB, high + more)
        if done.returncode or done.stdout != wanted:
            raise Fail('python3 under ulimit -v %d (glibc minimum + %d MiB): %s: %s' % (
                (high + more) // 1024, more // MIB, sysutil.ended(done.returncode),
                sysutil.tail(done.stderr)))


sysutil.main(test, __doc__)
