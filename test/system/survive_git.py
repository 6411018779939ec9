#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""git on Ebb: a history of many commits, clone, gc, fsck; the same objects as on glibc."""
import hashlib
import os
import random

import sysutil
from sysutil import EBB, GLIBC, Fail


def stream(commits):
    """A history for git fast-import: files that change, come and go."""
    source = random.Random(11)
    texts = {}
    parts = [b'feature done\n']
    for number in range(commits):
        changes = []
        for _ in range(source.randint(1, 6)):
            name = b'dir%d/file%d.txt' % (source.randrange(12), source.randrange(40))
            lines = texts.setdefault(name, [])
            for _ in range(source.randint(1, 30)):
                lines.insert(source.randint(0, len(lines)), b'%x' % source.getrandbits(200))
            body = b'\n'.join(lines)
            changes.append(b'M 100644 inline %s\ndata %d\n%s\n' % (name, len(body), body))
        message = b'change %d' % number
        parts.append(b'commit refs/heads/main\ncommitter T <t@example.org> %d +0000\n'
                     b'data %d\n%s\n%s\n' % (1_600_000_000 + number * 60, len(message), message,
                                             b''.join(changes)))
    parts.append(b'done\n')
    return b''.join(parts)


def life(kind, git, history):
    """The digest of everything git says about a repository made, cloned and packed on kind."""
    home = sysutil.tempdir()
    extra = {'HOME': home, 'GIT_CONFIG_NOSYSTEM': '1', 'GIT_AUTHOR_DATE': '1700000000 +0000',
             'GIT_COMMITTER_DATE': '1700000000 +0000', 'GIT_AUTHOR_NAME': 'T',
             'GIT_AUTHOR_EMAIL': 't@example.org', 'GIT_COMMITTER_NAME': 'T',
             'GIT_COMMITTER_EMAIL': 't@example.org', 'GIT_TERMINAL_PROMPT': '0'}

    def call(*words, cwd=home, stdin=None):
        return sysutil.run(kind, [git] + list(words), extra=extra, cwd=cwd, stdin=stdin,
                           timeout=200, command=True).stdout

    first, second = os.path.join(home, 'first'), os.path.join(home, 'second')
    call('init', '-q', '-b', 'main', first)
    call('fast-import', '--quiet', cwd=first, stdin=history)
    call('clone', '-q', '--no-local', first, second)
    call('checkout', '-q', '-b', 'side', 'HEAD~20', cwd=second)
    with open(os.path.join(second, 'new.txt'), 'w') as file:
        file.write('new\n' * 1000)
    call('add', '-A', cwd=second)
    call('commit', '-q', '-m', 'side', cwd=second)
    call('merge', '-q', '-m', 'merge', 'main', cwd=second)
    call('-c', 'pack.threads=2', 'gc', '-q', '--aggressive', '--prune=now', cwd=second)
    call('fsck', '--full', '--strict', cwd=second)
    said = call('log', '-p', '--stat', '-M', cwd=second) + call('blame', 'new.txt', cwd=second)
    said += call('rev-parse', 'HEAD', cwd=second) + call('ls-tree', '-r', 'HEAD', cwd=second)
    said += call('grep', '-c', 'abc', 'HEAD', cwd=second)
    return hashlib.sha256(said).hexdigest(), len(said)


def test(args):
    git = sysutil.need('git', 'git')
    history = stream(4000 if args.long else 500)
    ours = life(EBB, git, history)
    if ours != life(GLIBC, git, history):
        raise Fail('git: the repository made on Ebb says something else than that made on glibc')
    sysutil.say('%d KiB of history, the same' % (ours[1] // 1024))


sysutil.main(test, __doc__)
