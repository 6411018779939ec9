#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ebb node on real processes, one part each:
  cgroup    a cgroup made here: found by every name, with its limit; what leaves it leaves the list
  growth    a leak is seen as growth by Debian's Prometheus, which scrapes; the alert at 80 % of the
            limit carries the verdict
  capture   a program on Ebb near its limit: profile, ledger and report, once; the ring
  child     a look that goes wrong ends its own process; the node goes on
  users     as an ordinary user: what can be known, and a clear line about the rest
  packages  the rules by promtool, the unit by systemd, the manifest as YAML"""
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request

import sysutil
from agentutil import become, require
from measure import Cgroup
from prometheus import Prometheus, promtool
from sysutil import EBB, GLIBC, MIB, Fail, Skip, say

FINDING, CANNOT_TELL, FAILED = 1, 2, 3
RULES = os.path.join(sysutil.REPO, 'packaging', 'prometheus', 'ebb-node.rules.yml')


def heap(kind, shape, mib, group=None, **more):
    """A heap in a known shape, ready."""
    process = sysutil.spawn(kind, [sysutil.prog('glibcheap'), shape, str(mib)],
                            before=group.enter if group else None, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, **more)
    line = process.stdout.readline()
    require(line.startswith(b'ready'), 'glibcheap says %r' % line)
    return process


def node_json(*args, statuses=(0, FINDING)):
    done = sysutil.run(GLIBC, [sysutil.CMD, 'node', '--json', *args], check=False)
    require(done.returncode in statuses,
            'ebb node: status %d, %s' % (done.returncode, done.stderr.decode()))
    return json.loads(done.stdout)


def row_of(root, process):
    rows = [row for row in root['processes'] if row['pid'] == process.pid]
    require(len(rows) <= 1, 'process %d is there %d times' % (process.pid, len(rows)))
    return rows[0] if rows else None


class Server:
    """ebb node --listen, with a look each second."""

    def __init__(self, *args):
        self.log = os.path.join(sysutil.tempdir(), 'log')
        with open(self.log, 'wb') as log:
            self.process = sysutil.spawn(GLIBC, [sysutil.CMD, 'node', '--listen', '127.0.0.1:0',
                                                 '--every', '1s', *args], stderr=log)
        sysutil.wait_for(lambda: 'serving' in self.said(), 10, 'the server', self.process)
        self.where = re.search(r'http://([\d.:]+)/', self.said()).group(1)
        sysutil.wait_for(self.rounds, 20, 'a first round', self.process)

    def said(self):
        with open(self.log) as file:
            return file.read()

    def metrics(self):
        try:
            with urllib.request.urlopen('http://%s/metrics' % self.where, timeout=10) as reply:
                return reply.read().decode()
        except urllib.error.HTTPError as error:
            require(error.code == 503, 'metrics: %s' % error)
            return ''

    def value(self, name, **labels):
        """The value of a sample with these labels, or None."""
        for line in self.metrics().splitlines():
            match = re.match(r'(\w+)(?:{(.*)})? (\S+)$', line)
            if match and match.group(1) == name:
                found = dict(re.findall(r'(\w+)="([^"]*)"', match.group(2) or ''))
                if all(found.get(key) == str(value) for key, value in labels.items()):
                    return float(match.group(3))
        return None

    def rounds(self):
        return self.value('ebb_node_rounds_total')

    def wait_rounds(self, count):
        start = self.rounds()
        sysutil.wait_for(lambda: self.rounds() >= start + count, 5 + 4 * count, 'rounds',
                         self.process)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        require(self.process.wait(10) == 0, 'it ends with status %d' % self.process.returncode)


# ---- a cgroup -----------------------------------------------------------------------------------

def test_cgroup(args):
    with Cgroup('node', 96 * MIB) as group:
        inside = heap(GLIBC, 'kept', 40, group)
        outside = heap(GLIBC, 'live', 40)
        name = '/' + os.path.relpath(group.path, os.path.dirname(group.path))
        for word in (group.path, group.path + '/', name, name[1:]):
            root = node_json('--cgroup', word, statuses=(FINDING,))
            row = row_of(root, inside)
            require(row and not row_of(root, outside), '--cgroup %s: %s' % (word, root))
            require(row['verdict'] in ('kept', 'pinned'), 'the verdict: %s' % row)
            require(row['limit_bytes'] == 96 * MIB, 'the limit: %s' % row)
            require(abs(row['used_bytes'] - group.charge_bytes()) < 2 * MIB, 'usage: %s' % row)
        text = sysutil.run(GLIBC, [sysutil.CMD, 'node', '--cgroup', group.path],
                           check=False).stdout.decode()
        require(re.search(r'\d+ MiB of 96 MiB; anonymous', text), 'its head: %s' % text)
        root = node_json()
        require(row_of(root, inside) and row_of(root, outside), 'all: %s' % root)
        if shutil.which('unshare'):
            # As in a container: what is beside our cgroup is called "/../.." there.
            done = sysutil.run(GLIBC, ['unshare', '-C', sysutil.CMD, 'node', '--json'], check=False)
            there = row_of(json.loads(done.stdout), inside)
            here = row_of(root, inside)
            require((there['cgroup'], there['limit_bytes']) == (here['cgroup'], 96 * MIB),
                    'in a cgroup namespace: %s' % there)
        server = Server('--cgroup', group.path)
        labels = {'cgroup': row_of(root, inside)['cgroup']}
        require(server.value('ebb_node_cgroup_memory_limit_bytes', **labels) == 96 * MIB,
                'the limit as a metric')
        require(server.value('ebb_node_processes') == 1, 'processes')
        require(server.value('ebb_node_cgroup_verdict_bytes', pid=inside.pid) > 20 * MIB,
                'the verdict of the cgroup')
        sysutil.kill(inside)
        server.wait_rounds(2)
        require(server.value('ebb_node_processes') == 0, 'what has ended is still there')
        require(server.value('ebb_node_cgroup_memory_limit_bytes', **labels) is None,
                'the cgroup without processes is still there')
        require('is empty' in server.said(), 'its log: %s' % server.said())
        server.stop()
        done = sysutil.run(GLIBC, [sysutil.CMD, 'node', '--cgroup', group.path], check=False)
        require(done.returncode == FAILED and b'is empty' in done.stderr, 'empty: %s' % done)
        sysutil.kill(outside)


# ---- growth and the alert -----------------------------------------------------------------------

def test_growth(args):
    sysutil.need('prometheus', 'prometheus')
    with open(RULES) as file:
        rules = re.sub(r'for: \d+m', 'for: 1s', file.read())
    with Cgroup('growth', 110 * MIB) as group:
        leak = heap(GLIBC, 'grow', 50, group)
        steady = heap(GLIBC, 'live', 40)
        server = Server('--min', '8MiB')
        prom = Prometheus(server.where, None, rules)
        started = time.monotonic()

        def grows():
            return server.value('ebb_node_process_resident_bytes', pid=leak.pid, verdict='growth')
        sysutil.wait_for(grows, 30, 'the verdict growth', leak)
        saw = time.monotonic() - started
        slope = server.value('ebb_node_process_growth_bytes_per_second', pid=leak.pid)
        require(0.5 * MIB < slope < 6 * MIB, 'it grows by %s bytes a second' % slope)
        require(server.value('ebb_node_process_resident_bytes', pid=steady.pid,
                             verdict='healthy'), 'the steady one: %s' % server.metrics())
        query = 'ebb_node_process_resident_bytes{pid="%d",verdict="growth"}' % leak.pid
        sysutil.wait_for(lambda: prom.value(query), 10, 'growth in Prometheus', prom.process)
        require(prom.value('ebb_node_verdict_processes{verdict="growth"}') >= 1, 'the sum')

        def alert():
            for one in prom.ask('alerts')['alerts']:
                if one['labels']['alertname'] == 'EbbMemoryNearLimit' and one['state'] == 'firing':
                    return one
            return None
        require(alert() is None or group.charge_bytes() > 0.8 * 110 * MIB, 'it fires too early')
        one = sysutil.wait_for(alert, 40, 'the alert at 80 %', leak)
        summary = one['annotations']['summary']
        require(summary.endswith('of its memory limit: growth'), 'its text: %s' % summary)
        require(one['labels']['pid'] == str(leak.pid), 'its labels: %s' % one['labels'])
        require(re.search(r'at (8|9)\d(\.\d+)?%', summary), 'its share: %s' % summary)
        for group_of in prom.ask('rules')['groups']:
            for rule in group_of['rules']:
                require(rule['health'] == 'ok', 'a rule: %s' % rule)
        require(prom.target() == ('up', ''), 'the target: %s, %s' % prom.target())
        cost = prom.value('max_over_time(ebb_node_look_seconds[2m])')
        require(cost < 2.5, 'a round took %.2f s of 2' % cost)
        say('growth after %.0f s; "%s"; rounds take at most %.0f ms' % (saw, summary, 1e3 * cost))
        sysutil.kill(prom.process, signal.SIGTERM)
        server.stop()
        sysutil.kill(leak)
        sysutil.kill(steady)


# ---- captures -----------------------------------------------------------------------------------

def captures(folder):
    """{pid: {suffix: path}} of the files, and none that is half written."""
    found = {}
    for name in sorted(os.listdir(folder)):
        match = re.match(r'\d{8}T\d{6}Z-(\d+)-[\w-]+\.([\w.]+)$', name)
        if not match:
            require(name.startswith('.'), 'a file called %s' % name)
            continue
        found.setdefault(int(match.group(1)), {})[match.group(2)] = os.path.join(folder, name)
    return found


def check_capture(files, process):
    require(sorted(files) == ['doctor.json', 'heap.pb.gz', 'ledger.json'], 'files: %s' % files)
    with open(files['ledger.json']) as file:
        ledger = json.load(file)
    require(ledger['pid'] == process.pid and ledger['classes']['live_bytes'] > 40 * MIB,
            'the ledger: %s' % ledger['classes'])
    with open(files['doctor.json']) as file:
        report = json.load(file)
    require(report['pid'] == process.pid and report['verdict'], 'the report: %s' % report)
    with gzip.open(files['heap.pb.gz']) as file:
        require(len(file.read()) > 100, 'the profile is empty')
    shown = sysutil.run(GLIBC, [sysutil.CMD, 'profile', files['heap.pb.gz']]).stdout.decode()
    require('MiB' in shown, 'the profile: %s' % shown)
    for path in files.values():
        require(os.stat(path).st_mode & 0o777 == 0o600, 'others may read %s' % path)


def test_capture(args):
    folder = os.path.join(sysutil.tempdir(), 'captures')
    with Cgroup('one', 70 * MIB) as one, Cgroup('two', 80 * MIB) as two:
        process = heap(EBB, 'live', 56, one)
        calm = heap(EBB, 'live', 30, two)
        server = Server('--capture', folder, '--capture-at', '75%', '--capture-keep', '2')
        sysutil.wait_for(lambda: server.value('ebb_node_captures_total') == 1, 30, 'a capture',
                         server.process)
        server.wait_rounds(3)
        require(server.value('ebb_node_captures_total') == 1, 'it is captured again and again')
        require(server.value('ebb_node_capture_failures_total') == 0, server.said())
        require(list(captures(folder)) == [process.pid], 'files: %s' % os.listdir(folder))
        check_capture(captures(folder)[process.pid], process)
        require(re.search(r'ebb node: the cgroup of process %d \(glibcheap\), verdict \w+: .* is '
                          r'\d+ %% of the limit 70 MiB; captured: ' % process.pid, server.said()),
                'its log: %s' % server.said())
        # Nothing was left open in the program.
        told = json.loads(sysutil.run(GLIBC, [sysutil.CMD, 'doctor', '--json', str(process.pid)],
                                      check=False).stdout)
        require(told['pid'] == process.pid, 'it does not live any more')
        done = sysutil.run(GLIBC, [sysutil.CMD, 'profile', 'heap', str(process.pid)], check=False)
        require(b'has no agent' in done.stderr, 'an agent is still open: %s' % done.stderr)
        # One that is not on Ebb: the report alone. The ring keeps two.
        sysutil.kill(calm)
        plain = heap(GLIBC, 'live', 66, two)
        sysutil.wait_for(lambda: server.value('ebb_node_captures_total') == 2, 30, 'a second one',
                         server.process)
        require(sorted(captures(folder)[plain.pid]) == ['doctor.json'], os.listdir(folder))
        sysutil.kill(plain)
        with Cgroup('three', 70 * MIB) as three:
            third = heap(EBB, 'live', 56, three)
            sysutil.wait_for(lambda: server.value('ebb_node_captures_total') == 3, 30, 'a third',
                             server.process)
            require(sorted(captures(folder)) == sorted([plain.pid, third.pid]),
                    'the ring: %s' % os.listdir(folder))
            check_capture(captures(folder)[third.pid], third)
            sysutil.kill(third)
        # Ebb's own limit, where the cgroup has none that is near.
        own = heap(EBB, 'live', 60, options={'limit': '72MiB'})
        sysutil.wait_for(lambda: server.value('ebb_node_captures_total') == 4, 30, 'a fourth',
                         server.process)
        require(server.value('ebb_node_process_limit_bytes', pid=own.pid) == 72 * MIB,
                "Ebb's limit as a metric")
        check_capture(captures(folder)[own.pid], own)
        require('the resident memory of process %d' % own.pid in server.said(), server.said())
        sysutil.kill(own)
        require(not [name for name in os.listdir(folder) if name.startswith('.')], 'a half file')
        server.stop()
        sysutil.kill(process)
    say(server.said().splitlines()[1])


# ---- a look that goes wrong ---------------------------------------------------------------------

def test_child(args):
    process = heap(GLIBC, 'pinned', 150)
    server = Server('--min', '100MiB')
    children = '/proc/%d/task/%d/children' % (server.process.pid, server.process.pid)
    if not os.path.exists(children):
        raise Skip('this kernel does not list children')

    def failed():
        with open(children) as file:
            for child in file.read().split():
                try:
                    os.kill(int(child), signal.SIGSEGV)
                except ProcessLookupError:
                    pass
    end = time.monotonic() + 40
    said = 'a look at process %d (glibcheap) failed' % process.pid
    while said not in server.said():
        require(time.monotonic() < end, 'no look was hit: %s' % server.said())
        failed()
    require(server.process.poll() is None, 'the node has ended')
    server.wait_rounds(3)
    require(server.value('ebb_node_look_failures_total') >= 1, 'it is not counted')
    require(server.said().count(said) == 1, 'it is said again and again')

    def told():
        return server.value('ebb_node_process_resident_bytes', pid=process.pid, verdict='pinned')
    sysutil.wait_for(told, 15, 'a verdict afterwards', server.process)
    server.stop()
    sysutil.kill(process)


# ---- an ordinary user ---------------------------------------------------------------------------

MAPPED = """
import mmap, signal, sys
with open(sys.argv[1], 'rb') as file:
    pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
sum(pages[i] for i in range(0, len(pages), 4096))
print('ready', flush=True)
signal.pause()
"""


def test_users(args):
    sysutil.need_root('another user is played')
    sysutil.publish()
    ours = heap(GLIBC, 'live', 40)
    user = 65534
    theirs = sysutil.spawn(GLIBC, [sysutil.prog('glibcheap'), 'kept', '40'], before=become(user),
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    require(theirs.stdout.readline().startswith(b'ready'), 'glibcheap')
    # Most of this one is a mapped file: its sizes alone would look healthy.
    path = os.path.join(sysutil.tempdir(), 'file')
    with open(path, 'wb') as file:
        file.write(bytes(60 * MIB))
    mapped = sysutil.spawn(GLIBC, ['python3', '-c', MAPPED, path], stdout=subprocess.PIPE)
    require(mapped.stdout.readline() == b'ready\n', 'the mapped file')
    done = sysutil.run(GLIBC, [sysutil.CMD, 'node', '--json'], before=become(user), check=False)
    require(not done.stderr, 'it says %s' % done.stderr)
    root = json.loads(done.stdout)
    row = row_of(root, ours)
    require(row['verdict'] == 'unknown' and row['refused'], 'of root: %s' % row)
    require(row_of(root, mapped)['verdict'] == 'unknown', 'a file: %s' % row_of(root, mapped))
    require(row['rss_bytes'] > 40 * MIB, 'its size can be known: %s' % row)
    require('may not be looked into' in row['sentence'], row['sentence'])
    require(root['refused_count'] >= 1, 'the count: %s' % root)
    require(row_of(root, theirs)['finding'], 'its own: %s' % row_of(root, theirs))
    require(done.returncode == FINDING, 'status %d' % done.returncode)
    text = sysutil.run(GLIBC, [sysutil.CMD, 'node'], before=become(user),
                       check=False).stdout.decode()
    lines = ' '.join(text.split())
    match = re.search(r'cannot tell: (\d+) process', lines)
    require(match, text)
    require(re.search(r"(All are|It is|\d+ of them, with \S+ [MG]iB, are) other users', or "
                      r'protected: only root may look into them', lines), text)
    sysutil.kill(theirs)
    done = sysutil.run(GLIBC, [sysutil.CMD, 'node', '--min', '36MiB'], before=become(user),
                       check=False)
    require(done.returncode in (CANNOT_TELL, FINDING), 'status %d' % done.returncode)
    done = sysutil.run(GLIBC, [sysutil.CMD, 'node', '--container', 'nobody-has-it'],
                       before=become(user), check=False)
    require(done.returncode == FAILED and done.stderr.count(b'\n') == 1, str(done))
    sysutil.kill(ours)
    say(match.group(0) + ' for ' + str(user))


# ---- what is packaged ---------------------------------------------------------------------------

VERDICT = ('ebb_node_cgroup_verdict_bytes{instance="n",cgroup="/a",pid="7",name="web",'
           'verdict="lazy",confidence="high"}')
GROWTH = 'ebb_node_process_growth_bytes_per_second{instance="n",cgroup="/c",pid="8",name="job"}'
ALERT_TEST = """
rule_files: [%s]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'ebb_node_cgroup_memory_usage_bytes{instance="n",cgroup="/a"}'
        values: '70+5x10'
      - series: 'ebb_node_cgroup_memory_limit_bytes{instance="n",cgroup="/a"}'
        values: '100x10'
      - series: '%s'
        values: '0x10'
      - series: 'ebb_node_cgroup_memory_usage_bytes{instance="n",cgroup="/b"}'
        values: '99x10'
      - series: 'ebb_node_cgroup_memory_usage_bytes{instance="n",cgroup="/c"}'
        values: '50x20'
      - series: 'ebb_node_cgroup_memory_limit_bytes{instance="n",cgroup="/c"}'
        values: '100x20'
      - series: '%s'
        values: '0.01x20'
      - series: 'ebb_node_process_resident_bytes{instance="n",pid="9",name="db",verdict="kept"}'
        values: '90x10'
      - series: 'ebb_node_process_limit_bytes{instance="n",pid="9",name="db"}'
        values: '100x10'
    alert_rule_test:
      - {eval_time: 2m, alertname: EbbMemoryNearLimit}
      - eval_time: 5m
        alertname: EbbMemoryNearLimit
        exp_alerts:
          - exp_labels: {severity: warning, instance: n, cgroup: /a, pid: "7", name: web,
                         verdict: lazy, confidence: high}
            exp_annotations:
              summary: "/a on n is at 95%% of its memory limit: lazy"
              description: >-
                Verdict lazy (high confidence) for web, PID 7. `ebb doctor 7` tells the
                reasons and what to do.
      - eval_time: 5m
        alertname: EbbMemoryNearOwnLimit
        exp_alerts:
          - exp_labels: {severity: warning, instance: n, pid: "9", name: db, verdict: kept}
            exp_annotations:
              summary: "db (PID 9) on n is at 90%% of the limit set for Ebb: kept"
      - {eval_time: 9m, alertname: EbbMemoryGrowsToLimit}
      - eval_time: 12m
        alertname: EbbMemoryGrowsToLimit
        exp_alerts:
          - exp_labels: {severity: warning, instance: n, cgroup: /c, pid: "8", name: job}
            exp_annotations:
              summary: "job (PID 8) on n grows; its memory limit is reached in 1h 23m 20s"
"""


def test_packages(args):
    sysutil.need('prometheus', 'promtool')
    require('SUCCESS' in promtool('check', 'rules', RULES), 'check rules is not content')
    folder = sysutil.tempdir()
    path = os.path.join(folder, 'test.yml')
    with open(path, 'w') as file:
        file.write(ALERT_TEST % (RULES, VERDICT, GROWTH))
    promtool('test', 'rules', path)
    server = Server('--min', '1MiB')
    text = server.metrics()
    said = promtool('check', 'metrics', input=text.encode())
    require(not said, 'promtool: %s' % said)
    with open(os.path.join(sysutil.REPO, 'docs', 'NODE.md')) as file:
        written = set(re.findall(r'^\| `(ebb_node_\w+)`', file.read(), re.M))
    served = set(re.findall(r'^# TYPE (\w+) ', text, re.M))
    require(written == served, 'docs/NODE.md and /metrics differ by %s' % (written ^ served))
    with open(RULES) as file:
        used = set(re.findall(r'\bebb_node_\w+', file.read()))
    require(used <= served, 'the rules use %s' % (used - served))
    server.stop()
    unit = os.path.join(os.path.dirname(sysutil.CMD), 'packaging', 'ebb-node.service')
    if not os.path.exists(unit) or not shutil.which('systemd-analyze'):
        say('the unit is not checked: no systemd-analyze, or ebb is of no build folder')
    else:
        with open(unit) as file:
            text = re.sub(r'ExecStart=\S+', 'ExecStart=' + sysutil.CMD, file.read())
        path = os.path.join(folder, 'ebb-node.service')
        with open(path, 'w') as file:
            file.write(text)
        done = subprocess.run(['systemd-analyze', 'verify', '--man=no', path],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        said = done.stdout.decode()
        require(done.returncode == 0 and 'ebb-node' not in said, 'systemd-analyze: %s' % said)
    manifest()


def manifest():
    try:
        import yaml
    except ImportError:
        raise Skip('python3-yaml is missing: the manifest is not read')
    with open(os.path.join(sysutil.REPO, 'packaging', 'kubernetes', 'ebb-node.yaml')) as file:
        kinds = {one['kind']: one for one in yaml.safe_load_all(file)}
    spec = kinds['DaemonSet']['spec']['template']['spec']
    container = spec['containers'][0]
    require(spec['hostPID'] is True, 'hostPID')
    require('SYS_PTRACE' in container['securityContext']['capabilities']['add'], 'SYS_PTRACE')
    require(container['securityContext']['readOnlyRootFilesystem'], 'a root that can be written')
    require(kinds['DaemonSet']['spec']['selector']['matchLabels'].items()
            <= kinds['DaemonSet']['spec']['template']['metadata']['labels'].items(), 'labels')
    volumes = {one['name'] for one in spec['volumes']}
    mounts = {one['name'] for one in container['volumeMounts']}
    require(volumes == mounts, 'volumes %s, mounts %s' % (volumes, mounts))
    # Every option is one that ebb node has.
    text = sysutil.run(GLIBC, [sysutil.CMD, 'node', '--help']).stdout.decode()
    for word in container['args']:
        require(not word.startswith('--') or word in text, 'no option %s' % word)


TESTS = {'cgroup': test_cgroup, 'growth': test_growth, 'capture': test_capture,
         'child': test_child, 'users': test_users, 'packages': test_packages}


def test(args):
    if args.name not in TESTS:
        raise Fail('which part? %s' % ', '.join(TESTS))
    TESTS[args.name](args)


if __name__ == '__main__':
    sysutil.main(test, __doc__)
