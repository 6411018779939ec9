#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A program that fills its cgroup is ended by the kernel; what it had allocated, and where, is on
disk then: go tool pprof names the function, the ledger has the bytes. The ring keeps as many
records as it was told, a folder that cannot be written to does no harm, and nothing is written by
a program that stays below."""
import glob
import gzip
import json
import os
import signal
import sys

import heap_profile
import measure
import sysutil
from sysutil import EBB, Fail, MIB, say

LIMIT_BYTES = 96 * MIB
# Fills memory for ever, or up to argv[1] MiB and then says so; a MiB each 2 ms, so that there are
# several peaks to record.
GROW = r'''
import sys, time
kept = []
most = int(sys.argv[1]) if len(sys.argv) > 1 else 1 << 20
while len(kept) < most:
    kept.append(bytearray(b'x') * (1 << 20))
    time.sleep(.002)
print('full', flush=True)
'''


def grow(folder, most='', options=None, want_killed=True):
    """Runs it in a cgroup; what it said on stderr."""
    chosen = {'limit': 'auto', 'recorder': 80, 'recorder_dir': folder, 'recorder_files': 3}
    chosen.update(options or {})
    with measure.Cgroup('recorder', LIMIT_BYTES) as cgroup:
        argv = ['/usr/bin/python3', '-S', '-c', GROW] + ([str(most)] if most else [])
        done = sysutil.run(EBB, argv, chosen, before=cgroup.enter, check=False, timeout=60)
    if want_killed != (done.returncode == -signal.SIGKILL):
        raise Fail('%s: %s' % (sysutil.ended(done.returncode), sysutil.tail(done.stderr)))
    return done.stderr.decode('utf-8', 'replace')


def records(folder):
    """{number: (heap profile, ledger)} of complete records."""
    found = {}
    for path in glob.glob(folder + '/*'):
        name = os.path.basename(path)
        if name.endswith('.part'):
            continue
        words = name.split('-')
        if words[0] != 'ebb' or not words[1].isdigit():
            raise Fail('a file called %s' % name)
        number, _, kind = words[2].partition('.')
        if os.stat(path).st_mode & 0o777 != 0o600:
            raise Fail('%s can be read by others' % name)
        found.setdefault(int(number), {})[kind] = path
    return found


def killed():
    """The last records of a program that the kernel ended."""
    folder = sysutil.tempdir()
    grow(folder)
    found = records(folder)
    if sorted(found) != [0, 1, 2] and sorted(found) not in ([0], [0, 1]):
        raise Fail('the records are %s' % sorted(found))
    sizes = {}
    for number, files in found.items():
        if 'json' not in files or 'heap.pb.gz' not in files:
            continue  # it was ended in between
        with open(files['json']) as file:
            ledger = json.load(file)
        text = heap_profile.pprof('-top', '-unit=B', files['heap.pb.gz'])
        objects, size = heap_profile.exact(text, 'inuse')
        sizes[number] = size
        say('record %d: %d objects, %d MiB in use, sum of the ledger %d MiB'
            % (number, objects, size // MIB, ledger['sum_bytes'] // MIB))
        if not .6 * LIMIT_BYTES < size < LIMIT_BYTES:
            raise Fail('%d bytes in use at a limit of %d' % (size, LIMIT_BYTES))
        if abs(ledger['sum_bytes'] - size) > 24 * MIB:
            raise Fail('the ledger says %d, the profile %d' % (ledger['sum_bytes'], size))
        top = sum(heap_profile.flat(text).values())
        if not .6 < top / size < 1.5:
            raise Fail('the samples say %d, the total is %d' % (top, size))
    if not sizes:
        raise Fail('there is no complete record')


def quiet():
    """Below the share nothing is written."""
    folder = sysutil.tempdir()
    said = grow(folder, 20, want_killed=False)
    if os.listdir(folder) or said:
        raise Fail('below the share: %s, %r' % (os.listdir(folder), said))


def ring():
    """More peaks than files: the oldest go, and those there are whole."""
    folder = sysutil.tempdir()
    options = {'recorder': 10, 'recorder_files': 2}
    grow(folder, 60, options, want_killed=False)
    found = records(folder)
    if sorted(found) != [0, 1]:
        raise Fail('of two files there are %s' % sorted(found))
    sizes = []
    for files in found.values():
        with gzip.open(files['heap.pb.gz']) as file:
            file.read()
        with open(files['json']) as file:
            sizes.append(json.load(file)['sum_bytes'])
    if max(sizes) < 50 * MIB:
        raise Fail('the last peak of 60 MiB is not there: %s' % sizes)
    if glob.glob(folder + '/*.part'):
        raise Fail('drafts are left: %s' % os.listdir(folder))


def mistakes():
    """What cannot be recorded says why, and the program runs."""
    for options, words in (
            ({'limit': 'off', 'recorder_dir': '/tmp'}, 'limit=auto or limit=BYTES'),
            ({'recorder_dir': '/nowhere/at/all'}, 'recorder_dir must name a folder')):
        said = grow('/tmp', 20, options, want_killed=False)
        if words not in said or said.count('\n') != 1:
            raise Fail('%s: %r' % (options, said))
    # A folder that goes away while the program runs.
    folder = sysutil.tempdir()
    os.rmdir(folder)
    os.mkdir(folder)
    code = GROW.replace('kept = []', 'import os; kept = []; os.rmdir(%r)' % folder)
    done = sysutil.run(EBB, [sys.executable, '-S', '-c', code, '60'],
                       {'limit': 80 * MIB, 'recorder': 20, 'recorder_dir': folder}, timeout=60)
    if done.stdout.strip() != b'full':
        raise Fail('without its folder: %r' % done.stderr)


def test(_):
    sysutil.need('golang-go', 'go')
    mistakes()
    quiet()
    ring()
    killed()


if __name__ == '__main__':
    sysutil.main(test, __doc__)
