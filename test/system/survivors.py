#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""After a peak with survivors, a sleeping process keeps little more than their pages.

A peak of blocks of which 1 % (or 10 %) stay, chosen at random, and the process asleep: ten seconds
later resident size and the cgroup's charge are at most 1.15 times the 4 KiB pages that hold a
survivor, and 8 MiB, above what they were before the load. Then every survivor's bytes are checked,
the memory is filled again to the peak, all of it checked and freed, and RSS goes back once more.
Mixed blocks (16 to 1024 bytes), blocks of 64 bytes, blocks of 4 to 256 KiB; freed at once, or in
longer than a releaser without work stays. With policy=never nothing goes back: so the measurement
can tell.
"""
import contextlib
import time

import measure
import sysutil
from sysutil import EBB, Fail, MIB, Skip

SETTLE_S = 10
SLOW_S = 14  # the releaser of an idle heap ends after 10
PAGE_BYTES = 4096
FACTOR = 1.15
SLACK_BYTES = 8 * MIB


class Survivors:
    """One run of prog/survivors, with its readings: pairs of RSS and charge."""

    def __init__(self, spec, program, stack):
        kind, threads, permille, size_bytes, options, slow_s = spec
        self.label = '%s, %d thread%s, %g %%%s' % (
            kind, threads, 's' if threads > 1 else '', permille / 10,
            ', ' + ','.join('%s=%s' % o for o in options.items()) if options else
            ', in %d s' % slow_s if slow_s else '')
        self.slow_s = slow_s
        self.size_bytes = size_bytes
        self.fails = bool(options)
        self.cgroup = None
        with contextlib.suppress(Skip):
            self.cgroup = stack.enter_context(
                measure.Cgroup(self.label.replace(' ', '').replace(',', '-')))
        argv = [program, kind, str(threads), str(permille), str(size_bytes), str(slow_s)]
        self.process = sysutil.spawn(EBB, argv, options,
                                     before=self.cgroup.enter if self.cgroup else None,
                                     stdin=-1, stdout=-1, stderr=-1)
        stack.callback(sysutil.kill, self.process)
        self.pid = self.process.pid
        self.hear('ready')
        self.before = self.read()

    def read(self):
        return measure.rss_bytes(self.pid), self.cgroup.charge_bytes() if self.cgroup else None

    def hear(self, word):
        heard = self.process.stdout.readline().decode().split()
        if not heard:
            said = self.process.stderr.read()
            raise Fail('%s: instead of %r the program ended: %s' % (self.label, word,
                                                                    sysutil.tail(said)))
        if heard[0] != word:
            raise Fail('%s: the program said %r instead of %r' % (self.label, heard, word))
        return int(heard[1]) if len(heard) > 1 else None

    def tell(self):
        self.process.stdin.write(b'\n')
        self.process.stdin.flush()

    def phase(self, word):
        self.tell()
        number = self.hear(word)
        self.since = time.monotonic()
        return number

    def load(self):
        self.phase('loaded')
        self.top = self.read()
        if self.top[0] - self.before[0] < self.size_bytes * 9 // 10:
            raise Fail('%s: the peak is only %d MiB' % (self.label, self.top[0] // MIB))
        self.tell()

    def thinned(self):
        self.kept_bytes = self.hear('thinned') * PAGE_BYTES
        self.since = time.monotonic()
        self.cpu = measure.cpu_ns(self.pid)

    def refill(self):
        self.phase('refilled')
        self.again = self.read()
        self.phase('freed')

    def settle(self):
        time.sleep(max(0, self.since + SETTLE_S - time.monotonic()))
        return self.read()

    def bound_bytes(self):
        return int(self.kept_bytes * FACTOR) + SLACK_BYTES

    def check_thinned(self):
        after = self.settle()
        spent_ms = (measure.cpu_ns(self.pid) - self.cpu) // 1_000_000
        over = [after[i] - self.before[i] for i in (0, 1) if after[i] is not None]
        sysutil.say('%-36s peak %4d MiB, pages of survivors %4.0f, after 10 s RSS %4.0f'
                    ' (%.3f x), charge %s; at most %.0f; %d ms CPU' % (
                        self.label, self.top[0] // MIB, self.kept_bytes / MIB, over[0] / MIB,
                        over[0] / self.kept_bytes,
                        '%4.0f' % (over[1] / MIB) if len(over) > 1 else 'not measured',
                        self.bound_bytes() / MIB, spent_ms))
        too_much = max(over) > self.bound_bytes()
        if self.fails and not too_much:
            raise Fail('%s: memory went back all the same, so this test shows nothing' % self.label)
        if too_much and not self.fails:
            raise Fail('%s: %d s after the peak %.1f MiB are kept for survivors on %.1f MiB of '
                       'pages (at most %.1f)' % (self.label, SETTLE_S, max(over) / MIB,
                                                 self.kept_bytes / MIB, self.bound_bytes() / MIB))

    def check_freed(self):
        after = self.settle()
        over = [after[i] - self.before[i] for i in (0, 1) if after[i] is not None]
        sysutil.say('%-36s filled again to %4d MiB, freed: %.1f MiB over' % (
            self.label, self.again[0] // MIB, max(over) / MIB))
        if self.again[0] > self.top[0] * 1.15 + SLACK_BYTES:
            raise Fail('%s: filled again it takes %d MiB, at the first peak %d' % (
                self.label, self.again[0] // MIB, self.top[0] // MIB))
        if max(over) > SLACK_BYTES:
            raise Fail('%s: %d s after all was freed %.1f MiB stay' % (self.label, SETTLE_S,
                                                                      max(over) / MIB))


def group(specs, program):
    """Several in turn; their sleeps pass together."""
    with contextlib.ExitStack() as stack:
        runs = [Survivors(spec, program, stack) for spec in specs]
        slow = [run for run in runs if run.slow_s]
        for run in slow:
            run.load()
        for run in runs:
            if not run.slow_s:
                run.load()
                run.thinned()
        for run in slow:
            run.thinned()
        for run in runs:
            run.check_thinned()
        runs = [run for run in runs if not run.fails]
        for run in runs:
            run.refill()
        for run in runs:
            run.check_freed()


def test(args):
    program = sysutil.prog('survivors')
    size = 256 * MIB
    if args.long:
        size = 1024 * MIB
        for threads, permille in ((1, 10), (8, 10), (1, 100)):
            group([(kind, threads, permille, size, None, 0)
                   for kind in ('mixed', 'small', 'large')], program)
        return
    group([('small', 1, 10, size, None, SLOW_S), ('mixed', 1, 10, size, None, 0),
           ('small', 1, 10, size, None, 0), ('large', 1, 10, size, None, 0),
           ('mixed', 8, 10, size, None, 0), ('mixed', 1, 100, size, None, 0),
           ('mixed', 1, 10, size, {'policy': 'never'}, 0)], program)


sysutil.main(test, __doc__)
