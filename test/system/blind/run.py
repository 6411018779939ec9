#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""run.py [NAME...]: is each blind situation physically what it is said to be?

Starts each, waits until it is ready, and prints its process id and what the kernel says; compares
the figures with what is claimed, resident size over time where that is the point, and how much
comes back when the allocator is asked for it. No doctor is needed. Exit status 1 if one is not as
claimed; what cannot run here is skipped with its reason.
"""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import situations  # noqa: E402  (found through the line above)
import measure  # noqa: E402
import sysutil  # noqa: E402
from sysutil import Fail, MIB, Skip  # noqa: E402

STEP_S = 0.25
SHOWN = ('Rss', 'Pss', 'Anonymous', 'LazyFree', 'AnonHugePages', 'charge', 'cache', 'shmem',
         'kernel')


def require_within(what, value, bounds, of_bytes):
    low, high = (int(bound * of_bytes) for bound in bounds)
    if not low <= value <= high:
        raise Fail('%s is %.1f MiB, claimed are %.1f to %.1f' % (what, value / MIB, low / MIB,
                                                                 high / MIB))


def check_course(running, seconds):
    """Resident size over time; each form is told from the others."""
    sizes = []
    for _ in range(int(seconds / STEP_S)):
        sizes.append(measure.rss_bytes(running.pid))
        time.sleep(STEP_S)
    half = len(sizes) // 2
    quarter = len(sizes) // 4
    first = sizes[quarter] - sizes[0]
    second = sizes[-1] - sizes[half]
    spread = max(sizes) - min(sizes)
    rise = min(sizes[half:]) - min(sizes[:half])
    falls = sum(1 for a, b in zip(sizes, sizes[1:]) if b < a - 100 * MIB)
    is_it = {
        'slope': first > quarter * STEP_S * 3 * MIB and second > half * STEP_S * 3 * MIB,
        'plateau': spread < 2 * MIB,
        'step': first > quarter * STEP_S * 3 * MIB and abs(second) < MIB,
        'wave': falls >= 2 and spread > 200 * MIB and abs(rise) < MIB,
        'tide': falls >= 2 and spread > 200 * MIB and rise > half * STEP_S * 3 * MIB,
    }[running.situation.course]
    said = 'first quarter %+.1f, second half %+.1f, spread %.1f MiB, %d falls, floor %+.1f' % (
        first / MIB, second / MIB, spread / MIB, falls, rise / MIB)
    if not is_it:
        raise Fail('not a %s: %s' % (running.situation.course, said))
    return said


def check_mended(running, before):
    running.mend()
    returned = before - measure.rss_bytes(running.pid)
    require_within('what comes back', returned, running.situation.mended, running.bytes)
    return 'asked for it, %.1f MiB come back' % (returned / MIB)


def check(situation):
    began = time.monotonic()
    with situations.start(situation) as running:
        took = time.monotonic() - began
        time.sleep(0.3)
        figures = running.figures()
        sysutil.say('%-16s %-9s pid %d, %.1f MiB, ready in %.1f s: %s' % (
            situation.name, running.truth, running.pid, running.bytes / MIB, took,
            ', '.join('%s %.1f' % (name, figures[name] / MIB)
                      for name in SHOWN if figures.get(name))))
        said = []
        if situation.course:
            said.append(check_course(running, situation.watch_s))
        for name, bounds in situation.shows.items():
            require_within(name, figures[name], bounds, running.bytes)
        if situation.mended:
            said.append(check_mended(running, figures['Rss']))
        for line in said:
            sysutil.say('%26s %s' % ('', line))


def check_table():
    """What a typing error in the table would break."""
    names = [situation.name for situation in situations.SITUATIONS]
    if len(set(names)) != len(names):
        raise Fail('two situations have one name')
    for situation in situations.SITUATIONS:
        right = {situation.truth} | set(situation.also)
        known = right | situation.forbidden
        if known - set(situations.VERDICTS) or right & situation.forbidden:
            raise Fail('%s: a verdict unknown, or both right and forbidden' % situation.name)


def main(names):
    failed = 0
    check_table()
    for situation in situations.SITUATIONS:
        if names and situation.name not in names:
            continue
        try:
            check(situation)
        except Skip as reason:
            sysutil.say('%-16s SKIP: %s' % (situation.name, reason))
        except Fail as reason:
            sysutil.say('%-16s FAIL: %s' % (situation.name, reason))
            failed += 1
    sysutil.clean_up()
    return 1 if failed else 0


if __name__ == '__main__':
    unknown = set(sys.argv[1:]) - {situation.name for situation in situations.SITUATIONS}
    if unknown:
        sys.exit('no situation is named %s; there are: %s' % (
            ', '.join(sorted(unknown)), ' '.join(s.name for s in situations.SITUATIONS)))
    sys.exit(main(sys.argv[1:]))
