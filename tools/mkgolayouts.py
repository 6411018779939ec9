#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes doctor/go_known.inc: where the runtimes of known versions of Go keep what the doctor reads.

Each toolchain that Debian's suites have builds a small program; goshape reads the offsets out of
its DWARF. Stripped programs have no addresses of variables: so for each variable a few functions
of the runtime are listed whose code refers to it, and how far from its start. In the code of a
small program and in that of a large one, the address that most of them name must be the right one:
a variable for which no functions do that has none in the table, and standard error says so.

    mkgolayouts.py --goshape BUILD/goshape > doctor/go_known.inc

  EBB_GO_CACHE  the folder to keep toolchains and programs in, as for test/system/gotool.py
"""
import argparse
import collections
import os
import re
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, 'test', 'system'))

import gotool  # noqa: E402, the path above

MORE_SUITES = {
    '1.21': ('bookworm-backports',), '1.22': ('bookworm-backports',),
    '1.23': ('bookworm-backports',), '1.25': ('trixie-backports',),
    '1.26': ('trixie-backports', 'sid'), '1.27': ('trixie-backports', 'sid'),
}
SMALL = 'package main\n\nfunc main() {}\n'
LARGE = os.path.join(ROOT, 'test', 'system', 'prog', 'goself.go')
WITNESSES = 5
CODE_MAX = 16384  # bytes of a function
NAME = re.compile(r'runtime\.(?!init)[\w.()*]+$')
ARCHES = (('amd64', '__x86_64__'), ('arm64', '__aarch64__'))


class Program:
    """A linked program: symbols and code."""

    def __init__(self, path):
        with open(path, 'rb') as file:
            self.data = file.read()
        head = struct.unpack_from('<16sHHIQQQIHHHHHH', self.data)
        self.machine, sections, segments = head[2], head[6], head[5]
        self.written, self.sections = [], []
        for i in range(head[10]):
            kind, flags, _, addr, _, _, size, _ = struct.unpack_from(
                '<IIQQQQQQ', self.data, segments + i * head[9])
            if kind == 1 and flags & 2:
                self.written.append((addr, addr + size))
        for i in range(head[12]):
            self.sections.append(struct.unpack_from('<IIQQQQIIQQ', self.data,
                                                    sections + i * head[11]))
        self.symbols = dict(self.read_symbols())

    def read_symbols(self):
        table = next(s for s in self.sections if s[1] == 2)
        strings = self.sections[table[6]]
        for at in range(table[4], table[4] + table[5], 24):
            name, info, _, _, addr, size = struct.unpack_from('<IBBHQQ', self.data, at)
            start = strings[4] + name
            text = self.data[start:self.data.index(b'\0', start)].decode('utf-8', 'replace')
            yield text, (addr, info & 15, size)

    def code(self, addr, size):
        for section in self.sections:
            if section[1] == 1 and section[3] <= addr < section[3] + section[5]:
                at = section[4] + addr - section[3]
                return self.data[at:at + min(size, CODE_MAX)]
        return b''

    def references(self, addr, size):
        """Addresses of variables in the code of a function, as go_known.c decodes them."""
        code = self.code(addr, size)
        every = x86_references if self.machine == 62 else arm_references
        return {at for at in every(code, addr)
                if any(low <= at < high for low, high in self.written)}

    def functions(self):
        for name, (addr, kind, size) in self.symbols.items():
            if kind == 2 and NAME.match(name):
                yield name[len('runtime.'):], self.references(addr, size)


def x86_references(code, addr):
    """Operands relative to the instruction pointer: ModRM with mod 0 and rm 5."""
    for i in range(1, len(code) - 4):
        if code[i] & 0xc7 != 5:
            continue
        op, wide = code[i - 1], i >= 2 and code[i - 2] == 0x0f
        behind = 0
        if not wide:
            short = (0x80, 0x83, 0xc0, 0xc1, 0xc6, 0x6b)
            behind = 1 if op in short else 4 if op in (0x81, 0xc7, 0x69) else 0
            if op in (0xf6, 0xf7) and code[i] & 0x38 == 0:
                behind = 1 if op == 0xf6 else 4
            if op in (0x81, 0xc7) and i >= 2 and code[i - 2] == 0x66:
                behind = 2
        yield addr + i + 5 + behind + struct.unpack_from('<i', code, i + 1)[0]


def arm_references(code, addr):
    """ADRP, and ADD or a load or a store by its register behind it."""
    words = struct.unpack_from('<%dI' % (len(code) // 4), code)
    for i in range(len(words) - 1):
        word, then = words[i], words[i + 1]
        if word & 0x9f000000 != 0x90000000 or then >> 5 & 31 != word & 31:
            continue
        high = (word >> 5 & 0x7ffff) << 2 | word >> 29 & 3
        page = (addr + 4 * i & ~0xfff) + ((high ^ 1 << 20) - (1 << 20) << 12)
        low = then >> 10 & 0xfff
        if then & 0xffc00000 == 0x91000000:
            yield page + low
        elif then & 0x3b000000 == 0x39000000:
            scale = then >> 30
            if then & 0x04800000 == 0x04800000:
                scale = 4
            yield page + (low << scale)


def votes(found, rules):
    """[(votes, address)] for a variable, most first."""
    count = collections.Counter()
    for name, offset in rules:
        count.update({at - offset for at in found.get(name, ())})
    return sorted(((n, at) for at, n in count.items()), reverse=True)


def margin(found, rules, addr):
    ranked = votes(found, rules)
    own = next((n for n, at in ranked if at == addr), 0)
    other = max([n for n, at in ranked if at != addr] or [0])
    return own - other


def rules_for(addr, size, found, large, large_addr):
    """Functions that tell a variable: few references each, and few in common."""
    usable = []
    for name, references in found.items():
        for at in references:
            if addr <= at < addr + max(size, 1) and at - addr + large_addr in large.get(name, ()):
                usable.append((len(references), name, at - addr))
    usable.sort()
    best, rules = [(name, offset) for _, name, offset in usable[:80]], []
    while best and len(rules) < WITNESSES:
        chosen = max(best, key=lambda r: (margin(found, rules + [r], addr)
                                          + margin(large, rules + [r], large_addr),
                                          -best.index(r)))
        rules.append(chosen)
        best.remove(chosen)
    return rules


def goshape(tool, path):
    done = subprocess.run([tool, path], stdout=subprocess.PIPE, check=True,
                          universal_newlines=True)
    parts, variables, version = [], [], ''
    for line in done.stdout.splitlines():
        word = line.split()
        if word[0] == 'field':
            parts.append(tuple(int(w) for w in word[1:]))
        elif word[0] == 'variable':
            variables.append((word[1], int(word[2])))
        else:
            version = word[1]
    return version, parts, variables


def built(tool, source, arch):
    return gotool.build(tool, source, env={'GOARCH': arch})


def layout(tool, args, arch):
    """(version, parts, rules) of a toolchain, or an error."""
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, 'small.go')
        with open(source, 'w') as file:
            file.write(SMALL)
        small, large = built(tool, source, arch), built(tool, LARGE, arch)
    version, parts, variables = goshape(args.goshape, small)
    version, parts_large, variables_large = goshape(args.goshape, large)
    for i, part in enumerate(parts):
        if part[0] != 255 and part != parts_large[i]:
            raise SystemExit('%s: field %d differs between programs' % (version, i))
    small, large = Program(small), Program(large)
    found, found_large = dict(small.functions()), dict(large.functions())
    rules, large_addrs = [], dict(variables_large)
    for index, (name, addr) in enumerate(variables):
        if not addr or name == 'runtime.firstmoduledata':
            continue
        size = small.symbols[name][2]
        mine = rules_for(addr, size, found, found_large, large_addrs[name])
        margins = margin(found, mine, addr), margin(found_large, mine, large_addrs[name])
        if args.verbose:
            print(version, arch, name, *margins, mine, file=sys.stderr)
        if min(margins) < 1:
            print('%s %s: %s is told by no functions: %s' % (version, arch, name, mine),
                  file=sys.stderr)
            mine = []
        rules += [(index, offset, function) for function, offset in mine]
    return version, parts_large, rules


def wrapped(items, indent='    '):
    line = indent
    for item in items:
        if len(line) + len(item) + 2 > 100:
            yield line.rstrip()
            line = indent
        line += item + ', '
    yield line.rstrip()


def printed(minor, version, parts, rules):
    yield '// %s' % version
    yield 'static const struct go_shape shape_%d = {{' % minor
    for line in wrapped('{%d, %d, %d}' % part if part[0] != 255 else 'NONE' for part in parts):
        yield line
    yield '}};'
    yield 'static const struct go_witness witnesses_%d[] = {' % minor
    for line in wrapped('{%d, %d, "%s"}' % (root, offset, name)
                        for root, offset, name in sorted(rules, key=lambda r: (r[2], r[0]))):
        yield line
    yield '};'


def table(args):
    gotool.SUITES.update(MORE_SUITES)
    have, lacking = gotool.find_all(args.versions or sorted(gotool.SUITES))
    for version, why in lacking.items():
        print('no Go %s: %s' % (version, why), file=sys.stderr)
    lines = ['// SPDX-License-Identifier: MIT', '//',
             '// Where known runtimes keep what the doctor reads, made by tools/mkgolayouts.py.',
             '// A field: root, offset, size. A witness: root, how far from its start, function.',
             '//', '// Go  src/runtime, of the versions named below.', '// clang-format off']
    for number, (arch, macro) in enumerate(ARCHES):
        lines.append('#%s defined(%s)' % ('elif' if number else 'if', macro))
        rows = []
        for version in sorted(have, key=lambda v: int(v.split('.')[1])):
            minor = int(version.split('.')[1])
            lines += printed(minor, *layout(have[version], args, arch))
            rows.append('    {%d, &shape_%d, witnesses_%d, ARRAY_COUNT(witnesses_%d)},'
                        % (minor, minor, minor, minor))
        lines += ['static const struct known knowns[] = {'] + rows + ['};']
    return '\n'.join(lines + ['#else', 'static const struct known knowns[] = {{0, NULL, NULL, 0}};',
                              '#endif']) + '\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--goshape', required=True, help='the program that meson builds')
    parser.add_argument('--verbose', action='store_true')
    parser.add_argument('versions', nargs='*', help='1.15 ...; without: all')
    print(table(parser.parse_args()), end='')


main()
