# SPDX-License-Identifier: MIT
"""Asking the doctor, for tests: one call, its JSON, and what must hold of every report."""
import json
import os
import subprocess

import sysutil
from sysutil import Fail, MIB

STATUS = {'healthy': 0, 'unknown': 2}
UNEXPLAINED_SHARE = 0.05


def ask(pid, *options, timeout=90):
    """What `ebb doctor --json` says of a process."""
    done = subprocess.run([sysutil.CMD, 'doctor', '--json', *options, str(pid)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                          env=sysutil.environment(sysutil.GLIBC), check=False)
    if done.returncode not in (0, 1, 2):
        raise Fail('ebb doctor %d: status %s: %s'
                   % (pid, done.returncode, sysutil.tail(done.stderr)))
    report = json.loads(done.stdout)
    first = report['verdict']
    if done.returncode != STATUS.get(first, 1):
        raise Fail('%s ended with status %d' % (first, done.returncode))
    return report


def names(report):
    return [v['verdict'] for v in report['verdicts']]


def check_sum(report):
    """Every page has a place: at most 5 % of RSS, or 1 MiB, is unexplained."""
    account = report['account']
    rest = abs(account['unexplained_bytes'])
    if rest > max(UNEXPLAINED_SHARE * account['rss_bytes'], MIB):
        raise Fail('%d of %d bytes of RSS are unexplained' % (rest, account['rss_bytes']))


def heap(report, kind):
    found = [h for h in report['heaps'] if h['kind'] == kind]
    if not found:
        raise Fail('no heap of %s among %s' % (kind, [h['kind'] for h in report['heaps']]))
    return found[0]


def row(table, *cells):
    """A row of a table of docs/SITUATIONS.md, where EBB_TABLES names a folder for them.

    tools/mksituations.py puts them into the document. A number with a fraction is in MiB or ms."""
    folder = os.environ.get('EBB_TABLES')
    if folder:
        with open(os.path.join(folder, table + '.rows'), 'a', encoding='utf-8') as file:
            file.write('| %s |\n' % ' | '.join(str(cell).replace('|', '\\|') for cell in cells))


def account_cells(report):
    """Of a report, for row(): first verdict, and RSS, unexplained in MiB, and the cost in ms."""
    first, account = report['verdicts'][0], report['account']
    return (first['verdict'], '%.0f' % (first['bytes'] / MIB),
            '%.0f' % (account['rss_bytes'] / MIB),
            '%.2f' % (account['unexplained_bytes'] / MIB), '%.0f' % (report['cost_ns'] / 1e6))
