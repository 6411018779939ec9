#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ebb node on real processes, one part each:
  cgroup    a cgroup made here: found by every name, with its limit; what leaves it leaves the list,
            and what shrinks leaves its verdicts behind
  limits    the limit of a cgroup above, and that of the container we are in ourselves
  charged   page cache, which is its cgroup's, is told of each process in it and counted once
  growth    a leak is seen as growth by Debian's Prometheus, which scrapes; the alert at 80 % of the
            limit carries the verdict
  capture   a program on Ebb near its limit: profile, ledger and report, once; the ring
  crossing  one capture in a round and one for each crossing, at any share
  agent     what a capture leaves open in the program is what was; nobody else is asked in its place
  child     a look that goes wrong ends its own process; the node goes on
  users     as an ordinary user: what can be known, and a clear line about the rest
  packages  the rules by promtool, the unit by systemd, the manifest as YAML"""
import contextlib
import fcntl
import gzip
import json
import os
import re
import shutil
import signal
import socket
import struct
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


def heap(kind, shape, mib, group=None, inside=None, **more):
    """A heap in a known shape, ready; inside: called in it before it begins."""
    process = sysutil.spawn(kind, [sysutil.prog('glibcheap'), shape, str(mib)],
                            before=group.enter if group else inside, stdin=subprocess.PIPE,
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
        inside.stdin.write(b'trim\n')
        inside.stdin.flush()
        require(inside.stdout.readline().startswith(b'trimmed'), 'glibcheap')
        server.wait_rounds(2)
        require(server.value('ebb_node_processes_small') == 1, 'it has not shrunk')
        for what in ('kept', 'pinned'):
            require(server.value('ebb_node_verdict_processes', verdict=what) == 0
                    and server.value('ebb_node_verdict_bytes', verdict=what) == 0,
                    'the verdict %s on what was freed stays: %s' % (what, server.metrics()))
        require(server.value('ebb_node_cgroup_verdict_bytes', verdict='small') == 0,
                'the verdict of the cgroup stays')
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


# ---- limits -------------------------------------------------------------------------------------

class Below:
    """A cgroup in another one."""

    def __init__(self, group, name, limit_bytes=None):
        self.path = os.path.join(group.path, name)
        if group.version == 2:
            with open(os.path.join(group.path, 'cgroup.subtree_control'), 'w') as file:
                file.write('+memory')
        os.mkdir(self.path)
        if limit_bytes is not None:
            limit = 'memory.limit_in_bytes' if group.version == 1 else 'memory.max'
            with open(os.path.join(self.path, limit), 'w') as file:
                file.write(str(limit_bytes))

    def enter(self):
        with open(os.path.join(self.path, 'cgroup.procs'), 'w') as file:
            file.write(str(os.getpid()))

    def close(self):
        def gone():
            with contextlib.suppress(OSError):
                os.rmdir(self.path)
                return True
        sysutil.wait_for(gone, 10, 'the end of ' + self.path)


# What a container sees: its own cgroup is the root of a namespace, and of the mount.
CONTAINER = '''
folder=/sys/fs/cgroup; options='-t cgroup2'
[ %d = 2 ] || { folder=$folder/memory; options='-t cgroup -o memory'; }
umount $folder && mount $options none $folder || exit 99
exec "$0" "$@"
'''


def in_container(group, *args):
    """ebb node as in a container whose cgroup that is; None: there is no way to make one."""
    return sysutil.run(GLIBC, ['unshare', '-C', '-m', '-p', '-f', '--mount-proc', 'sh', '-c',
                               CONTAINER % group.version, sysutil.CMD, 'node', *args],
                       before=group.enter, check=False)


def test_limits(args):
    with Cgroup('above', 128 * MIB) as group:
        names = [Below(group, name) for name in ('one', 'two')]
        heaps = [heap(GLIBC, 'live', 36, one) for one in names]
        root = node_json('--cgroup', group.path)
        for process in heaps:
            row = row_of(root, process)
            require(row['limit_bytes'] == 128 * MIB, 'the limit above: %s' % row)
            require(abs(row['used_bytes'] - group.charge_bytes()) < 2 * MIB,
                    'what counts against it is %d: %s' % (group.charge_bytes(), row))
        for one in root['cgroups']:
            require(one['usage_bytes'] < 60 * MIB < one['used_bytes'], 'a cgroup: %s' % one)
        text = sysutil.run(GLIBC, [sysutil.CMD, 'node', '--cgroup', group.path],
                           extra={'COLUMNS': '120'}, check=False).stdout.decode()
        require(re.search(r'/one: [34]\d(\.\d)? MiB, with others [78]\d(\.\d)? MiB of 128 MiB; ',
                          ' '.join(text.split())), 'the heads: %s' % text)
        require(re.search(r' (5[6-9]|6\d) %', text), 'the column LIMIT: %s' % text)
        server = Server('--cgroup', group.path)
        for one in root['cgroups']:
            require(server.value('ebb_node_cgroup_memory_limit_used_bytes', cgroup=one['name'])
                    > 60 * MIB, 'as a metric: %s' % server.metrics())
        server.stop()
        for process, one in zip(heaps, names):
            sysutil.kill(process)
            one.close()
    if not shutil.which('unshare'):
        raise Skip('no unshare(1): our own limit is not looked at from inside')
    with Cgroup('own', 96 * MIB) as group:
        done = in_container(group, '--json', '--min', '1KiB')
        # In a chroot that is no mount of its own, unshare cannot make mounts private.
        if done.returncode == 99 or done.stderr.startswith(b'unshare: '):
            raise Skip('no namespace with its own mounts: %s' % sysutil.tail(done.stderr))
        root = json.loads(done.stdout)
        require(root['processes'], 'nobody is in there: %s' % root)
        for row in root['processes']:
            require((row['cgroup'], row['limit_bytes']) == ('/', 96 * MIB)
                    and 0 < row['used_bytes'] < 96 * MIB, 'our own limit: %s' % row)
        text = in_container(group, '--cgroup', '/', '--min', '1KiB').stdout.decode()
        require(re.search(r'/: [\d.]+ MiB of 96 MiB; anonymous', text), 'the head: %s' % text)


# ---- what is charged to a cgroup ----------------------------------------------------------------

# Has so many MiB of its own and, where a file is named, reads it.
READER = """
import signal, sys
own = bytearray(int(sys.argv[1]) << 20)
for path in sys.argv[2:]:
    with open(path, 'rb') as file:
        while file.read(1 << 20):
            pass
print('ready', flush=True)
signal.pause()
"""


def test_charged(args):
    path = os.path.join(sysutil.tempdir(), 'file')
    with open(path, 'wb') as file:
        file.write(bytes(160 * MIB))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with Cgroup('charged', 320 * MIB) as group:
        readers = []
        for words in ([path], [], []):
            one = sysutil.spawn(GLIBC, ['python3', '-c', READER, '24', *words],
                                before=group.enter, stdout=subprocess.PIPE)
            require(one.stdout.readline() == b'ready\n', 'a reader')
            readers.append(one)
        root = node_json('--cgroup', group.path)
        cache = root['cgroups'][0]['cache_bytes']
        if cache < 100 * MIB:
            raise Skip('reading a file charges no page cache here: %s' % root['cgroups'])
        rows = [row_of(root, one) for one in readers]
        for row in rows:
            told = [v for v in row['verdicts'] if v['verdict'] == 'pagecache']
            require(told and told[0]['of_cgroup'] and told[0]['bytes'] > row['rss_bytes'],
                    'it is charged with all: %s' % row)
        total = [v for v in root['verdicts'] if v['verdict'] == 'pagecache'][0]
        require(total['count'] == 3 and abs(total['explained_bytes'] - cache) < 4 * MIB,
                'the cache of %d, as a total: %s' % (cache, total))
        text = sysutil.run(GLIBC, [sysutil.CMD, 'node', '--cgroup', group.path],
                           check=False).stdout.decode()
        require(re.search(r'\n[^\n]*: 3 processes, \d+ MiB, 1\d\d MiB charged to cgroups\n', text),
                'its heading: %s' % text)
        server = Server('--cgroup', group.path)
        require(abs(server.value('ebb_node_verdict_bytes', verdict='pagecache') - cache) < 4 * MIB,
                'the sum as a metric')
        server.stop()
        for one in readers:
            sysutil.kill(one)


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
        require(one['labels']['cgroup'] == '/' + os.path.basename(group.path)
                and not {'pid', 'verdict'} & set(one['labels']), 'its labels: %s' % one['labels'])
        require('PID %d. `ebb doctor %d`' % (leak.pid, leak.pid)
                in one['annotations']['description'], 'its text: %s' % one['annotations'])
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


def stems(folder):
    """[(second, pid)] of the captures, each file's."""
    found = set()
    for name in os.listdir(folder):
        match = re.match(r'(\d{8}T\d{6})Z-(\d+)-', name)
        if match:
            found.add((time.mktime(time.strptime(match.group(1), '%Y%m%dT%H%M%S')),
                       int(match.group(2))))
    return sorted(found)


def test_crossing(args):
    folder = os.path.join(sysutil.tempdir(), 'captures')
    with Cgroup('crossing') as group:
        one, two = (Below(group, name, 70 * MIB) for name in ('one', 'two'))
        # Near the limit of its cgroup, and near its own.
        both = heap(EBB, 'live', 56, one, options={'limit': '72MiB'})
        other = heap(GLIBC, 'live', 60, two)
        server = Server('--capture', folder, '--capture-at', '75%', '--every', '3s',
                        '--cgroup', group.path)
        sysutil.wait_for(lambda: server.value('ebb_node_captures_total') == 2, 30, 'two captures',
                         server.process)
        server.wait_rounds(2)
        require(server.value('ebb_node_captures_total') == 2, 'more: %s' % server.said())
        when = stems(folder)
        require(sorted(pid for _, pid in when) == sorted([both.pid, other.pid]), str(when))
        require(when[1][0] - when[0][0] >= 2, 'two captures in a round: %s' % when)
        server.stop()
        sysutil.kill(both)
        sysutil.kill(other)
        one.close()
        two.close()
    shutil.rmtree(folder)
    with Cgroup('low', 1000 * MIB) as low:
        stays = heap(GLIBC, 'live', 1, low)
        server = Server('--capture', folder, '--capture-at', '4%', '--cgroup', low.path)
        for count in (1, 2):
            process = heap(GLIBC, 'live', 50, low)
            sysutil.wait_for(lambda: server.value('ebb_node_captures_total') == count, 20,
                             'capture %d at 4 %%' % count, server.process)
            sysutil.kill(process)
            server.wait_rounds(6)
        server.stop()
        sysutil.kill(stays)


# ---- what a capture asks, and leaves ------------------------------------------------------------

def alone():
    """Into a network of our own, whose loopback is up."""
    require(sysutil.libc.unshare(0x40000000) == 0, 'no network of its own')
    with socket.socket() as probe:
        fcntl.ioctl(probe, 0x8914, struct.pack('16sh', b'lo', 0x41))  # SIOCSIFFLAGS: up, running


def agent_threads(pid):
    names = []
    for tid in os.listdir('/proc/%d/task' % pid):
        with contextlib.suppress(OSError), open('/proc/%d/task/%s/comm' % (pid, tid)) as file:
            names.append(file.read().strip())
    return [name for name in names if name in ('ebb-http', 'ebb-agent')]


def test_agent(args):
    folder = os.path.join(sysutil.tempdir(), 'captures')
    with Cgroup('agent') as group:
        server = Server('--capture', folder, '--capture-at', '75%', '--cgroup', group.path)

        def captured(count, process):
            sysutil.wait_for(lambda: server.value('ebb_node_captures_total') == count, 30,
                             'capture %d' % count, server.process)
            return sorted(captures(folder)[process.pid])
        # gops was open before, and is not closed.
        config = sysutil.tempdir()
        gops = heap(EBB, 'live', 30, group, options={'gops': '1', 'limit': '36MiB'},
                    extra={'GOPS_CONFIG_DIR': config})
        files = captured(1, gops)
        require(files == ['doctor.json', 'heap.pb.gz', 'ledger.json'], 'files: %s' % files)
        server.wait_rounds(1)
        with open(os.path.join(config, str(gops.pid))) as file:
            socket.create_connection(('127.0.0.1', int(file.read())), 5).close()
        sysutil.kill(gops)
        # In a network of its own it says an address that is another's in ours.
        with socket.socket() as other:
            other.bind(('127.0.0.1', 0))
            other.listen()
            other.settimeout(0)
            port = other.getsockname()[1]
            far = heap(EBB, 'live', 30, options={'http': '127.0.0.1:%d' % port, 'limit': '36MiB'},
                       inside=lambda: (group.enter(), alone()))
            files = captured(2, far)
            with contextlib.suppress(BlockingIOError):
                raise Fail('the node asks %s' % (other.accept(),))
            require(files == ['doctor.json', 'ledger.json'], 'files: %s' % files)
            require(', without a profile' in server.said(), server.said())
            require(agent_threads(far.pid), 'what was open before is closed')
            sysutil.kill(far)
        # The child that captures ends while the agent is open for it.
        children = '/proc/%d/task/%d/children' % (server.process.pid, server.process.pid)
        if os.path.exists(children):
            cut = heap(EBB, 'live', 30, group, options={'limit': '36MiB'})
            said = 'of process %d (glibcheap)' % cut.pid
            hit = False
            end = time.monotonic() + 30
            while said not in server.said():
                require(time.monotonic() < end, 'it is not captured: %s' % server.said())
                with open(children) as file:
                    found = file.read().split()
                if not hit and found and agent_threads(cut.pid):
                    os.kill(int(found[0]), signal.SIGKILL)
                    hit = True
            require(not agent_threads(cut.pid), 'its agent stays open: %s' % server.said())
            say('its child was %sended in the middle' % ('' if hit else 'not '))
            sysutil.kill(cut)
        server.stop()


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

VERDICT = ('ebb_node_cgroup_verdict_bytes{instance="n",cgroup="/a",pid="%s",name="web",'
           'verdict="%s",confidence="high"}')
GROWTH = 'ebb_node_process_growth_bytes_per_second{instance="n",cgroup="/c",pid="8",name="job"}'
OWN = 'ebb_node_process_resident_bytes{instance="n",pid="9",name="db",verdict="%s"}'
# The verdicts change while the alerts are pending, at the fourth minute.
ALERT_TEST = """
rule_files: [%s]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'ebb_node_cgroup_memory_limit_used_bytes{instance="n",cgroup="/a"}'
        values: '70+5x10'
      - series: 'ebb_node_cgroup_memory_limit_bytes{instance="n",cgroup="/a"}'
        values: '100x10'
      - series: '%s'
        values: '0x3 stale'
      - series: '%s'
        values: '_x4 0x8'
      - series: 'ebb_node_cgroup_memory_limit_used_bytes{instance="n",cgroup="/c"}'
        values: '50x20'
      - series: 'ebb_node_cgroup_memory_limit_bytes{instance="n",cgroup="/c"}'
        values: '100x20'
      - series: '%s'
        values: '0.01x20'
      - series: '%s'
        values: '90x3 stale'
      - series: '%s'
        values: '_x4 90x8'
      - series: 'ebb_node_process_limit_bytes{instance="n",pid="9",name="db"}'
        values: '_x3 100x10'
    alert_rule_test:
      - {eval_time: 4m, alertname: EbbMemoryNearLimit}
      - eval_time: 5m
        alertname: EbbMemoryNearLimit
        exp_alerts:
          - exp_labels: {severity: warning, instance: n, cgroup: /a}
            exp_annotations:
              summary: "/a on n is at 95%% of its memory limit: lazy"
              description: >-
                Verdict lazy (high confidence) for web, PID 7. `ebb doctor 7` tells the
                reasons and what to do.
      - {eval_time: 4m, alertname: EbbMemoryNearOwnLimit}
      - eval_time: 5m
        alertname: EbbMemoryNearOwnLimit
        exp_alerts:
          - exp_labels: {severity: warning, instance: n, pid: "9", name: db}
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
        file.write(ALERT_TEST % (RULES, VERDICT % (6, 'growth'), VERDICT % (7, 'lazy'), GROWTH,
                                 OWN % 'pinned', OWN % 'kept'))
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
        require('\nOOMPolicy=continue\n' in text, 'a child that takes too much ends the service')
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
    require(container['securityContext']['appArmorProfile'] == {'type': 'Unconfined'}, 'AppArmor')
    require(kinds['DaemonSet']['spec']['selector']['matchLabels'].items()
            <= kinds['DaemonSet']['spec']['template']['metadata']['labels'].items(), 'labels')
    volumes = {one['name'] for one in spec['volumes']}
    mounts = {one['name'] for one in container['volumeMounts']}
    require(volumes == mounts, 'volumes %s, mounts %s' % (volumes, mounts))
    # Every option is one that ebb node has.
    text = sysutil.run(GLIBC, [sysutil.CMD, 'node', '--help']).stdout.decode()
    for word in container['args']:
        require(not word.startswith('--') or word in text, 'no option %s' % word)


TESTS = {'cgroup': test_cgroup, 'limits': test_limits, 'charged': test_charged,
         'growth': test_growth, 'capture': test_capture, 'crossing': test_crossing,
         'agent': test_agent, 'child': test_child, 'users': test_users,
         'packages': test_packages}


def test(args):
    if args.name not in TESTS:
        raise Fail('which part? %s' % ', '.join(TESTS))
    TESTS[args.name](args)


if __name__ == '__main__':
    sysutil.main(test, __doc__)
