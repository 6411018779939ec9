# SPDX-License-Identifier: MIT
"""Asking the doctor, for tests: one call, its JSON, and what must hold of every report."""
import json
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
