#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""vm.overcommit_memory=2: address space is charged when it is made writable, not when touched.

The setting is the whole machine's, so this runs only as root where EBB_TEST_SYSCTL=1 says that the
machine is there for tests; it is put back whatever happens.
"""
import os

import sysutil
from sysutil import EBB, Fail, MIB, Skip

VM = '/proc/sys/vm/'


def read(name):
    with open(VM + name) as file:
        return file.read().strip()


def write(name, value):
    with open(VM + name, 'w') as file:
        file.write(str(value))


def committed():
    with open('/proc/meminfo') as file:
        return {line.split(':')[0]: int(line.split()[1]) * 1024 for line in file}


def check_python():
    done = sysutil.run(EBB, ['/usr/bin/python3', '-c',
                             'x = [bytes(i % 5000) for i in range(20000)]; print(len(x))'],
                       check=False)
    if done.stdout.strip() != b'20000':
        raise Fail('python3 under overcommit_memory=2: %s: %s'
                   % (sysutil.ended(done.returncode), sysutil.tail(done.stderr)))


def check_charge():
    """A small program on Ebb commits little more than on glibc: reserving must not be charged."""
    charge = {}
    for kind in (sysutil.GLIBC, EBB):
        before = committed()['Committed_AS']
        sleepers = [sysutil.spawn(kind, ['/bin/sleep', '60']) for _ in range(8)]
        sysutil.wait_for(lambda: all(maps_ready(p.pid) for p in sleepers), 10, 'sleep')
        charge[kind] = (committed()['Committed_AS'] - before) // len(sleepers)
        for process in sleepers:
            sysutil.kill(process)
    sysutil.say('committed by `sleep`: %d KiB on glibc, %d KiB on Ebb'
                % (charge[sysutil.GLIBC] // 1024, charge[EBB] // 1024))
    if charge[EBB] > charge[sysutil.GLIBC] + 24 * MIB:
        raise Fail('a sleeping program commits %d MiB on Ebb' % (charge[EBB] // MIB))


def maps_ready(pid):
    with open('/proc/%d/wchan' % pid) as file:
        return 'nanosleep' in file.read()


def test(args):
    sysutil.need_root('vm.overcommit_memory is set')
    if os.environ.get('EBB_TEST_SYSCTL') != '1':
        raise Skip('a setting of the whole machine: EBB_TEST_SYSCTL=1 allows it')
    old_mode, old_ratio = read('overcommit_memory'), read('overcommit_ratio')
    try:
        memory = committed()
        ratio = 100 * (memory['Committed_AS'] + 1024 * MIB) // memory['MemTotal'] + 1
        write('overcommit_ratio', min(95, max(ratio, 50)))
        write('overcommit_memory', 2)
        check_python()
        check_charge()
    finally:
        write('overcommit_memory', old_mode)
        write('overcommit_ratio', old_ratio)


sysutil.main(test, __doc__)
