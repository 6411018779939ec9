#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The cases of examples/ are what they say they are: Go programs under each toolchain that can be
had, and their C twins under the policies of Ebb.

Model
  case       a program (caseutil.py), and a check of what is seen when it is ready, while it is
             watched, and after a line on its standard input
  toolchain  as gotool.py finds it, a part of this test; skipped with the reason where it cannot
             be had. 1.15 hands pages back lazily, the later ones at once
  seen       the program's own line of numbers beside RSS, LazyFree and the highest RSS, in bytes
Why this way
  What a tool says of these programs is tested elsewhere, and stands on this: the situation is
  really there. All cases of a toolchain run beside each other, as they do little but wait.
"""
import re
import time
import urllib.request

import gotool
import sysutil
from caseutil import POLICIES, PROGRAMS, TWINS, start_go, start_twin, toolchain
from sysutil import Fail, MIB, Skip, say

WATCH_S = 7
LONGER_S = 30
STEP_S = 0.25
PROGRAM = 16 * MIB  # of a Go program beside its heap and the runtime's tables: code and data
ARENA = 64 * MIB    # 1.15 takes address space in such steps; what was never used is released


def mib(count):
    return '%d MiB' % (count // MIB)


# ---- what is to be seen of the Go programs --------------------------------------------------

def check_retained(case, lazily):
    """The state of case A: little is in use, nearly all is released, and RSS depends."""
    seen = case.at_ready
    case.require(seen['alloc'] < seen['sys'] // 3, 'alloc is %s of %s', mib(seen['alloc']),
                 mib(seen['sys']))
    case.require(seen['released'] > seen['idle'] * 7 // 10, 'released %s of idle %s',
                 mib(seen['released']), mib(seen['idle']))
    check_lazy(case, seen, lazily, 60)


def check_lazy(case, seen, lazily, percent):
    if lazily:
        case.require(seen['lazy'] > seen['rss'] * percent // 100, 'LazyFree is %s of RSS %s',
                     mib(seen['lazy']), mib(seen['rss']))
        case.require(seen['rss'] > seen['high_rss'] * 80 // 100, 'RSS has fallen to %s of %s',
                     mib(seen['rss']), mib(seen['high_rss']))
        extra = seen['released'] - seen['lazy']
        case.require(-MIB <= extra <= ARENA + seen['lazy'] // 8, 'released %s, LazyFree %s',
                     mib(seen['released']), mib(seen['lazy']))
        rest = seen['rss'] - seen['lazy']
    else:
        case.require(seen['lazy'] < MIB, 'LazyFree is %s', mib(seen['lazy']))
        case.require(seen['rss'] < seen['high_rss'] * 65 // 100, 'RSS is %s, was %s',
                     mib(seen['rss']), mib(seen['high_rss']))
        rest = seen['rss']
    # What a collection has freed a moment ago is not given back yet.
    rest -= seen['inuse'] + seen['stacks'] + seen['idle'] - seen['released']
    # Tables and bitmaps are for the heap at its largest, and stay.
    tables = seen['sys'] - seen['heapsys']
    case.require(rest < tables + PROGRAM, '%s of RSS are not explained', mib(rest))


def check_a2(case, lazily):
    case.require(case.answer['goroutines'] == case.at_ready['goroutines'],
                 '%d goroutines, then %d', case.at_ready['goroutines'], case.answer['goroutines'])
    check_lazy(case, case.answer, lazily, 45)


def check_a3(case, lazily):
    check_retained(case, lazily)
    taken = case.answer['alloc'] - case.at_ready['alloc']
    case.require(taken >= 40 * MIB, 'the demand has taken %s', mib(taken))
    if lazily:
        case.require(case.answer['lazy'] < case.at_ready['lazy'] - taken // 2,
                     'LazyFree was %s and is %s after a demand of %s', mib(case.at_ready['lazy']),
                     mib(case.answer['lazy']), mib(taken))


def check_a5(case, lazily):
    def between():
        return [f(seen['rss'] for seen in case.series) for f in (min, max)]
    low, high = between()
    # The runtime gives back with a hundredth of a processor, which on a busy machine is less.
    end = time.monotonic() + LONGER_S
    while not lazily and low >= high * 75 // 100 and time.monotonic() < end:
        time.sleep(STEP_S)
        case.sample()
        low, high = between()
    case.require(case.answer['wave'] > case.at_ready['wave'], 'no wave in %d s', WATCH_S)
    if lazily:
        case.require(low > high * 85 // 100, 'RSS between %s and %s is no plateau', mib(low),
                     mib(high))
        case.require(max(seen['lazy'] for seen in case.series) > high // 4, 'no LazyFree')
    else:
        case.require(low < high * 75 // 100, 'RSS between %s and %s is no wave', mib(low),
                     mib(high))


def check_a6(case, lazily):
    seen = case.answer
    case.require(seen['alloc'] > 4 * MIB, 'only %s of small objects stay', mib(seen['alloc']))
    case.require(seen['heapsys'] > 5 * seen['alloc'], 'heap of %s, %s in use', mib(seen['heapsys']),
                 mib(seen['alloc']))
    case.require(seen['inuse'] > 3 * seen['alloc'], 'spans of %s hold %s', mib(seen['inuse']),
                 mib(seen['alloc']))
    if lazily:
        case.require(seen['lazy'] > seen['rss'] // 4, 'LazyFree is %s of RSS %s',
                     mib(seen['lazy']), mib(seen['rss']))
    else:
        case.require(seen['rss'] < seen['high_rss'] * 80 // 100, 'RSS is %s, was %s',
                     mib(seen['rss']), mib(seen['high_rss']))


def check_a7(case, lazily):
    before, after = case.at_ready, case.answer
    case.require(before['alloc'] > 5 * after['alloc'], 'alloc was %s and is %s',
                 mib(before['alloc']), mib(after['alloc']))
    case.require(before['lazy'] < MIB and before['rss'] > before['high_rss'] * 9 // 10,
                 'RSS %s and LazyFree %s before the line', mib(before['rss']), mib(before['lazy']))
    check_lazy(case, after, lazily, 60)


def check_b1(case, lazily):
    del lazily
    with urllib.request.urlopen(case.url + 'goroutine?debug=1', timeout=20) as reply:
        total = int(re.search(rb'total (\d+)', reply.read()).group(1))
    for count in (case.answer['goroutines'], total):
        case.require(10000 < count < 10020, '%d goroutines', count)
    case.require(case.answer['alloc'] > 10000 * 1000 * 8, 'alloc is %s', mib(case.answer['alloc']))
    case.require(case.answer['lazy'] < case.answer['rss'] // 4, 'LazyFree is %s',
                 mib(case.answer['lazy']))


def check_b2(case, lazily):
    case.require(case.answer['goroutines'] < 20, '%d goroutines', case.answer['goroutines'])
    check_retained(case, lazily)


def slope(case, name, watched_s):
    return (case.answer[name] - case.at_ready[name]) / MIB / watched_s


def check_slope(case, watched_s):
    for name in ('alloc', 'rss'):
        rate = slope(case, name, watched_s)
        case.require(2 < rate < 8, '%s grows by %.1f MiB a second instead of 4', name, rate)
    case.require(case.answer['goroutines'] <= case.at_ready['goroutines'] + 1, 'more goroutines')


def check_b10(case, lazily):
    del lazily
    check_slope(case, case.watched_s)
    case.require(case.answer['expired'] == 0, 'timers have fired')


def check_b13(case, lazily):
    del lazily
    check_slope(case, case.watched_s)
    case.require(case.answer['entries'] > case.at_ready['entries'], 'no new entries')


def check_healthy(case, lazily):
    del lazily
    first = sum(seen['rss'] for seen in case.series[:5]) / 5
    last = sum(seen['rss'] for seen in case.series[-5:]) / 5
    case.require(abs(last - first) < first / 8, 'RSS went from %s to %s', mib(first), mib(last))
    case.require(case.answer['gc'] > case.at_ready['gc'] or case.answer['alloc']
                 > case.at_ready['alloc'], 'does nothing')


def check_native(case, lazily):
    del lazily
    outside = case.answer['rss'] - case.answer['inuse']
    case.require(outside > 90 * MIB and case.answer['alloc'] < 2 * MIB, '%s outside, alloc %s',
                 mib(outside), mib(case.answer['alloc']))


CHECKS = {
    'a1_peak': check_retained, 'a2_tagcache': check_a2, 'a3_demand': check_a3,
    'a4_query': check_retained, 'a5_waves': check_a5, 'a6_holes': check_a6,
    'a7_giveback': check_a7, 'b1_blocked': check_b1, 'b2_released': check_b2,
    'b10_timers': check_b10, 'b13_cache': check_b13, 'healthy': check_healthy,
    'native': check_native,
}


def tell(case):
    seen = case.answer
    say('  %-24s RSS %4d (highest %4d), LazyFree %4d, alloc %4d, released %4d MiB, %d goroutines'
        % (case.label, seen['rss'] // MIB, seen['high_rss'] // MIB, seen['lazy'] // MIB,
           seen['alloc'] // MIB, seen['released'] // MIB, seen['goroutines']))


def watch(cases):
    """Waits until all are in their state, reads them anew, and looks at them for a while."""
    for case in cases:
        case.ready()
    for case in cases:
        if case.quiet:
            case.at_ready.update(case.kernel())
        else:
            case.ask('now')
            case.at_ready = case.answer
        case.begun = time.monotonic()
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        for case in cases:
            case.sample()
        time.sleep(STEP_S)


def run_version(tool, args):
    lazily = tool.version == '1.15'
    rows = []
    for name, (_, _, word) in PROGRAMS.items():
        rows.append((start_go(tool, name, args.long), CHECKS[name], word, lazily))
        if name == 'a1_peak':
            # What ended the case, or brings it back.
            extra = {'GODEBUG': 'madvdontneed=%d' % lazily}
            rows.append((start_go(tool, name, args.long, extra), CHECKS[name], word, not lazily))
    watch([row[0] for row in rows])
    for case, _, word, _ in rows:
        case.ask(word)
        case.watched_s = time.monotonic() - case.begun
        tell(case)
    for case, check, _, lazy in rows:
        check(case, lazy)
        case.close()


def go(version, args):
    tool = toolchain(version)
    say('Go %s, from %s:' % (tool.full, tool.origin))
    run_version(tool, args)


# ---- the C twins on Ebb ---------------------------------------------------------------------

def check_twin(case, name, state):
    seen = case.at_end
    if name == 'a5':
        low, high = (f(at['rss'] for at in case.series) for f in (min, max))
        plateau = low > high * 85 // 100
        case.require(plateau == (state != 'gone'), 'RSS between %s and %s', mib(low), mib(high))
        case.require(case.answer['wave'] > case.at_ready['wave'], 'no wave in %d s', WATCH_S)
        lazy = max(at['lazy'] for at in case.series)
        case.require((lazy > high // 4) == (state == 'lazy'), 'LazyFree up to %s', mib(lazy))
        return
    case.require(case.answer['alloc'] < 64 * MIB, 'alloc is %s', mib(case.answer['alloc']))
    share = 45 if name in ('a2', 'a6') else 80
    case.require((seen['lazy'] > seen['rss'] * share // 100) == (state == 'lazy'),
                 'LazyFree is %s of RSS %s', mib(seen['lazy']), mib(seen['rss']))
    fallen = seen['rss'] < seen['high_rss'] * 60 // 100
    if name != 'a6' or state == 'gone':
        case.require(fallen == (state == 'gone'), 'RSS is %s, was %s', mib(seen['rss']),
                     mib(seen['high_rss']))
    if name == 'a7':
        case.require(case.answer['rss'] < 32 * MIB and case.answer['lazy'] < MIB,
                     'RSS %s, LazyFree %s after malloc_trim', mib(case.answer['rss']),
                     mib(case.answer['lazy']))


def twins(args):
    del args
    rows = [(start_twin(name, options), name, state) for state, options in POLICIES
            for name in TWINS]
    watch([row[0] for row in rows])
    for case, name, state in rows:
        case.at_end = case.kernel()
        case.ask('demand' if name == 'a3' else 'now')
        seen = case.at_end
        say('%-24s RSS %4d (highest %4d), LazyFree %4d, alloc %4d MiB, then RSS %4d MiB'
            % (case.label, seen['rss'] // MIB, seen['high_rss'] // MIB, seen['lazy'] // MIB,
               case.answer['alloc'] // MIB, case.answer['rss'] // MIB))
    for case, name, state in rows:
        check_twin(case, name, state)
        case.close()


def test(args):
    if args.name and args.name not in list(gotool.SUITES) + ['twins']:
        raise Fail('no part %s: %s, twins' % (args.name, ', '.join(gotool.SUITES)))
    if args.name == 'twins':
        twins(args)
    elif args.name:
        go(args.name, args)
    else:
        for version in gotool.SUITES:
            try:
                go(version, args)
            except Skip as reason:
                say(str(reason))
        twins(args)


sysutil.main(test, __doc__)
