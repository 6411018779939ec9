#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the doctor reads out of a Go program is what the program says of itself.

For each toolchain that this machine can have: the numbers of runtime.ReadMemStats, asked before and
after the look; goroutines by state, line and creator; timers; the sites that hold memory. Then the
same program linked in other ways: position-independent, without its file, without symbols.
"""
import os
import shutil

import doctorutil
import gotool
import sysutil
from caseutil import Case
from sysutil import GLIBC, Fail, MIB, Skip, say

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'prog', 'goself.go')
BLOCKED, TIMERS, KEPT = 700, 40, 40000 * 1024
SIZES = ('HeapSys', 'HeapIdle', 'HeapInuse', 'HeapReleased', 'HeapAlloc', 'NextGC')
COST_S_MAX = 0.1


def start(tool, label, program):
    case = Case('%s %s' % (tool.version, label), GLIBC, [program])
    case.ready()
    return case


def check_numbers(case, before, report, after):
    """Between the two answers, give or take 1 % and what printing an answer allocates."""
    for name in SIZES:
        low, high = sorted((before[name], after[name]))
        slack = high // 100 + MIB // 4
        value = report['go'][name]
        case.require(value is not None and low - slack <= value <= high + slack,
                     '%s is %s, the program says %d, then %d', name, value, low, high)


def check_goroutines(case, before, report):
    go = report['go']
    case.require(go['goroutines_count'] == before['goroutines'], '%s goroutines, not %d',
                 go['goroutines_count'], before['goroutines'])
    first = go['goroutines'][0]
    case.require(first['count'] == BLOCKED and first['state'] == 'chan receive'
                 and first['site'].startswith('main.stuck (goself.go:')
                 and first['creator'].startswith('main.main (goself.go:'), 'first group: %s', first)
    # The runtime may have a few of its own.
    case.require(TIMERS <= go['timers_count'] <= TIMERS + 4, '%s timers', go['timers_count'])


def check_sites(case, report):
    sites = report['sites']
    case.require(sites and sites[0]['site'].startswith('main.touched (goself.go:')
                 and sites[0]['caller'].startswith('main.holder (goself.go:'),
                 'sites: %s', sites[:2])
    # A sample each 512 KiB: 80 of them, so 3 deviations are a third.
    case.require(KEPT * 6 // 10 < sites[0]['bytes'] < KEPT * 14 // 10, 'first site: %d bytes',
                 sites[0]['bytes'])


def check_heap(case, report):
    heap = doctorutil.heap(report, 'Go')
    parts = sum(heap[name + '_bytes'] for name in ('live', 'kept', 'pinned', 'lazy', 'meta'))
    rest = heap['resident_bytes'] - parts
    case.require(heap['divided'] and 0 <= rest < heap['resident_bytes'] // 20 + 2 * MIB,
                 'parts are %d of %d', parts, heap['resident_bytes'])
    case.require(heap['live_bytes'] > KEPT, 'live: %d', heap['live_bytes'])
    native = report['account']['native_bytes']
    case.require(native < MIB, '%d bytes belong to nobody', native)


def look(case):
    case.ask('')
    before = case.answer
    report = doctorutil.ask(case.process.pid)
    case.ask('')
    return before, report, case.answer


def check_whole(case):
    before, report, after = look(case)
    check_numbers(case, before, report, after)
    check_goroutines(case, before, report)
    check_sites(case, report)
    check_heap(case, report)
    case.require(report['cost_ns'] < COST_S_MAX * 1e9, '%d ms', report['cost_ns'] // 10**6)
    go = report['sources']['Go memory']['cost_ns']
    say('%-18s HeapAlloc %d (the program: %d), %d goroutines, %.1f ms, of these Go memory %.1f ms'
        % (case.label, report['go']['HeapAlloc'], after['HeapAlloc'],
           report['go']['goroutines_count'], report['cost_ns'] / 1e6, go / 1e6))


def check_stripped(case):
    before, report, after = look(case)
    del before, after
    memory = report['sources']['Go memory']
    case.require(memory['state'] == 'absent' and 'without DWARF' in memory['why'], '%s', memory)
    case.require(report['go']['version'].startswith('go1.'), '%s', report['go'])
    heap = doctorutil.heap(report, 'Go')
    case.require(not heap['divided'] and heap['resident_bytes'] > KEPT, '%s', heap)


def check_lazily(tool, program):
    """The setting in the environment, and what the runtime made of it, are one."""
    for value, lazily in (('0', tool.version != '1.11'), ('1', False)):
        case = Case('%s madvdontneed=%s' % (tool.version, value), GLIBC, [program],
                    extra={'GODEBUG': 'madvdontneed=' + value})
        case.ready()
        report = doctorutil.ask(case.process.pid)
        case.require(report['go']['madvise_free'] == lazily, 'madvise_free: %s',
                     report['go']['madvise_free'])
        case.close()


def versions(args):
    del args
    have, lacking = gotool.find_all()
    for version, why in lacking.items():
        say('no Go %s: %s' % (version, why))
    if not have:
        raise Skip('no Go toolchain at all')
    for tool in have.values():
        program = gotool.build(tool, SOURCE)
        case = start(tool, 'as built', program)
        check_whole(case)
        report = doctorutil.ask(case.process.pid)
        minor = int(tool.version.split('.')[1])
        case.require(report['go']['madvise_free'] == (12 <= minor <= 15), 'madvise_free')
        case.close()
        check_lazily(tool, program)


def links(args):
    del args
    have, _ = gotool.find_all()
    if not have:
        raise Skip('no Go toolchain at all')
    for tool in have.values():
        pie = start(tool, 'pie', gotool.build(tool, SOURCE, env={'GOFLAGS': '-buildmode=pie'}))
        # Up to 1.17 the table of functions of such a program is filled in when it starts.
        if int(tool.version.split('.')[1]) >= 18:
            check_whole(pie)
        else:
            before, report, after = look(pie)
            check_numbers(pie, before, report, after)
        pie.close()
        stripped = start(tool, 'stripped', gotool.build(tool, SOURCE, ldflags=['-s', '-w']))
        check_stripped(stripped)
        stripped.close()
        folder = sysutil.tempdir()
        copy = os.path.join(folder, 'goself')
        shutil.copy(gotool.build(tool, SOURCE), copy)
        gone = start(tool, 'file removed', copy)
        os.unlink(copy)
        check_whole(gone)
        gone.close()


def test(args):
    parts = {'versions': versions, 'links': links}
    if args.name and args.name not in parts:
        raise Fail('no part %s: versions, links' % args.name)
    for name in [args.name] if args.name else parts:
        parts[name](args)


sysutil.main(test, __doc__)
