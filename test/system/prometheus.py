#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Debian's Prometheus, as a user of its own, scrapes a service on Ebb each second, for 20 s or a
minute: never an error, every name that Go's client library exports, the right values, in promtool's
order; the alert rules of docs/GUIDE.md work. Without http_allow it gets 403."""
import json
import os
import pwd
import re
import signal
import subprocess
import time
import urllib.parse
import urllib.request

import sysutil
from agentutil import become, require
from exampleutil import MB, Thumbs, compiled
from sysutil import GLIBC, Fail, say

# What client_golang's collectors for Go 1.19 and for processes register, without the pieces of
# summaries: prometheus/go_collector.go, go_collector_go119_test.go, process_collector.go.
MEMSTATS = """alloc_bytes alloc_bytes_total buck_hash_sys_bytes frees_total gc_sys_bytes
heap_alloc_bytes heap_idle_bytes heap_inuse_bytes heap_objects heap_released_bytes heap_sys_bytes
last_gc_time_seconds lookups_total mallocs_total mcache_inuse_bytes mcache_sys_bytes
mspan_inuse_bytes mspan_sys_bytes next_gc_bytes other_sys_bytes stack_inuse_bytes stack_sys_bytes
sys_bytes""".split()
NAMES = ['go_memstats_' + name for name in MEMSTATS] + """go_gc_duration_seconds_count
go_gc_duration_seconds_sum go_goroutines go_info go_threads process_cpu_seconds_total
process_max_fds process_open_fds process_resident_memory_bytes process_start_time_seconds
process_virtual_memory_bytes process_virtual_memory_max_bytes""".split()

CONFIG = """
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%s/alerts.yml]
scrape_configs:
  - job_name: thumbs
    static_configs:
      - targets: ['%s']
"""


def alerts():
    """The rules of the guide, which are those of examples/alerts.yml."""
    with open(os.path.join(sysutil.REPO, 'examples', 'alerts.yml')) as file:
        rules = file.read()
    with open(os.path.join(sysutil.REPO, 'docs', 'GUIDE.md')) as file:
        require('```yaml\n%s```\n' % rules in file.read(),
                'the rules in docs/GUIDE.md are not those of examples/alerts.yml')
    return rules


class Prometheus:
    """The server, with a folder of its own; user: whose it is, None: ours; rules: instead of those
    of the guide."""

    def __init__(self, where, user, rules=None):
        self.folder = sysutil.tempdir(0o755)
        with open(os.path.join(self.folder, 'prometheus.yml'), 'w') as file:
            file.write(CONFIG % (self.folder, where))
        with open(os.path.join(self.folder, 'alerts.yml'), 'w') as file:
            file.write(rules or alerts())
        data = os.path.join(self.folder, 'data')
        os.mkdir(data)
        if user:
            os.chown(data, user.pw_uid, user.pw_gid)
        self.port = sysutil.free_port()
        self.log = os.path.join(self.folder, 'log')

        def change():
            if user:
                become(user.pw_uid)()
                # Changing the user has undone that it ends with us.
                sysutil.libc.prctl(sysutil.PR_SET_PDEATHSIG, signal.SIGKILL)
        with open(self.log, 'wb') as log:
            self.process = sysutil.spawn(
                GLIBC, [sysutil.need('prometheus', 'prometheus'),
                        '--config.file=%s/prometheus.yml' % self.folder,
                        '--storage.tsdb.path=' + data, '--log.level=warn',
                        '--web.listen-address=127.0.0.1:%d' % self.port],
                before=change, stdout=log, stderr=log, cwd=data)
        sysutil.wait_for(self.ready, 30, 'prometheus', self.process)
        with open('/proc/%d/status' % self.process.pid) as file:
            uid = int(re.search(r'Uid:\s+(\d+)', file.read()).group(1))
        require(not user or uid == user.pw_uid, 'it runs as user %d' % uid)

    def ready(self):
        try:
            with urllib.request.urlopen('http://127.0.0.1:%d/-/ready' % self.port, timeout=5):
                return True
        except OSError:
            return False

    def ask(self, path, **query):
        address = 'http://127.0.0.1:%d/api/v1/%s?%s' % (self.port, path,
                                                        urllib.parse.urlencode(query))
        with urllib.request.urlopen(address, timeout=10) as reply:
            answer = json.loads(reply.read())
        require(answer['status'] == 'success', '%s: %s' % (path, answer))
        return answer['data']

    def value(self, query):
        """What a query with one answer says; None: nothing."""
        found = self.ask('query', query=query)['result']
        require(len(found) <= 1, '%s has %d answers' % (query, len(found)))
        return float(found[0]['value'][1]) if found else None

    def target(self):
        """(health, error) of the last scrape."""
        found = self.ask('targets')['activeTargets']
        return (found[0]['health'], found[0]['lastError']) if found else ('none yet', '')

    def said(self):
        with open(self.log) as file:
            return file.read()

    def stop(self):
        sysutil.kill(self.process, signal.SIGTERM)


def promtool(*words, **kw):
    done = subprocess.run([sysutil.need('prometheus', 'promtool'), *words], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60, **kw)
    require(done.returncode == 0, 'promtool: %s' % done.stdout.decode())
    return done.stdout.decode()


def scraped(service, user, seconds):
    """The scrapes of some seconds, and what became of them."""
    server = Prometheus(service.where, user)
    sysutil.wait_for(lambda: server.target()[0] == 'up', 15, 'a first scrape', server.process)
    started = time.monotonic()
    service.order('/leak?mb=20')
    while time.monotonic() - started < seconds:
        require(server.target() == ('up', ''), 'the target: %s, %s' % server.target())
        time.sleep(0.5)
    count = server.value('count_over_time(up[2m])')
    require(count >= 0.8 * seconds, 'only %d scrapes in %d s' % (count, seconds))
    require(server.value('min_over_time(up[2m])') == 1, 'a scrape has failed')
    for name in NAMES:
        require(server.value('count(%s)' % name) == 1, '%s is missing' % name)
    ours = service.metric('go_memstats_heap_alloc_bytes')
    theirs = server.value('go_memstats_heap_alloc_bytes')
    require(abs(ours - theirs) < 4 * MB, 'live bytes: %d, Prometheus says %d' % (ours, theirs))
    grown = server.value('delta(go_memstats_heap_alloc_bytes[2m])')
    require(grown > 5 * MB, 'Prometheus does not see the leak: %s' % grown)
    require(server.value('go_info{version!=""}') == 1, 'go_info has no version')
    say('%d scrapes, the longest %.1f ms, %d samples; %.1f MB live, by Prometheus %.1f'
        % (count, 1e3 * server.value('max_over_time(scrape_duration_seconds[2m])'),
           server.value('scrape_samples_scraped'), ours / MB, theirs / MB))
    return server


def rules(server):
    """The rules are evaluated, and the first one stands where the limit is passed."""
    groups = server.ask('rules')['groups']
    found = {rule['name']: rule for group in groups for rule in group['rules']}
    require(len(found) == 3, 'rules: %s' % sorted(found))
    for name, rule in found.items():
        require(rule['health'] == 'ok' and not rule.get('lastError'), '%s: %s' % (name, rule))

    def pending():
        return server.value('ALERTS{alertname="MemoryHigh"}') == 1
    sysutil.wait_for(pending, 15, 'the alert above 80 % of the limit')


def test(args):
    sysutil.need('prometheus', 'prometheus')
    rules_file = os.path.join(sysutil.REPO, 'examples', 'alerts.yml')
    require('SUCCESS' in promtool('check', 'rules', rules_file), 'check rules is not content')
    promtool('check', 'config', os.path.join(sysutil.REPO, 'examples', 'prometheus.yml'))
    user = None
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam('prometheus')
        except KeyError:
            user = pwd.getpwnam('nobody')
    program = compiled()
    allowed = {'http_allow': 'uid:%s@/metrics' % user.pw_name} if user else {}
    service = Thumbs(program, limit='30MiB', **allowed)
    text = promtool('check', 'metrics', input=service.get('/metrics'))
    require(not text, 'promtool: %s' % text)
    server = scraped(service, user, 60 if args.long else 20)
    rules(server)
    require(not re.search(r'level=(warn|error)', server.said()), 'it says: %s' % server.said())
    require(service.metric('ebb_agent_refused_total') == 0, 'somebody was refused')
    server.stop()
    service.stop()
    if not user:
        say('without root there is no other user to be refused')
        return
    service = Thumbs(program)
    server = Prometheus(service.where, user)
    sysutil.wait_for(lambda: server.target()[0] == 'down', 15, 'a refusal', server.process)
    error = server.target()[1]
    require('403' in error, 'the error of one who may not ask: %s' % error)
    require(service.metric('ebb_agent_refused_total') > 0, 'refusals are not counted')
    say('without http_allow: %s' % error)
    server.stop()
    if service.process.poll() is not None:
        raise Fail('the service has ended')


if __name__ == '__main__':
    sysutil.main(test, __doc__)
