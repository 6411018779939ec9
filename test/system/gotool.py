#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Go toolchains of several ages, from the suites of Debian.

How the memory of a Go program looks from outside depends on its runtime: 1.15 is the last that
hands pages back lazily, 1.19 the first with a memory limit, 1.24 is of today. Run as a script, it
prints which versions this machine can have; with versions as words, only those.

Model
  toolchain  a version with its `go` and its GOROOT: the system's own where the version is right,
             else unpacked from packages into a folder of the user's cache
  mirror     where the machine itself takes Debian packages from, as apt is configured
  apt root   folders of our own for lists, state and archives, so that the machine's apt neither
             sees nor keeps anything; no right to install is needed
  program    one source file, built by one toolchain, kept by the hash of all that went into it
Locking
  a file lock for each version and for each program: tests run beside one another
Why this way
  Signatures are what makes a mirror Debian's, not its name: apt checks each suite by Debian's
  keyring. A machine of another distribution, or without network, gets no toolchain and a reason;
  callers skip that part and say so.
Inputs
  EBB_GO_CACHE  the folder to keep toolchains and programs in ($XDG_CACHE_HOME/ebb-go)
"""
import collections
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time

KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
# Which suites have a version, and its name in front of the patch number of `go version`.
SUITES = collections.OrderedDict([
    ('1.15', ('bullseye',)),
    ('1.19', ('bookworm',)),
    ('1.24', ('trixie', 'bookworm-backports')),
])
UPDATE_S, FETCH_S, BUILD_S = 90, 300, 240
RETRY_S = 600  # a failure is believed for that long, so that a row of tests asks once

Toolchain = collections.namedtuple('Toolchain', 'version full go goroot origin')


class NoToolchain(Exception):
    """A version cannot be had, and why."""


class BuildError(Exception):
    """A program does not compile."""


def cache_folder():
    home = os.environ.get('EBB_GO_CACHE')
    if not home:
        base = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
        home = os.path.join(base, 'ebb-go')
    os.makedirs(home, exist_ok=True)
    return home


@contextlib.contextmanager
def locked(path):
    with open(path + '.lock', 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def called(argv, timeout, env=None, **kw):
    """(exit status, output and errors together) of a command; 124 when time was up."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=timeout, env=env, **kw)
    except subprocess.TimeoutExpired:
        return 124, '%s did not end within %d s' % (os.path.basename(argv[0]), timeout)
    except OSError as error:
        return 127, str(error)
    return done.returncode, done.stdout.decode('utf-8', 'replace')


# ---- the machine's own toolchain ------------------------------------------------------------

def version_of(go, goroot=None):
    """'1.19.8' for a go command; None when it does not run."""
    env = go_environment(goroot) if goroot else dict(os.environ, GOTOOLCHAIN='local')
    status, text = called([go, 'version'], 30, env)
    found = re.search(r'go version go(\d+\.\d+\S*)', text)
    return found.group(1) if status == 0 and found else None


def of_system(version):
    """The system's own toolchain of that version, or None."""
    places = ['/usr/lib/go-%s/bin/go' % version, shutil.which('go')]
    for go in filter(None, places):
        if not os.access(go, os.X_OK):
            continue
        full = version_of(go)
        if full and (full == version or full.startswith(version + '.')):
            goroot = os.path.dirname(os.path.dirname(os.path.realpath(go)))
            return Toolchain(version, full, go, goroot, 'system')
    return None


# ---- packages -------------------------------------------------------------------------------

def mirrors():
    """URIs that this machine's apt takes Debian from, the most likely first; or NoToolchain."""
    if not shutil.which('apt-get') or not shutil.which('dpkg'):
        raise NoToolchain('this machine has no apt-get')
    env = dict(os.environ, LC_ALL='C')
    _, text = called(['apt-get', 'indextargets', '--format', '$(REPO_URI) $(ORIGIN) $(RELEASE)'],
                     60, env)
    found, others = [], set()
    for line in text.splitlines():
        part = line.split()
        if len(part) != 3 or '://' not in part[0] and not part[0].startswith('file:'):
            continue
        if part[1] != 'Debian':
            others.add(part[1])
        elif not part[2].endswith('-security') and part[0] not in found:
            found.append(part[0])
    if not found and not others:
        # Lists were never fetched, or thrown away, as images do: what they would be fetched from.
        _, text = called(['apt-get', '--print-uris', 'update'], 60, env)
        for uri in re.findall(r"^'(\S+/debian/?)/dists/[^'-]+/InRelease'", text, re.MULTILINE):
            if uri not in found:
                found.append(uri)
    if not found:
        raise NoToolchain('apt of this machine knows no mirror of Debian'
                          + (' (only: %s)' % ', '.join(sorted(others)) if others else ''))
    return found


def apt_options(root, mirror, suite):
    """Options of apt-get that keep all it reads and writes below root."""
    for folder in ('lists/partial', 'cache/archives/partial', 'state'):
        os.makedirs(os.path.join(root, folder), exist_ok=True)
    with open(os.path.join(root, 'sources.list'), 'w') as file:
        file.write('deb [signed-by=%s] %s %s main\n' % (KEYRING, mirror, suite))
    open(os.path.join(root, 'status'), 'a').close()
    settings = {
        'Dir::Etc::sourcelist': os.path.join(root, 'sources.list'),
        'Dir::Etc::sourceparts': '-',
        'Dir::Etc::preferences': '/dev/null',
        'Dir::Etc::preferencesparts': '-',
        'Dir::State': os.path.join(root, 'state'),
        'Dir::State::lists': os.path.join(root, 'lists'),
        'Dir::State::status': os.path.join(root, 'status'),
        'Dir::Cache': os.path.join(root, 'cache'),
        # A suite that is no longer mended stays as it was signed.
        'Acquire::Check-Valid-Until': 'false',
        'Acquire::Languages': 'none',
        'Acquire::http::Timeout': '20',
        'Acquire::Retries': '1',
        'APT::Sandbox::User': 'root',  # our folder may lie in a home that _apt cannot enter
        'APT::Update::Post-Invoke': '',
        'APT::Update::Post-Invoke-Success': '',
    }
    return [word for pair in settings.items() for word in ('-o', '%s=%s' % pair)]


def brief(text):
    """The lines of apt that say what went wrong, without what names its mirrors."""
    lines = re.findall(r'^[EW]: .*', text, re.MULTILINE)
    line = (lines or text.strip().splitlines() or ['no output'])[0]
    return re.sub(r'\w+://[^/ ]+', '...', line)[:200]


def fetch(version, suite, mirror, target):
    """Unpacks the packages of a version below target."""
    root = os.path.join(cache_folder(), 'apt', suite)
    options = apt_options(root, mirror, suite)
    env = dict(os.environ, LC_ALL='C', DEBIAN_FRONTEND='noninteractive')
    status, text = called(['apt-get'] + options + ['update'], UPDATE_S, env)
    if status or re.search(r'^(E|Err|W: Failed)', text, re.MULTILINE):
        raise NoToolchain('%s: %s' % (suite, brief(text)))
    archives = os.path.join(root, 'cache', 'archives')
    names = ['golang-%s-go' % version, 'golang-%s-src' % version]
    status, text = called(['apt-get'] + options + ['download'] + names, FETCH_S, env, cwd=archives)
    if status:
        raise NoToolchain('%s: %s' % (suite, brief(text)))
    fresh = target + '.new'
    shutil.rmtree(fresh, ignore_errors=True)
    for name in sorted(os.listdir(archives)):
        if name.startswith(tuple(n + '_' for n in names)):
            path = os.path.join(archives, name)
            status, text = called(['dpkg', '-x', path, fresh], 120, env)
            if status:
                raise NoToolchain('%s: %s' % (name, brief(text)))
            os.unlink(path)
    shutil.rmtree(target, ignore_errors=True)
    os.rename(fresh, target)  # whole, or not at all


def unpacked(version, target, origin):
    """The toolchain in an unpacked folder, or None."""
    goroot = os.path.join(target, 'usr', 'lib', 'go-' + version)
    go = os.path.join(goroot, 'bin', 'go')
    full = version_of(go, goroot) if os.access(go, os.X_OK) else None
    return Toolchain(version, full, go, goroot, origin) if full else None


def from_debian(version):
    target = os.path.join(cache_folder(), 'toolchain', '%s-%s' % (version, platform.machine()))
    failed = target + '.failed'
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with locked(target):
        ready = unpacked(version, target, 'Debian')
        if ready:
            return ready
        if os.path.exists(failed) and time.time() - os.path.getmtime(failed) < RETRY_S:
            with open(failed) as file:
                raise NoToolchain(file.read())
        reasons = []
        try:
            if not os.path.exists(KEYRING):
                raise NoToolchain('no keyring of Debian at %s' % KEYRING)
            for mirror in mirrors():
                for suite in SUITES[version]:
                    try:
                        fetch(version, suite, mirror, target)
                        ready = unpacked(version, target, 'Debian ' + suite)
                        if ready:
                            return ready
                        reasons.append('%s: unpacked, but does not run here' % suite)
                    except NoToolchain as reason:
                        reasons.append(str(reason))
        except NoToolchain as reason:
            reasons.append(str(reason))
        why = '; '.join(reasons)
        with open(failed, 'w') as file:
            file.write(why)
        raise NoToolchain(why)


def find(version):
    """The toolchain of '1.15', '1.19' or '1.24'; raises NoToolchain with the reason."""
    if version not in SUITES:
        raise NoToolchain('no suite is known for it; known are %s' % ', '.join(SUITES))
    return of_system(version) or from_debian(version)


def find_all(versions=None):
    """({version: Toolchain}, {version: reason}) of all that are asked for."""
    have, lacking = collections.OrderedDict(), collections.OrderedDict()
    for version in versions or SUITES:
        try:
            have[version] = find(version)
        except NoToolchain as reason:
            lacking[version] = str(reason)
    return have, lacking


# ---- programs -------------------------------------------------------------------------------

def go_environment(goroot, env=None):
    """An environment in which go neither reads the user's settings nor asks the network."""
    home = os.path.join(cache_folder(), 'home')
    os.makedirs(home, exist_ok=True)
    base = {k: v for k, v in os.environ.items() if not k.startswith(('GO', 'CGO'))}
    base.update({
        'HOME': home, 'GOROOT': goroot, 'GOPATH': os.path.join(home, 'go'),
        'GOCACHE': os.path.join(home, 'build'), 'GOENV': 'off', 'GOFLAGS': '',
        'GO111MODULE': 'on', 'GOPROXY': 'off', 'GOSUMDB': 'off', 'GOTOOLCHAIN': 'local',
        'CGO_ENABLED': '0', 'LD_PRELOAD': '',
    })
    base.update(env or {})
    return base


def build(toolchain, source, out=None, ldflags=(), env=None):
    """The path of a program built from one source file: out, or its place in the cache."""
    with open(source, 'rb') as file:
        text = file.read()
    name = os.path.splitext(os.path.basename(source))[0]
    key = hashlib.sha256(repr((text, toolchain.full, toolchain.goroot, tuple(ldflags),
                               sorted((env or {}).items()), platform.machine())).encode())
    folder = os.path.join(cache_folder(), 'program', key.hexdigest()[:24])
    program = os.path.join(folder, name)
    os.makedirs(folder, exist_ok=True)
    with locked(program):
        if not os.access(program, os.X_OK):
            compiled(toolchain, text, name, program, ldflags, env)
    if not out:
        return program
    shutil.copy(program, out)
    return out


def compiled(toolchain, text, name, program, ldflags, env):
    """Builds outside of the tree: no go.mod of somebody else is above the source there."""
    source = program + '.go'
    with open(source, 'wb') as file:
        file.write(text)
    argv = [toolchain.go, 'build', '-p', '2', '-o', program + '.new']
    argv += ['-ldflags', ' '.join(ldflags)] if ldflags else []
    status, output = called(argv + [os.path.basename(source)], BUILD_S,
                            go_environment(toolchain.goroot, env), cwd=os.path.dirname(source))
    if status:
        raise BuildError('%s does not compile with Go %s: %s'
                         % (name, toolchain.full, ' | '.join(output.strip().splitlines()[-4:])))
    os.rename(program + '.new', program)


def main():
    versions = sys.argv[1:] or list(SUITES)
    have, lacking = find_all(versions)
    for version in versions:
        if version in have:
            tool = have[version]
            print('go %-5s %-8s from %s, GOROOT %s'
                  % (version, tool.full, tool.origin, tool.goroot))
        else:
            print('go %-5s none: %s' % (version, lacking[version]))
    sys.exit(0 if have else 77)


if __name__ == '__main__':
    main()
