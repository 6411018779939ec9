#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Debian's python3 runs a good part of its own test suite on Ebb.

A module that fails is run again on glibc; only one that passes there counts against Ebb. With a
name, that module alone.
"""
import os
import re

import sysutil
from sysutil import EBB, GLIBC, Fail, Skip

PYTHON = '/usr/bin/python3'
# By hand, because a module that hangs without a network or a display says nothing about malloc.
SHORT = ('test_dict test_json test_list test_set test_unicode test_re test_gc test_thread '
         'test_ctypes test_os test_deque test_bytes test_array test_zlib test_memoryview '
         'test_bigmem test_weakref test_struct test_hashlib test_tracemalloc').split()
SLOW = 'test_threading test_subprocess'.split()
LONG = SHORT + SLOW + (
    'test_io test_pickle test_fork1 test_queue test_atexit test_builtin test_bytes '
    'test_codecs test_collections test_compile test_complex test_copy '
    'test_coroutines test_csv test_dataclasses test_decimal test_descr test_difflib test_enum '
    'test_exceptions test_float test_fractions test_functools test_generators test_glob '
    'test_heapq test_importlib test_inspect test_itertools test_long test_lzma test_bz2 '
    'test_marshal test_math test_mmap test_module test_optparse test_ordered_dict '
    'test_pathlib test_posix test_random test_sched test_shelve test_shutil test_signal '
    'test_slice test_sort test_statistics test_tempfile test_textwrap test_thread '
    'test_threading_local test_time test_traceback test_tuple test_types test_typing '
    'test_unittest test_uuid test_xml_etree test_xml_etree_c test_zipfile').split()


def installed():
    for folder in ('/usr/lib', '/usr/local/lib'):
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name, 'test', 'test_dict.py')
            if name.startswith('python3') and os.path.exists(path):
                return path
    return None


def modules(kind, names, timeout):
    """Runs the modules in one process; those that failed, and the exit in words."""
    done = sysutil.run(kind, [PYTHON, '-m', 'test', '-q', '--timeout', '120'] + names,
                       cwd=sysutil.tempdir(), timeout=timeout, check=False, command=True)
    text = done.stdout.decode('utf-8', 'replace')
    failed = set()
    for block in re.findall(r'^\d+ tests? failed.*?:\n((?:    .*\n)+)', text, re.MULTILINE):
        failed.update(block.split())
    skipped = re.findall(r'^\d+ tests? skipped:\n((?:    .*\n)+)', text, re.MULTILINE)
    away = ' '.join(skipped).split()
    if done.returncode and not failed:
        return set(names), '%s: %s' % (sysutil.ended(done.returncode),
                                       sysutil.tail(done.stderr or done.stdout)), away
    return failed, '', away


def test(args):
    if not os.path.exists(PYTHON):
        raise Skip('no %s' % PYTHON)
    version = sysutil.run(GLIBC, [PYTHON, '-c',
                                  'import sys; print("%d.%d" % sys.version_info[:2])'])
    sysutil.need('libpython%s-testsuite' % version.stdout.decode().strip(), "python3's test suite",
                 installed)
    part = LONG if args.long else SHORT
    names = ['test_' + args.name] if args.name else list(dict.fromkeys(part))
    failed, how, away = modules(EBB, names, 1800 if args.long else 240)
    for name in sorted(failed):
        alone, why, _ = modules(EBB, [name], 600)
        if not alone:
            continue  # fails only in company
        if modules(GLIBC, [name], 600)[0]:
            sysutil.say('%s fails on glibc too' % name)
            continue
        raise Fail('python3 -m test %s fails on Ebb and passes on glibc %s' % (name, why or how))
    sysutil.say('%d modules of python\'s own tests pass%s' % (
        len(names) - len(away), '; skipped by themselves: ' + ' '.join(away) if away else ''))


sysutil.main(test, __doc__)
