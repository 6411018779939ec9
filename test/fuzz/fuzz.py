#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fuzz.py TARGET SECONDS [FOLDER]: runs TARGET_fuzz.c under libFuzzer with the address and
undefined-behaviour sanitizers. Needs clang. New inputs go to FOLDER (default: a temporary one).
TARGET is one of"""
import glob
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TARGETS = [os.path.basename(path)[:-len('_fuzz.c')]
           for path in glob.glob(os.path.join(HERE, '*_fuzz.c'))]
SETUP = ['--buildtype=debugoptimized', '-Db_sanitize=address,undefined', '-Db_lundef=false',
         '-Dfuzzer=true', '-Dc_args=-fsanitize=float-cast-overflow -fno-sanitize-recover=all']


def main(args):
    if len(args) not in (2, 3) or args[0] not in TARGETS:
        sys.exit('%s %s.' % (__doc__, ', '.join(sorted(TARGETS))))
    if not shutil.which('clang'):
        print('SKIP: clang is missing')
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix='ebb-fuzz-') as folder:
        build = os.path.join(folder, 'build')
        program = os.path.join('test', 'fuzz', args[0] + '_fuzz')
        found = os.path.abspath(args[2]) if len(args) == 3 else os.path.join(folder, 'found')
        os.makedirs(found, exist_ok=True)
        subprocess.run(['meson', 'setup', build, ROOT] + SETUP, check=True,
                       env=dict(os.environ, CC='clang', CXX='clang++'))
        subprocess.run(['ninja', '-C', build, program], check=True)
        done = subprocess.run([os.path.join(build, program), '-max_total_time=' + args[1],
                               '-max_len=8192', '-print_final_stats=1', '-verbosity=0', found,
                               os.path.join(HERE, 'corpus', args[0])], cwd=folder)
    sys.exit(1 if done.returncode else 0)


if __name__ == '__main__':
    main(sys.argv[1:])
