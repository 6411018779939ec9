#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The static probes otel_memory:alloc and free: their notes are in the library, and gdb,
which raises the semaphores as any tracer does, stops at them with the arguments that were promised.
The weights of a program that allocates 614 MB add up to that."""
import re
import subprocess

import sysutil
from sysutil import EBB, Fail, say

ALLOCATED = 100000 * 1024 + 100000 * 112 + 100000 * 5120  # as prog/profiled.c
LEAKED = 100000 * 1024 + 100000 * 112


def notes():
    """The probes' notes, with semaphores."""
    text = subprocess.run(['readelf', '--notes', '--wide', sysutil.LIB], check=True,
                          stdout=subprocess.PIPE, universal_newlines=True).stdout
    found = re.findall(r'Provider: otel_memory\s+Name: (\w+)\s+Location: \w+, Base: \w+, '
                       r'Semaphore: (0x[0-9a-f]+)', text)
    if sorted(name for name, _ in found) != ['alloc', 'free']:
        raise Fail('the notes are %s' % found)
    if any(int(address, 16) == 0 for _, address in found):
        raise Fail('a probe has no semaphore: %s' % found)


def commands(folder):
    """What gdb is to do: a line for each hit."""
    env = sysutil.environment(EBB, {'profile_rate': 1 << 20})
    lines = ['set pagination off', 'set confirm off', 'set breakpoint pending off',
             'set startup-with-shell off', 'set args heap ' + folder]
    lines += ['set environment %s %s' % (key, env[key]) for key in ('LD_PRELOAD', 'EBB')]
    lines += ['start']
    for name, arguments in (('alloc', 3), ('free', 1)):
        shown = ', '.join('(unsigned long)$_probe_arg%d' % i for i in range(arguments))
        lines += ['break -probe-stap otel_memory:' + name, 'commands', 'silent',
                  'printf "%s%s\\n", %s' % (name, ' %lu' * arguments, shown), 'continue', 'end']
    return lines + ['continue']


def compare(what, weights, truth):
    """The sum of the weights is the truth within five deviations. A tracer that stops the thread
    does not make it sample less."""
    deviation = sum(weight * weight for weight in weights) ** .5
    say('%-9s %4d samples stand for %4d of %4d MB, deviation %d MB'
        % (what, len(weights), sum(weights) // 10**6, truth // 10**6, deviation // 10**6))
    if abs(sum(weights) - truth) > 5 * deviation:
        raise Fail('%s: weights of %d for %d' % (what, sum(weights), truth))


def test(_):
    sysutil.need('binutils', 'readelf')
    notes()
    sysutil.need('gdb', 'gdb')
    script = sysutil.tempdir() + '/commands'
    with open(script, 'w') as file:
        file.write('\n'.join(commands(sysutil.tempdir())) + '\n')
    done = subprocess.run(['gdb', '-nx', '-batch', '-x', script, sysutil.prog('profiled')],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100,
                          universal_newlines=True)
    allocs = [tuple(map(int, match)) for match in
              re.findall(r'^alloc (\d+) (\d+) (\d+)$', done.stdout, re.M)]
    frees = [int(address) for address in re.findall(r'^free (\d+)$', done.stdout, re.M)]
    if 'exited normally' not in done.stdout or not allocs:
        raise Fail('gdb said:\n%s' % done.stdout[-2000:])
    freed = set(frees)
    if not freed <= {address for address, _, _ in allocs}:
        raise Fail('something was freed that was never allocated')
    compare('allocated', [weight for _, _, weight in allocs], ALLOCATED)
    # An address may come again: what is live is what came last and was not freed after.
    live = {}
    for match in re.finditer(r'^(alloc|free) (\d+)(?: \d+ (\d+))?$', done.stdout, re.M):
        if match.group(1) == 'alloc':
            live[match.group(2)] = int(match.group(3))
        else:
            del live[match.group(2)]
    compare('live', list(live.values()), LEAKED)


if __name__ == '__main__':
    sysutil.main(test, __doc__)
