#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ebb doctor on blocks that no pointer leads to, and on such that only look so.

Parts
  shapes    the program `leaks`: what is lost is found to within 5 %, and what is held in any of the
            ways a program may hold it is not called lost; while it sleeps and while it works
  series    a leak and a growing list watched for some seconds: a leak, and growth
  programs  real ones, at rest and busy: next to nothing is lost
  budget    a look without --scan costs below 100 ms, says what it left out, and does not call
            known what it has not read to the end
"""
import re
import resource
import shutil
import subprocess
import time

import doctorutil
import sysutil
from sysutil import Fail, GLIBC, MIB, say

KIB = 1 << 10
SHAPES_MIB = 36
LOST = ('forget', 'beheaded', 'ring', 'self', 'half', 'large', 'offlist')
HELD = ('list', 'tree', 'hashmap', 'interior', 'last', 'tagged', 'mapped', 'shared', 'tls', 'stack',
        'argument', 'epoll', 'cache', 'moved', 'grown', 'queues')
# Those whose loss hangs on a single block, which a register might hold.
ONE_HEAD = ('beheaded', 'ring')
# Blocks of a program that works change hands while they are looked at.
CRUMBS_BYTES = MIB
# A header, and what the sizes are rounded up to.
SLACK_SHARE = 0.05
# Processor time a look may cost, the start of the program included; at best of some looks.
COST_S_MAX = 0.1
LOOKS = 5


def start(argv, ready):
    """A program that says `ready` and its sizes, and then waits."""
    process = sysutil.spawn(GLIBC, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    line = process.stdout.readline().decode()
    if not line.startswith(ready):
        raise Fail('%s said %r' % (argv[0], line))
    time.sleep(0.05)
    return process, {k: int(v) for k, v in re.findall(r'(\w+)=(\d+)', line)}


def reach_of(report, name):
    if report['reach'] is None:
        raise Fail('%s: not looked for: %s' % (name, report['sources'].get('reachability')))
    return report['reach']


def check_lost(name, report, lost_bytes, confident):
    reach = reach_of(report, name)
    found = reach['unreachable_bytes']
    if not lost_bytes * (1 - SLACK_SHARE) <= found <= lost_bytes * (1 + SLACK_SHARE):
        raise Fail('%s: %d bytes lost, %d found' % (name, lost_bytes, found))
    verdict = report['verdicts'][0]
    if verdict['verdict'] != 'leak':
        raise Fail('%s: %s' % (name, verdict['sentence']))
    if confident is not None and (verdict['confidence'] != 'low') != confident:
        raise Fail('%s: %s confidence' % (name, verdict['confidence']))
    left = report['account']['rss_bytes'] - found
    if abs(verdict['predicted_rss_bytes'] - left) > MIB:
        raise Fail('%s: predicted %d, %d is left' % (name, verdict['predicted_rss_bytes'], left))


def check_held(name, report, held_bytes):
    reach = reach_of(report, name)
    if reach['unreachable_bytes'] > CRUMBS_BYTES:
        raise Fail('%s: %d bytes of %d are called lost'
                   % (name, reach['unreachable_bytes'], held_bytes))
    if held_bytes and reach['reachable_bytes'] < held_bytes * 0.9:
        raise Fail('%s: %d bytes held, %d found' % (name, held_bytes, reach['reachable_bytes']))
    if 'leak' in doctorutil.names(report):
        raise Fail('%s: %s' % (name, report['verdicts'][0]['sentence']))


def shapes():
    for words in ((), ('run',)):
        for shape in LOST + HELD:
            name = ' '.join((shape,) + words)
            process, truth = start([sysutil.prog('leaks', 'cc'), shape, str(SHAPES_MIB), *words],
                                   'ready')
            report = doctorutil.ask(process.pid, '--scan')
            sysutil.kill(process)
            if shape in LOST:
                # Blocks of 1 MiB are so few that it depends on how many threads run.
                confident = None if shape == 'large' else shape not in ONE_HEAD
                check_lost(name, report, truth['lost'], confident)
            elif shape == 'queues' and report['reach'] is None:
                say('%-14s %s' % (name, report['sources']['reachability']['why']))
                continue
            else:
                check_held(name, report, truth['held'])
            say('%-14s lost %6.2f of %2d MiB, %s' % (
                name, report['reach']['unreachable_bytes'] / MIB, SHAPES_MIB,
                report['verdict']))


def series():
    for shape, verdict in (('leak', 'leak'), ('grow', 'growth')):
        process, _ = start([sysutil.prog('glibcheap'), shape, '24'], 'ready')
        report = doctorutil.ask(process.pid, '--for', '4')
        sysutil.kill(process)
        if report['verdict'] != verdict:
            raise Fail('%s is called %s' % (shape, report['verdicts'][0]['sentence']))
        say('%s, watched for 4 s: %s' % (shape, report['verdicts'][0]['sentence']))


PYTHON_REST = '''
d = {}
for i in range(120000): d[str(i)] = ("x" * 600 if i % 4 == 0 else "y%d" % i, [i])
print("ready", flush=True); input()
'''
PYTHON_BUSY = '''
import random
d = {i: "x" * 900 for i in range(30000)}
print("ready", flush=True)
while 1: d[random.randrange(30000)] = "x" * random.randrange(600, 1500)
'''
PERL_REST = 'my %h; for (1..100000) { $h{$_} = [$_, "x$_"] } $| = 1; print "ready\\n"; <STDIN>'
PERL_BUSY = ('my %h; for (1..50000) { $h{$_} = [$_, "x$_"] } $| = 1; print "ready\\n"; '
             'while (1) { $h{int(rand(50000))} = [$_, "x" x rand(300)] }')
BASH_REST = 'for i in {1..100000}; do a[$i]="value $i of it"; done; echo ready; read x'


def programs():
    rows = (('python at rest', 'python3', ['-c', PYTHON_REST]),
            ('python busy', 'python3', ['-c', PYTHON_BUSY]),
            ('perl at rest', 'perl', ['-e', PERL_REST]),
            ('perl busy', 'perl', ['-e', PERL_BUSY]),
            ('bash at rest', 'bash', ['-c', BASH_REST]))
    for name, program, words in rows:
        path = shutil.which(program)
        if path is None:
            say('%s: there is no %s' % (name, program))
            continue
        process, _ = start([path, *words], 'ready')
        report = doctorutil.ask(process.pid, '--scan')
        sysutil.kill(process)
        check_held(name, report, 0)
        say('%-15s lost %d of %d KiB in use' % (
            name, report['reach']['unreachable_bytes'] // KIB,
            report['reach']['reachable_bytes'] // KIB))


def cpu_s():
    """Processor time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def looks_take(shape, mib):
    """A process, reports of looks at it without --scan, and what the cheapest one cost."""
    process, _ = start([sysutil.prog('leaks', 'cc'), shape, str(mib)], 'ready')
    reports, costs = [], []
    for _ in range(LOOKS):
        before = cpu_s()
        reports.append(doctorutil.ask(process.pid))
        costs.append(cpu_s() - before)
    if min(costs) > COST_S_MAX:
        raise Fail('%s, %d MiB: %.0f ms at best' % (shape, mib, min(costs) * 1e3))
    return process, reports, min(costs)


def budget():
    # Around what can just be read in time.
    for mib in (20, 25, 30, 35, 40):
        process, reports, cost = looks_take('list', mib)
        sysutil.kill(process)
        for report in reports:
            if report['reach'] and report['reach']['read_bytes'] < mib * MIB:
                raise Fail('%d of %d MiB were read, and it is called known'
                           % (report['reach']['read_bytes'] / MIB, mib))
        say('%d MiB: %d of %d looks read it all; %.0f ms at best' % (
            mib, sum(report['reach'] is not None for report in reports), LOOKS, cost * 1e3))
    process, reports, _ = looks_take('forget', 200)
    for report in reports:
        source = report['sources']['reachability']
        if source['state'] != 'left out' or '--scan' not in source['why'] or report['reach']:
            raise Fail('200 MiB were looked at within the budget: %s' % source)
    report = doctorutil.ask(process.pid, '--scan')
    sysutil.kill(process)
    check_lost('200 MiB', report, 200 * MIB, True)
    source = report['sources']['reachability']
    say('200 MiB: with --scan %.0f ms' % (source['cost_ns'] / 1e6))
    # What finds a block is paid for by address space.
    process, _ = start([sysutil.prog('glibcheap'), 'sparse', '1'], 'ready')
    source = doctorutil.ask(process.pid, '--scan')['sources']['reachability']
    sysutil.kill(process)
    if source['state'] != 'left out' or 'address space' not in source['why']:
        raise Fail('1 MiB in 1.9 GiB: %s' % source)
    say('1 MiB in 1.9 GiB: %s' % source['why'])


PARTS = {'shapes': shapes, 'series': series, 'programs': programs, 'budget': budget}


def test(args):
    for name, part in PARTS.items():
        if args.name in (None, name):
            part()


sysutil.main(test, __doc__)
