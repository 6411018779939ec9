# SPDX-License-Identifier: MIT
"""What the system tests share: a program run on glibc and on Ebb, and measured from outside.

Model
  A test is one script with one function, given to main(). It passes, fails with one clear line
  (Fail), or is skipped with a reason (Skip): exit status 0, 1, 77, as Meson understands them.
  Whatever it starts is registered here and killed by process id when it ends, however it ends.
Inputs
  EBB_LIB    the library under test (default build/libebb.so); any malloc library will do,
             which is how one sees that a test can fail
  EBB_CMD    the command (default build/ebb); used when it lies beside the library
  EBB_PROGS  folder of the compiled helper programs; without it they are compiled on demand
"""
import argparse
import atexit
import contextlib
import ctypes
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
LIB = os.path.abspath(os.environ.get('EBB_LIB') or os.path.join(REPO, 'build', 'libebb.so'))
CMD = os.path.abspath(os.environ.get('EBB_CMD') or os.path.join(REPO, 'build', 'ebb'))
PUBLIC = None  # the folder that publish() made
MIB = 1 << 20
EBB, GLIBC = 'ebb', 'glibc'

# Set by a caller's environment, these would change what is measured.
STRIPPED = ('LD_PRELOAD', 'EBB', 'GODEBUG', 'GOGC', 'GOMEMLIMIT', 'MALLOC_PERTURB_',
            'MALLOC_ARENA_MAX', 'MALLOC_CHECK_', 'GLIBC_TUNABLES', 'ASAN_OPTIONS')

PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None)
_live = []
_tempdirs = []


class Fail(Exception):
    """The test has found something wrong."""


class Skip(Exception):
    """The test cannot run here, and says why."""


def say(text):
    print(text, flush=True)


def clean_up():
    for process in reversed(_live):
        kill(process)
    _live.clear()
    for path in reversed(_tempdirs):
        shutil.rmtree(path, ignore_errors=True)
    _tempdirs.clear()


def main(test, doc=''):
    """Runs test(args) and turns its outcome into the exit status."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument('--long', action='store_true', help='the long form of this test')
    parser.add_argument('name', nargs='?', help='which part, where a script has several')
    args = parser.parse_args()
    atexit.register(clean_up)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, frame: sys.exit(128 + n))
    status = 0
    started = time.monotonic()
    try:
        require_library()
        test(args)
        say('ok (%.1f s)' % (time.monotonic() - started))
    except Skip as reason:
        say('SKIP: %s' % reason)
        status = 77
    except Fail as reason:
        say('FAIL: %s' % reason)
        status = 1
    except subprocess.TimeoutExpired as late:
        say('FAIL: %s did not end within %.0f s' % (os.path.basename(late.cmd[0]), late.timeout))
        status = 1
    finally:
        clean_up()
    sys.exit(status)


def require_library():
    """Fails unless a program started by run(EBB, ...) really has the library mapped."""
    if not os.path.exists(LIB):
        raise Fail('no library at %s: build it, or name one with EBB_LIB' % LIB)
    maps = run(EBB, ['/bin/cat', '/proc/self/maps']).stdout.decode()
    if os.path.realpath(LIB) not in maps:
        raise Fail('%s is not mapped in a program run under it' % LIB)


# ---- programs -------------------------------------------------------------------------------

def environment(kind, options=None, extra=None, preload_after=()):
    """The environment of a run; options become EBB=a=1,b=2."""
    env = {k: v for k, v in os.environ.items() if k not in STRIPPED}
    env['LC_ALL'] = 'C.UTF-8'
    env['LANG'] = 'C.UTF-8'
    preload = list(preload_after)
    if kind == EBB:
        preload.insert(0, LIB)
        if options:
            env['EBB'] = ','.join('%s=%s' % pair for pair in options.items())
    if preload:
        env['LD_PRELOAD'] = ':'.join(preload)
    if extra:
        env.update(extra)
    return env


def command_usable():
    """Whether `ebb run` would take the library under test: it looks beside itself."""
    return (os.access(CMD, os.X_OK)
            and os.path.realpath(os.path.dirname(CMD)) == os.path.realpath(os.path.dirname(LIB))
            and os.path.basename(LIB) == 'libebb.so')


def through_command(argv, options=None):
    """argv under `ebb run`, with its options."""
    sets = [word for pair in (options or {}).items() for word in ('--set', '%s=%s' % pair)]
    return [CMD, 'run'] + sets + list(argv)


def _own_session():
    os.setsid()
    # The kernel kills the child should this script die without cleaning up.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(kind, argv, options=None, extra=None, before=None, preload_after=(), **kw):
    """Starts argv with the library preloaded (its process id is the program's own)."""
    def prepare():
        _own_session()
        if before:
            before()
    env = environment(kind, options, extra, preload_after)
    process = subprocess.Popen(list(argv), env=env, preexec_fn=prepare, **kw)
    _live.append(process)
    return process


def kill(process, number=signal.SIGKILL):
    """Ends a process of ours, and what it has started in its session, and collects it."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()


def run(kind, argv, options=None, extra=None, before=None, timeout=60, check=True, stdin=None,
        command=False, preload_after=(), cwd=None):
    """Runs argv to its end. command=True goes through `ebb run` where that is possible."""
    if command and kind == EBB and command_usable():
        wrapped, env_kind = through_command(argv, options), GLIBC
    else:
        wrapped, env_kind = list(argv), kind
    process = spawn(env_kind, wrapped, options if env_kind == EBB else None, extra, before,
                    preload_after, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, cwd=cwd)
    try:
        out, err = process.communicate(stdin or b'', timeout=timeout)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    finally:
        if process in _live and process.poll() is not None:
            _live.remove(process)
    result = subprocess.CompletedProcess(argv, process.returncode, out, err)
    if check and result.returncode != 0:
        raise Fail('%s on %s: %s; %s' % (os.path.basename(argv[0]), kind, ended(result.returncode),
                                         tail(err or out)))
    return result


def ended(status):
    """An exit status in words."""
    if status is not None and status < 0:
        return 'killed by %s' % signal.Signals(-status).name
    return 'exit status %s' % status


def tail(data, lines=3):
    text = data.decode('utf-8', 'replace') if isinstance(data, bytes) else data
    return ' | '.join(text.strip().splitlines()[-lines:]) or '(no output)'


def same(argv, what=None, **kw):
    """Runs argv on glibc and on Ebb and fails unless status and output are the same."""
    reference = run(GLIBC, argv, check=False, **kw)
    if reference.returncode != 0:
        raise Skip('%s fails without Ebb too: %s' % (what or argv[0], tail(reference.stderr)))
    ours = run(EBB, argv, check=False, command=True, **kw)
    name = what or os.path.basename(argv[0])
    if ours.returncode != reference.returncode:
        raise Fail('%s: %s on Ebb, 0 on glibc; %s'
                   % (name, ended(ours.returncode), tail(ours.stderr)))
    if ours.stdout != reference.stdout:
        raise Fail('%s: output on Ebb differs: %s instead of %s'
                   % (name, tail(ours.stdout, 1)[:200], tail(reference.stdout, 1)[:200]))
    return ours


# ---- what a test needs ----------------------------------------------------------------------

# A service that a package brings must not start: the tests run their own, on their own ports.
INSTALL = r'''
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
get() { apt-get -o DPkg::Lock::Timeout=300 -y --no-install-recommends install "$1"; }
get "$1" || { apt-get -o DPkg::Lock::Timeout=300 update && get "$1"; }
'''


def need(package, binary, found=None):
    """The path of binary, installing package if it is missing; skips if that cannot be."""
    find = found or (lambda: shutil.which(binary, path=os.environ.get('PATH', '')
                                          + ':/usr/sbin:/sbin:/usr/bin:/bin'))
    path = find()
    if path:
        return path
    if not shutil.which('apt-get'):
        raise Skip('%s is missing and there is no apt-get to install %s' % (binary, package))
    argv = ['sh', '-c', INSTALL, 'install', package]
    if os.geteuid() != 0:
        if not shutil.which('sudo') or subprocess.call(['sudo', '-n', 'true'],
                                                       stderr=subprocess.DEVNULL):
            raise Skip('%s is missing; installing %s needs root or sudo' % (binary, package))
        argv = ['sudo', '-n', 'DEBIAN_FRONTEND=noninteractive'] + argv
    say('installing %s for %s' % (package, binary))
    env = dict(os.environ, DEBIAN_FRONTEND='noninteractive')
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=900)
    path = find()
    if not path:
        raise Skip('%s is missing and %s could not be installed: %s'
                   % (binary, package, tail(done.stdout)))
    return path


def need_root(why):
    if os.geteuid() != 0:
        raise Skip('needs root: %s' % why)


def tempdir(mode=0o755):
    path = tempfile.mkdtemp(prefix='ebb-test-')
    os.chmod(path, mode)
    _tempdirs.append(path)
    return path


def publish():
    """Copies library and command to where every user may reach them, and every helper program asked
    for from now on: the tree may lie in a home."""
    global LIB, CMD, PUBLIC
    folder = PUBLIC = tempdir(0o755)
    for source, name in ((LIB, os.path.basename(LIB)), (CMD, 'ebb')):
        if os.path.exists(source):
            shutil.copy(os.path.realpath(source), os.path.join(folder, name))
            os.chmod(os.path.join(folder, name), 0o755)
    LIB = os.path.join(folder, os.path.basename(LIB))
    CMD = os.path.join(folder, 'ebb')


def prog(name, language='c', shared=False):
    """The path of a compiled helper program or library of test/system/prog."""
    path = built(name, language, shared)
    if not PUBLIC:
        return path
    target = os.path.join(PUBLIC, os.path.basename(path))
    if not os.path.exists(target):
        shutil.copy(path, target)
        os.chmod(target, 0o755)
    return target


def built(name, language, shared):
    file = 'lib%s.so' % name if shared else name
    folder = os.environ.get('EBB_PROGS')
    if folder and os.path.exists(os.path.join(folder, file)):
        return os.path.join(folder, file)
    target = os.path.join(tempdir(), file)
    source = os.path.join(HERE, 'prog', name + '.' + language)
    argv = (['g++', '-std=gnu++17'] if language == 'cc' else ['gcc', '-std=gnu17'])
    argv += ['-D_GNU_SOURCE', '-O1', '-g', '-fno-builtin', '-pthread', '-o', target, source]
    argv += ['-shared', '-fPIC'] if shared else []
    done = subprocess.run(argv + ['-ldl'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Fail('cannot compile %s: %s' % (source, tail(done.stdout)))
    return target


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def wait_for(condition, seconds, what, process=None):
    """Polls until condition() is true; fails when time is up or the process has died."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process is not None and process.poll() is not None:
            raise Fail('%s: the program ended early: %s' % (what, ended(process.returncode)))
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise Fail('%s: not within %.0f s' % (what, seconds))


def wait_port(port, process, seconds=20):
    def answers():
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(('127.0.0.1', port)) == 0
    wait_for(answers, seconds, 'a server on port %d' % port, process)


def require_mapped(process, library=None):
    """Fails unless the process has the library under test mapped."""
    library = os.path.realpath(library or LIB)
    with open('/proc/%d/maps' % process.pid) as maps:
        if library not in maps.read():
            raise Fail('%s is not mapped in process %d' % (library, process.pid))


def arch_lib(name):
    """The path of one of glibc's own libraries."""
    for folder in ('/lib/%s-linux-gnu' % platform.machine(), '/lib64', '/usr/lib64', '/usr/lib'):
        if os.path.exists(os.path.join(folder, name)):
            return os.path.join(folder, name)
    raise Skip('%s not found' % name)
