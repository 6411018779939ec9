#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A malformed EBB= option: one line that names the option and what would be right; life goes on."""
import sysutil
from sysutil import Fail, GLIBC

# EBB, what the line must name, and a word of what would be right.
CASES = (
    ('policy=nonsense', 'policy', 'go1.16'),
    ('madvise=maybe', 'madvise', 'dontneed'),
    ('nosuchoption=1', 'nosuchoption', ''),
    ('releasetrace=perhaps', 'releasetrace', '1'),
    ('stats=sometimes', 'stats', 'exit'),
    ('policy', 'policy', ''),
    ('=3', '', ''),
    ('policy=never,madvise=x', 'madvise', 'dontneed'),
    ('x' * 5000, '', ''),
)
GOOD = ('', 'policy=never', 'policy=go1.16,madvise=free', 'policy=now,')


def run(value):
    extra = {'EBB': value, 'LD_PRELOAD': sysutil.LIB}
    done = sysutil.run(GLIBC, ['/bin/sh', '-c', 'echo went on'], extra=extra, check=False,
                       timeout=20)
    if done.returncode or done.stdout != b'went on\n':
        raise Fail('EBB=%s: the program did not go on: %s'
                   % (value[:60], sysutil.ended(done.returncode)))
    return done.stderr.decode('utf-8', 'replace')


def test(args):
    for value in GOOD:
        said = run(value)
        if said:
            raise Fail('EBB=%s is right, yet it says: %s' % (value, sysutil.tail(said)))
    for value, name, right in CASES:
        said = run(value)
        if not said.startswith('ebb: ') or len(said.splitlines()) != 1:
            raise Fail('EBB=%s: instead of one line beginning "ebb: " it says %r'
                       % (value[:60], said[:300]))
        if name not in said or right not in said:
            raise Fail('EBB=%s: the line names not "%s" with "%s": %s'
                       % (value[:60], name, right, said.strip()))
        sysutil.say(said.strip()[:160])


sysutil.main(test, __doc__)
