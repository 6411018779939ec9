#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Huge pages: what was given back and has come again is known; and the knob thp.

thp=keep: the heap has huge pages (if the kernel gives any), and a peak goes back whole.
thp=default: none in the heap. thp=never: none in the process.
"""
import time

import measure
import sysutil
from sysutil import EBB, Fail, MIB


def status(pid, name):
    for line in open('/proc/%d/status' % pid):
        if line.startswith(name + ':'):
            return line.split()[1]
    return None


def peak(thp):
    """RSS and huge bytes with the peak in use, RSS when it has gone back, and THP_enabled."""
    process = sysutil.spawn(EBB, [sysutil.prog('thp'), 'peak'], {'thp': thp}, stdin=-1, stdout=-1)
    try:
        if process.stdout.readline() != b'touched\n':
            raise Fail('thp=%s: the program failed' % thp)
        high = measure.rollup(process.pid)
        enabled = status(process.pid, 'THP_enabled')
        process.stdin.write(b'\n')
        process.stdin.flush()
        process.stdout.readline()
        sysutil.wait_for(lambda: measure.rss_bytes(process.pid) < high['Rss'] // 4, 10,
                         'thp=%s: the peak to go back' % thp, process)
        time.sleep(0.2)
        low = measure.rss_bytes(process.pid)
    finally:
        process.communicate(b'\n', timeout=20)
    sysutil.say('thp=%-8s RSS %d MiB, %d of it huge; %d MiB after; THP_enabled %s'
                % (thp, high['Rss'] // MIB, high['AnonHugePages'] // MIB, low // MIB, enabled))
    return high['AnonHugePages'], enabled


def test(args):
    del args
    sysutil.run(EBB, [sysutil.prog('thp'), 'reinflate'], timeout=60)
    mode = open('/sys/kernel/mm/transparent_hugepage/enabled').read()
    huge, _ = peak('keep')
    if '[never]' not in mode and huge < 16 * MIB:
        raise Fail('thp=keep: only %d MiB of huge pages' % (huge // MIB))
    if peak('default')[0] != 0:
        raise Fail('thp=default: huge pages in the heap')
    huge, enabled = peak('never')
    if huge != 0 or enabled not in (None, '0'):
        raise Fail('thp=never: %d MiB of huge pages, THP_enabled %s' % (huge // MIB, enabled))


sysutil.main(test, __doc__)
