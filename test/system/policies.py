#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The same shapes under each policy, on the real heap: who keeps what, and for how long.

One peak of 256 MiB (cases A4, A1): go1.11 and go1.12 keep all of it for five minutes, go1.13 falls
in a straight line by a page per millisecond, lazily; go1.16 and go1.19 give it back in seconds;
decay along its curve; never not, now at once. Large, small, larger (A6): go1.11 holds both large
runs, go1.12 gives as much back as it takes. Waves of 5 s for half a minute: who keeps the troughs.
Who has got what it wants is asleep. The long form waits until go1.11 has given back, too.
"""
import os
import threading
import time

import measure
import sysutil
from sysutil import EBB, Fail, MIB

SIZE = 256 * MIB
SLACK = 12 * MIB
PIECE = MIB
PAGE = os.sysconf('SC_PAGESIZE')
AT_ONCE = {'madvise': 'dontneed'}  # so that RSS shows what a lazy policy does


class Shape:
    """One program, its policy, and RSS above what it was at the start."""

    def __init__(self, program, policy, **options):
        self.label = ','.join([policy] + ['%s=%s' % pair for pair in options.items()])
        self.process = sysutil.spawn(EBB, [program], dict(options, policy=policy), stdin=-1,
                                     stdout=-1)
        self.pid = self.process.pid
        self.tell('up', 15, PIECE, PIECE)
        self.start = measure.rss_bytes(self.pid)

    def tell(self, *words):
        self.process.stdin.write((' '.join(str(word) for word in words) + '\n').encode())
        self.process.stdin.flush()
        if self.process.stdout.readline() != b'ok\n':
            raise Fail('%s: the program did not do %s' % (self.label, words))

    def over(self):
        return measure.rss_bytes(self.pid) - self.start

    def lazy(self):
        return measure.rollup(self.pid)['LazyFree']

    def peak(self):
        self.tell('up', 0, SIZE, PIECE)
        if self.over() < SIZE * 9 // 10:
            raise Fail('%s: the peak is only %d MiB' % (self.label, self.over() // MIB))
        self.tell('down', 0)
        self.freed = time.monotonic()

    def wait(self, seconds):
        """Until so many seconds after the peak; the real time."""
        time.sleep(max(0, self.freed + seconds - time.monotonic()))
        return time.monotonic() - self.freed

    def expect(self, low, high, what):
        over = self.over()
        sysutil.say('%-32s %5d MiB over the start: %s' % (self.label, over // MIB, what))
        if not low <= over <= high:
            raise Fail('%s: %d MiB over the start, not %d to %d: %s' % (
                self.label, over // MIB, low // MIB, high // MIB, what))

    def expect_rest(self, switches_most):
        before = measure.switches(self.pid)
        time.sleep(4)
        woken = sum(measure.woken(before, measure.switches(self.pid)).values())
        if woken > switches_most:
            raise Fail('%s: %d wake-ups in 4 s at rest' % (self.label, woken))


KEPT = (SIZE * 95 // 100, SIZE + SLACK)
GONE = (-SLACK, SLACK)


def one_peak_kept(shape):
    shape.peak()
    shape.wait(14)
    shape.expect(*KEPT, 'all of it, 14 s after the peak')
    shape.expect_rest(5)  # go1.12 looks each second


def one_peak_kept_in_motion(shape):
    """Growth that found nothing free is no debt, also if looks come before, between and after."""
    for _ in range(20):
        shape.tell('up', 1, 16 * PIECE, PIECE)
        shape.tell('down', 1)
        time.sleep(0.1)
    shape.peak()
    shape.wait(4)
    shape.expect(SIZE * 85 // 100, SIZE + SLACK, 'all of it, 4 s after a peak in motion')


def one_peak_gone(shape):
    shape.peak()
    shape.wait(10)
    shape.expect(*GONE, '10 s after the peak')
    shape.wait(18)
    shape.expect_rest(0)


def one_peak_now(shape):
    shape.peak()
    shape.wait(2)
    shape.expect(*GONE, '2 s after the peak')
    shape.wait(16)
    shape.expect_rest(0)


def one_peak_line(shape):
    shape.peak()
    first, began = shape.wait(2), shape.over()
    for seconds in (6, 10, 14):
        passed = shape.wait(seconds) - first
        want = passed * 1000 * PAGE
        got = began - shape.over()
        sysutil.say('%-32s fell %d MiB in %.1f s' % (shape.label, got // MIB, passed))
        if not want - SLACK / 2 < got < want + SLACK / 2:
            raise Fail('%s: fell %d MiB in %.1f s, not %d' % (
                shape.label, got // MIB, passed, want // MIB))


def one_peak_lazy_line(shape):
    shape.peak()
    passed = shape.wait(12)
    lazy, want = shape.lazy(), (passed - 1) * 1000 * PAGE
    shape.expect(*KEPT, 'released lazily (LazyFree %d MiB), so RSS stays' % (lazy // MIB))
    if not want - SLACK < lazy < want + SLACK:
        raise Fail('%s: LazyFree %d MiB, not %d' % (shape.label, lazy // MIB, want // MIB))


def switched(shape):
    """Case A1 and its end: another policy in the running program."""
    shape.peak()
    shape.wait(6)
    lazy = shape.lazy()
    shape.expect(*KEPT, 'released lazily (LazyFree %d MiB), so RSS stays' % (lazy // MIB))
    if lazy < SLACK:
        raise Fail('%s: LazyFree is only %d MiB after 6 s' % (shape.label, lazy // MIB))
    shape.tell('policy', 'go1.16')
    shape.wait(11)
    shape.expect(*GONE, '5 s after switching to go1.16')
    if shape.lazy() > MIB:
        raise Fail('%s: LazyFree is still %d MiB' % (shape.label, shape.lazy() // MIB))
    shape.tell('policy', 'never')
    shape.peak()
    shape.wait(6)
    shape.expect(*KEPT, 'after switching to never')
    shape.tell('policy', 'go1.11')
    shape.wait(14)  # its releaser sleeps now, until 150 s have passed
    shape.expect(*KEPT, 'after switching to go1.11')
    shape.tell('policy', 'decay')
    shape.wait(29)
    shape.expect(*GONE, '15 s after switching to decay')


def one_peak_curve(shape):
    """decay_ms is 10 s."""
    shape.peak()
    shape.wait(1)
    shape.expect(SIZE * 90 // 100, SIZE + SLACK, 'nearly all at the curve\'s beginning')
    passed = shape.wait(5)
    y = 1 - passed / 10
    share = 6 * y ** 5 - 15 * y ** 4 + 10 * y ** 3
    shape.expect(SIZE * (share - 0.1), SIZE * (share + 0.1) + SLACK, 'half in the middle')
    shape.wait(11)
    shape.expect(*GONE, 'nothing at its end')
    shape.wait(18)
    shape.expect_rest(0)


def larger(shape, low, high):
    """A6: a large run is freed, small things settle in it, a larger one finds no room there."""
    shape.tell('up', 0, SIZE // 2, SIZE // 2)
    shape.tell('up', 1, PIECE, PIECE)  # so that it cannot grow at its end
    shape.tell('down', 0)
    time.sleep(3)
    shape.tell('up', 2, 8 * PIECE, PIECE)
    shape.tell('up', 3, SIZE // 2, SIZE // 2)
    time.sleep(4)
    shape.expect(low, high, 'large, small, larger')


def waves(shape, low, high):
    least = SIZE
    for _ in range(6):
        shape.tell('up', 0, SIZE, PIECE)
        time.sleep(2.5)
        shape.tell('down', 0)
        time.sleep(2.4)
        least = min(least, shape.over())
    sysutil.say('%-32s %5d MiB in the least trough' % (shape.label, least // MIB))
    if not low <= least <= high:
        raise Fail('%s: %d MiB kept in a trough, not %d to %d' % (
            shape.label, least // MIB, low // MIB, high // MIB))


def five_minutes(shape):
    shape.peak()
    shape.wait(295)
    shape.expect(*KEPT, 'all of it, 295 s after the peak')
    shape.wait(470)
    shape.expect(*GONE, '470 s after the peak')
    shape.expect_rest(0)


def plans(args, program):
    """What runs: (function, shape, further arguments), all side by side."""
    for policy in ('never', 'go1.11', 'go1.12'):
        yield one_peak_kept, Shape(program, policy, **AT_ONCE), ()
    yield one_peak_kept_in_motion, Shape(program, 'go1.12', **AT_ONCE), ()
    for policy in ('go1.16', 'go1.19'):
        yield one_peak_gone, Shape(program, policy), ()
    yield one_peak_now, Shape(program, 'now'), ()
    yield one_peak_line, Shape(program, 'go1.13', **AT_ONCE), ()
    yield one_peak_lazy_line, Shape(program, 'go1.13'), ()
    yield switched, Shape(program, 'go1.13'), ()
    yield one_peak_curve, Shape(program, 'decay'), ()
    both = (SIZE - SLACK, SIZE + 2 * SLACK)
    one = (SIZE // 2, SIZE // 2 + 2 * SLACK)
    for policy, held in (('never', both), ('go1.11', both), ('go1.12', one), ('go1.16', one)):
        yield larger, Shape(program, policy, **AT_ONCE), held
    for policy, held in (('go1.11', KEPT), ('go1.12', KEPT), ('go1.16', GONE), ('now', GONE),
                         ('decay', (SIZE * 40 // 100, SIZE * 95 // 100))):
        yield waves, Shape(program, policy, **AT_ONCE), held
    if args.long:
        for policy in ('go1.11', 'go1.12'):
            yield five_minutes, Shape(program, policy, **AT_ONCE), ()


def test(args):
    wrong = []

    def guarded(function, shape, more):
        try:
            function(shape, *more)
        except Fail as reason:
            wrong.append(str(reason))

    threads = [threading.Thread(target=guarded, args=plan)
               for plan in list(plans(args, sysutil.prog('shapes')))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise Fail('; '.join(wrong))


sysutil.main(test, __doc__)
