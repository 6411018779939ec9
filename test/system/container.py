#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Two loads in a memory cgroup of 256 MiB, made by the test.

shift: waves of 50 to 200 MiB whose block sizes shift, so that nothing free fits.
phase: two processes of 30 to 170 MiB in counter-phase, never more than 201 MiB live together.

Both are killed under glibc and under policy=never: so the loads can kill. With limit=auto nobody is
killed, and no wave takes more than 1.5 times as long as without a limit and outside of the cgroup.
The long form runs two minutes each.
"""
import os
import statistics
import time

import measure
import sysutil
from sysutil import EBB, GLIBC, Fail, MIB

LIMIT_BYTES = 256 * MIB
SLOWED_MAX = 1.5
TRIES = 3  # a bound on time fails only if it fails each time


class Run:
    """One load under one allocator: exit statuses, times of the waves, and what the cgroup saw."""

    def __init__(self, shape, seconds, kind, options, contained):
        self.name = '%s, %s' % (shape, 'glibc' if kind == GLIBC else
                                ','.join('%s=%s' % pair for pair in (options or {}).items()))
        self.kills = 0
        self.peak_bytes = 0
        if not contained:
            self._load(shape, seconds, kind, options, None)
            return
        with measure.Cgroup('container', LIMIT_BYTES) as cgroup:
            self._load(shape, seconds, kind, options, cgroup.enter)
            self.kills = cgroup.oom_kills()
            self.peak_bytes = cgroup.peak_bytes()

    def _load(self, shape, seconds, kind, options, before):
        program = sysutil.prog('waves')
        words = [program, shape, str(seconds)]
        if shape == 'shift':
            argvs = [words + ['50', '200']]
        else:
            shared = os.path.join(sysutil.tempdir(), 'pair')
            with open(shared, 'wb') as file:
                file.write(bytes(64))
            argvs = [words + ['30', '170', which, shared] for which in '01']
        started = [sysutil.spawn(kind, argv, options, before=before, stdout=-1, stderr=-1)
                   for argv in argvs]
        self.statuses = []
        self.micros = []
        for process in started:
            out, err = process.communicate(timeout=seconds * 4 + 60)
            self.statuses.append(process.returncode)
            self.micros += [int(line.split()[3]) for line in out.decode().splitlines()
                            if line.startswith('wave ')]
            self.error = err.decode('utf-8', 'replace')

    def alive(self):
        return all(status == 0 for status in self.statuses)

    def say(self):
        sysutil.say('%-28s %s, %d waves, highest charge %d MiB'
                    % (self.name, 'killed' if self.kills else 'alive', len(self.micros),
                       self.peak_bytes // MIB))


def expect_killed(shape, seconds, kind, options):
    run = Run(shape, seconds, kind, options, True)
    run.say()
    if run.kills == 0:
        raise Fail('%s lives: this load shows nothing' % run.name)


def slowed(shape, seconds):
    """How much longer a wave takes under the limit; both are run one after the other."""
    limited = Run(shape, seconds, EBB, {'limit': 'auto'}, True)
    limited.say()
    if limited.kills or not limited.alive():
        raise Fail('%s: %d killed, exit %s: %s' % (limited.name, limited.kills, limited.statuses,
                                                   sysutil.tail(limited.error)))
    free = Run(shape, seconds, EBB, {'policy': 'go1.16'}, False)
    if not free.alive():
        raise Fail('%s without a cgroup: exit %s' % (free.name, free.statuses))
    ratio = statistics.median(limited.micros) / statistics.median(free.micros)
    sysutil.say('%-28s a wave takes %.2f times as long' % ('', ratio))
    return ratio


def test(args):
    seconds = 120 if args.long else 8
    for shape in ('shift', 'phase'):
        expect_killed(shape, 15, GLIBC, None)
        expect_killed(shape, 15, EBB, {'policy': 'never'})
        ratios = []
        while not ratios or (ratios[-1] > SLOWED_MAX and len(ratios) < TRIES):
            time.sleep(1 if ratios else 0)
            ratios.append(slowed(shape, seconds))
        if min(ratios) > SLOWED_MAX:
            raise Fail('%s: waves take %s times as long under limit=auto'
                       % (shape, ', '.join('%.2f' % ratio for ratio in ratios)))


sysutil.main(test, __doc__)
