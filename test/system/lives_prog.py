#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A helper program that checks itself, on glibc (where it must pass, else it is wrong) and on Ebb.

Named on the command line; each program says at its top what it is about.
"""
import sysutil
from sysutil import EBB, GLIBC, Fail, Skip

# name: (arguments, arguments of the long form or None, seconds, runs on glibc as well)
PROGRAMS = {
    'seccomp-early': (['seccomp', 'early'], None, 40, True),
    'seccomp-late': (['seccomp', 'late'], None, 40, True),
    'closefrom': (['closefrom'], None, 40, True),
    'threads100k': (['threads100k', '100000'], ['threads100k', '400000'], 300, False),
    'signals': (['signals'], None, 40, True),
    'trim': (['trim'], None, 40, False),
    'dlopen-tls': (['dlopen_tls'], None, 120, True),
    'thread-exit': (['thread_exit'], None, 120, True),
    'exhaust': (['exhaust'], None, 120, True),
    'single-little': (['single', 'little'], None, 40, True),
    'single-busy': (['single', 'busy'], None, 40, True),
}


def once(kind, name, args, seconds):
    words = [sysutil.prog(args[0])] + args[1:]
    if name == 'dlopen-tls':
        words.append(sysutil.prog('tlslib', shared=True))
    if args[0] == 'seccomp' and kind == GLIBC:
        words.append('lenient')
    done = sysutil.run(kind, words, timeout=seconds, check=False)
    if done.returncode == 77:
        raise Skip(sysutil.tail(done.stdout))
    if done.returncode:
        raise Fail('%s on %s: %s: %s' % (name, kind, sysutil.ended(done.returncode),
                                         sysutil.tail(done.stderr)))
    if done.stdout:
        sysutil.say('%s: %s' % (kind, sysutil.tail(done.stdout)))


def test(args):
    if args.name not in PROGRAMS:
        raise Fail('name one of %s' % ' '.join(sorted(PROGRAMS)))
    short, long_form, seconds, on_glibc = PROGRAMS[args.name]
    words = long_form if args.long and long_form else short
    if on_glibc:
        once(GLIBC, args.name, short, seconds)
    once(EBB, args.name, words, seconds)


sysutil.main(test, __doc__)
