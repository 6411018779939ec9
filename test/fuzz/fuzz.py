#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fuzz.py TARGET SECONDS [FOLDER]: runs http, gops or option under libFuzzer with the address and
undefined-behaviour sanitizers. Needs clang. New inputs go to FOLDER (default: a temporary one)."""
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
LLHTTP = os.environ.get('EBB_LLHTTP', '/usr/share')
BASE = ['src/base/fmt.c', 'src/base/address.c', 'src/base/option.c']
PARSER = [os.path.join(LLHTTP, 'llhttp', name) for name in ('api.c', 'http.c', 'llhttp.c')]
TARGETS = {
    'http': ['src/agent/http.c', 'src/agent/query.c', 'src/os/region_linux.c'] + BASE + PARSER,
    'gops': ['src/agent/gops_bytes.c'],
    'option': BASE,
}


def main(args):
    if len(args) not in (2, 3) or args[0] not in TARGETS:
        sys.exit(__doc__)
    clang = shutil.which('clang')
    if not clang:
        print('SKIP: clang is missing')
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix='ebb-fuzz-') as folder:
        program = os.path.join(folder, args[0])
        found = args[2] if len(args) == 3 else os.path.join(folder, 'found')
        os.makedirs(found, exist_ok=True)
        sources = ['test/fuzz/%s_fuzz.c' % args[0]] + TARGETS[args[0]]
        subprocess.run([clang, '-std=gnu17', '-g', '-O1', '-D_GNU_SOURCE', '-DEBB_VERSION_TEXT="0"',
                        '-fsanitize=fuzzer,address,undefined', '-fno-sanitize-recover=all', '-w',
                        '-I' + os.path.join(ROOT, 'src'), '-I' + os.path.join(ROOT, 'include'),
                        '-I' + os.path.join(LLHTTP, 'include', 'llhttp'), '-o', program]
                       + [os.path.join(ROOT, source) for source in sources], check=True)
        done = subprocess.run([program, '-max_total_time=' + args[1], '-max_len=8192',
                               '-print_final_stats=1', '-verbosity=0', found,
                               os.path.join(HERE, 'corpus', args[0])], cwd=folder)
    sys.exit(1 if done.returncode else 0)


if __name__ == '__main__':
    main(sys.argv[1:])
