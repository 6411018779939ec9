#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the profiles block, mutex and threadcreate say of programs whose threads wait at known
places for known times; that with the profiles off nothing is recorded; that locks of all types
return what they return on glibc, that a wait can be cancelled; and that children begin anew.
With the word programs: that python, redis and nginx work with all waits recorded."""
import os
import re

import heap_profile
import pprof
import redisutil
import sysutil
from sysutil import EBB, GLIBC, Fail, say

ROUNDS = 10  # as in prog/waits.c
ALL = {'blockprofile_rate': 1, 'mutexprofile_fraction': 1}


def top(path, index, unit=''):
    """{function: value} of pprof -top."""
    words = ['-top', '-nodecount=1000', '-sample_index=' + index]
    text = heap_profile.pprof(*words, *(['-unit=' + unit] if unit else []), path)
    found = {}
    for line in text.splitlines():
        match = re.match(r'\s*([\d.]+)[a-z]*\s+[\d.]+%\s+[\d.]+%\s+\S+\s+\S+\s+(\S+)', line)
        if match:
            found[match.group(2)] = float(match.group(1))
    return found


def near(what, have, want, percent):
    say('%-34s %8.4f s of %8.4f' % (what, have, want))
    if abs(have - want) > want * percent / 100:
        raise Fail('%s: %.4f s, which is more than %g %% off %.4f' % (what, have, percent, want))


def known(options):
    folder = sysutil.tempdir()
    done = sysutil.run(EBB, [sysutil.prog('waits'), 'known', folder], options, timeout=60)
    words = done.stdout.decode().split()
    return folder, {words[i]: float(words[i + 1]) for i in range(0, len(words), 2)}


def check_known():
    """Rates of 1: all that was waited for is there, within what clocks differ by."""
    folder, waited = known(ALL)
    block = top(folder + '/block', 'delay', 's')
    for name, seconds in waited.items():
        near('block, ' + name, block.get(name, 0), seconds, 5)
    # One event each; a condition may have been found true without a wait, or waited for twice.
    count = top(folder + '/block', 'contentions')
    for name in ('want_mutex', 'want_writing'):
        if count.get(name) != ROUNDS:
            raise Fail('%s waited %s times, not %d' % (name, count.get(name), ROUNDS))
    mutex = top(folder + '/mutex', 'delay', 's')
    near('mutex, hold_mutex', mutex.get('hold_mutex', 0), waited['want_mutex'], 5)
    near('mutex, hold_reading', mutex.get('hold_reading', 0), waited['want_writing'], 5)
    for name in mutex:
        if name.startswith('want_') and mutex[name] > .02:
            raise Fail('%s is blamed for %.4f s' % (name, mutex[name]))
    made = top(folder + '/threadcreate', 'threadcreate')
    if made.get('start_thread') != 1:
        raise Fail('threads made: %s' % made)
    stacks = [entry.get(1, []) for entry in pprof.Profile(folder + '/threadcreate').samples]
    if stacks.count([]) != 1 or len(stacks) != 2:
        raise Fail('the first thread is not there, without a stack: %s' % stacks)
    tags = heap_profile.pprof('-tags', folder + '/block')
    for name in ('mutex', 'rwlock', 'cond'):
        if not re.search(r':\s+%s\b|\s%s$' % (name, name), tags, re.M):
            raise Fail('%s is not among the tags:\n%s' % (name, tags))


def check_sampled():
    """A rate well above a wait: the estimate may be off, the shares are not zero by design."""
    folder, waited = known({'blockprofile_rate': 10_000_000, 'mutexprofile_fraction': 1})
    block = top(folder + '/block', 'delay', 's')
    # A wait of 30 ms is above the rate of 10 ms: always kept, and stands for itself.
    near('rate 10 ms, want_mutex', block.get('want_mutex', 0), waited['want_mutex'], 5)


def check_off():
    """Off is the default: empty profiles, but threads are counted."""
    for options in ({}, {'blockprofile_rate': 0, 'mutexprofile_fraction': 0}):
        folder, _ = known(options)
        for name in ('block', 'mutex'):
            profile = pprof.Profile(os.path.join(folder, name))
            if profile.samples:
                raise Fail('%s is not empty: %s' % (name, profile.samples))
            if not any('turns it on' in text for text in profile.texts):
                raise Fail('%s does not say why it is empty: %s' % (name, profile.texts))
        if top(folder + '/threadcreate', 'threadcreate').get('start_thread') != 1:
            raise Fail('threadcreate is empty with the other profiles off')
    folder, _ = known({'mutexprofile_fraction': 1})
    if top(folder + '/block', 'delay') or not top(folder + '/mutex', 'delay'):
        raise Fail('only the mutex profile was asked for')


def check_cost():
    """Off, a lock and its unlock cost one jump each."""
    valgrind = sysutil.need('valgrind', 'valgrind')

    def instructions(kind, count):
        done = sysutil.run(kind, [valgrind, '--tool=callgrind', '--callgrind-out-file=/dev/null',
                                  sysutil.prog('waits'), 'pairs', str(count)], timeout=60)
        return int(re.search(rb'Collected : (\d+)', done.stderr).group(1))

    ours, theirs = ((instructions(kind, 11000) - instructions(kind, 1000)) / 10000
                    for kind in (EBB, GLIBC))
    say('a lock and its unlock: %.2f instructions, on glibc %.2f' % (ours, theirs))
    if ours - theirs > 2.1:
        raise Fail('that is more than two on top of glibc')


def check_fork():
    folder = sysutil.tempdir()
    sysutil.run(EBB, [sysutil.prog('waits'), 'fork', folder], ALL, timeout=60)
    child = top(folder + '/child', 'delay', 's')
    if 'parent_waits' in child or child.get('child_waits', 0) < .02:
        raise Fail('the block profile of a child: %s' % child)
    made = pprof.Profile(folder + '/child_mutex')
    if len(made.samples) != 1 or pprof.numbers(made.samples[0][2])[1] > 60_000_000:
        raise Fail('the mutex profile of a child should have one sample of 30 ms: %s'
                   % [made.stack(sample) for sample in made.samples])
    if top(folder + '/parent', 'delay', 's').get('parent_waits', 0) < .02:
        raise Fail('the parent has lost its wait')


def check_cxx():
    path = os.path.join(sysutil.tempdir(), 'block')
    sysutil.run(EBB, [sysutil.prog('waitsxx'), path], ALL, timeout=60)
    text = heap_profile.pprof('-top', '-cum', '-nodecount=1000', '-sample_index=delay',
                              '-unit=ms', path)
    for name in ('cxx_want_lock', 'cxx_want_condition', 'cxx_want_too_long'):
        match = re.search(r'([\d.]+)ms\s+[\d.]+%%\s+\(?%s|([\d.]+)ms\s+[\d.]+%%\s+\S*%s'
                          % (name, name), text)
        value = float(match.group(1) or match.group(2)) if match else 0
        say('%-34s %8.1f ms' % (name, value))
        if not 80 < value < 300:
            raise Fail('%s waited %.1f ms, not 100:\n%s' % (name, value, text))


PYTHON = """
import hashlib, queue, threading
todo, done = queue.Queue(8), queue.Queue()
def work():
    for n in iter(todo.get, None):
        done.put(hashlib.sha256(b'%d' % n * 5000).digest())
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
for n in range(3000): todo.put(n)
for t in threads: todo.put(None)
for t in threads: t.join()
print(hashlib.sha256(b''.join(sorted(done.get() for _ in range(3000)))).hexdigest())
"""

NGINX = """
daemon off; worker_processes 2; pid {dir}/pid; {user}
error_log {dir}/error.log; events {{ worker_connections 256; }}
thread_pool default threads=4;
http {{ access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{ listen 127.0.0.1:{port}; location / {{ root {dir}; aio threads; }} }} }}
"""


def fetch_top(port, name):
    """The profile as pprof has it from a running program."""
    return heap_profile.pprof('-top', '-sample_index=contentions',
                              'http://127.0.0.1:%d/debug/pprof/%s' % (port, name))


def python():
    """The interpreter's lock is a mutex and a condition, always waited for."""
    words = ['python3', '-c', PYTHON]
    ours = sysutil.run(EBB, words, ALL, timeout=60).stdout
    if ours != sysutil.run(GLIBC, words, timeout=60).stdout or len(ours) != 65:
        raise Fail('python: %r' % ours)
    say('python: ok')


def redis():
    port = sysutil.free_port()
    server = redisutil.Server(EBB, dict(ALL, http='127.0.0.1:%d' % port),
                              args=('--io-threads', '2', '--io-threads-do-reads', 'yes'))
    bench = sysutil.need('redis-tools', 'redis-benchmark')
    for _ in range(2):
        out = sysutil.run(GLIBC, [bench, '-p', str(server.port), '-n', '20000', '-c', '40', '-t',
                                  'set,get,lpush,lrange_100', '-P', '4', '--csv'],
                          timeout=60).stdout.decode()
        if out.count('\n') < 5:
            raise Fail('redis-benchmark ended early: %s' % sysutil.tail(out))
    client = server.client()
    client.call('SET', 'key', 'value')
    if client.call('GET', 'key') != b'value':
        raise Fail('redis has lost a key')
    text = fetch_top(port, 'block')
    if 'bioProcessBackgroundJobs' not in text and 'IOThreadMain' not in text:
        raise Fail('redis waits nowhere:\n%s' % text)
    if 'Type: contentions' not in fetch_top(port, 'mutex'):
        raise Fail('no mutex profile of redis')
    say('redis: ok')
    client.close()
    server.stop()


def nginx():
    binary = sysutil.need('nginx-light', 'nginx')
    wrk = sysutil.need('wrk', 'wrk')
    folder, port = sysutil.tempdir(), sysutil.free_port()
    with open(os.path.join(folder, 'file'), 'wb') as file:
        file.write(b'0123456789abcdef' * 4096)
    with open(os.path.join(folder, 'conf'), 'w') as file:
        file.write(NGINX.format(dir=folder, port=port,
                                user='user root;' if os.geteuid() == 0 else ''))
    server = sysutil.spawn(EBB, [binary, '-p', folder, '-c', folder + '/conf',
                                 '-e', folder + '/error.log'], ALL)
    sysutil.wait_port(port, server)
    sysutil.require_mapped(server)
    out = sysutil.run(GLIBC, [wrk, '-t', '2', '-c', '32', '-d', '2s',
                              'http://127.0.0.1:%d/file' % port], timeout=60).stdout.decode()
    count = re.search(r'(\d+) requests in', out)
    if not count or int(count.group(1)) < 100 or 'Non-2xx' in out or 'Socket errors' in out:
        raise Fail('nginx under wrk: %s' % sysutil.tail(out, 5))
    with open(os.path.join(folder, 'error.log')) as log:
        if 'signal' in log.read():
            raise Fail('a worker of nginx has died')
    say('nginx: %s requests' % count.group(1))


def test(args):
    sysutil.need('golang-go', 'go')
    if args.name == 'programs':
        python()
        redis()
        nginx()
        return
    check_known()
    check_sampled()
    check_off()
    check_cost()
    for kind, options in ((GLIBC, {}), (EBB, {}), (EBB, ALL)):
        sysutil.run(kind, [sysutil.prog('waits'), 'types'], options, timeout=60)
    check_fork()
    check_cxx()
    folder = sysutil.tempdir()
    done = sysutil.run(EBB, [sysutil.prog('waits'), 'storm', folder, '30' if args.long else '3'],
                       ALL, timeout=90)
    say('storm: %s' % done.stdout.decode().strip())
    for name in ('contend', 'storm_waits'):
        if not top(folder + '/block', 'delay', 's').get(name):
            raise Fail('%s is not in the profile of the storm' % name)


if __name__ == '__main__':
    sysutil.main(test, __doc__)
