#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""After a peak, with the process asleep, resident size and the cgroup's charge go back.

A peak of mixed blocks (16 to 1024 bytes), all freed, the process in pause(): ten seconds later
both numbers are at most 8 MiB above what they were before the load. By one thread; by eight threads
that are still alive, asleep; freed by another thread than the sleeping ones that allocated. Giving
back costs little CPU, and once it is done no thread wakes up. With policy=never nothing goes back:
so the measurement can tell.
"""
import contextlib
import time

import measure
import sysutil
from sysutil import EBB, Fail, MIB, Skip

SLACK_BYTES = 8 * MIB
SETTLE_S = 10
QUIET_S = 5
CPU_BUDGET_NS = 600_000_000  # 1 % of a minute, which is what the releaser may spend at once


class Peak:
    """One run of prog/peak, with its readings."""

    def __init__(self, label, mode, size_bytes, options, program, stack):
        self.label = label
        self.size_bytes = size_bytes
        self.cgroup = None
        with contextlib.suppress(Skip):
            self.cgroup = stack.enter_context(measure.Cgroup(label.replace(' ', '-')))
        self.process = sysutil.spawn(EBB, [program, mode, str(size_bytes)], options,
                                     before=self.cgroup.enter if self.cgroup else None,
                                     stdin=-1, stdout=-1)
        stack.callback(sysutil.kill, self.process)
        self.pid = self.process.pid
        self.hear('ready')
        self.before = self.read()

    def read(self):
        return measure.rss_bytes(self.pid), self.cgroup.charge_bytes() if self.cgroup else None

    def hear(self, word):
        heard = self.process.stdout.readline().decode().strip()
        if heard != word:
            raise Fail('%s: the program said %r instead of %r' % (self.label, heard, word))

    def tell(self):
        self.process.stdin.write(b'\n')
        self.process.stdin.flush()

    def peak(self):
        self.tell()
        self.hear('loaded')
        self.top = self.read()
        if self.top[0] - self.before[0] < self.size_bytes * 9 // 10:
            raise Fail('%s: the peak is only %d MiB' % (self.label, self.top[0] // MIB))

    def free(self):
        self.tell()
        self.hear('freed')
        self.freed_at = time.monotonic()
        self.freed_cpu = measure.cpu_ns(self.pid)

    def settle(self):
        """Reads everything SETTLE_S after the free; the wake-ups go on being counted."""
        time.sleep(max(0, self.freed_at + SETTLE_S - time.monotonic()))
        self.after = self.read()
        self.spent_ns = measure.cpu_ns(self.pid) - self.freed_cpu
        self.switched = measure.switches(self.pid)
        self.quiet_cpu = measure.cpu_ns(self.pid)

    def over(self, which):
        return self.after[which] - self.before[which]

    def check_given_back(self):
        sysutil.say('%-14s before %4d, peak %4d, after %4d MiB RSS; charge over before %s; '
                    '%d ms CPU' % (
                        self.label, self.before[0] // MIB, self.top[0] // MIB,
                        self.after[0] // MIB,
                        '%d MiB' % (self.over(1) // MIB) if self.cgroup else 'not measured',
                        self.spent_ns // 1_000_000))
        names = ('RSS', "the cgroup's charge")
        for which in (0, 1) if self.cgroup else (0,):
            if self.over(which) > SLACK_BYTES:
                raise Fail('%s: %d s after all was freed %s is %.1f MiB over what it was before'
                           % (self.label, SETTLE_S, names[which], self.over(which) / MIB))
        if self.spent_ns > CPU_BUDGET_NS:
            raise Fail('%s: %d ms of CPU were spent while the program slept (at most %d)'
                       % (self.label, self.spent_ns // 1_000_000, CPU_BUDGET_NS // 1_000_000))

    def check_quiet(self):
        grown = measure.woken(self.switched, measure.switches(self.pid))
        if grown:
            raise Fail('%s: at rest, yet woken up in %d s: %s' % (
                self.label, QUIET_S, ', '.join('thread %d %d times' % g for g in grown.items())))
        spent = measure.cpu_ns(self.pid) - self.quiet_cpu
        if spent > QUIET_S * 10_000_000:
            raise Fail('%s: %d ms CPU in %d s at rest' % (self.label, spent // 1_000_000, QUIET_S))


def check_never(run):
    sysutil.say('%-14s before %4d, peak %4d, after %4d MiB RSS' % (
        run.label, run.before[0] // MIB, run.top[0] // MIB, run.after[0] // MIB))
    if run.over(0) < run.size_bytes // 2:
        raise Fail('policy=never: %d MiB of %d went back all the same, so this test shows nothing'
                   % ((run.top[0] - run.after[0]) // MIB, run.size_bytes // MIB))


def runs(size_bytes):
    return (('one thread', 'one', size_bytes, None),
            ('eight threads', 'eight', size_bytes, None),
            # Not less: with few pages to a thread the doorbell is rung by chance.
            ('freed by other', 'foreign', max(size_bytes, 512 * MIB), None),
            ('policy=never', 'one', size_bytes // 2, {'policy': 'never'}))


def group(specs, program):
    """Several peaks in turn; their ten seconds of sleep pass together."""
    with contextlib.ExitStack() as stack:
        peaks = [Peak(*spec, program, stack) for spec in specs]
        for peak in peaks:
            peak.peak()
            peak.free()
        for peak in peaks:
            peak.settle()
        for peak in peaks:
            if peak.label == 'policy=never':
                check_never(peak)
            else:
                peak.check_given_back()
        time.sleep(QUIET_S)
        for peak in peaks:
            peak.check_quiet()


def test(args):
    program = sysutil.prog('peak')
    if args.long:
        for spec in runs(1024 * MIB):
            group([spec], program)
    else:
        group(runs(256 * MIB), program)


sysutil.main(test, __doc__)
