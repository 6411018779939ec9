#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""gops against the agent: the protocol byte for byte, the port file, and clients that say nothing.

  protocol  every command, by a client written from the protocol's description
  files     where the port file is, and when it goes
  silent    1,000 clients that say nothing, and one that does
  listed    a program with Go's note is listed; its profiles, by the tools that gops starts
"""
import concurrent.futures
import os
import re
import resource
import socket
import stat
import struct
import subprocess
import sys
import time

import sysutil
from agentutil import Target, WAITS, gops, require
from sysutil import Fail

SIZE = r'(?:\d+ bytes|\d+\.\d\d[KMGTP]B \(\d+ bytes\))'
COUNT = r'\d+'
LINES = [('alloc', SIZE), ('total-alloc', SIZE), ('sys', SIZE), ('lookups', '0'),
         ('mallocs', COUNT), ('frees', COUNT), ('heap-alloc', SIZE), ('heap-sys', SIZE),
         ('heap-idle', SIZE), ('heap-in-use', SIZE), ('heap-released', SIZE),
         ('heap-objects', COUNT), ('stack-in-use', SIZE), ('stack-sys', SIZE),
         ('mspan-in-use', SIZE), ('mspan-sys', SIZE), ('mcache-in-use', SIZE),
         ('mcache-sys', SIZE), ('buck-hash-sys', SIZE), ('other-sys', SIZE), ('gc-sys', SIZE),
         ('next-gc', 'when heap-alloc >= ' + SIZE), ('last-gc', '-|.*'),
         ('gc-pause-total', r'[\d.]+(?:ns|µs|ms|s)'), ('gc-pause', COUNT),
         ('gc-pause-end', COUNT), ('num-gc', COUNT), ('num-forced-gc', COUNT),
         ('gc-cpu-fraction', r'[\d.e-]+'), ('enable-gc', 'true'), ('debug-gc', 'false')]


def exact(text, name):
    value = re.search(r'(?m)^%s: (.*)$' % name, text).group(1)
    return int(re.search(r'(\d+)(?: bytes\)?)?$', value).group(1))


def memstats(port):
    text = gops(port, b'\x03').decode()
    lines = text.split('\n')
    require(lines.pop() == '' and len(lines) == len(LINES), '%d lines: %s' % (len(lines), text))
    for line, (name, form) in zip(lines, LINES):
        require(re.fullmatch('%s: (?:%s)' % (re.escape(name), form), line),
                'line %r is not %s: %s' % (line, name, form))
    require(exact(text, 'heap-sys') == exact(text, 'heap-idle') + exact(text, 'heap-in-use'),
            'heap-sys is not idle and in use')
    parts = ['heap', 'stack', 'mspan', 'mcache', 'buck-hash', 'gc', 'other']
    require(exact(text, 'sys') == sum(exact(text, part + '-sys') for part in parts), 'sys')
    require(exact(text, 'heap-objects') == exact(text, 'mallocs') - exact(text, 'frees'), 'objects')


def setgc(port, value):
    folded = value * 2 if value >= 0 else -2 * value - 1
    data = b''
    while folded >= 0x80:
        data += bytes([folded & 0x7f | 0x80])
        folded >>= 7
    data += bytes([folded])
    return gops(port, b'\x10' + data.ljust(10, b'\0')).decode()


def stats(port, target):
    lines = gops(port, b'\x07').decode()
    match = re.fullmatch(r'goroutines: \d+\nOS threads: (\d+)\nGOMAXPROCS: (\d+)\nnum CPU: (\d+)\n',
                         lines)
    require(match, 'stats: %r' % lines)
    require(int(match.group(3)) == len(os.sched_getaffinity(target.pid)), 'CPUs: %s' % lines)


def binary(port):
    with open(os.path.realpath(sys.executable), 'rb') as file:
        require(gops(port, b'\x09') == file.read(), 'the binary is another one')


def protocol(args):
    code = ('x = [bytes(100000) for i in range(500)]\ndel x\nprint("ready", flush=True)\n' + WAITS)
    target = Target(code, {'gops': 1, 'policy': 'never'}, {'PYTHONMALLOC': 'malloc'})
    target.line()
    port = target.gops_port()
    memstats(port)
    require(re.search(r'thread %d \[sleeping\]:\npython3?' % target.pid,
                      gops(port, b'\x01').decode()), 'stack')
    before = exact(gops(port, b'\x03').decode(), 'heap-released')
    require(gops(port, b'\x02') == b'ok', 'gc')
    after = exact(gops(port, b'\x03').decode(), 'heap-released')
    require(after > before + (40 << 20), 'gc gave nothing back: %d -> %d' % (before, after))
    require(re.fullmatch(r'ebb\d+\.\d+\.\d+\n', gops(port, b'\x04').decode()), 'version')
    stats(port, target)
    require(gops(port, b'\x08') == b'', 'trace')
    binary(port)
    require(gops(port, b'\x05')[:2] == b'\x1f\x8b', 'pprof-heap')
    for value in (200, 0, -1, 1, 2**31, -2**63, 2**63 - 1):
        require(setgc(port, value) == 'New GC percent set to %d. Previous value was -1.\n' % value,
                'setgc %d: %r' % (value, setgc(port, value)))
    require(gops(port, b'\x10' + b'\xff' * 10) == b'', 'a number that is none')
    for byte in (0, 0x0a, 0x0f, 0x11, 0xff):
        require(gops(port, bytes([byte])) == b'', 'command %d' % byte)
        require(gops(port, bytes([byte]) * 100000) == b'', 'command %d, and more' % byte)
    require(len(gops(port, b'\x03' + b'x' * 5000)) > 500, 'bytes behind a command take the answer')
    slow = socket.create_connection(('127.0.0.1', port), timeout=10)
    for byte in b'\x10\x90\x03\0\0\0\0\0\0\0\0':
        slow.sendall(bytes([byte]))
        time.sleep(0.02)
    require(slow.recv(100).startswith(b'New GC percent set to 200.'), 'setgc, byte by byte')
    target.finish()


def files(args):
    """1.1 of the protocol: which folder, what is in it, how it is made, when it goes."""
    base = sysutil.tempdir(0o755)
    for variables, folder in (
            ({'GOPS_CONFIG_DIR': base + '/own/deep'}, base + '/own/deep'),
            ({'XDG_CONFIG_HOME': base + '/xdg'}, base + '/xdg/gops'),
            ({'HOME': base + '/home'}, base + '/home/.config/gops')):
        target = Target(options={'gops': 1}, extra=variables,
                        before=lambda: os.umask(0o022) and None)
        port = target.gops_port(folder)
        path = target.port_file(folder)
        with open(path) as file:
            require(file.read() == str(port), 'not the port alone')
        mode = stat.S_IMODE(os.stat(path).st_mode)
        require(mode == 0o755, 'the port file has mode %o' % mode)
        require(gops(port, b'\x04').startswith(b'ebb'), 'no answer')
        target.finish()
        require(not os.path.exists(path), 'the port file outlives its process')
    target = Target(options={'gops': 1}, extra={'GOPS_CONFIG_DIR': '/proc/1/nowhere'})
    sysutil.wait_for(lambda: 'ebb-http' in target.threads(), 5, 'the agent, without a file')
    target.finish()
    home_of_user(base)


def home_of_user(base):
    """Without HOME it is the folder that /etc/passwd says."""
    if os.geteuid() != 0:
        return
    sysutil.publish()
    target = Target(options={'gops': 1, 'http': 'unix:%s/s' % sysutil.tempdir(0o777)},
                    extra={'HOME': ''}, argv=['/bin/cat'], before=lambda: os.setuid(65534))
    # nobody's home is not there and cannot be made: no file, and no harm.
    require(target.get('/healthz') == b'ok\n', 'no answer')
    target.finish()


def silent(args):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limit[1]), limit[1]))
    target = Target(options={'gops': 1})
    port = target.gops_port()
    clients = []
    for turn in range(1000):
        clients.append(socket.create_connection(('127.0.0.1', port), timeout=10))
    started = time.monotonic()
    memstats(port)
    require(time.monotonic() - started < 1, 'the 1,001st had to wait')
    for turn in range(50):
        memstats(port)
    # Reset rather than closed: the agent must not mind.
    for client in clients[::2]:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    for client in clients:
        client.close()
    memstats(port)
    target.finish()


def pprof_top(folder, kind, command, target, port):
    """What `gops pprof-heap` and `gops pprof-cpu` do: save the profile and the binary, and have
    go tool pprof read both. The function names and their shares of the whole, in percent."""
    saved = {'profile': gops(port, command, 60), 'binary': gops(port, b'\x09')}
    require(saved['profile'][:2] == b'\x1f\x8b', '%s is not gzip: %r' % (kind, saved))
    with open('/proc/%d/exe' % target.pid, 'rb') as file:
        require(saved['binary'] == file.read(), 'the binary is another one')
    for name, data in saved.items():
        with open('%s/%s-%s' % (folder, kind, name), 'wb') as file:
            file.write(data)
    top = subprocess.run(['go', 'tool', 'pprof', '-top', '%s/%s-binary' % (folder, kind),
                          '%s/%s-profile' % (folder, kind)], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, timeout=60,
                         env=dict(os.environ, HOME=folder, PPROF_TMPDIR=folder))
    require(top.returncode == 0, 'go tool pprof: %s' % sysutil.tail(top.stderr))
    return top.stdout, {row.group(2): float(row.group(1)) for row in
                        re.finditer(r'(?m)([\d.]+)% +[\d.]+% +\S+ +[\d.]+% +(\S+)', top.stdout)}


def listed(args):
    """The bare gops reads a program's file by debug/buildinfo, as `go version` does, and looks for
    the port file. pprof-cpu takes its 30 s; others are answered meanwhile."""
    sysutil.need('golang-go', 'go')
    program = sysutil.prog('listed')
    target = Target(options={'gops': 1}, argv=[program])
    require(target.line() == 'ready', 'not ready')
    port = target.gops_port()
    version = subprocess.run(['go', 'version', os.path.realpath('/proc/%d/exe' % target.pid)],
                             stdout=subprocess.PIPE, text=True, timeout=30,
                             env=dict(os.environ, HOME=target.home))
    require(version.stdout == '%s: ebb-listed 1.2\n' % os.path.realpath(program),
            'go version says %r' % version.stdout)
    text, heap = pprof_top(target.home, 'heap', b'\x05', target, port)
    require('Type: inuse_space' in text and heap.get('hold_blocks', 0) > 95, 'pprof-heap: ' + text)
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        cpu = pool.submit(pprof_top, target.home, 'cpu', b'\x06', target, port)
        while not cpu.done():
            asked = time.monotonic()
            memstats(port)
            require(time.monotonic() - asked < 2, 'an answer had to wait for the CPU profile')
            time.sleep(1)
        text, busy = cpu.result()
    took = time.monotonic() - started
    require(30 <= took < 45, 'pprof-cpu took %.1f s' % took)
    require('Duration: 30' in text and busy.get('burn_cpu', 0) > 90, 'pprof-cpu: ' + text)
    target.finish()


PARTS = {'protocol': protocol, 'files': files, 'silent': silent, 'listed': listed}


def main(args):
    if args.name not in PARTS:
        raise Fail('which part? One of %s' % ', '.join(PARTS))
    PARTS[args.name](args)


if __name__ == '__main__':
    sysutil.main(main, __doc__)
