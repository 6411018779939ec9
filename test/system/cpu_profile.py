#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the CPU profile says of a program whose time goes to two functions in two threads: the
functions, the threads, and as much time as was used; a sleeping thread is never woken. The same
amid allocation, dlopen, dlclose and fork, second after second."""
import os
import re

import heap_profile
import sysutil
from sysutil import EBB, Fail, say


def seconds(text):
    """{function: seconds} of pprof -top -unit=s."""
    found = {}
    for line in text.splitlines():
        match = re.match(r'\s*([\d.]+)s?\s+[\d.]+%\s+[\d.]+%\s+\S+\s+\S+\s+(\S+)', line)
        if match:
            found[match.group(2)] = float(match.group(1))
    return found


def run(kind, duration):
    """(file, processor seconds, how often the sleeper was woken)."""
    folder = sysutil.tempdir()
    done = sysutil.run(EBB, [sysutil.prog('profiled'), kind, folder, str(duration)],
                       timeout=60 + 3 * duration)
    match = re.search(rb'used ([\d.]+) woken (\d+)', done.stdout)
    if not match:
        raise Fail('it said %r' % done.stdout)
    return os.path.join(folder, 'cpu'), float(match.group(1)), int(match.group(2))


def test(args):
    sysutil.need('golang-go', 'go')
    path, used, woken = run('cpu', 4)
    found = seconds(heap_profile.pprof('-top', '-unit=s', path))
    total = sum(found.values())
    say('%.2f s used, %.2f s in the profile: %s' % (used, total, found))
    # A sample is 10 ms, and each thread's last period is lost.
    if abs(total - used) > used / 20 + .05:
        raise Fail('the profile accounts for %.2f s of %.2f' % (total, used))
    for name in ('burn_one', 'burn_two'):
        if found.get(name, 0) < used * .3:
            raise Fail('%s has %.2f s of %.2f' % (name, found.get(name, 0), used))
    if woken:
        raise Fail('a sleeping thread was interrupted %d times' % woken)
    tags = heap_profile.pprof('-tags', path)
    for name in ('one', 'two'):
        if not re.search(r':\s+%s\b|\s%s$' % (name, name), tags, re.M):
            raise Fail('thread %s is not among the tags:\n%s' % (name, tags))
    path, used, _ = run('storm', 20 if args.long else 5)
    found = seconds(heap_profile.pprof('-top', '-unit=s', path))
    say('in a storm: %s' % sorted(found.items(), key=lambda item: -item[1])[:5])
    if not found:
        raise Fail('the last profile of the storm is empty')


if __name__ == '__main__':
    sysutil.main(test, __doc__)
