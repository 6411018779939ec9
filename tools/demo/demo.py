#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A real redis-server under glibc and under Ebb, at the same time: load, FLUSHALL, watch.

Model
  Two servers of the distribution's package on loopback ports of their own, nothing kept on disk.
  Two clients (processes of their own) load both with the same keys; when both are full, FLUSHALL
  goes to both at once. Meanwhile RSS of both is read ten times a second and drawn. The numbers in
  the sentence below the picture are those readings.
Honesty
  The distribution may link redis-server against jemalloc. glibc's libc.so.6 is then put in front of
  it by LD_PRELOAD, and the text below says by what one sees that it is glibc's malloc that serves.
"""
import argparse
import contextlib
import ctypes
import glob
import locale
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
import plot  # noqa: E402
import resp  # noqa: E402

MIB = 1 << 20
INTERVAL_S = 0.1
REST_S = 1.5          # at the peak, before FLUSHALL
LOAD_LIMIT_S = 60
RED, GREEN = '\033[33m', '\033[32m'
PR_SET_PDEATHSIG = 1
NO_BREAK = '~'        # between a number and its unit, until the text is wrapped
STRIPPED = ('LD_PRELOAD', 'EBB', 'GODEBUG', 'MALLOC_CONF', 'GLIBC_TUNABLES')


class Trouble(Exception):
    """The demonstration cannot be given; said in one line."""


def die_with_parent():
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def libc_path():
    for folder in glob.glob('/lib/*-linux-gnu') + ['/lib64', '/usr/lib64', '/usr/lib']:
        if os.path.exists(os.path.join(folder, 'libc.so.6')):
            return os.path.join(folder, 'libc.so.6')
    raise Trouble("glibc's libc.so.6 is not where it is looked for")


class Server:
    """One redis-server, its readings and its loader."""

    def __init__(self, name, code, words, preload, folder):
        self.name = name
        self.code = code
        self.points = []
        self.marks = []
        self.log = os.path.join(folder, name)
        self.port = free_port()
        env = {k: v for k, v in os.environ.items() if k not in STRIPPED}
        if preload:
            env['LD_PRELOAD'] = preload
        argv = words + ['redis-server', '--port', str(self.port), '--bind', '127.0.0.1',
                        '--save', '', '--appendonly', 'no', '--daemonize', 'no',
                        '--dir', folder, '--loglevel', 'warning']
        with open(self.log, 'wb') as log:
            self.process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, preexec_fn=die_with_parent)
        self.client = None
        self.loader = None

    def connect(self):
        end = time.monotonic() + 15
        while self.client is None:
            if self.process.poll() is not None or time.monotonic() > end:
                with open(self.log, errors='replace') as log:
                    said = log.read().strip().splitlines()[-1:] or ['(nothing)']
                raise Trouble('redis-server under %s did not start: %s' % (self.name, said[0]))
            try:
                self.client = resp.Client(self.port)
            except OSError:
                time.sleep(0.05)
        # Under `ebb run` the server may be a child of what was started.
        self.pid = int(resp.info(self.client, 'server')['process_id'])

    def rss(self):
        with open('/proc/%d/smaps_rollup' % self.pid) as file:
            for line in file:
                if line.startswith('Rss:'):
                    return int(line.split()[1]) * 1024
        raise Trouble('no Rss for process %d' % self.pid)

    def sample(self, since):
        self.points.append((time.monotonic() - since, self.rss() / MIB))

    def start_loading(self, goal_bytes):
        self.loader = multiprocessing.Process(target=load, args=(self.port, goal_bytes),
                                              daemon=True)
        self.loader.start()

    def maps(self, word):
        with open('/proc/%d/maps' % self.pid) as file:
            return word in file.read()

    def stop(self):
        if self.loader and self.loader.is_alive():
            self.loader.kill()
            self.loader.join(5)
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)


def load(port, goal_bytes):
    die_with_parent()
    resp.Load(resp.Client(port), goal_bytes).run()


class Screen:
    """Draws a picture over the one before it on a terminal; elsewhere a line now and then."""

    def __init__(self, style, live):
        self.style = style
        self.live = live
        self.height = 0
        self.said_at = -10

    def show(self, servers, phase, now, end):
        if self.live:
            self.picture(servers, end, phase)
        elif now - self.said_at >= 2:
            self.said_at = now
            print('%5.1f s   %s   %s' % (now, '   '.join(
                '%s %4.0f MiB' % (s.name, s.points[-1][1]) for s in servers), phase), flush=True)

    def picture(self, servers, end, phase=None):
        top = max([value for s in servers for _, value in s.points] + [64])
        panels = [plot.Panel('%s   now %.0f MiB' % (s.name, s.points[-1][1]) if phase else s.name,
                             s.code, s.points, s.marks) for s in servers]
        lines = plot.draw(self.style, panels, end, top, 'MiB')
        if phase:
            lines += ['', '  ' + phase]
        # Over the last picture: up, and each line cleared before it is written.
        if self.live and self.height:
            sys.stdout.write('\033[%dA' % self.height)
        clear = '\033[K' if self.live else ''
        for line in lines + [''] * max(0, self.height - len(lines)):
            sys.stdout.write(clear + line + '\n')
        sys.stdout.flush()
        self.height = max(len(lines), self.height)


def watch(servers, screen, since, until, phase, end):
    """Samples and draws until the condition is true; returns the time then."""
    drawn_at = 0
    while True:
        for server in servers:
            server.sample(since)
        now = time.monotonic() - since
        if until(now):
            return now
        if now - drawn_at >= 0.25:
            drawn_at = now
            screen.show(servers, phase, now, max(end, now))
        time.sleep(INTERVAL_S)


def loaded(servers, now):
    for server in servers:
        if server.loader.exitcode not in (None, 0):
            raise Trouble('the client that loads the server under %s failed' % server.name)
    if now > LOAD_LIMIT_S:
        raise Trouble('loading took more than %d s' % LOAD_LIMIT_S)
    return all(server.loader.exitcode == 0 for server in servers)


def run(servers, screen, args):
    """Load, rest, flush, watch. Returns the second of the flush and the end."""
    for server in servers:
        server.connect()
    since = time.monotonic()
    expected = 10 + args.watch
    for server in servers:
        server.sample(since)
        server.start_loading(args.mib * MIB)
    full = watch(servers, screen, since, lambda now: loaded(servers, now),
                 'loading both servers, %d MiB of values each' % args.mib, expected)
    watch(servers, screen, since, lambda now: now >= full + REST_S, 'loaded; at rest', expected)
    keys = [server.client.call('DBSIZE') for server in servers]
    if keys[0] != keys[1] or keys[0] == 0:
        raise Trouble('the servers do not hold the same keys: %s' % keys)
    evidence = check_allocators(servers)
    for server in servers:
        server.sample(since)
    flushed = time.monotonic() - since
    for server in servers:
        server.client.socket.sendall(resp.encode(('FLUSHALL', 'SYNC')))
        server.marks.append((flushed, 'FLUSHALL'))
        server.peak = server.points[-1][1]
    end = flushed + args.watch
    watch(servers, screen, since, lambda now: now >= end, 'FLUSHALL sent; watching', end)
    for server in servers:
        if server.client.read() != b'OK' or server.client.call('DBSIZE') != 0:
            raise Trouble('FLUSHALL under %s failed' % server.name)
    return flushed, end, keys[0], evidence


def check_allocators(servers):
    """Whose malloc serves: what jemalloc itself says it has handed out, and what is mapped."""
    glibc, ours = servers
    if not ours.maps('libebb.so'):
        raise Trouble('libebb.so is not mapped in the server that should run under it')
    info = resp.info(glibc.client)
    if not info.get('mem_allocator', '').startswith('jemalloc'):
        return "redis-server here uses the C library's malloc by itself"
    of_jemalloc = int(info['allocator_allocated']) / MIB
    if of_jemalloc > glibc.points[-1][1] / 4:
        raise Trouble('jemalloc, not glibc, serves the server that should run under glibc')
    return ("redis-server is linked against jemalloc here, so glibc's libc.so.6 is put in front "
            'of it (jemalloc says it has handed out %.1f MiB: it serves nothing)' % of_jemalloc)


def fate(server, flushed):
    """What became of the peak: (MiB given back, MiB at rest, seconds until nearly all was)."""
    rest = server.points[-1][1]
    given = server.peak - rest
    took = next((second - flushed for second, value in server.points
                 if second > flushed and server.peak - value >= 0.99 * given), 0)
    return given, rest, took


def phrase(server, flushed):
    given, rest, took = fate(server, flushed)
    if given < 0.5 * server.peak:
        return '%s kept %.0f~MiB of its %.0f~MiB peak' % (server.name, rest, server.peak)
    return '%s gave back %.0f~%% of its %.0f~MiB within %.1f~s and rests at %.0f~MiB' % (
        server.name, 100 * given / server.peak, server.peak, took, rest)


def wrap(text, width):
    lines, line = [], ''
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = line + ' ' + word if line else word
    return '\n'.join(lines + [line]).replace(NO_BREAK, ' ')


def arguments():
    parser = argparse.ArgumentParser(description='redis-server under glibc and under Ebb')
    parser.add_argument('--mib', type=int, default=350, help='values loaded into each server')
    parser.add_argument('--watch', type=float, default=15, help='seconds after FLUSHALL')
    parser.add_argument('--build', default=os.path.join(REPO, 'build'), help='where libebb.so is')
    parser.add_argument('--width', type=int, help='columns, instead of those of the terminal')
    parser.add_argument('--ascii', action='store_true', help='no characters beyond ASCII')
    args = parser.parse_args()
    with open('/proc/meminfo') as file:
        available = next(int(line.split()[1]) // 1024 for line in file
                         if line.startswith('MemAvailable'))
    # A loaded server takes about 1.5 times its values; a quarter of memory stays free.
    most = int(available * 0.75 / 2 / 1.5)
    if most < 32:
        raise Trouble('%d MiB of free memory are too few for two servers' % available)
    if args.mib > most:
        print('(%d MiB of memory are free: loading %d MiB instead of %d)'
              % (available, most, args.mib))
        args.mib = most
    return args


def style_of(args):
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, '')
    wide = locale.nl_langinfo(locale.CODESET).upper().replace('-', '') == 'UTF8'
    tty = sys.stdout.isatty()
    size = shutil.get_terminal_size((80, 24))
    colour = tty and 'NO_COLOR' not in os.environ and os.environ.get('TERM') != 'dumb'
    live = tty and os.environ.get('TERM') != 'dumb' and size.lines >= 24
    return plot.Style(args.width or size.columns, wide and not args.ascii, colour), live


def words_for_ebb(build):
    command, library = os.path.join(build, 'ebb'), os.path.join(build, 'libebb.so')
    if not os.path.exists(library):
        raise Trouble('%s is not there: ./dev build makes it' % library)
    if os.access(command, os.X_OK):
        return [command, 'run'], None
    return [], os.path.abspath(library)


def show_end(screen, servers, result, args):
    flushed, end, keys, evidence = result
    width = screen.style.width
    screen.picture(servers, end)
    if not screen.live:
        print()
    sentence = 'After FLUSHALL %s; %s.' % tuple(phrase(s, flushed) for s in servers)
    print(screen.style.paint(plot.BOLD, wrap(sentence, width)))
    print()
    version = subprocess.run(['redis-server', '--version'], stdout=subprocess.PIPE,
                             text=True).stdout.split()
    number = next((word[2:] for word in version if word.startswith('v=')), '')
    print(wrap('The pictures are resident sizes (RSS) of two redis-server %s, the same program '
               'from the same package, at the same time: %s keys with values of %d to %d bytes, '
               '%d MiB in each, then FLUSHALL. Under Ebb: %s. Under glibc: %s.' % (
                   number, format(keys, ','), resp.SMALLEST_BYTES, resp.LARGEST_BYTES, args.mib,
                   'build/ebb run redis-server', evidence), width))


def main():
    servers = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, frame: sys.exit(128 + n))
    folder = tempfile.mkdtemp(prefix='ebb-demo-')
    try:
        args = arguments()
        if not shutil.which('redis-server'):
            raise Trouble('redis-server is missing: ./dev demo installs it')
        style, live = style_of(args)
        words, preload = words_for_ebb(args.build)
        servers.append(Server('glibc', RED, [], libc_path(), folder))
        servers.append(Server('Ebb', GREEN, words, preload, folder))
        screen = Screen(style, live)
        result = run(servers, screen, args)
        show_end(screen, servers, result, args)
        return 0
    except Trouble as trouble:
        print('demo: %s' % trouble, file=sys.stderr)
        return 1
    except (OSError, resp.RedisError) as error:
        print('demo: a server went away: %s' % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\ndemo: stopped', file=sys.stderr)
        return 130
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == '__main__':
    sys.exit(main())
