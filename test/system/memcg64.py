#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""python3 lives in a memory cgroup of 64 MiB, and waves of 30 MiB pass through it again and again.

The sizes of a wave's blocks shift a little from wave to wave, as glibc just survives it.
"""
import measure
import sysutil
from sysutil import EBB, Fail, MIB

LIMIT_BYTES = 64 * MIB
SCRIPT = '''
import json, sys
for wave in range(%d):
    size = 40 + wave %% 900
    keep = [bytes(size) for _ in range(30000000 // (size + 40))]
    keep.append(json.dumps(list(range(1000 + wave))))
    del keep
print("alive")
'''


def test(args):
    waves = 200 if args.long else 40
    with measure.Cgroup('memcg64', LIMIT_BYTES) as cgroup:
        done = sysutil.run(EBB, ['/usr/bin/python3', '-c', SCRIPT % waves], check=False,
                           before=cgroup.enter, timeout=200)
        if done.returncode or done.stdout.strip() != b'alive':
            raise Fail('python3 in a cgroup of 64 MiB: %s: %s'
                       % (sysutil.ended(done.returncode), sysutil.tail(done.stderr)))


sysutil.main(test, __doc__)
