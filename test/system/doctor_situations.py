#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The doctor on processes whose trouble is known: the right verdict first, no wrong prescription.

The situations were made by somebody who had not seen the rules (blind/situations.py). A part name
chooses some: a kind of truth (kept, lazy, ...), or one situation by its name.
"""
import os
import sys

import doctorutil
import sysutil
from sysutil import Fail, MIB, say

sys.path.insert(0, os.path.join(sysutil.HERE, 'blind'))
import situations  # noqa: E402  (found through the line above)

# One from each kind, those whose program is an interpreter or a server left to the long form.
SHORT = ('request_line', 'pool_burst', 'pool_busy', 'map_cleared', 'lost', 'list_and_log', 'ring',
         'madvised', 'madvised_reused', 'huge_sparse', 'huge_full', 'workers_shared', 'memfd',
         'tmpfs', 'pipes', 'logwriter', 'stacks_deep', 'go_live', 'jemalloc_idle', 'jemalloc_live',
         'mimalloc_idle', 'python_live')


def chosen(args):
    if args.name:
        picked = [s for s in situations.SITUATIONS if args.name in (s.name, s.truth)]
        if not picked:
            raise Fail('no situation and no truth is called %s' % args.name)
        return picked
    return [s for s in situations.SITUATIONS if args.long or s.name in SHORT]


def judge(situation, report):
    """What is wrong with the report, as a list of sentences."""
    names = doctorutil.names(report)
    wrong = []
    if names[0] not in {situation.truth, *situation.also}:
        wrong.append('said %s, it is %s' % (names[0], situation.truth))
    bad = [n for n in names if n in situation.forbidden]
    if bad:
        wrong.append('prescribes for %s' % ', '.join(bad))
    return wrong


def one(situation):
    with situations.start(situation) as running:
        options = ['--for', '%ds' % situation.watch_s] if situation.watch_s else []
        report = doctorutil.ask(running.pid, *options)
        wrong = judge(situation, report)
        account = report['account']
        say('%-18s %-10s %-20s %5.0f of %4.0f MiB, meant %4.0f, unexplained %5.2f, %5.1f ms%s'
            % (situation.name, situation.truth, ' '.join(doctorutil.names(report)),
               report['verdicts'][0]['bytes'] / MIB, account['rss_bytes'] / MIB,
               running.bytes / MIB, account['unexplained_bytes'] / MIB,
               report['cost_ns'] / 1e6, '   <- ' + '; '.join(wrong) if wrong else ''))
        if wrong:
            say('    ' + report['sentence'])
            return situation.name
        doctorutil.check_sum(report)
        first, explained, *rest = doctorutil.account_cells(report)
        watched = ' (watched %d s)' % situation.watch_s if situation.watch_s else ''
        doctorutil.row('blind', situation.name, situation.why, first + watched, explained,
                       '%.0f' % (running.bytes / MIB), *rest)
    return None


def test(args):
    failed = []
    for situation in chosen(args):
        try:
            name = one(situation)
        except sysutil.Skip as skip:
            say('%-18s skipped: %s' % (situation.name, skip))
            continue
        failed += [name] if name else []
    if failed:
        raise Fail('%d situations are not understood: %s' % (len(failed), ', '.join(failed)))


sysutil.main(test, __doc__)
