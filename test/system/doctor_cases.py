#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The doctor on the cases of examples/: Go programs of each toolchain, C twins on Ebb.

Parts
  1.15, 1.19, 1.24   the Go programs, built by that toolchain; the test says which it could get
  twins              the C programs under policies of the same name
  predicts           Go 1.15 after its peak: the RSS that is predicted for GODEBUG=madvdontneed=1,
                     and the RSS that it then has
Why this way
  All cases of a toolchain run beside each other, as they do little but wait; each is asked in its
  turn. go_cases.py shows that the situations are there.
"""
import time

import doctorutil
import gotool
import sysutil
from caseutil import TWINS, start_go, start_twin, toolchain
from sysutil import Fail, MIB, say

WATCH = '8s'
SETTLE_S = 5

# What ought to come first: where memory is given back lazily (1.15), and where at once. A small
# process at rest is healthy. A set: each is right.
FIRST = {
    'a1_peak': ({'lazy'}, {'healthy'}),
    'a2_tagcache': ({'lazy'}, {'healthy'}),
    'a3_demand': ({'lazy'}, {'healthy'}),
    'a4_query': ({'lazy'}, {'healthy'}),
    # At its peak all of it is in use; in a valley it is kept, and then given back.
    'a5_waves': ({'lazy', 'kept', 'healthy'}, {'kept', 'healthy'}),
    'a6_holes': ({'lazy', 'pinned'}, {'pinned'}),
    'a7_giveback': ({'healthy'}, {'healthy'}),
    'b1_blocked': ({'stacks'}, {'stacks'}),
    'b2_released': ({'lazy'}, {'healthy'}),
    'b10_timers': ({'growth'}, {'growth'}),
    'b13_cache': ({'growth'}, {'growth'}),
    'healthy': ({'healthy'}, {'healthy'}),
    'native': ({'native'}, {'native'}),
}
WATCHED = ('b10_timers', 'b13_cache', 'healthy')

KEPT, LAZY, HEALTHY = {'kept'}, {'lazy'}, {'healthy'}
TWIN_FIRST = [
    ({'policy': 'go1.11'},
     {'a1': KEPT, 'a2': KEPT, 'a3': KEPT, 'a4': KEPT, 'a5': KEPT | HEALTHY, 'a6': KEPT,
      'a7': KEPT}),
    ({'policy': 'go1.16', 'madvise': 'free'},
     {'a1': LAZY, 'a2': LAZY, 'a3': LAZY, 'a4': LAZY, 'a5': LAZY | HEALTHY, 'a6': LAZY}),
    ({'policy': 'go1.16'},
     {'a1': HEALTHY, 'a2': HEALTHY, 'a3': HEALTHY, 'a4': HEALTHY, 'a5': KEPT | HEALTHY,
      'a6': HEALTHY}),
]


def ask(case, watched):
    report = doctorutil.ask(case.process.pid, *(['--for', WATCH] if watched else []))
    doctorutil.check_sum(report)
    first = report['verdicts'][0]
    say('%-28s %-10s %4.0f of %4.0f MiB, unexplained %5.2f, %5.1f ms'
        % (case.label, first['verdict'], first['bytes'] / MIB, report['account']['rss_bytes'] / MIB,
           report['account']['unexplained_bytes'] / MIB, report['cost_ns'] / 1e6))
    return report


def check_go(case, report, wanted):
    names = doctorutil.names(report)
    case.require(names[0] in wanted, 'is called %s: %s', names[0], report['sentence'])
    if names[0] == 'lazy':
        first = report['verdicts'][0]
        case.require(first['command'] == 'GODEBUG=madvdontneed=1', 'advice: %s', first['command'])
        case.require(any('HeapReleased' in line and 'LazyFree' in line
                         for line in first['because']), 'because: %s', first['because'])
    if names[0] == 'stacks':
        group = report['go']['goroutines'][0]
        case.require(group['count'] >= 10000 and group['state'] == 'chan receive'
                     and 'main.' in group['site'], 'goroutines: %s', group)
    if case.name == 'b13_cache':
        case.require(any('main.' in line for line in report['verdicts'][0]['because']),
                     'no site: %s', report['verdicts'][0]['because'])
    if case.name in WATCHED:
        told = report['trend']['goroutines_last_count']
        case.require(told is not None and 1 <= told <= 10, 'goroutines over time: %s',
                     report['trend'])
    case.require(report['go']['version'].startswith(case.go), 'version %s',
                 report['go']['version'])


def part_go(version, args):
    tool = toolchain(version)
    at_once = version != '1.15'
    cases = []
    for name in FIRST:
        case = start_go(tool, name, args.long)
        case.go = 'go' + version
        cases.append(case)
    for case in cases:
        case.ready()
    time.sleep(SETTLE_S)
    wrong = []
    for case in cases:
        report = ask(case, case.name in WATCHED)
        try:
            check_go(case, report, FIRST[case.name][at_once])
        except Fail as fail:
            wrong.append(str(fail))
            say('    <- %s' % fail)
        doctorutil.row('go', case.name, version, *doctorutil.account_cells(report))
    for case in cases:
        case.close()
    if wrong:
        raise Fail('; '.join(wrong))


def part_predicts(args):
    tool = toolchain('1.15')
    lazily = start_go(tool, 'a1_peak', args.long)
    at_once = start_go(tool, 'a1_peak', args.long, {'GODEBUG': 'madvdontneed=1'})
    for case in (lazily, at_once):
        case.ready()
    time.sleep(SETTLE_S)
    report = ask(lazily, False)
    predicted = report['verdicts'][0]['predicted_rss_bytes']
    measured = at_once.kernel()['rss']
    say('predicted %.1f MiB; with madvdontneed=1 it has %.1f MiB' % (predicted / MIB,
                                                                    measured / MIB))
    if abs(predicted - measured) > max(0.05 * measured, 3 * MIB):
        raise Fail('predicted %d, measured %d' % (predicted, measured))
    for case in (lazily, at_once):
        case.close()


def part_twins(_):
    sysutil.require_library()
    wrong = []
    for options, firsts in TWIN_FIRST:
        cases = [start_twin(name, options) for name in firsts]
        for case in cases:
            case.ready()
        time.sleep(SETTLE_S)
        for case in cases:
            report = ask(case, False)
            doctorutil.row('twins', case.name, ', '.join('%s=%s' % o for o in options.items()),
                           *doctorutil.account_cells(report))
            names = doctorutil.names(report)
            if names[0] not in firsts[case.name]:
                wrong.append('%s: %s, not one of %s' % (case.label, names[0], firsts[case.name]))
                say('    <- ' + report['sentence'])
            case.close()
    if wrong:
        raise Fail('; '.join(wrong))


def test(args):
    if args.name in gotool.SUITES:
        part_go(args.name, args)
    elif args.name == 'predicts':
        part_predicts(args)
    elif args.name == 'twins':
        part_twins(args)
    else:
        for version in gotool.SUITES:
            part_go(version, args)
        part_predicts(args)
        part_twins(args)


assert set(name for _, firsts in TWIN_FIRST for name in firsts) <= set(TWINS)
sysutil.main(test, __doc__)
