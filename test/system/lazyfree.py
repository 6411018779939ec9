#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The heap says released, the kernel says no: case A1, reproduced on purpose.

With madvise=free, or GODEBUG=madvdontneed=0 as for a Go program, the pages of a peak are handed
to the kernel lazily: RSS stays high, LazyFree of smaps accounts for the difference, and MemStats
counts the memory as released. GODEBUG=madvdontneed=1 gives it back at once.
"""
import re
import signal
import time

import measure
import sysutil
from sysutil import EBB, Fail, MIB

SETTLE_S = 10


class Run:
    def __init__(self, label, options, extra, size_bytes, program):
        self.label = label
        self.process = sysutil.spawn(EBB, [program, 'one', str(size_bytes)], options, extra,
                                     stdin=-1, stdout=-1, stderr=-1)
        self.pid = self.process.pid
        self.hear('ready')
        self.before = measure.rss_bytes(self.pid)

    def hear(self, word):
        if self.process.stdout.readline().decode().strip() != word:
            raise Fail('%s: the program did not say %s' % (self.label, word))

    def tell(self):
        self.process.stdin.write(b'\n')
        self.process.stdin.flush()

    def peak(self):
        for word in ('loaded', 'freed'):
            self.tell()
            self.hear(word)

    def read(self):
        numbers = measure.rollup(self.pid)
        self.after, self.lazy = numbers['Rss'], numbers['LazyFree']
        sysutil.say('%-24s RSS before %d, after %d MiB, LazyFree %d MiB'
                    % (self.label, self.before // MIB, self.after // MIB, self.lazy // MIB))

    def end(self):
        """Lets the program exit normally; what it prints then."""
        self.process.send_signal(signal.SIGUSR1)
        _, err = self.process.communicate(timeout=20)
        return err.decode('utf-8', 'replace')


def check_lazy(run, size_bytes):
    kept = run.after - run.before
    if kept < size_bytes // 2:
        raise Fail('%s: RSS fell to %d MiB, so nothing was freed lazily'
                   % (run.label, run.after // MIB))
    if abs(kept - run.lazy) > max(8 * MIB, size_bytes // 50):
        raise Fail('%s: RSS is %d MiB over before, but LazyFree is %d MiB'
                   % (run.label, kept // MIB, run.lazy // MIB))
    text = run.end()
    # As gops prints it: `heap-released: 201.00MB (210763776 bytes)`.
    found = re.search(r'^heap-released: (?:.*\()?(\d+) bytes', text, re.MULTILINE)
    if not found:
        raise Fail('%s: no HeapReleased among the statistics at exit: %s'
                   % (run.label, sysutil.tail(text)))
    released = int(found.group(1))
    if abs(released - run.lazy) > size_bytes // 10:
        raise Fail('%s: HeapReleased is %d MiB, LazyFree %d MiB'
                   % (run.label, released // MIB, run.lazy // MIB))


def check_gone(run):
    if run.after - run.before > 8 * MIB or run.lazy > MIB:
        raise Fail('%s: RSS %d MiB over before, LazyFree %d MiB' % (
            run.label, (run.after - run.before) // MIB, run.lazy // MIB))


def test(args):
    size = (1024 if args.long else 192) * MIB
    program = sysutil.prog('peak')
    stats = {'stats': 'exit'}
    lazily = [Run('madvise=free', dict(stats, madvise='free'), None, size, program),
              Run('GODEBUG=madvdontneed=0', stats, {'GODEBUG': 'madvdontneed=0'}, size, program)]
    gone = [Run('GODEBUG=madvdontneed=1', stats, {'GODEBUG': 'madvdontneed=1'}, size, program),
            Run('madvise=dontneed', dict(stats, madvise='dontneed'), None, size, program)]
    for run in lazily + gone:
        run.peak()
    time.sleep(SETTLE_S)
    for run in lazily + gone:
        run.read()
    for run in gone:
        check_gone(run)
    for run in lazily:
        check_lazy(run, size)


sysutil.main(test, __doc__)
