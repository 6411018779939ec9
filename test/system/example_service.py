#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The service of examples/ behaves as docs/GUIDE.md tells: compiled by the line in its header, it
leaks 60 MB at one place, and go tool pprof, growth and pins name the places; ebb release gives a
peak back; a file is no memory of its own; without Ebb it works too."""
import json
import os
import re
import subprocess
import urllib.request

import sysutil
from agentutil import require
from exampleutil import MB, Thumbs, compiled
from sysutil import GLIBC, say

TOP = re.compile(r'(?m)^\s*(-?[\d.]+)B?\s+\S+%\s+\S+%\s+\S+\s+\S+%\s+(\S.*)$')


def pprof(*words):
    """What go tool pprof prints."""
    env = dict(os.environ, HOME=sysutil.tempdir(), GOFLAGS='')
    done = subprocess.run(['go', 'tool', 'pprof', *words], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60, text=True)
    require(done.returncode == 0, 'go tool pprof %s: %s' % (words, done.stderr))
    return done.stdout


def first(text):
    """(function, bytes) that stands first in pprof -top -unit=B."""
    amount, name = TOP.search(text).groups()
    return name.split()[0], float(amount)


def ebb(*words):
    done = subprocess.run([sysutil.CMD, *map(str, words)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60, text=True)
    require(done.returncode == 0, 'ebb %s: %s' % (words, done.stderr))
    return done.stdout


def rss(pid):
    with open('/proc/%d/status' % pid) as file:
        return 1024 * int(re.search(r'VmRSS:\s+(\d+)', file.read()).group(1))


def ages(pid, function):
    """{age: bytes} of what stands for a function in the growth profile."""
    tags = json.loads(ebb('profile', 'growth', '--tags', '--json', '--focus', function, pid))
    return {tag['value']: tag['amount'] for tag in tags['tags'] if tag['key'] == 'age'}


def leak(program):
    """60 MB at context_new, over some 20 s: first in the profile, the difference, old and young."""
    service = Thumbs(program, rate=60, profile_rate=65536)
    heap = 'http://%s/debug/pprof/heap' % service.where
    sysutil.wait_for(lambda: service.number('cache MB') >= 15, 60, 'a full cache')
    before = os.path.join(sysutil.tempdir(), 'before')
    with urllib.request.urlopen(heap, timeout=20) as reply, open(before, 'wb') as file:
        file.write(reply.read())
    require(first(pprof('-top', '-unit=B', before))[0] == 'cache_put', 'the cache is not first')
    service.order('/leak?mb=60')

    def both():
        found = ages(service.pid, 'context_new')
        return min(found.get('under 10s', 0), found.get('10s to 1m', 0)) > 5 * MB and found
    say('growth of context_new: %s' % sysutil.wait_for(both, 60, 'a leak in young and old ages'))
    sysutil.wait_for(lambda: service.number('leaked MB') >= 60, 60, 'the leak')
    for words in ((heap,), ('-base', before, heap)):
        name, amount = first(pprof('-top', '-unit=B', *words))
        say('first of pprof %s: %s %.1f MB' % (words[0][:5], name, amount / MB))
        # A context lies in a block of 64 KiB.
        require(name == 'context_new' and abs(amount / (60 * MB * 65536 / 60016) - 1) < .15,
                '%s stands first with %d' % (name, amount))
    tags = pprof('-tags', heap)
    require(re.search(r'requests\b', tags), 'no label of the leak: %s' % tags)
    service.order('/leak?mb=40&where=cache')
    sysutil.wait_for(lambda: service.number('leaked MB') >= 100, 60, 'the other leak')
    require(service.number('cache MB') >= 55, 'the cache did not grow')
    service.stop()


def peak(program):
    """What a report leaves behind, pins names, and release gives back what can go."""
    service = Thumbs(program, profile_rate=65536, policy='never')
    sysutil.wait_for(lambda: service.number('cache MB') >= 15, 60, 'a full cache')
    calm = rss(service.pid)
    service.order('/file?mb=50')
    require(rss(service.pid) - calm < 10 * MB, 'a file counts as memory')
    service.order('/peak?mb=200')
    sysutil.wait_for(lambda: service.number('kept of reports MB') >= 1, 60, 'the report')

    def ended():
        return service.metric('go_memstats_heap_alloc_bytes') < 60 * MB
    sysutil.wait_for(ended, 30, 'the end of the report')
    high = rss(service.pid)
    require(high - calm > 180 * MB, 'never has given back: %d' % high)
    found = pprof('-top', '-unit=B', '-sample_index=pinned_space',
                  'http://%s/debug/pprof/pins' % service.where)
    name, amount = first(found)
    require(name == 'report_add_row' and amount > 5 * MB, 'pins: %s %d' % (name, amount))
    ebb('release', service.pid)
    low = rss(service.pid)
    say('RSS %d MB, after the peak %d, after ebb release %d; pins: %s %.0f MB'
        % (calm / MB, high / MB, low / MB, name, amount / MB))
    require(high - low > 150 * MB, 'release gave back %d' % (high - low))
    service.stop()


def orders(program):
    """Without Ebb; what it is told wrongly."""
    port = sysutil.free_port()
    service = sysutil.spawn(GLIBC, [program, '--port', str(port)], stderr=subprocess.DEVNULL)
    sysutil.wait_port(port, service)
    tell = Thumbs.tell
    service.own_port = port
    status, body = tell(service, '/thumb?id=7')
    require(status == 200 and body[:2] == b'BM' and len(body) == 49206, 'no thumbnail')
    for path, wanted in (('/leak?mb=0', 400), ('/leak?mb=', 400), ('/peak?mb=-1', 400),
                         ('/peak?mb=1x', 400), ('/peak?mb=99999999999999999999', 400),
                         ('/thumb?id=x', 400), ('/nothing', 404), ('/stop-leak', 200)):
        status, body = tell(service, path)
        require(status == wanted, '%s: %d %r' % (path, status, body))
    sysutil.kill(service)
    for words in (['--port'], ['--port', '65536'], ['--rate', '0'], ['--what', '1']):
        done = sysutil.run(GLIBC, [program] + words, check=False)
        require(done.returncode == 2 and len(done.stderr.splitlines()) == 1, str(words))


def test(args):
    sysutil.need('golang-go', 'go')
    program = compiled()
    orders(program)
    leak(program)
    peak(program)


if __name__ == '__main__':
    sysutil.main(test, __doc__)
