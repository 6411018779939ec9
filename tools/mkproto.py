#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes src/profile/profile_pb.inc of profile.proto and profile.options with nanopb's generator:
the header and the descriptors in one file, which one source file includes.

    mkproto.py SCHEMA.proto            print it
    mkproto.py --check F SCHEMA.proto  compare with F; exit status 1 if they differ, 77 without the
                                       generator (Debian: nanopb)
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

COLUMNS = 98
HEAD = """// SPDX-License-Identifier: MIT
// Made by tools/mkproto.py from profile.proto and profile.options. Do not edit.
"""


def generator():
    for name in ('nanopb_generator', 'nanopb_generator.py'):
        path = shutil.which(name)
        if path:
            return path
    return None


def wrapped(line):
    """A line of a macro that is too long, broken at commas."""
    out = []
    while len(line) > COLUMNS:
        at = line.rfind(', ', 0, COLUMNS - 2) + 1
        out.append(line[:at] + ' \\')
        line = '    ' + line[at:].strip()
    return out + [line.rstrip()]


def made(command, schema):
    schema = os.path.abspath(schema)
    stem = os.path.splitext(os.path.basename(schema))[0]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([command, '-q', '-T', '-D', folder, '-I', os.path.dirname(schema), '-f',
                        os.path.splitext(schema)[0] + '.options', os.path.basename(schema)],
                       check=True, cwd=os.path.dirname(schema))
        text = ''
        for end in ('.pb.h', '.pb.c'):
            with open(os.path.join(folder, stem + end), encoding='utf-8') as file:
                text += file.read()
    text = re.sub(r'#include "%s\.pb\.h"\n' % stem, '', text)
    text = re.sub(r'/\* (Automatically g|G)enerated .*\n', '', text)
    # Said once, and in a way that a linter without the library's header does not take for its end.
    check = r'#if PB_PROTO_HEADER_VERSION != (\d+)\n#error .*\n#endif\n'
    version = re.search(check, text).group(1)
    text = re.sub(check, '_Static_assert(PB_PROTO_HEADER_VERSION == %s, "run tools/mkproto.py");\n'
                  % version, text, count=1)
    text = re.sub(check, '', text)
    text = re.sub(r'\n{2,}', '\n\n', text)
    lines = []
    for line in text.splitlines():
        lines += wrapped(line)
    return HEAD + '\n'.join(lines).rstrip('\n') + '\n'


def main(args):
    check = args[1] if args[:1] == ['--check'] and len(args) == 3 else None
    if len(args) != (3 if check else 1):
        print(__doc__, file=sys.stderr)
        return 2
    command = generator()
    if command is None:
        print('mkproto: nanopb_generator is not installed (Debian: nanopb)', file=sys.stderr)
        return 77
    text = made(command, args[-1])
    if not check:
        sys.stdout.write(text)
        return 0
    with open(check, encoding='utf-8') as file:
        if file.read() == text:
            return 0
    print('mkproto: %s is not what %s makes of %s; run\n  tools/mkproto.py %s > %s'
          % (check, os.path.basename(command), args[-1], args[-1], check), file=sys.stderr)
    return 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
