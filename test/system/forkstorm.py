#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Forks by the thousand while eight threads allocate: no child crashes, nobody hangs.

Once by itself, once with a library whose constructor ran before the heap's, so that its fork
handlers (which allocate) run when the heap's have already taken the locks.
"""
import sysutil
from sysutil import EBB, Fail


def storm(program, count, behind, label):
    done = sysutil.run(EBB, [program, str(count)], timeout=800, check=False, preload_after=behind)
    if done.returncode:
        raise Fail('%s: %s: %s' % (label, sysutil.ended(done.returncode),
                                   sysutil.tail(done.stderr)))
    sysutil.say('%s: %s' % (label, sysutil.tail(done.stdout)))


def test(args):
    program = sysutil.prog('forkstorm')
    early = sysutil.prog('early_ctor', shared=True)
    count = 10_000 if args.long else 300
    storm(program, count // 5 if args.long else count, (), 'alone')
    storm(program, count, (early,), 'with an early library')


sysutil.main(test, __doc__)
