#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ebb doctor on processes of known shape.

Parts
  glibc   arenas of glibc: in use, kept and pinned beside what mallinfo2 says; what is predicted
          beside what malloc_trim then gives back; below 100 ms, with terabytes mapped too; a libc
          whose name leads to what never answers
  edges   a dead process, one that ends while it is looked at, a thread of the kernel, another
          user's process, wrong words: a clear line and the status that belongs to it
  large   many resident bytes: one of five looks below 100 ms
  apply   on Ebb: what --apply does, and that --verify finds the prediction right; beside a heap of
          Python's
"""
import json
import os
import re
import resource
import subprocess
import time

import doctorutil
import measure
import sysutil
from sysutil import EBB, Fail, GLIBC, MIB, say

NOBODY = 65534
# What a look may cost.
COST_NS_MAX = 100 * 10**6


def rss(pid):
    with open('/proc/%d/status' % pid, encoding='ascii') as status:
        return int(re.search(r'VmRSS:\s+(\d+)', status.read()).group(1)) * 1024


class Shape:
    """glibcheap in one of its shapes."""

    def __init__(self, shape, mib, *words, kind=GLIBC, options=None, before=None):
        self.process = sysutil.spawn(kind, [sysutil.prog('glibcheap'), shape, str(mib), *words],
                                     options=options, before=before, stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE)
        self.pid = self.process.pid
        self.truth = self.hear('ready')

    def hear(self, word):
        line = self.process.stdout.readline().decode()
        if not line.startswith(word):
            raise Fail('glibcheap said %r' % line)
        return {k: int(v) for k, v in re.findall(r'(\w+)=(\d+)', line)}

    def trim(self):
        self.process.stdin.write(b'trim\n')
        self.process.stdin.flush()
        return self.hear('trimmed')

    def rss(self):
        return rss(self.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        sysutil.kill(self.process)


def near(what, got, wanted, share, slack=4 * MIB):
    if abs(got - wanted) > max(share * wanted, slack):
        raise Fail('%s: %.1f MiB, not %.1f' % (what, got / MIB, wanted / MIB))


def glibc_shape(shape, mib, verdict, words=(), predicts=False, share=0.05):
    with Shape(shape, mib, *words) as run:
        report = doctorutil.ask(run.pid)
        doctorutil.check_sum(report)
        heap = doctorutil.heap(report, 'glibc')
        names = doctorutil.names(report)
        costs = [report['cost_ns']]
        while min(costs) > COST_NS_MAX and len(costs) < 5:
            costs.append(doctorutil.ask(run.pid)['cost_ns'])
        before = run.rss()
        truth = run.truth
        run.trim()
        after = run.rss()
        first = report['verdicts'][0]
        free = heap['kept_bytes'] + heap['pinned_bytes']
        predicted = ('%.1f' % (first['predicted_rss_bytes'] / MIB) if first['predicted_rss_bytes']
                     else '-')
        say('%-8s %4d MiB: %s; in use %.1f (%.1f), free %.1f (%.1f); predicted %s, trimmed to %.1f;'
            ' %.1f ms'
            % (shape, mib, ' '.join(names), heap['live_bytes'] / MIB, truth['live'] / MIB,
               free / MIB, truth['free'] / MIB, predicted, after / MIB, report['cost_ns'] / 1e6))
        doctorutil.row('glibc', shape, mib, names[0],
                       '%.1f (%.1f)' % (heap['live_bytes'] / MIB, truth['live'] / MIB),
                       '%.1f (%.1f)' % (free / MIB, truth['free'] / MIB),
                       predicted, '%.1f' % (after / MIB), '%.0f' % (report['cost_ns'] / 1e6))
        if names[0] != verdict:
            raise Fail('%s is called %s: %s' % (shape, names[0], first['sentence']))
        if min(costs) > COST_NS_MAX:
            raise Fail('%s %d MiB: %d ms at best of %d looks'
                       % (shape, mib, min(costs) // 10**6, len(costs)))
        near('in use in "%s"' % shape, heap['live_bytes'], truth['live'], share)
        if predicts:
            near('RSS after malloc_trim', first['predicted_rss_bytes'], after, share, 8 * MIB)
        elif before - after > 0.2 * before:
            raise Fail('malloc_trim gave back %d MiB that the doctor did not promise'
                       % ((before - after) // MIB))


# As much address space as sanitizers reserve.
TERABYTES = '''
import mmap
NORESERVE = 0x4000
m = mmap.mmap(-1, 14 << 40, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)
'''
# What was mapped is gone, and a pipe has the name that is left of it.
PIPE = '''
import mmap, os
name = '%s/libc.so.6'
size = 64 << 20  # too large for a place above the true one
with open(name, 'wb') as file: file.truncate(size)
with open(name, 'rb') as file: m = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
os.unlink(name)
os.mkfifo(name + ' (deleted)')
'''


def odd_program(name, text):
    text += 'print("ready", flush=True)\ninput()\n'
    run = sysutil.spawn(GLIBC, ['/usr/bin/python3', '-c', text], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE)
    if run.stdout.readline() != b'ready\n':
        raise Fail('%s: it did not start' % name)
    costs = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        doctorutil.ask(run.pid, timeout=10)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    sysutil.kill(run)
    say('%s: %.0f ms of processor time' % (name, min(costs) * 1e3))
    if min(costs) > COST_NS_MAX / 1e9:
        raise Fail('%s: %.0f ms at best' % (name, min(costs) * 1e3))


def part_glibc(args):
    glibc_shape('live', 40, 'healthy')
    glibc_shape('live', 300, 'healthy')
    glibc_shape('big', 200, 'healthy')
    glibc_shape('pinned', 40, 'pinned')
    glibc_shape('live', 140, 'healthy')
    glibc_shape('pinned', 140, 'pinned', share=0.1)
    glibc_shape('pinned', 300, 'pinned', share=0.1)
    glibc_shape('kept', 40, 'kept', predicts=True)
    glibc_shape('kept', 300, 'kept', predicts=True)
    glibc_shape('shuffled', 300, 'kept', predicts=True, share=0.1)
    glibc_shape('fast', 200, 'kept', predicts=True)
    glibc_shape('sparse', 200, 'kept', predicts=True, share=0.1)
    glibc_shape('arenas', 300, 'arenas', ('64',), predicts=True)
    odd_program('terabytes', TERABYTES)
    odd_program('libc that is a pipe', PIPE % sysutil.tempdir())
    if args.long:
        glibc_shape('kept', 4000, 'kept', predicts=True)
        glibc_shape('pinned', 4000, 'pinned', share=0.1)


# ---- edges --------------------------------------------------------------------------------------

def doctor(*words, user=None, timeout=60):
    def become():
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    return subprocess.run([sysutil.CMD, 'doctor', *words], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=timeout,
                          preexec_fn=become if user else None, check=False,
                          env=sysutil.environment(GLIBC))


def expect(words, status, text, **how):
    done = doctor(*words, **how)
    said = (done.stderr + done.stdout).decode(errors='replace')
    if done.returncode != status or not re.search(text, said):
        raise Fail('ebb doctor %s: status %d, %r' % (' '.join(words), done.returncode, said[:300]))
    if status == 3 and done.stderr.count(b'\n') != 1:
        raise Fail('not one line: %r' % done.stderr)


def edge_words():
    expect([], 3, 'which process')
    expect(['nginx'], 3, 'not a process ID')
    expect(['-3'], 3, 'unknown option|not a process ID')
    expect(['0'], 3, 'not a process ID')
    expect(['99999999999999'], 3, 'not a process ID')
    expect(['--for', 'soon', '1'], 3, 'is no time')
    expect(['--for', '2d', '1'], 3, 'is no time')
    expect(['--budget', '0', '1'], 3, 'is no number of milliseconds')
    expect(['--frobnicate', '1'], 3, 'unknown option')
    expect(['2'], 3, 'thread of the kernel|there is no process')


def edge_dead():
    process = subprocess.Popen(['/bin/true'])
    time.sleep(0.3)
    expect([str(process.pid)], 3, 'has ended; its parent')
    process.wait()
    expect([str(process.pid)], 3, 'there is no process')


def edge_dies():
    with Shape('live', 20) as run:
        asking = subprocess.Popen([sysutil.CMD, 'doctor', '--for', '20s', str(run.pid)],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  env=sysutil.environment(GLIBC))
        time.sleep(1)
        sysutil.kill(run.process)
        _, err = asking.communicate(timeout=20)
        if asking.returncode != 3 or b'ended while it was looked at' not in err:
            raise Fail('it died, and: status %d, %r' % (asking.returncode, err))
    # Many that end at any moment of a look: never anything but a report or that line.
    for i in range(40):
        short = subprocess.Popen(['/bin/sleep', '%.3f' % (0.0005 * i)])
        done = doctor(str(short.pid))
        # "cannot tell" is for what may not be looked at, not for what has gone.
        if done.returncode not in (0, 3) and os.geteuid() == 0:
            raise Fail('status %d: %r' % (done.returncode, done.stdout))
        if done.returncode == 3 and not re.search(b'there is no|ended|has ended', done.stderr):
            raise Fail('it ended, and: %r' % done.stderr)
        short.wait()


def edge_other_user():
    sysutil.need_root('it looks as another user')
    with Shape('live', 60) as run:
        sysutil.publish()
        done = doctor('--json', str(run.pid), user=NOBODY)
        report = json.loads(done.stdout)
        if done.returncode != 2 or report['verdict'] != 'unknown':
            raise Fail('as nobody: status %d, %s' % (done.returncode, report['verdict']))
        if report['process']['rss_bytes'] < 60 * MIB or report['cgroup'] is None:
            raise Fail('what may be known is not said: %s' % report['process'])
        refused = [n for n, s in report['sources'].items() if s['state'] == 'refused']
        if 'maps' not in refused or 'only root' not in report['sentence']:
            raise Fail('not said why: %s, %s' % (refused, report['sentence']))
        say('as nobody: RSS and cgroup; refused: %s' % ', '.join(refused))


def edge_untouched():
    """Nothing of the process that was not resident is, after it was looked at."""
    def counters(pid):
        with open('/proc/%d/stat' % pid, encoding='ascii') as stat:
            fields = stat.read().rsplit(')', 1)[1].split()
        return {'minor faults': int(fields[7]), 'switches': sum(switches(pid))}

    def switches(pid):
        with open('/proc/%d/status' % pid, encoding='ascii') as status:
            return [int(n) for n in re.findall(r'ctxt_switches:\s+(\d+)', status.read())]

    for argv in (['/bin/sleep', '60'], ['/usr/bin/python3', '-c', 'import time; time.sleep(60)']):
        process = sysutil.spawn(GLIBC, argv)
        time.sleep(0.7)
        before = dict(counters(process.pid), rss=rss(process.pid))
        for _ in range(3):
            doctorutil.ask(process.pid)
        after = dict(counters(process.pid), rss=rss(process.pid))
        say('%s: %s' % (argv[0], after))
        sysutil.kill(process)
        if after != before:
            raise Fail('looking has changed %s from %s to %s' % (argv[0], before, after))


def part_edges(_):
    edge_untouched()
    edge_words()
    edge_dead()
    edge_dies()
    edge_other_user()


# ---- large --------------------------------------------------------------------------------------

def part_large(args):
    mib = 10 * 1024 if args.long else 2048
    with open('/proc/meminfo', encoding='ascii') as info:
        free = int(re.search(r'MemAvailable:\s+(\d+)', info.read()).group(1)) // 1024
    if free < mib + 2048:
        raise sysutil.Skip('%d MiB of memory are free, %d are needed' % (free, mib + 2048))
    with Shape('live', mib) as run:
        costs = []
        for _ in range(5):
            report = doctorutil.ask(run.pid)
            doctorutil.check_sum(report)
            costs.append(report['cost_ns'])
            if report['verdict'] != 'healthy':
                raise Fail('%d MiB in use: %s' % (mib, report['sentence']))
            rollup = report['sources']['smaps_rollup']
            if rollup['state'] != 'left out' or not rollup['why']:
                raise Fail('a walk of all pages was not refused: %s' % rollup)
        costs.sort()
        say('%d MiB resident: %.0f ms (%.0f to %.0f); left out: %s'
            % (mib, costs[2] / 1e6, costs[0] / 1e6, costs[-1] / 1e6,
               [n for n, s in report['sources'].items() if s['state'] == 'left out']))
        if costs[0] > COST_NS_MAX:
            raise Fail('a look takes %.0f ms at best' % (costs[0] / 1e6))


# ---- apply --------------------------------------------------------------------------------------

def apply_in_a_container():
    """Where the container has a limit and Ebb knows none, --apply sets that too."""
    sysutil.need_root('it makes a cgroup')
    with measure.Cgroup('doctor_apply', 400 * MIB) as cgroup:
        with Shape('kept', 100, kind=EBB, options={'policy': 'never'}, before=cgroup.enter) as run:
            before = doctorutil.ask(run.pid)
            if before['ebb']['limit_bytes'] is not None or not any(
                    'limit=auto' in line for line in before['verdicts'][0]['advice']):
                raise Fail('no limit is advised: %s' % before['verdicts'][0]['advice'])
            said = doctor('--apply', str(run.pid)).stdout.decode()
            limit = doctorutil.ask(run.pid)['ebb']['limit_bytes']
            if 'it holds' not in said or limit != 400 * MIB // 10 * 9:
                raise Fail('--apply in a container: limit %s, %s' % (limit, said[:300]))


PYTHON = '''
objects = [(i, str(i)) for i in range(600000)]
print('ready', flush=True)
input()
'''


def apply_beside_python():
    """A heap that is not Ebb's counts once: what it maps, the ledger calls anonymous memory."""
    process = sysutil.spawn(EBB, ['/usr/bin/python3', '-c', PYTHON], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)
    process.stdout.readline()
    report = doctorutil.ask(process.pid, '--exact')
    doctorutil.check_sum(report)
    python, native = doctorutil.heap(report, 'Python'), report['account']['native_bytes']
    sysutil.kill(process)
    say('Python on Ebb: its heap %.1f MiB, mapped by the program %.1f MiB'
        % (python['resident_bytes'] / MIB, native / MIB))
    if python['resident_bytes'] < 40 * MIB or native > 10 * MIB:
        raise Fail('Python\'s heap is %d, native %d bytes' % (python['resident_bytes'], native))


def part_apply(_):
    sysutil.require_library()
    apply_beside_python()
    folder = sysutil.tempdir()
    with Shape('kept', 300, kind=EBB, options={'policy': 'never'}) as run:
        report = doctorutil.ask(run.pid)
        first = report['verdicts'][0]
        if first['verdict'] != 'kept' or 'ebb policy %d go1.16' % run.pid not in first['command']:
            raise Fail('%s: %s' % (first['verdict'], first['command']))
        before = os.path.join(folder, 'before.json')
        with open(before, 'w', encoding='utf-8') as file:
            json.dump(report, file)
        done = doctor('--apply', str(run.pid))
        said = done.stdout.decode()
        say(said.splitlines()[0])
        if done.returncode != 0 or 'it holds' not in said or 'does not stand' not in said:
            raise Fail('--apply: status %d: %s' % (done.returncode, said[:400]))
        near('RSS afterwards', run.rss(), first['predicted_rss_bytes'], 0.05, 8 * MIB)
        expect(['--verify', before, str(run.pid)], 0, 'it holds')
        done = doctor('--json', '--verify', before, str(run.pid))
        json.loads(done.stdout)
        if b'it holds' not in done.stderr:
            raise Fail('--json --verify: %r' % done.stderr)
        expect(['--verify', '/nonexistent', str(run.pid)], 3, 'cannot be read')
        expect(['--verify', '/dev/null', str(run.pid)], 3, 'cannot be read|is no report')
    apply_in_a_container()
    with Shape('kept', 100) as run:
        expect(['--apply', str(run.pid)], 1, 'nothing here that Ebb can do')


PARTS = {'glibc': part_glibc, 'edges': part_edges, 'large': part_large, 'apply': part_apply}


def test(args):
    for name, part in PARTS.items():
        if args.name in (None, name):
            part(args)


sysutil.main(test, __doc__)
