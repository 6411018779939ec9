#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Mappings are few: vm.max_map_count (65,530) is not used up, with up to 10 GiB allocated."""
import sysutil
from sysutil import EBB, Fail, Skip

MOST_MAPPINGS = 400
GIB = 1 << 30


def available_bytes():
    with open('/proc/meminfo') as file:
        for line in file:
            if line.startswith('MemAvailable'):
                return int(line.split()[1]) * 1024
    raise Skip('no MemAvailable')


def test(args):
    # Only a byte of each block is touched, but huge pages may back more than that.
    size = min((10 if args.long else 3) * GIB, available_bytes() * 6 // 10)
    done = sysutil.run(EBB, [sysutil.prog('manymaps'), str(size)], timeout=120)
    counts = dict(line.split() for line in done.stdout.decode().splitlines())
    sysutil.say('%.1f GiB: mappings %s' % (size / GIB, counts))
    for step in ('allocated', 'half-freed', 'rested', 'freed'):
        if int(counts[step]) > MOST_MAPPINGS:
            raise Fail('%s: %s mappings at %.1f GiB (at most %d)'
                       % (step, counts[step], size / GIB, MOST_MAPPINGS))


sysutil.main(test, __doc__)
