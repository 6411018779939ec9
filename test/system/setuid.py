#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A program that runs with another's rights takes no orders from the environment.

LD_PRELOAD is already dropped there by the loader; so the program is linked against the library, and
run as nobody: once as it is, once as a copy owned by root with the setuid bit. The first obeys
EBB=stats=exit and complains about a malformed option; the second does neither.
"""
import os
import pwd
import re
import shutil
import subprocess

import sysutil
from sysutil import Fail, GLIBC, Skip

ORDERS = {'EBB': 'stats=exit,nosuchoption=1'}


def soname(path):
    """The name under which the loader will look for the library."""
    said = subprocess.run(['readelf', '-d', path], stdout=subprocess.PIPE, text=True).stdout
    found = re.search(r'\(SONAME\).*\[(.*)\]', said)
    return found.group(1) if found else os.path.basename(path)


def test(args):
    sysutil.need_root('a setuid program is made')
    folder = sysutil.tempdir(0o755)
    library = os.path.join(folder, soname(sysutil.LIB))
    shutil.copy(sysutil.LIB, library)
    os.chmod(library, 0o755)
    plain, secure = os.path.join(folder, 'plain'), os.path.join(folder, 'secure')
    source = os.path.join(sysutil.HERE, 'prog', 'setuid.c')
    done = subprocess.run(['gcc', '-std=gnu17', '-fno-builtin', '-Wl,--no-as-needed', '-o', plain,
                           source, library, '-Wl,-rpath,' + folder],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Fail('cannot link: %s' % sysutil.tail(done.stdout))
    shutil.copy(plain, secure)
    os.chown(secure, 0, 0)
    os.chmod(secure, 0o4755)
    user = pwd.getpwnam('nobody')

    def become():
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)

    free = sysutil.run(GLIBC, [plain], extra=ORDERS, before=become)
    bound = sysutil.run(GLIBC, [secure], extra=ORDERS, before=become)
    if free.stdout != b'secure=0\n':
        raise Fail('the plain program says %s' % sysutil.tail(free.stdout))
    if bound.stdout != b'secure=1\n':
        raise Skip('setuid has no effect in %s: %s' % (folder, sysutil.tail(bound.stdout)))
    if b'nosuchoption' not in free.stderr or free.stderr.count(b'\n') < 2:
        raise Fail('without setuid EBB=%s has no effect, so this test shows nothing: %s'
                   % (ORDERS['EBB'], sysutil.tail(free.stderr)))
    if bound.stderr:
        raise Fail('a setuid program has obeyed EBB: %s' % sysutil.tail(bound.stderr))


sysutil.main(test, __doc__)
