#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""xz and zstd with threads on Ebb: the archives are those made on glibc, and unpack to the data."""
import random

import sysutil
from sysutil import EBB, Fail, MIB


def data(size):
    """Bytes that compress about as text does."""
    source = random.Random(3)
    words = [b'%x' % source.getrandbits(source.randint(8, 60)) for _ in range(4000)]
    out = bytearray()
    while len(out) < size:
        out += b' '.join(source.choices(words, k=2000))
    return bytes(out[:size])


def test(args):
    plain = data((256 if args.long else 6) * MIB)
    xz, zstd = sysutil.need('xz-utils', 'xz'), sysutil.need('zstd', 'zstd')
    packers = ([xz, '-T4', '-2', '--block-size=2MiB', '-c'], [xz, '-T1', '-6', '-c'],
               [zstd, '-T4', '-6', '-q', '-c'], [zstd, '-T2', '--long=24', '-3', '-q', '-c'])
    for argv in packers if args.long else packers[:1] + packers[2:]:
        packed = sysutil.same(argv, ' '.join(argv[:3]), stdin=plain, timeout=300).stdout
        back = sysutil.run(EBB, [argv[0], '-d', '-c'] + ([] if argv[0] == xz else ['--long=24']),
                           stdin=packed, timeout=100, command=True).stdout
        if back != plain:
            raise Fail('%s -d does not give back what was packed' % argv[0])


sysutil.main(test, __doc__)
