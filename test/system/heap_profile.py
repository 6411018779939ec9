#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the heap profile says of a program that leaks 100 MB at one place and 10 MB at another: the
functions, within what chance allows of the truth; the exact totals, to the byte; as go tool pprof
reads it. Most of it samples finely, so that chance allows little. The program does little but
allocate, so that its thread takes fewer samples than it is asked for (docs/design/009), how many
fewer depends on the machine: what chance allows is taken from how far the runs are apart. The long
form has twenty runs at the default interval, the short one two."""
import os
import re
import statistics
import subprocess

import sysutil
from sysutil import EBB, Fail, say

BIG, SMALL = 100000, 100000  # blocks, as in prog/profiled.c
BIG_BYTES, SMALL_BYTES = 1024, 112  # of their size classes


def pprof(*words):
    """What go tool pprof prints."""
    env = dict(os.environ, HOME=sysutil.tempdir(), GOFLAGS='')
    done = subprocess.run(['go', 'tool', 'pprof', *words], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60, universal_newlines=True)
    if done.returncode != 0:
        raise Fail('go tool pprof %s: %s' % (' '.join(words), done.stderr))
    return done.stdout


def flat(text):
    """{function: bytes} of pprof -top -unit=B."""
    found = {}
    for line in text.splitlines():
        match = re.match(r'\s*(-?[\d.]+)B?\s+[-\d.]+%\s+[-\d.]+%\s+\S+\s+\S+\s+(\S+)', line)
        if match:
            found[match.group(2)] = float(match.group(1))
    return found


def exact(text, what):
    """(objects, bytes) of the comment."""
    match = re.search(r'exact %s: (\d+) objects, (\d+) bytes' % what, text)
    if not match:
        raise Fail('no exact totals of %s in:\n%s' % (what, text[:500]))
    return int(match.group(1)), int(match.group(2))


def near(what, have, want, percent):
    """One figure."""
    say('%-34s %12.0f of %12.0f  %+.1f %%' % (what, have, want, 100 * (have / want - 1)))
    if abs(have / want - 1) > percent / 100:
        raise Fail('%s: %d, which is more than %g %% off %d' % (what, have, percent, want))


def mean_near(what, have, want):
    """The mean of many runs, which may be off by five of its own deviations."""
    deviation = statistics.stdev(have) / len(have) ** .5
    if deviation > .08 * want:
        raise Fail('%s: the runs are so far apart that they show nothing: %s' % (what, have))
    near(what, statistics.mean(have), want, 500 * deviation / want)


def leak(rate):
    """(before, after): the files of one run."""
    folder = sysutil.tempdir()
    options = {'profile_rate': rate} if rate else {}
    sysutil.run(EBB, [sysutil.prog('profiled'), 'heap', folder], options, timeout=60)
    return os.path.join(folder, 'before'), os.path.join(folder, 'after')


def totals(before, after):
    """The exact totals are those of the blocks, wherever they are sampled."""
    old, new = pprof('-top', before), pprof('-top', after)
    for what, objects, size in (
            ('inuse', BIG + SMALL, BIG * BIG_BYTES + SMALL * SMALL_BYTES),
            ('alloc', 2 * BIG + SMALL, BIG * (BIG_BYTES + 5120) + SMALL * SMALL_BYTES)):
        (objects_old, bytes_old), (objects_new, bytes_new) = exact(old, what), exact(new, what)
        # stdio and the program's own start are in both; nothing else allocates in between.
        if objects_new - objects_old != objects or bytes_new - bytes_old != size:
            raise Fail('%s grew by %d objects, %d bytes; the program made %d, %d'
                       % (what, objects_new - objects_old, bytes_new - bytes_old, objects, size))
    say('exact totals agree to the byte')


def fine():
    """What is in use and what was allocated, by samples of 4096 bytes and more."""
    runs = [leak(4096)[1] for _ in range(20)]
    used = [flat(pprof('-top', '-unit=B', run)) for run in runs]
    made = [flat(pprof('-top', '-unit=B', '-sample_index=alloc_space', run)) for run in runs]
    mean_near('leak_big', [found['leak_big'] for found in used], BIG * BIG_BYTES)
    mean_near('leak_small', [found['leak_small'] for found in used], SMALL * SMALL_BYTES)
    mean_near('not_a_leak, allocated', [found['not_a_leak'] for found in made], BIG * 5120)


def test(args):
    sysutil.need('golang-go', 'go')
    before, after = leak(4096)
    totals(before, after)
    found = flat(pprof('-top', '-unit=B', after))
    if found.get('not_a_leak', 0) != 0:
        raise Fail('not_a_leak is in use: %d' % found['not_a_leak'])
    based = flat(pprof('-top', '-unit=B', '-base', before, after))
    if based['leak_big'] != found['leak_big']:
        raise Fail('-base %s, without it %s' % (based, found))
    if 'leak of 100 MB' not in pprof('-list', 'leak_big', after):
        raise Fail('-list does not show the line')
    fine()
    # 195 samples and 21: 7 % and 22 % is one deviation.
    rounds = 20 if args.long else 2
    big = small = 0.0
    for _ in range(rounds):
        found = flat(pprof('-top', '-unit=B', leak(0)[1]))
        big += found.get('leak_big', 0) / rounds
        small += found.get('leak_small', 0) / rounds
    near('leak_big, default, mean of %d' % rounds, big, BIG * BIG_BYTES, 500 * .072 / rounds ** .5)
    near('leak_small, default, mean of %d' % rounds, small, SMALL * SMALL_BYTES,
         500 * .22 / rounds ** .5)


if __name__ == '__main__':
    sysutil.main(test, __doc__)
