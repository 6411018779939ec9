#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A program of one thread frees much and sleeps: memory goes back, and the helper goes too.

A second thread that libc knows of costs a single-threaded program for ever, and one it does not
know of still stands in the way of unshare(CLONE_NEWUSER): it comes only when there is much to give
back, and ends when that is done. (lives_prog.py single-little, single-busy look from inside.)
"""
import time

import measure
import sysutil
from sysutil import EBB, Fail, MIB

GONE_WITHIN_S = 40


def test(args):
    process = sysutil.spawn(EBB, [sysutil.prog('single'), 'much'], stdout=-1)
    if process.stdout.readline() != b'freed\n':
        raise Fail('the program did not say "freed"')
    start = time.monotonic()
    rss = measure.rss_bytes(process.pid)
    most = 1
    while time.monotonic() < start + GONE_WITHIN_S:
        most = max(most, measure.thread_count(process.pid))
        rss = measure.rss_bytes(process.pid)
        if rss < 24 * MIB and measure.thread_count(process.pid) == 1:
            break
        time.sleep(0.02)
    took = time.monotonic() - start
    if rss >= 24 * MIB:
        raise Fail('after %.0f s of sleep RSS is still %d MiB' % (took, rss // MIB))
    if measure.thread_count(process.pid) != 1:
        raise Fail('the memory is back, but after %.0f s the helper thread is still there' % took)
    if most > 2:
        raise Fail('%d threads were seen' % most)
    sysutil.say('RSS %d MiB and one thread after %.1f s' % (rss // MIB, took))


sysutil.main(test, __doc__)
