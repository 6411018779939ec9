#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every entry point of C, C23, C++ and the malloc family does what it promises.

prog/api.c and prog/apixx.cc check themselves: on glibc, where they must pass or else are wrong, and
on Ebb, which must besides have what glibc 2.36 lacks (free_sized, free_aligned_sized, cfree).
"""
import sysutil
from sysutil import EBB, Fail, GLIBC


def test(args):
    for name, language in (('api', 'c'), ('apixx', 'cc')):
        program = sysutil.prog(name, language)
        for kind in (GLIBC, EBB):
            done = sysutil.run(kind, [program, kind], timeout=60, check=False)
            if done.returncode:
                raise Fail('%s on %s: %s: %s' % (name, kind, sysutil.ended(done.returncode),
                                                 sysutil.tail(done.stderr)))


sysutil.main(test, __doc__)
