#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The agent's HTTP side: what it answers, to whom, and what cannot stop it.

  routes      every route and every error, as documented
  metrics     promtool has nothing to say; Go's names are there; a scrape costs little
  prometheus  a real one, under its own user, scrapes
  hostile     slow, silent, huge and vanishing clients (EBB_SEED replays)
  users       another user is refused and counted, over TCP too; http_allow lets him in
  life        fork, exec, setuid, a filter, exit; idle without a wake-up
  attach      opened in a running process, and closed
"""
import contextlib
import http.client
import json
import os
import pwd
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import sysutil
from agentutil import Target, Unix, WAITS, as_user, become, gops, read_all, require, switches
from sysutil import EBB, GLIBC, Fail, Skip

NOBODY = 65534
HTML = 'text/html; charset=utf-8'
TEXT = 'text/plain; charset=utf-8'


# ---- routes ---------------------------------------------------------------------------------

def expect(target, path, status, words=None, kind=TEXT, method='GET', body=None, headers=None):
    """One request; every answer has nosniff, every error X-Go-Pprof."""
    got, head, data = target.ask(path, method, body, headers)
    where = '%s %s' % (method, path)
    require(got == status, '%s: %d and not %d: %r' % (where, got, status, data[:200]))
    require(head['X-Content-Type-Options'] == 'nosniff', where + ': no nosniff')
    require((head['X-Go-Pprof'] == '1') == (status >= 400), where + ': X-Go-Pprof')
    require(head['Content-Encoding'] is None, where + ': Content-Encoding')
    require(head['Content-Type'] == kind, '%s: %s' % (where, head['Content-Type']))
    if words is not None:
        require(data == words.encode(), '%s says %r' % (where, data))
    return head, data


def pages(target):
    head, data = expect(target, '/debug/pprof', 301, kind=HTML)
    require(head['Location'] == '/debug/pprof/', 'moved to %s' % head['Location'])
    head, data = expect(target, '/debug/pprof/', 200, kind=HTML)
    text = data.decode()
    rows = re.findall(r'<td class="n">(\d+)</td><td><a href="([^"?]+)', text)
    names = [name for _, name in rows]
    require(names == sorted(names) and set(names) >= {'cmdline', 'profile', 'symbol', 'trace'},
            'the index lists %s' % names)
    require({'heap', 'allocs'} <= set(names), 'no heap profile: %s' % names)
    require('<title>/debug/pprof/</title>' in text, 'the index has another title')
    head, data = expect(target, '/', 200, kind=HTML)
    for path in re.findall(r'href="([^"]+)"', data.decode()):
        require(target.ask(path + ('?seconds=1' if path.endswith('profile') else ''))[0] != 404,
                '%s is listed and not there' % path)
    expect(target, '/healthz', 200, 'ok\n')
    head, data = expect(target, '/debug/pprof/cmdline', 200)
    with open('/proc/%d/cmdline' % target.pid, 'rb') as file:
        require(data == file.read()[:-1], 'cmdline says %r' % data)
    return names


def errors(target):
    expect(target, '/debug/pprof/nothing', 404, 'Unknown profile\n')
    expect(target, '/debug/pprof/heap/', 404, 'Unknown profile\n')
    expect(target, '/nothing', 404, '404 page not found\n')
    expect(target, '/metrics/', 404)
    expect(target, '/debug/pprof/trace', 500,
           'Could not enable tracing: this is a C program, which has no Go execution trace\n')
    expect(target, '/debug/pprof/profile?seconds=3601', 400, '"seconds" is at most 3600\n')
    for method in ('POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'):
        head, _ = expect(target, '/metrics', 405, 'Method Not Allowed\n', method=method)
        require(head['Allow'] == 'GET, HEAD', 'Allow: %s' % head['Allow'])
    head, _ = expect(target, '/debug/pprof/symbol', 405, method='PUT')
    require(head['Allow'] == 'GET, HEAD, POST', 'Allow: %s' % head['Allow'])


def symbols(target):
    addresses = '0x1+zz+12'
    for method, path, body in (('GET', '/debug/pprof/symbol?' + addresses, None),
                               ('POST', '/debug/pprof/symbol', addresses),
                               ('POST', '/debug/pprof/symbol', '+'.join(['0x1'] * 100000)),
                               ('GET', '/debug/pprof/symbol', None)):
        _, data = expect(target, path, 200, method=method, body=body)
        require(data == b'num_symbols: 1\n', 'symbol says %r' % data[:200])
    expect(target, '/debug/pprof/symbol', 413, method='POST', body='0x1+' * 300000)


def profiles(target, names):
    """Each profile there is, in each form."""
    for name in names:
        if name in ('cmdline', 'profile', 'symbol', 'trace'):
            continue
        status, head, data = target.ask('/debug/pprof/' + name, timeout=60)
        require(status == 200 and data[:2] == b'\x1f\x8b', '%s: %d %r' % (name, status, data[:80]))
        require(head['Content-Type'] == 'application/octet-stream' and
                head['Content-Disposition'] == 'attachment; filename="%s"' % name, str(head))
        status, head, data = target.ask('/debug/pprof/%s?debug=1' % name, timeout=60)
        require(status == 200 and head['Content-Type'] == TEXT and
                head['Content-Disposition'] is None, '%s?debug=1: %d %s' % (name, status, head))
        expect(target, '/debug/pprof/%s?seconds=0' % name, 400,
               'invalid value for "seconds" - must be a positive integer\n')
        status, head, data = target.ask('/debug/pprof/%s?seconds=1' % name, timeout=60)
        require((status == 200 and head['Content-Disposition']
                 == 'attachment; filename="%s-delta"' % name) or status == 400,
                '%s?seconds=1: %d %s' % (name, status, head))


def cpu(target):
    """One CPU profile at a time; it ends when nobody waits for it any more; others go on."""
    first = target.client(60)
    first.request('GET', '/debug/pprof/profile?seconds=30')
    time.sleep(0.3)
    status, head, data = target.ask('/debug/pprof/profile?seconds=1')
    require(status == 500 and head['X-Go-Pprof'] == '1' and data ==
            b'Could not enable CPU profiling: cpu profiling already in use\n',
            'a second CPU profile: %d %r' % (status, data))
    started = time.monotonic()
    target.get('/metrics')
    require(time.monotonic() - started < 0.5, 'a CPU profile keeps others waiting')
    first.close()

    def is_free():
        status, head, data = target.ask('/debug/pprof/profile?seconds=1')
        require(status != 200 or (data[:2] == b'\x1f\x8b' and head['Content-Disposition']
                                  == 'attachment; filename="profile"'), 'no profile: %s' % head)
        return status == 200
    sysutil.wait_for(is_free, 5, 'a CPU profile after its client has gone')


def go_tool(target):
    """go tool pprof, unchanged, by the address alone."""
    go = sysutil.need('golang-go', 'go')
    env = dict(os.environ, PPROF_TMPDIR=sysutil.tempdir(), HOME=target.home,
               GOCACHE=sysutil.tempdir())
    for path, words in (('heap', 'Type: inuse_space'), ('allocs', 'Type: alloc_space'),
                        ('heap?seconds=1', 'Showing nodes'), ('profile?seconds=1', 'Type: cpu')):
        done = subprocess.run([go, 'tool', 'pprof', '-top', 'http://%s/debug/pprof/%s'
                               % (target.where, path)], env=env, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=60)
        require(done.returncode == 0 and words in done.stdout + done.stderr,
                'go tool pprof %s: %s %s' % (path, done.stdout, done.stderr))
    done = subprocess.run([go, 'tool', 'pprof', '-top', 'http://%s/debug/pprof/nothing'
                           % target.where], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=60)
    require('404 Not Found - Unknown profile' in done.stderr, 'an error is not shown: %s' % done)


def wire(target):
    """HTTP itself: kept connections, several requests in one piece, HEAD, versions."""
    port = target.port
    host = b'Host: 127.0.0.1:%d\r\n' % port
    one = b'GET /healthz HTTP/1.1\r\n' + host + b'\r\n'
    last = b'GET /healthz HTTP/1.1\r\n' + host + b'Connection: close\r\n\r\n'
    answer = target.raw(one * 90 + last)
    require(answer.count(b'HTTP/1.1 200 OK') == 91 and answer.count(b'\r\n\r\nok\n') == 91,
            'of 91 requests in a row %d were answered' % answer.count(b'200 OK'))
    answer = target.raw(b'GET /nothing HTTP/1.1\r\n' + host + b'\r\n' + last)
    require(answer.count(b'HTTP/1.1 404') == 1 and answer.endswith(b'ok\n'), repr(answer))
    answer = target.raw(b'HEAD /metrics HTTP/1.1\r\n' + host + b'Connection: close\r\n\r\n')
    length = re.search(br'Content-Length: (\d+)', answer)
    require(int(length.group(1)) > 1000 and answer.endswith(b'\r\n\r\n'), 'HEAD: %r' % answer)
    answer = target.raw(b'GET http://127.0.0.1/healthz HTTP/1.0\r\n' + host + b'\r\n')
    require(answer.endswith(b'ok\n'), 'absolute address: %r' % answer)
    for bad in (b'hello\r\n\r\n', b'\x16\x03\x01\0\xa5', b'GET / HTTP/1.1\r\n\r\n',
                b'GET * HTTP/1.1\r\n' + host + b'\r\n'):
        require(b' 400 Bad Request\r\n' in target.raw(bad), 'not refused: %r' % bad)
    require(b' 414 ' in target.raw(b'GET /' + b'a' * 2000 + b' HTTP/1.1\r\n'), 'long address')
    require(b' 431 ' in target.raw(b'GET / HTTP/1.1\r\n' + b'X: y\r\n' * 5000), 'long headers')


def rebinding(target):
    port = target.port
    for host, status in (('localhost:%d' % port, 200), ('127.0.0.1', 200), ('[::1]:1', 200),
                         ('evil.example', 403), ('evil.example:%d' % port, 403),
                         ('localhost.evil.example', 403), ('', 403)):
        _, data = expect(target, '/healthz', status, headers={'Host': host})
        require(status == 200 or b'Host header' in data, 'not explained: %r' % data)


def json_routes(target):
    for path in ('/debug/ebb/stats.json', '/debug/ebb/ledger.json'):
        _, data = expect(target, path, 200, kind='application/json')
        ours = json.loads(data)
        command = 'memstats' if 'stats' in path else 'ledger'
        done = subprocess.run([sysutil.CMD, command, '--json', str(target.pid)],
                              stdout=subprocess.PIPE, timeout=20, check=True)
        theirs = json.loads(done.stdout)
        for part in ('memstats', 'classes', 'beside'):
            require(set(ours.get(part, ())) == set(theirs.get(part, ())),
                    '%s: %s has other fields than ebb %s: %s' % (
                        path, part, command, set(ours.get(part, ())) ^ set(theirs.get(part, ()))))
        require(ours['pid'] == target.pid and ours['policy'] == 'go1.16', 'head of %s' % path)
        stats = ours['memstats']
        require(stats['HeapSys'] == stats['HeapIdle'] + stats['HeapInuse'], 'HeapSys in ' + path)
    require(abs(ours['unexplained_bytes']) < 1 << 20, 'unexplained: %(unexplained_bytes)d' % ours)


def routes(args):
    target = Target()
    names = pages(target)
    errors(target)
    symbols(target)
    profiles(target, names)
    cpu(target)
    go_tool(target)
    wire(target)
    rebinding(target)
    json_routes(target)
    target.finish()
    for where in ('localhost:0', '[::1]:0'):
        target = Target(options={'http': where})
        require(target.get('/healthz') == b'ok\n', where)
        target.finish()
    folder = sysutil.tempdir(0o700)
    target = Target(options={'http': 'unix:%s/%%p.sock' % folder})
    path = target.where[5:]
    require(stat.S_IMODE(os.stat(path).st_mode) == 0o600, 'mode of the socket')
    require(target.ask('/healthz', headers={'Host': ''})[0] == 200, 'without Host on a unix socket')
    require(target.ask('/healthz', headers={'Host': 'evil.example'})[0] == 403, 'Host there')
    target.finish()
    require(not os.path.exists(path), 'the socket outlives its process')


# ---- metrics --------------------------------------------------------------------------------

GO_NAMES = """go_gc_duration_seconds go_goroutines go_info go_threads go_memstats_alloc_bytes
go_memstats_alloc_bytes_total go_memstats_buck_hash_sys_bytes go_memstats_frees_total
go_memstats_gc_sys_bytes go_memstats_heap_alloc_bytes go_memstats_heap_idle_bytes
go_memstats_heap_inuse_bytes go_memstats_heap_objects go_memstats_heap_released_bytes
go_memstats_heap_sys_bytes go_memstats_last_gc_time_seconds go_memstats_lookups_total
go_memstats_mallocs_total go_memstats_mcache_inuse_bytes go_memstats_mcache_sys_bytes
go_memstats_mspan_inuse_bytes go_memstats_mspan_sys_bytes go_memstats_next_gc_bytes
go_memstats_other_sys_bytes go_memstats_stack_inuse_bytes go_memstats_stack_sys_bytes
go_memstats_sys_bytes process_cpu_seconds_total process_max_fds process_open_fds
process_resident_memory_bytes process_start_time_seconds process_virtual_memory_bytes
process_virtual_memory_max_bytes""".split()


def promtool(text):
    tool = sysutil.need('prometheus', 'promtool')
    done = subprocess.run([tool, 'check', 'metrics'], input=text, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    require(done.returncode == 0 and not done.stdout, 'promtool: %s' % done.stdout.decode())


def near(ours, true, part, what):
    require(abs(ours - true) <= part * true + 1, '%s is %s and not %s' % (what, ours, true))


def metrics(args):
    target = Target()
    status, head, data = target.ask('/metrics')
    require(head['Content-Type'] == 'text/plain; version=0.0.4; charset=utf-8', str(head))
    text = data.decode()
    for name in GO_NAMES:
        require(re.search(r'(?m)^# TYPE %s ' % name, text), '%s is missing' % name)
    with open('/proc/%d/status' % target.pid) as file:
        status = file.read()
    near(target.metric('process_resident_memory_bytes'),
         1024 * int(re.search(r'VmRSS:\s+(\d+)', status).group(1)), 0.05, 'RSS')
    near(target.metric('process_start_time_seconds'), os.stat('/proc/%d' % target.pid).st_mtime,
         3e-9, 'the start')
    require(target.metric('process_open_fds') == len(os.listdir('/proc/%d/fd' % target.pid)),
            'descriptors')
    require(target.metric('go_threads') == len(os.listdir('/proc/%d/task' % target.pid)), 'threads')
    served = target.metric('ebb_agent_requests_total')
    require(target.metric('ebb_agent_requests_total') == served + 1, 'requests are not counted')
    scrape_cost(target)
    promtool(data)
    target.finish()
    large()


def cpu_ns(pid):
    """Processor time of each thread, by name."""
    times = {}
    for tid in os.listdir('/proc/%d/task' % pid):
        with open('/proc/%d/task/%s/comm' % (pid, tid)) as name, \
             open('/proc/%d/task/%s/schedstat' % (pid, tid)) as time_of:
            key = name.read().strip()
            times[key] = times.get(key, 0) + int(time_of.read().split()[0])
    return times


def scrape_round(target):
    """Processor time of a scrape in us, by thread: the mean of 100."""
    before = cpu_ns(target.pid)
    for turn in range(100):
        target.get('/metrics')
    after = cpu_ns(target.pid)
    return {name: (after[name] - before.get(name, 0)) / 1e5 for name in after}


def scrape_cost(target):
    """All threads together: below 1 ms, in the best of some rounds, since others only add to it."""
    for turn in range(20):
        target.get('/metrics')
    for turn in range(5):
        each = scrape_round(target)
        sysutil.say('a scrape costs, in us: %s'
                    % ', '.join('%s %.0f' % pair for pair in sorted(each.items())))
        if sum(each.values()) < 1000:
            return
        time.sleep(0.5)
    raise Fail('a scrape costs %.0f us' % sum(each.values()))


def large():
    """A large heap is not frozen for a scrape, and the numbers are right all the same."""
    code = ('import time\n'
            'x = [bytes(3000) for i in range(220000)]\n'
            'print("ready", flush=True)\n'
            'import sys, select\n'
            'worst = 0\n'
            'while not select.select([sys.stdin], [], [], 0)[0]:\n'
            '    t = time.perf_counter()\n'
            '    y = bytearray(200000)\n'
            '    del y\n'
            '    worst = max(worst, time.perf_counter() - t)\n'
            'print("%.6f" % worst, flush=True)\n'
            'time.sleep(30)\n')
    target = Target(code, extra={'PYTHONMALLOC': 'malloc'})
    require(target.line() == 'ready', 'not ready')
    for turn in range(30):
        target.get('/metrics')
    target.process.stdin.close()
    worst = float(target.line())
    alloc = target.metric('go_memstats_heap_alloc_bytes')
    sysutil.say('%d MiB; the longest of the program\'s own waits %.2f ms'
                % (alloc / 2**20, worst * 1e3))
    require(alloc > 512 << 20, 'only %d bytes' % alloc)
    done = subprocess.run([sysutil.CMD, 'memstats', '--json', str(target.pid)],
                          stdout=subprocess.PIPE, timeout=20, check=True)
    near(alloc, json.loads(done.stdout)['memstats']['HeapAlloc'], 0.001, 'HeapAlloc')
    target.stop()


# ---- prometheus -----------------------------------------------------------------------------

CONFIG = """
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: ebb
    static_configs: [{targets: ['%s']}]
"""


def query(port, text):
    """What Prometheus answers; None while it starts, which it says with 503 and a line of text."""
    client = http.client.HTTPConnection('127.0.0.1', port, timeout=5)
    client.request('GET', '/api/v1/query?query=' + text)
    answer = client.getresponse()
    body = answer.read()
    client.close()
    if answer.status == 503:
        return None
    require(answer.status == 200, 'Prometheus answers %d: %s' % (answer.status, body[:200]))
    result = json.loads(body)['data']['result']
    return float(result[0]['value'][1]) if result else None


def prometheus(args):
    """A real Prometheus under its own user: let in for /metrics by name, and for nothing else."""
    sysutil.need_root('Prometheus runs under its own user')
    server = sysutil.need('prometheus', 'prometheus')
    try:
        user = pwd.getpwnam('prometheus')
    except KeyError:
        raise Skip('there is no user prometheus')
    target = Target(options={'http': '127.0.0.1:0', 'http_allow': 'uid:prometheus@/metrics'})
    folder = sysutil.tempdir(0o755)
    os.chown(folder, user.pw_uid, user.pw_gid)
    with open(folder + '/config.yml', 'w') as file:
        file.write(CONFIG % target.where)
    port = sysutil.free_port()
    process = sysutil.spawn(
        GLIBC, [server, '--config.file=%s/config.yml' % folder, '--storage.tsdb.path=%s/data'
                % folder, '--web.listen-address=127.0.0.1:%d' % port],
        before=become(user.pw_uid), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    sysutil.wait_port(port, process)
    scrapes = 60 if args.long else 5
    sysutil.wait_for(lambda: (query(port, 'count_over_time(up[5m])') or 0) >= scrapes, 2 * scrapes
                     + 15, '%d scrapes' % scrapes, process)
    require(query(port, 'up') == 1, 'the target is down: %s' % query(port, 'up'))
    require(query(port, 'min_over_time(up[2m])') == 1, 'a scrape has failed')
    near(query(port, 'go_memstats_heap_sys_bytes'), target.metric('go_memstats_heap_sys_bytes'),
         0.01, 'HeapSys')
    require(query(port, 'ebb_agent_refused_total') == 0, 'scrapes were refused')
    require(' 403 ' in as_user(user.pw_uid, ASK_TCP, target.port, '/debug/pprof/heap'),
            'a scraper may have profiles')
    sysutil.kill(process)
    target.finish()


# ---- hostile --------------------------------------------------------------------------------

def answers_soon(target, what, seconds=1.0):
    started = time.monotonic()
    require(target.get('/healthz', timeout=10) == b'ok\n', what)
    took = time.monotonic() - started
    require(took < seconds, '%s: an answer took %.2f s' % (what, took))


def silent(target):
    clients = [socket.create_connection(('127.0.0.1', target.port), timeout=10)
               for turn in range(1000)]
    answers_soon(target, '1,000 silent connections')
    for client in clients:
        client.close()
    answers_soon(target, 'after 1,000 silent connections')


def slow_loris(target):
    """Clients that send a byte now and then are cut off, and stop nobody meanwhile."""
    clients = [socket.create_connection(('127.0.0.1', target.port), timeout=30)
               for turn in range(60)]
    for client in clients:
        client.sendall(b'GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n')
    end = time.monotonic() + 25
    cut = 0
    while clients and time.monotonic() < end:
        for client in list(clients):
            try:
                client.sendall(b'X: y\r\n')
                client.settimeout(0.001)
                if client.recv(100) == b'':
                    raise ConnectionResetError
            except (ConnectionResetError, BrokenPipeError):
                clients.remove(client)
                client.close()
                cut += 1
            except socket.timeout:
                pass
        answers_soon(target, 'slow clients')
        time.sleep(0.5)
    require(cut == 60, 'after 25 s %d of 60 slow clients are still there' % len(clients))


def huge(target):
    """A body of 1 GiB is refused before it comes, and also when it comes all the same."""
    head = b'POST /debug/pprof/symbol HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n'
    with socket.create_connection(('127.0.0.1', target.port), timeout=10) as client:
        client.sendall(head % (1 << 30))
        require(b' 413 ' in client.recv(1000), 'a GiB is not refused')
    before = rss(target.pid)
    with socket.create_connection(('127.0.0.1', target.port), timeout=10) as client:
        client.sendall(head % (1 << 30))
        sent = 0
        with contextlib.suppress(ConnectionError, socket.timeout):
            while sent < 1 << 30:
                sent += client.send(bytes(1 << 20))
    sysutil.say('%d MiB of a body of 1 GiB were taken and dropped' % (sent >> 20))
    require(rss(target.pid) < before + (8 << 20), 'memory has grown')
    chunked = (b'POST /debug/pprof/symbol HTTP/1.1\r\nHost: 127.0.0.1\r\n'
               b'Transfer-Encoding: chunked\r\n\r\n')
    with socket.create_connection(('127.0.0.1', target.port), timeout=10) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(chunked + (b'10000\r\n' + bytes(65536) + b'\r\n') * 40)
        with contextlib.suppress(ConnectionError):
            require(b' 413 ' in client.recv(1000), 'a body without a length is not bounded')
    answers_soon(target, 'huge bodies')


def rss(pid):
    with open('/proc/%d/status' % pid) as file:
        return 1024 * int(re.search(r'VmRSS:\s+(\d+)', file.read()).group(1))


def vanishing(target):
    """Clients that close in the middle of an answer, or never take it."""
    asked = b'GET /debug/ebb/stats.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'
    for turn in range(200):
        with socket.create_connection(('127.0.0.1', target.port), timeout=10) as client:
            client.sendall(asked * 5)
            client.recv(turn % 50 + 1)
            if turn % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    stuck = []
    for turn in range(100):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(('127.0.0.1', target.port))
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.sendall(asked * 20)
        stuck.append(client)
    answers_soon(target, 'clients that take no answer')
    for client in stuck:
        client.close()
    target.alive()


def waiting(target):
    """Requests over some seconds do not keep others waiting, and have a bound."""
    clients = []
    for turn in range(20):
        client = target.client(30)
        client.request('GET', '/debug/pprof/heap?seconds=3')
        clients.append(client)
    time.sleep(0.5)
    answers_soon(target, 'clients that wait')
    require(target.get('/metrics'), 'metrics meanwhile')
    got = [client.getresponse().status for client in clients]
    require(set(got) <= {200, 503} and got.count(200) >= 16, 'of 20 deltas: %s' % got)


def garbage(target, seconds):
    seed = int(os.environ.get('EBB_SEED') or random.randrange(1 << 32))
    sysutil.say('EBB_SEED=%d' % seed)
    rand = random.Random(seed)
    pieces = [b'GET ', b'POST ', b'/metrics', b'/debug/pprof/', b'/debug/pprof/symbol',
              b' HTTP/1.1\r\n', b'Host: a\r\n', b'Host: 127.0.0.1\r\n', b'\r\n', b'\r\n\r\n', b'\n',
              b'Content-Length: 10\r\n', b'Transfer-Encoding: chunked\r\n', b'0\r\n\r\n',
              b'5\r\nabcde',
              b'?debug=1&seconds=0&gc=1', b'%00%ff', bytes(range(256)), b'\0' * 3000, b'A' * 3000]
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        with socket.create_connection(('127.0.0.1', target.port), timeout=10) as client:
            with contextlib.suppress(ConnectionError, socket.timeout):
                for turn in range(rand.randrange(1, 8)):
                    client.sendall(b''.join(rand.choice(pieces)
                                            for n in range(rand.randrange(1, 10))))
                if rand.random() < 0.5:
                    client.shutdown(socket.SHUT_WR)
                    client.settimeout(0.2)
                    client.recv(100)
        count += 1
    sysutil.say('%d connections of garbage' % count)
    answers_soon(target, 'after garbage')


def few_descriptors():
    """A program with hardly any descriptors: the agent makes do with what there is."""
    import resource
    target = Target(before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24)))
    clients = [socket.create_connection(('127.0.0.1', target.port), timeout=10)
               for turn in range(100)]
    answers_soon(target, '100 silent connections and 24 descriptors')
    spent = cpu_ns(target.pid)
    time.sleep(0.5)
    require(sum(cpu_ns(target.pid).values()) - sum(spent.values()) < 1e8, 'it spins')
    for client in clients:
        client.close()
    target.finish()


def hostile(args):
    target = Target()
    silent(target)
    huge(target)
    vanishing(target)
    waiting(target)
    garbage(target, 60 if args.long else 5)
    slow_loris(target)
    target.finish()
    few_descriptors()


# ---- users ----------------------------------------------------------------------------------

ASK_LATE = """
import select, socket, sys
client = socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=5)
print('spoke' if select.select([client], [], [], .3)[0] else 'silent')
client.sendall(b'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n')
print(client.recv(100).decode()[:12])
"""
ASK_TCP = """
import sys, socket
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=10)
s.sendall(b'GET %s HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nConnection: close\\r\\n\\r\\n'
          % sys.argv[2].encode())
data = b''
while True:
    part = s.recv(65536)
    if not part: break
    data += part
print(data.decode())
"""

# Closes at once, so that the kernel's table has no user for it any more.
ASK_AND_CLOSE = """
import sys, socket
for turn in range(300):
    s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=10)
    s.sendall(b'GET /healthz HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n')
    s.close()
print('done')
"""

ASK_GOPS = """
import sys, socket
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=10)
s.sendall(b'\\x04')
try:
    print(repr(s.recv(100)))
except ConnectionResetError:
    print('reset')
"""

ASK_UNIX = """
import sys, socket
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n')
print(s.recv(4000).decode())
"""


def refused_tcp():
    target = Target(options={'http': '127.0.0.1:0', 'gops': 1})
    for turn in range(3):
        said = as_user(NOBODY, ASK_TCP, target.port, '/healthz')
        require(' 403 Forbidden' in said and 'EBB=http_allow=' in said, 'not refused: %s' % said)
    said = as_user(NOBODY, ASK_LATE, target.port)
    require(said.split() == ['silent', 'HTTP/1.1', '403'],
            'an answer before the question: %s' % said)
    said = as_user(NOBODY, ASK_GOPS, target.gops_port())
    require('ebb' not in said and 'failed' not in said, 'gops answers another user: %s' % said)
    require(target.metric('ebb_agent_refused_total') == 5, 'refusals are not counted')
    before = target.metric('ebb_agent_requests_total')
    # They have gone before the agent looks: the kernel then says user 0.
    os.kill(target.pid, signal.SIGSTOP)
    require('done' in as_user(NOBODY, ASK_AND_CLOSE, target.port), 'clients that close at once')
    time.sleep(0.4)  # until the end of each has been acknowledged
    os.kill(target.pid, signal.SIGCONT)
    sysutil.wait_for(lambda: target.metric('ebb_agent_refused_total') >= 305, 5,
                     'of 300 clients that close at once all refused')
    require(b'ok' in target.get('/healthz') and before > 0, 'the own user')
    target.finish()


def allowed_tcp():
    target = Target(options={'http': '127.0.0.1:0', 'gops': 1,
                             'http_allow': 'uid:nobody@/metrics+uid:12345'})
    require('go_memstats' in as_user(NOBODY, ASK_TCP, target.port, '/metrics'), 'not let in')
    for path in ('/healthz', '/debug/pprof/', '/'):
        said = as_user(NOBODY, ASK_TCP, target.port, path)
        require(' 403 ' in said, '%s for one who may have /metrics: %s' % (path, said[:200]))
    require('ebb' not in as_user(NOBODY, ASK_GOPS, target.gops_port()), 'gops all the same')
    require('ok' in as_user(12345, ASK_TCP, target.port, '/healthz'), 'a number is not let in')
    require('ebb' in as_user(12345, ASK_GOPS, target.gops_port()), 'gops by number')
    target.finish()
    target = Target(options={'http': '127.0.0.1:0', 'http_allow': 'any@/healthz'})
    require('200 OK' in as_user(NOBODY, ASK_TCP, target.port, '/healthz'), 'any is not let in')
    require(' 403 ' in as_user(NOBODY, ASK_TCP, target.port, '/metrics'), 'any has a route')
    require(target.ask('/healthz', headers={'Host': 'name.example'})[0] == 200, 'any by name')
    require(target.ask('/metrics', headers={'Host': 'name.example'})[0] == 403, 'not by name')
    target.finish()


def mapped():
    """IPv4 by way of an IPv6 socket: the user is found all the same."""
    code = ("import sys, socket\n"
            "s = socket.socket(socket.AF_INET6)\n"
            "s.connect(('::ffff:127.0.0.1', int(sys.argv[1])))\n"
            "s.sendall(b'GET /healthz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n')\n"
            "print(s.recv(4000).decode())\n")
    target = Target(options={'http': '127.0.0.1:0', 'http_allow': 'uid:12345'})
    try:
        require('200 OK' in as_user(12345, code, target.port), 'mapped: not let in')
        require(' 403 ' in as_user(NOBODY, code, target.port), 'mapped: not refused')
    finally:
        target.stop()


def over_unix():
    folder = sysutil.tempdir(0o755)
    target = Target(options={'http': 'unix:%s/a' % folder})
    said = as_user(NOBODY, ASK_UNIX, folder + '/a')
    require('PermissionError' in said, 'the mode lets another user in: %s' % said)
    os.chmod(folder + '/a', 0o666)
    require(' 403 ' in as_user(NOBODY, ASK_UNIX, folder + '/a'), 'the second line of defence')
    target.finish()
    target = Target(options={'http': 'unix:%s/b' % folder, 'http_allow': 'uid:12345'})
    require('200 OK' in as_user(12345, ASK_UNIX, folder + '/b'), 'not let in')
    require(' 403 ' in as_user(NOBODY, ASK_UNIX, folder + '/b'), 'not refused')
    target.finish()


def others():
    """A program of another user: root may ask, a third one may not."""
    sysutil.publish()
    home = sysutil.tempdir(0o777)
    target = Target(options={'http': 'unix:%s/s' % home, 'http_allow': 'uid:4242'},
                    argv=['/bin/cat'], before=become(NOBODY))
    require(target.get('/healthz') == b'ok\n', 'root may not ask')
    require('200 OK' in as_user(NOBODY, ASK_UNIX, home + '/s'), 'the own user may not ask')
    require(' 403 ' in as_user(1, ASK_UNIX, home + '/s'), 'a third one may ask')
    target.finish()
    refused = Target(options={'http': '0.0.0.0:8090'})
    line = refused.said(r'(ebb: option http: cannot listen at 0.0.0.0:8090\n.*\n)')
    require('http_allow=any' in line, 'not explained: %s' % line)
    refused.finish()
    opened = Target(options={'http': '0.0.0.0:0', 'http_allow': 'any'})
    opened.where = '127.0.0.1:%d' % opened.port
    require(opened.get('/healthz') == b'ok\n', 'not open to all')
    opened.finish()


def users(args):
    sysutil.need_root('a second user is needed')
    refused_tcp()
    allowed_tcp()
    mapped()
    over_unix()
    others()


# ---- life -----------------------------------------------------------------------------------

def idle():
    target = Target(options={'http': '127.0.0.1:0', 'gops': 1}, argv=['/bin/cat'])
    target.get('/metrics')
    gops(target.gops_port(), b'\x04')
    time.sleep(2.5)  # what is kept of the connections has gone
    seen = switches(target.pid)
    time.sleep(3)
    require(switches(target.pid) == seen, 'wake-ups at rest: %d' % (switches(target.pid) - seen))
    target.finish()


def forks():
    code = ('import os, sys\n'
            'pid = os.fork()\n'
            'if pid == 0:\n'
            '    x = [bytes(1000) for i in range(10000)]\n'
            '    print(sorted(open("/proc/self/task/%s/comm" % t).read().strip()\n'
            '          for t in os.listdir("/proc/self/task")), flush=True)\n'
            '    os.execv("/bin/cat", ["cat", "/proc/self/environ"])\n'
            'os.waitpid(pid, 0)\n'
            'print(flush=True)\n'
            'print("parent", flush=True)\n'
            'sys.stdin.read()\n')
    target = Target(code, {'http': '127.0.0.1:0', 'policy': 'never'})
    names = target.line()
    require('ebb' not in names, 'a child has threads of the agent: %s' % names)
    environment = target.line()
    require('policy=never' in environment and 'http=' not in environment.replace('http_', ''),
            'a child inherits the door: %s' % environment)
    require(target.line() == 'parent', 'the parent')
    require(target.get('/healthz') == b'ok\n', 'the parent has no agent')
    target.finish()
    code = ('import os, sys\n'
            'pid = os.fork()\n'
            'os.write(1, b"%d\\n" % os.getpid())\n'
            'sys.stdin.read()\n'
            'if pid: os.waitpid(pid, 0)\n')
    folder = sysutil.tempdir(0o700)
    target = Target(code, {'http': 'unix:%s/%%p' % folder, 'gops': 1, 'children': 1})
    pids = {int(target.line()), int(target.line())}
    for pid in pids:
        sysutil.wait_for(lambda: listens('%s/%d' % (folder, pid)), 5, 'an agent each')
        client = Unix('%s/%d' % (folder, pid))
        client.request('GET', '/debug/ebb/stats.json')
        require(json.loads(client.getresponse().read())['pid'] == pid, 'another process answers')
        client.close()
    target.finish()


def listens(path):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def storm(seconds):
    """Forks and threads while it is asked: neither a crash nor a deadlock, parent or child."""
    code = ('import os, sys, threading, time\n'
            'def churn():\n'
            '    while True:\n'
            '        x = [bytearray(n * 100) for n in range(200)]\n'
            'for i in range(2): threading.Thread(target=churn, daemon=True).start()\n'
            'end = time.monotonic() + %d\n'
            'count = 0\n'
            'while time.monotonic() < end:\n'
            '    pid = os.fork()\n'
            '    if pid == 0:\n'
            '        x = [bytes(5000) for i in range(200)]\n'
            '        os._exit(0)\n'
            '    if os.waitpid(pid, 0)[1] != 0: sys.exit(3)\n'
            '    count += 1\n'
            'print(count, flush=True)\n'
            'sys.stdin.read()\n'
            'os._exit(0)\n' % seconds)
    target = Target(code, extra={'PYTHONMALLOC': 'malloc'})
    over = threading.Event()
    trouble = []

    def ask():
        while not over.is_set():
            try:
                for path in ('/metrics', '/debug/pprof/', '/debug/ebb/stats.json',
                             '/debug/pprof/heap?gc=1'):
                    target.ask(path, timeout=20)
            except Exception as error:
                trouble.append(repr(error))
                return
    asking = [threading.Thread(target=ask) for turn in range(3)]
    for thread in asking:
        thread.start()
    count = target.line()
    over.set()
    for thread in asking:
        thread.join()
    require(not trouble, 'asking while it forks: %s' % trouble[:1])
    require(int(count or 0) > 20, 'only %s forks' % count)
    target.finish()


def changes():
    """Another user, another root, a filter: the agent goes along or away."""
    code = ('import os, sys, ctypes\n'
            'libc = ctypes.CDLL(None)\n'
            'for line in sys.stdin:\n'
            '    word = line.split()\n'
            '    if word[0] == "setuid": libc.setuid(int(word[1]))\n'
            '    if word[0] == "filter": libc.prctl(38, 1, 0, 0, 0)\n'
            '    print("done", flush=True)\n')

    def tell(words):
        target.process.stdin.write(words.encode() + b'\n')
        target.process.stdin.flush()
        require(target.line() == 'done', words)
    sysutil.publish()
    target = Target(code, {'http': '127.0.0.1:0'})
    tell('setuid %d' % NOBODY)
    sysutil.wait_for(lambda: 'ebb-http' in target.threads(), 5, 'the agent after setuid')
    for path in os.listdir('/proc/%d/task' % target.pid):
        with open('/proc/%d/task/%s/status' % (target.pid, path)) as file:
            uids = re.search(r'Uid:\s+(.*)', file.read()).group(1).split()
        require(uids == [str(NOBODY)] * 4, 'a thread kept uids %s' % uids)
    require('200 OK' in as_user(NOBODY, ASK_TCP, target.port, '/healthz'), 'same port, new user')
    tell('filter')
    sysutil.wait_for(lambda: 'ebb-http' not in target.threads(), 5, 'the agent gone')
    with socket.socket() as probe:
        require(probe.connect_ex(('127.0.0.1', target.port)) != 0, 'the port is still open')
    target.finish()


def api():
    code = ('import ctypes, sys\n'
            'lib = ctypes.CDLL(None)\n'
            'buf = ctypes.create_string_buffer(128)\n'
            'def where(kind): return lib.ebb_agent_address(kind, buf, 128) or buf.value.decode()\n'
            'print(lib.ebb_agent_start(b"nonsense"), lib.ebb_agent_start(None), where(0),\n'
            '      lib.ebb_agent_start(b"10.0.0.1:80"), flush=True)\n'
            'print(lib.ebb_agent_start(b"127.0.0.1:0"), where(0), flush=True)\n'
            'print(lib.ebb_agent_start(b"127.0.0.1:0"), lib.ebb_agent_start(buf.value),\n'
            '      lib.ebb_agent_start(b"gops"), lib.ebb_agent_start(b"gops"), flush=True)\n'
            'print(where(1), lib.ebb_agent_address(1, buf, 3), flush=True)\n'
            'sys.stdin.readline()\n'
            'lib.ebb_agent_stop()\n'
            'print(where(0), where(1), lib.ebb_agent_start(b"127.0.0.1:0"), flush=True)\n'
            'sys.stdin.readline()\n')
    target = Target(code, {'policy': 'go1.16'})
    require(target.line() == '-22 -22 -2 -1', 'mistakes')
    word, target.where = target.line().split()
    require(word == '0' and target.get('/healthz') == b'ok\n', 'not open')
    require(target.line() == '-16 0 0 0', 'a second time')
    where, short = target.line().split()
    require(short == '-34' and gops(int(where.rsplit(':')[1]), b'\x04').startswith(b'ebb'), 'gops')
    file = target.port_file()
    require(os.path.exists(file), 'no port file')
    target.process.stdin.write(b'\n')
    target.process.stdin.flush()
    require(target.line() == '-2 -2 0', 'stopped, and again')
    require(not os.path.exists(file), 'the port file stays after the stop')
    target.finish()


def refusals():
    """syscalls=core, a taken port, a mistake: one line each, and the program goes on."""
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        for options, words in (
                ({'http': '127.0.0.1:%d' % port}, 'the address is in use'),
                ({'http': '127.0.0.1:0', 'syscalls': 'core'}, 'need syscalls=full'),
                ({'http': 'unix:/no/such/folder/s'}, 'there is no such folder'),
                ({'http': '8090'}, 'option http cannot be "8090"'),
                ({'http': '127.0.0.1:0', 'http_allow': 'uid:no-such-user'}, '/etc/passwd'),
                ({'http_allow': 'me'}, 'option http_allow cannot be "me"')):
            done = sysutil.run(EBB, ['/bin/cat'], options)
            require(words in done.stderr.decode(), '%s: %r' % (options, done.stderr))


def life(args):
    idle()
    forks()
    storm(30 if args.long else 4)
    if os.geteuid() == 0:
        changes()
    api()
    refusals()
    exits()


def exits():
    """Ends under way: the socket goes, the status stays, nobody hangs."""
    folder = sysutil.tempdir(0o700)
    code = ('import sys\nprint("up", flush=True)\nsys.stdin.readline()\nsys.exit(7)\n')
    for turn in range(5):
        target = Target(code, {'http': 'unix:%s/s' % folder, 'gops': 1})
        target.line()
        client = target.client()
        client.request('GET', '/debug/pprof/profile?seconds=20')
        time.sleep(0.05 * turn)
        started = time.monotonic()
        target.process.stdin.write(b'\n')
        target.process.stdin.flush()
        require(target.process.wait(10) == 7, 'another status')
        require(time.monotonic() - started < 3, 'the end takes long')
        require(not os.path.exists(folder + '/s'), 'the socket stays')
        require(not os.path.exists(target.port_file()), 'the port file stays')
        client.close()
        target.stop()
    killed = Target(WAITS, {'http': 'unix:%s/s' % folder})
    killed.stop()
    require(os.path.exists(folder + '/s'), 'a killed process should leave its socket')
    again = Target(WAITS, {'http': 'unix:%s/s' % folder})
    require(again.get('/healthz') == b'ok\n', 'a stale socket is in the way')
    again.finish()


# ---- attach ---------------------------------------------------------------------------------

def attach_cmd(*words, status=0):
    done = subprocess.run([sysutil.CMD, 'attach'] + [str(word) for word in words],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)
    require(done.returncode == status, 'ebb attach %s: %d %s'
            % (words, done.returncode, done.stderr))
    return done.stderr if status else done.stdout


def attach(args):
    target = Target(WAITS, {'policy': 'go1.16'})
    # Until Python has come up, its signals may be on their way.
    time.sleep(0.3)
    told = json.loads(attach_cmd(target.pid, '--json'))
    target.where = told['http']
    require(target.where == 'unix:%s/ebb/%d-http.sock' % (target.home, target.pid), str(told))
    require(stat.S_IMODE(os.stat(target.where[5:]).st_mode) == 0o600, 'mode')
    require(target.get('/healthz') == b'ok\n', 'no answer')
    require(json.loads(attach_cmd(target.pid, '--json')) == told, 'a second time')
    require('another address' in attach_cmd(target.pid, '--http', '127.0.0.1:0', status=125), 'two')
    text = attach_cmd(target.pid, '--gops')
    require('gops memstats' in text and 'curl --unix-socket' in text, text)
    require(gops(target.gops_port(), b'\x04').startswith(b'ebb'), 'gops')
    require('no agent' in attach_cmd(target.pid, '--close'), 'close')
    require(not [name for name in target.threads() if name in ('ebb-agent', 'ebb-http')],
            'threads stay: %s' % target.threads())
    require(not os.path.exists(target.where[5:]) and not os.path.exists(target.port_file()),
            'files stay')
    told = json.loads(attach_cmd(target.pid, '--json', '--http', '127.0.0.1:0'))
    require('gops' not in told, 'what was closed is open again: %s' % told)
    target.where = told['http']
    require(target.get('/healthz') == b'ok\n', 'over TCP')
    require('no address' in attach_cmd(target.pid, '--http', 'x', status=125), 'a mistake')
    target.finish()
    core = Target(WAITS, {'syscalls': 'core'})
    time.sleep(0.3)
    line = attach_cmd(core.pid, status=125)
    require('syscalls=core' in line, line)
    core.finish()


PARTS = {'routes': routes, 'metrics': metrics, 'prometheus': prometheus, 'hostile': hostile,
         'users': users, 'life': life, 'attach': attach}


def main(args):
    if args.name not in PARTS:
        raise Fail('which part? One of %s' % ', '.join(PARTS))
    PARTS[args.name](args)


if __name__ == '__main__':
    sysutil.main(main, __doc__)
