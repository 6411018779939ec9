#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The control socket: another policy and a release now, asked for from outside.

  speaks   opened by a signal on C, python and redis; what is asked happens; it closes again
  guard    whoever cannot or must not be asked is told apart and comes to no harm
  users    another user is refused and counted
  hostile  silent clients, garbage, halves and oversize requests stop nobody (EBB_SEED replays)
  forks    a child has no door of its parent's; a fork storm goes on while the door is in use
"""
import contextlib
import glob
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import redisutil
import sysutil
from sysutil import EBB, Fail, GLIBC, MIB

REFUSED = 125
FUZZ_SECONDS, FUZZ_SECONDS_LONG = 20, 60
SILENT_CLIENTS = 200


class Program:
    """A program on Ebb whose socket, once there is one, lies in a folder of the test's own."""

    def __init__(self, argv, options=None, folder=None, extra=None):
        self.folder = folder or sysutil.tempdir(0o700)
        env = {'XDG_RUNTIME_DIR': self.folder}
        env.update(extra or {})
        self.process = sysutil.spawn(EBB, argv, options, env, stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.pid = self.process.pid

    def line(self):
        return self.process.stdout.readline().decode().split()

    @property
    def sockets(self):
        return glob.glob(os.path.join(self.folder, 'ebb', '*'))

    def threads(self):
        names = {}
        for path in glob.glob('/proc/%d/task/*/comm' % self.pid):
            with contextlib.suppress(OSError), open(path) as comm:
                names[int(path.split('/')[4])] = comm.read().strip()
        return names

    def alive(self):
        """Is it still in its read, and does it answer?"""
        self.process.stdin.write(b'x\n')
        self.process.stdin.flush()
        if self.line() != ['alive']:
            raise Fail('the program does not answer any more: %s'
                       % sysutil.ended(self.process.poll()))

    def finish(self):
        """Lets it come to its own end."""
        self.process.stdin.close()
        require(self.process.wait(10) == 0, 'it does not end well')
        self.stop()

    def stop(self):
        sysutil.kill(self.process)


def sleeper(how='read', options=None, words=(), **kw):
    program = Program([sysutil.prog('sleeper'), how] + list(words), options, **kw)
    if how not in ('storm', 'turncoat'):
        word, pid = program.line()
        program.pid = int(pid)
    return program


def ask(*args, status=0, **kw):
    """Runs the command; its JSON if it succeeds, its one line if it is to fail."""
    words = [sysutil.CMD] + [str(a) for a in args] + ([] if status else ['--json'])
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=60, env=sysutil.environment(GLIBC), **kw)
    if done.returncode != status:
        raise Fail('ebb %s: exit status %d, %s' % (' '.join(map(str, args)), done.returncode,
                                                   sysutil.tail(done.stderr)))
    if status:
        if done.stderr.count('\n') != 1:
            raise Fail('not one line: %r' % done.stderr)
        return done.stderr
    return json.loads(done.stdout)


def rss(pid):
    with open('/proc/%d/smaps_rollup' % pid) as file:
        return int(re.search(r'Rss: +(\d+) kB', file.read()).group(1)) << 10


def switches(pid):
    total = 0
    for path in glob.glob('/proc/%d/task/*/status' % pid):
        with open(path) as file:
            total += sum(int(n) for n in re.findall(r'ctxt_switches:\s+(\d+)', file.read()))
    return total


def raw(path, data, seconds=5, half_close=True):
    """What the server says to these bytes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.settimeout(seconds)
        answer = b''
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(data)
            if half_close:
                client.shutdown(socket.SHUT_WR)
            while True:
                part = client.recv(65536)
                if not part:
                    break
                answer += part
        return answer


def number(answer, key):
    return int(re.search(br'(?m)^%s (\d+)$' % key.encode(), answer).group(1))


def require(condition, text):
    if not condition:
        raise Fail(text)


# ---- speaks ---------------------------------------------------------------------------------

def policy_and_release(pid, least):
    told = ask('policy', pid)
    require(told['policy'] == 'never', 'policy is %s and not never' % told['policy'])
    before = rss(pid)
    report = ask('release', pid)
    after = rss(pid)
    require(before - after >= least and report['released_bytes'] >= least,
            'RSS %d -> %d, reported %d' % (before, after, report['released_bytes']))
    changed = ask('policy', pid, 'now')
    require((changed['was'], changed['policy']) == ('never', 'now'), 'changed: %s' % changed)
    require(ask('policy', pid)['policy'] == 'now', 'the policy did not stay')


def closes_again(program):
    require(len(program.sockets) == 1 and 'ebb-door' in program.threads().values(),
            'no socket or no thread: %s %s' % (program.sockets, program.threads()))
    mode = os.stat(program.sockets[0]).st_mode & 0o777
    require(mode == 0o600, 'the socket has mode %o' % mode)
    numbers = os.listdir('/proc/%d/fd' % program.process.pid)
    require(all(int(n) < 3 or 'socket' not in os.readlink('/proc/%d/fd/%s' % (program.pid, n))
                for n in numbers), 'a socket is among the program\'s descriptors')
    sysutil.wait_for(lambda: not program.sockets and len(program.threads()) == 1, 10,
                     'the socket and the thread gone after a second without use')
    seen = switches(program.pid)
    time.sleep(2)
    require(switches(program.pid) == seen, 'wake-ups at rest')


def speaks_c():
    program = sleeper('read', {'policy': 'never', 'control_idle': 1})
    policy_and_release(program.pid, 90 * MIB)
    program.alive()
    closes_again(program)
    require(ask('policy', program.pid)['policy'] == 'now', 'not opened a second time')
    program.finish()
    require(not program.sockets, 'the socket outlives its process')


def speaks_python():
    program = Program([sys.executable, '-S', '-c',
                       'import time; x = [bytes(1000) for i in range(60000)]; del x\n'
                       'print("ready", flush=True); time.sleep(60)'],
                      {'policy': 'never'}, extra={'PYTHONMALLOC': 'malloc'})
    program.line()
    policy_and_release(program.pid, 40 * MIB)
    require(program.process.poll() is None, 'python has ended')
    program.stop()


def speaks_redis():
    server = redisutil.Server(options={'policy': 'never'})
    client = server.client()
    client.call('DEBUG', 'POPULATE', '60000', 'key', '1000')
    client.call('FLUSHALL')
    policy_and_release(server.pid, 40 * MIB)
    require(client.call('PING') is not None, 'redis does not answer')
    server.stop()


def switch_seen():
    """The policy that is put in force is the one that acts: RSS falls by itself."""
    program = sleeper('read', {'policy': 'never', 'releasetrace': 1})
    before = rss(program.pid)
    ask('policy', program.pid, 'now')
    sysutil.wait_for(lambda: rss(program.pid) < before - 60 * MIB, 10, 'RSS falls under policy now')
    time.sleep(.3)  # the line follows the call that made RSS fall
    program.process.stdin.close()
    trace = program.process.stderr.read().decode()
    require('; now: policy now' in trace, 'no line of the release in the trace: %s' % trace)
    program.stop()


def at_start():
    """control=on: open without a signal, also against signals taken; children do not inherit it."""
    program = sleeper('taken', {'control': 'on', 'policy': 'never'})
    sysutil.wait_for(lambda: program.sockets, 5, 'the socket')
    require(ask('policy', program.pid)['policy'] == 'never', 'wrong policy')
    program.stop()
    stale = program.sockets
    require(len(stale) == 1, 'a killed process should leave its socket behind')
    inherits = Program(['/bin/sh', '-c', 'cat /proc/self/environ | tr "\\0" "\\n"; echo .'],
                       {'control': 'on', 'policy': 'never'})
    text = inherits.process.communicate(timeout=10)[0].decode()
    require('EBB=policy=never\n' in text, 'a child inherits the door: %s' % text)
    inherits.stop()
    forbids = Program(['/bin/sh', '-c', 'cat /proc/self/environ | tr "\\0" "\\n"; echo .'],
                      {'control': 'off', 'stats': 'exit'})
    text = forbids.process.communicate(timeout=10)[0].decode()
    require('EBB=control=off\n' in text, 'a child does not inherit the closed door: %s' % text)
    forbids.stop()


def slash_tmp():
    """Without XDG_RUNTIME_DIR the socket lies in /tmp; a stale one of the same number goes."""
    program = sleeper('read', extra={'XDG_RUNTIME_DIR': ''})
    folder = '/tmp/ebb-%d' % os.geteuid()
    path = os.path.join(folder, '%d.sock' % program.pid)
    os.makedirs(folder, 0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(path)
    ask('policy', program.pid)
    require(b'ebb/1 ok' in raw(path, b'ebb/1 ping\n'), 'not where it should be')
    program.finish()
    require(not os.path.exists(path), 'the socket in /tmp outlives its process')


def speaks(args):
    speaks_c()
    speaks_python()
    speaks_redis()
    switch_seen()
    at_start()
    slash_tmp()


# ---- guard ----------------------------------------------------------------------------------

def refused(how, words, options=None):
    program = sleeper(how, options)
    line = ask('policy', program.pid, status=REFUSED)
    require(words in line, '%s: %s' % (how, line))
    program.alive()
    require(not program.sockets, '%s: a socket all the same' % how)
    program.stop()


def is_stopped(pid):
    with open('/proc/%d/stat' % pid) as file:
        return file.read().rpartition(')')[2].split()[0] == 'T'


def sweeps():
    """What killed processes left goes ten minutes later; nothing else does."""
    folder = sysutil.tempdir(0o700)
    inside = os.path.join(folder, 'ebb')
    os.mkdir(inside, 0o700)
    left = ['4194304.sock', '4194304-1.sock']
    kept = ['4194305.sock', 'x.sock', '4194304.txt', '%d.sock' % os.getpid(), '4194306.sock',
            '4194307.sock']
    sockets = [socket.socket(socket.AF_UNIX) for _ in left + kept[:-1]]
    for old, name in zip(sockets, left + kept[:-1]):
        old.bind(os.path.join(inside, name))
    with open(os.path.join(inside, kept[-1]), 'w'):
        pass  # no socket
    sockets[-1].listen()  # 4194306 is alive, in another PID namespace
    for name in left + kept[1:]:
        os.utime(os.path.join(inside, name), (1, time.time() - 700))  # and 4194305 is young
    program = sleeper(folder=folder)
    ask('policy', program.pid)
    program.finish()
    require(sorted(os.listdir(inside)) == sorted(kept), 'there are %s' % os.listdir(inside))
    for old in sockets:
        old.close()


def guard(args):
    refused('blocked', 'blocks signal')
    refused('asleep', 'blocks signal')
    refused('taken', 'taken signal')
    refused('filter', 'system call filter')
    refused('read', 'control=off', {'control': 'off'})
    refused('read', 'syscalls=core', {'syscalls': 'core'})
    program = sleeper('sigwait')
    ask('policy', program.pid)
    program.alive()  # and not "stolen": the thread in sigwait has not got it
    os.kill(program.pid, signal.SIGSTOP)
    sysutil.wait_for(lambda: is_stopped(program.pid), 5, 'stopped')
    require('is stopped' in ask('policy', program.pid, status=REFUSED), 'stopped')
    os.kill(program.pid, signal.SIGCONT)
    program.alive()
    program.stop()
    plain = sysutil.spawn(GLIBC, [sysutil.prog('sleeper')], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    plain.stdout.readline()
    require('does not run on Ebb' in ask('policy', plain.pid, status=REFUSED), 'not on Ebb')
    sysutil.kill(plain)
    require('no process' in ask('policy', plain.pid, status=REFUSED), 'no process')
    closed_folder()
    sweeps()
    filters()
    if os.geteuid() == 0:
        setuid_has_no_door()
        privileges_go()
        root_moves()
        other_namespace()


def closed_folder():
    """A folder that others may enter is not used; one that is a link neither."""
    folder = sysutil.tempdir(0o700)
    other = sysutil.tempdir(0o700)
    os.symlink(other, os.path.join(folder, 'ebb'))
    program = sleeper('read', folder=folder)
    ask('policy', program.pid)
    require(not os.listdir(other), 'followed a link')
    program.finish()
    os.remove(os.path.join(folder, 'ebb'))
    os.mkdir(os.path.join(folder, 'ebb'))
    os.chmod(os.path.join(folder, 'ebb'), 0o755)
    program = sleeper('read', folder=folder)
    ask('policy', program.pid)
    require(not program.sockets, 'used a folder that is open to others')
    program.finish()


def filters():
    """With the door open, a program puts itself under a filter that kills on sockets: it lives."""
    for when in ('early', 'late'):
        sysutil.run(EBB, [sysutil.prog('seccomp'), when], {'control': 'on', 'syscalls': 'full'},
                    {'XDG_RUNTIME_DIR': sysutil.tempdir(0o700)})
    sysutil.run(EBB, [sysutil.prog('closefrom')], {'control': 'on'},
                {'XDG_RUNTIME_DIR': sysutil.tempdir(0o700)}, timeout=80)
    if os.geteuid() != 0:
        return
    program = sleeper('rawfilter')
    line = ask('policy', program.pid, status=REFUSED)
    require('--force' in line, 'a filter that was not announced: %s' % line)
    require(not program.sockets, 'a socket all the same')
    ask('policy', program.pid, '--force')
    program.alive()
    program.stop()


def door_uids(pid):
    """The user ids of the door's thread."""
    for path in glob.glob('/proc/%d/task/*/status' % pid):
        with open(path) as file:
            text = file.read()
        if 'Name:\tebb-door' in text:
            return re.search(r'Uid:\s+(.*)', text).group(1).split()
    return None


def privileges_go():
    """The door of a program that gives up its privileges has given them up too."""
    for control in ('on', 'demand'):
        program = sleeper('setuid', {'control': control})
        require(not program.sockets and door_uids(program.pid) is None, 'the old door is open')
        ask('policy', program.pid)
        require(door_uids(program.pid) == ['65534'] * 4, 'uids %s' % door_uids(program.pid))
        program.alive()
        program.finish()


def root_moves():
    """A program in a chroot has its socket there, and is asked from outside."""
    folder = sysutil.tempdir(0o755)
    os.mkdir(os.path.join(folder, 'tmp'))
    program = sleeper('chroot', {'control': 'on'}, [folder])
    require(not program.sockets, 'the old door is open')
    require(ask('policy', program.pid, 'never')['policy'] == 'never', 'not asked')
    inside = os.listdir(os.path.join(folder, 'tmp', 'ebb-0'))
    require(inside == ['%d.sock' % program.pid], 'not in the chroot: %s' % inside)
    program.finish()
    require(not os.listdir(os.path.join(folder, 'tmp', 'ebb-0')), 'left behind in the chroot')


def other_namespace():
    """Two processes that are number 1 in PID namespaces of their own share a folder."""
    if not shutil.which('unshare') or subprocess.call(['unshare', '-p', '-f', 'true']):
        return
    folder = sysutil.tempdir(0o700)
    programs = [Program(['unshare', '-p', '-f', sysutil.prog('sleeper')], folder=folder)
                for _ in range(2)]
    pids = []
    for program in programs:
        require(program.line() == ['ready', '1'], 'not number 1')
        path = '/proc/%d/task/%d/children' % (program.pid, program.pid)
        with open(path) as file:
            pids.append(int(file.read()))
    ask('policy', pids[0], 'never')
    ask('policy', pids[1], 'now')
    require(ask('policy', pids[0])['policy'] == 'never', 'one was taken for the other')
    names = sorted(os.path.basename(path) for path in programs[0].sockets)
    require(names == ['1-1.sock', '1.sock'], 'sockets: %s' % names)
    for program in programs:
        program.stop()


def setuid_has_no_door():
    folder = sysutil.tempdir(0o755)
    library = os.path.join(folder, 'libebb.so.0')
    shutil.copy(sysutil.LIB, library)
    secure = os.path.join(folder, 'secure')
    done = subprocess.run(['gcc', '-std=gnu17', '-D_GNU_SOURCE', '-pthread', '-Wl,--no-as-needed',
                           '-o', secure, os.path.join(sysutil.HERE, 'prog', 'sleeper.c'), library,
                           '-Wl,-rpath,' + folder], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    require(done.returncode == 0, 'cannot link: %s' % sysutil.tail(done.stdout))
    os.chown(secure, 1, 1)
    os.chmod(secure, 0o6755)
    process = sysutil.spawn(GLIBC, [secure], extra={'EBB': 'control=on'}, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    with open('/proc/%d/status' % process.pid) as file:
        caught = int(re.search(r'SigCgt:\s+(\w+)', file.read()).group(1), 16)
    require(caught >> 34 == 0, 'a handler in a set-user-ID program: %x' % caught)
    line = ask('policy', process.pid, status=REFUSED)
    require('set-user-ID' in line, line)
    sysutil.kill(process)


# ---- users ----------------------------------------------------------------------------------

def users(args):
    sysutil.need_root('a second user is needed')
    sysutil.publish()
    nobody = 65534
    program = sleeper()
    ask('policy', program.pid)
    path = program.sockets[0]

    def become():
        os.setgroups([])
        os.setgid(nobody)
        os.setuid(nobody)

    line = ask('policy', program.pid, status=REFUSED, preexec_fn=become)
    require('belongs to' in line, line)
    knock = ('import socket, sys\n'
             's = socket.socket(socket.AF_UNIX)\n'
             's.connect(sys.argv[1])\n'
             'try:\n'
             '    s.sendall(b"ebb/1 policy never\\n")\n'
             'except BrokenPipeError: pass\n'
             'sys.stdout.buffer.write(s.recv(4096))\n')
    python = '/usr/bin/python3' if os.path.exists('/usr/bin/python3') else sys.executable

    def other():
        return subprocess.run([python, '-c', knock, path], preexec_fn=become, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)

    require('PermissionError' in other().stderr, 'the file modes let another user in')
    # The second line of defence: with the modes gone.
    for name in (program.folder, os.path.dirname(path)):
        os.chmod(name, 0o755)
    os.chmod(path, 0o666)
    for turn in range(3):
        answer = other()
        require('ebb/1 error only' in answer.stdout, 'not refused: %r' % (answer,))
    told = raw(path, b'ebb/1 ping\n')
    require(number(told, 'refused') == 3, 'refusals not counted: %r' % told)
    require(ask('policy', program.pid)['policy'] == 'go1.16', 'another user has changed the policy')
    program.stop()
    root_asks_nobody(become)
    turncoat()


def root_asks_nobody(become):
    folder = sysutil.tempdir(0o700)
    os.chown(folder, 65534, 65534)
    program = sysutil.spawn(EBB, [sysutil.prog('sleeper')], extra={'XDG_RUNTIME_DIR': folder},
                            before=become, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)
    program.stdout.readline()
    require(ask('policy', program.pid, 'never')['policy'] == 'never', 'root may ask everybody')
    sysutil.kill(program)


def turncoat():
    """Rung all the time while the user changes: no thread keeps what the program has lost."""
    program = sleeper('turncoat', {'control_idle': 30}, extra={'XDG_RUNTIME_DIR': ''})
    require(program.line() == ['turning'], 'it does not turn')
    with open('/proc/%d/status' % program.pid) as file:
        number = int(re.search(r'SigCgt:\s+(\w+)', file.read()).group(1), 16).bit_length()
    over = threading.Event()
    rings = [0]

    def ring():
        while not over.is_set():
            with contextlib.suppress(BlockingIOError):
                os.kill(program.pid, number)
            rings[0] += 1
            time.sleep(0.0002)

    ringer = threading.Thread(target=ring)
    ringer.start()
    try:
        word = program.line()
    finally:
        over.set()
        ringer.join()
    if word[:1] != ['ready']:
        status = program.process.wait(10)
        raise Fail('it says %s; %s; %s' % (word, sysutil.ended(status),
                                           sysutil.tail(program.process.stderr.read())))
    time.sleep(0.3)
    for path in glob.glob('/proc/%d/task/*/status' % program.pid):
        with open(path) as file:
            uids = re.search(r'Uid:\s+(.*)', file.read()).group(1).split()
        require(uids == ['65534'] * 4, 'a thread with uids %s' % uids)
    sysutil.say('%d rings' % rings[0])
    ask('policy', program.pid)
    program.finish()


# ---- hostile --------------------------------------------------------------------------------

def silent(path, pid):
    crowd = []
    for _ in range(SILENT_CLIENTS):
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)  # waits while the queue is full
        crowd.append(client)
    began = time.monotonic()
    ask('policy', pid)
    took = time.monotonic() - began
    require(took < 2, 'an answer beside %d silent clients took %.1f s' % (SILENT_CLIENTS, took))
    sysutil.wait_for(lambda: number(raw(path, b'ebb/1 ping\n'), 'dropped') >= SILENT_CLIENTS, 15,
                     'silent clients dropped')
    for client in crowd:
        client.close()


def garbage(random_, path):
    kind = random_.randrange(6)
    good = b'ebb/1 %s\n' % random_.choice([b'ping', b'policy', b'policy never', b'limit'])
    if kind == 0:
        return random_.randbytes(random_.randrange(1, 400))
    if kind == 1:
        return good[:random_.randrange(len(good))]
    if kind == 2:
        return b'ebb/1 policy ' + b'a' * random_.randrange(50, 5000) + b'\n'
    if kind == 3:
        return good * random_.randrange(2, 50)
    if kind == 4:
        at = random_.randrange(len(good))
        return good[:at] + bytes([random_.randrange(256)]) + good[at + 1:]
    return good


def fuzz(program, path, seconds):
    seed = int(os.environ.get('EBB_SEED') or random.randrange(1 << 32))
    sysutil.say('seed %d (EBB_SEED replays it)' % seed)
    random_ = random.Random(seed)
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        answer = raw(path, garbage(random_, path), half_close=random_.random() < 0.98)
        require(answer == b'' or (answer.startswith(b'ebb/1 ') and answer.endswith(b'end\n')),
                'seed %d: %r' % (seed, answer[:200]))
        count += 1
    told = raw(path, b'ebb/1 ping\n')
    sysutil.say('%d requests, %d bad, %d dropped' % (count, number(told, 'bad'),
                                                     number(told, 'dropped')))
    require(number(told, 'bad') > count // 4, 'the garbage was no garbage')
    program.alive()


def limits(path):
    def told(text):
        return raw(path, b'ebb/1 limit%s\n' % text)
    require(b'limit 1073741824\n' in told(b' 1073741824'), 'limit not set')
    require(b'limit 1073741824\n' in told(b''), 'limit not kept')
    for wrong in (b' 0', b' -1', b' 1G', b' x'):
        require(told(wrong).startswith(b'ebb/1 error'), 'limit%r taken' % wrong)
    require(b'was 1073741824\nlimit off\n' in told(b' off'), 'limit not lifted')


def signals(program, seconds=2):
    """Whoever may send signals may send many."""
    with open('/proc/%d/status' % program.pid) as file:
        caught = int(re.search(r'SigCgt:\s+(\w+)', file.read()).group(1), 16)
    number = caught.bit_length()
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):  # the queue is full
            os.kill(program.pid, number)
        count += 1
        if count % 5000 == 0:
            ask('policy', program.pid)
    require(count > 1000, 'hardly a signal was sent')
    ask('release', program.pid)
    program.alive()


def boundary(seconds=8):
    """Asked just when the door closes by itself, it answers all the same."""
    program = sleeper('read', {'control_idle': 1})
    end = time.monotonic() + seconds
    wait = 0.995
    while time.monotonic() < end:
        ask('policy', program.pid)
        time.sleep(wait)
        wait += 0.001
    program.stop()


def hostile(args):
    boundary(60 if args.long else 8)
    program = sleeper('read', {'policy': 'never'})
    signals(program)
    ask('policy', program.pid)
    path = program.sockets[0]
    limits(path)
    silent(path, program.pid)
    fuzz(program, path, FUZZ_SECONDS_LONG if args.long else FUZZ_SECONDS)
    require(len(program.threads()) == 3, 'threads: %s' % program.threads())
    own = os.listdir('/proc/%d/task/%d/fd' % (program.pid, [
        t for t, name in program.threads().items() if name == 'ebb-door'][0]))
    require(len(own) <= 4, 'descriptors left open: %s' % own)
    program.stop()


# ---- forks ----------------------------------------------------------------------------------

def forks(args):
    program = sleeper('forked', {'control_idle': 2})
    parent = program.process.pid
    require(program.pid != parent, 'no fork')
    ask('policy', parent, 'never')
    ask('policy', program.pid, 'now')
    require(len(program.sockets) == 2, 'a door each: %s' % program.sockets)
    require(ask('policy', parent)['policy'] == 'never', 'the child has changed its parent')
    program.alive()
    program.stop()
    forked_while_open()
    storm(args)
    exits_quietly()


def forked_while_open():
    """The door is open from the start, so that the child is forked beside its threads."""
    program = sleeper('forked', {'control': 'on', 'policy': 'never'})
    parent = program.process.pid
    require(len(program.sockets) == 1, 'the child has a door: %s' % program.sockets)
    ask('policy', program.pid, 'now')
    require(ask('policy', parent)['policy'] == 'never', 'the child has changed its parent')
    require(len(program.sockets) == 2, 'a door each: %s' % program.sockets)
    program.alive()
    program.stop()


def storm(args):
    """Policies change and memory is released while the program does nothing but fork."""
    program = sleeper('storm', {'policy': 'never'})
    require(program.line() == ['storm'], 'no storm')
    answers = [0]
    over = threading.Event()

    def asking():
        names = ['never', 'now', 'go1.16']
        while not over.is_set():
            answers[0] += 1
            if answers[0] % 3 == 0:
                subprocess.run([sysutil.CMD, 'release', str(program.pid)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
            else:
                subprocess.run([sysutil.CMD, 'policy', str(program.pid), names[answers[0] % 3]],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)

    asker = threading.Thread(target=asking)
    asker.start()
    try:
        word = []
        reader = threading.Thread(target=lambda: word.extend(program.line()))
        reader.start()
        reader.join(90)
        require(word[:1] == ['ready'], 'the storm did not end: %s, %s'
                % (word, sysutil.ended(program.process.poll())))
    finally:
        over.set()
        asker.join()
    sysutil.say('%d requests during the storm' % answers[0])
    require(answers[0] >= 10, 'hardly anything was asked')
    program.alive()
    program.stop()


def exits_quietly():
    """Short programs with the door open leave nothing behind, whenever they end."""
    folder = sysutil.tempdir(0o700)
    for turn in range(40):
        sysutil.run(EBB, ['/bin/sleep', str(turn / 5000)], {'control': 'on'},
                    {'XDG_RUNTIME_DIR': folder})
    left = os.listdir(os.path.join(folder, 'ebb'))
    require(not left, 'left behind: %s' % left)


PARTS = {'speaks': speaks, 'guard': guard, 'users': users, 'hostile': hostile, 'forks': forks}


def test(args):
    if not os.access(sysutil.CMD, os.X_OK):
        raise sysutil.Skip('no command at %s' % sysutil.CMD)
    for name, part in PARTS.items():
        if args.name in (None, '', name):
            part(args)


sysutil.main(test, __doc__)
