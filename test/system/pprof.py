#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""go tool pprof reads what the library writes: names, files, lines and values for a program with
DWARF, without it, stripped, and at a fixed address, from the proto, from the texts and over HTTP;
and names stay right, or away, where the files of the program have changed."""
import gzip
import http.server
import os
import random
import re
import shutil
import struct
import subprocess
import threading
import urllib.request

import sysutil
from sysutil import Fail, say

SOURCE = os.path.join(sysutil.HERE, 'prog', 'pprofset.c')
ADDR_COMPAT_LAYOUT = 0x0200000  # of personality(2): mappings from below
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000  # of sched.h and mount(2)


# ---- the proto ------------------------------------------------------------------------------

def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def signed(value):
    return value - (1 << 64) if value >> 63 else value


def message(data):
    """The fields of a message: {number: [values]}; bytes or numbers."""
    fields = {}
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            length, at = varint(data, at)
            if at + length > len(data):
                raise Fail('field %d ends after its message' % (key >> 3))
            value, at = data[at:at + length], at + length
        else:
            raise Fail('field %d has wire type %d' % (key >> 3, key & 7))
        fields.setdefault(key >> 3, []).append(value)
    return fields


def numbers(values):
    """A repeated number, packed or not."""
    out = []
    for value in values:
        at = 0
        if isinstance(value, int):
            out.append(signed(value))
            continue
        while at < len(value):
            number, at = varint(value, at)
            out.append(signed(number))
    return out


class Profile:
    def __init__(self, path):
        with open(path, 'rb') as file:
            raw = file.read()
        fields = message(gzip.decompress(raw))
        self.fields = fields
        self.texts = [text.decode() for text in fields[6]]
        self.types = [self.pair(entry) for entry in fields[1]]
        self.samples = [message(entry) for entry in fields.get(2, [])]
        self.mappings = [message(entry) for entry in fields.get(3, [])]
        self.locations = self.by_id(fields.get(4, []), 'location')
        self.functions = self.by_id(fields.get(5, []), 'function')
        self.valid()

    def pair(self, entry):
        entry = message(entry)
        return tuple(self.texts[entry.get(i, [0])[0]] for i in (1, 2))

    def by_id(self, entries, what):
        out = {}
        for entry in map(message, entries):
            number = entry[1][0]
            if number == 0 or number in out:
                raise Fail('%s id %d is 0 or there twice' % (what, number))
            out[number] = entry
        return out

    def valid(self):
        """What INTERFACES.md 3.1 asks for."""
        if self.texts[0] != '' or len(set(self.texts)) != len(self.texts):
            raise Fail('string table: first is %r, or texts twice' % self.texts[0])
        ids = [mapping[1][0] for mapping in self.mappings]
        if ids != list(range(1, len(ids) + 1)):
            raise Fail('mapping ids %s' % ids)
        for sample in self.samples:
            if len(numbers(sample[2])) != len(self.types):
                raise Fail('a sample with %d values' % len(numbers(sample[2])))
            for number in numbers(sample.get(1, [])):
                if number not in self.locations:
                    raise Fail('no location %d' % number)
        for location in self.locations.values():
            if location.get(2, [0])[0] not in [0] + ids:
                raise Fail('no mapping %d' % location[2][0])
            for line in map(message, location.get(4, [])):
                if line[1][0] not in self.functions:
                    raise Fail('no function %d' % line[1][0])

    def stack(self, sample):
        """Names of a sample, leaf first, with lines: [(function, file, line)]."""
        out = []
        for number in numbers(sample.get(1, [])):
            for line in map(message, self.locations[number].get(4, [])):
                function = self.functions[line[1][0]]
                out.append((self.texts[function.get(2, [0])[0]],
                            os.path.basename(self.texts[function.get(4, [0])[0]]),
                            line.get(2, [0])[0]))
        return out

    def flags(self, index):
        return tuple(self.mappings[index].get(i, [0])[0] for i in (7, 8, 9))

    def path(self, index):
        return self.texts[self.mappings[index].get(5, [0])[0]]


# ---- what is expected -----------------------------------------------------------------------

def line_of(mark):
    with open(SOURCE, encoding='utf-8') as file:
        for number, text in enumerate(file, 1):
            if text.rstrip().endswith('// line ' + mark):
                return number
    raise Fail('%s has no line %s' % (SOURCE, mark))


def expect(what, got, wanted):
    if got != wanted:
        raise Fail('%s: %r, expected %r' % (what, got, wanted))


class World:
    """The programs in all forms, and go tool pprof with a home of its own."""

    def __init__(self):
        self.folder = sysutil.tempdir()
        self.go = sysutil.need('golang-go', 'go')
        self.env = dict(os.environ, HOME=self.folder, PPROF_TMPDIR=self.folder,
                        PPROF_BINARY_PATH='/nonexistent', TZ='UTC')
        folder = os.environ.get('EBB_PROGS') or os.path.join(
            os.path.dirname(sysutil.LIB), 'test', 'system')
        self.programs = {}
        for name in ('pprofset', 'pprofset_fixed'):
            source = os.path.join(folder, name)
            if not os.path.exists(source):
                raise sysutil.Skip('%s is not built; it is linked with the internals' % source)
            for form, argv in (('', ['true']), ('_nodwarf', ['strip', '-g']),
                               ('_stripped', ['strip'])):
                target = os.path.join(self.folder, name + form)
                shutil.copy(source, target)
                subprocess.run(argv + [target], check=True)
                self.programs[name + form] = target

    def file(self, name):
        return os.path.join(self.folder, name)

    def collect(self, program, form, name):
        path = self.file(name)
        done = subprocess.run([program, form, path], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60)
        if done.returncode:
            raise Fail('%s %s: status %s: %s' % (os.path.basename(program), form, done.returncode,
                                                 sysutil.tail(done.stdout)))
        return path

    def pprof(self, *args, **extra):
        done = subprocess.run([self.go, 'tool', 'pprof'] + list(args), env=dict(self.env, **extra),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60)
        text = done.stdout.decode()
        if done.returncode:
            raise Fail('go tool pprof %s: %s' % (' '.join(args), text))
        return text


def top(text):
    """{function: (flat, cum)} of -top."""
    return {match.group(3): (match.group(1), match.group(2)) for match in re.finditer(
        r'^ *(\S+) +\S+% +\S+% +(\S+) +\S+%  (.*?)(?: \(inline\))?$', text, re.M)}


# ---- parts ----------------------------------------------------------------------------------

def part_proto(world):
    """The file itself, with lines for inlined calls, by our own decoder."""
    for name in ('pprofset', 'pprofset_fixed'):
        program = world.programs[name]
        profile = Profile(world.collect(program, 'heap', name + '.gz'))
        expect('types', profile.types, [('alloc_objects', 'count'), ('alloc_space', 'bytes'),
                                        ('inuse_objects', 'count'), ('inuse_space', 'bytes')])
        expect('first mapping', profile.path(0), program)
        expect('flags', profile.flags(0), (1, 1, 1))
        build_id = profile.texts[profile.mappings[0][6][0]]
        notes = subprocess.run(['readelf', '-n', program], stdout=subprocess.PIPE, check=True)
        expect('build id is there', build_id in notes.stdout.decode() and len(build_id) == 40, True)
        expect('[vdso] is there', '[vdso]' in map(profile.path, range(len(profile.mappings))), True)
        first, second = profile.samples
        expect('values', numbers(first[2]), [3200, 209715200, 1600, 104857600])
        file = os.path.basename(SOURCE)
        expect('stack', profile.stack(first)[:3],
               [('inlined_step', file, line_of('INLINED')), ('make_list', file, line_of('LIST')),
                ('run_job', file, line_of('JOB0'))])
        expect('stack', profile.stack(second)[:2],
               [('make_other', file, line_of('OTHER')), ('run_job', file, line_of('JOB1'))])
        expect('two lines at one address', len(numbers(first[1])), 3)
        label = message(first[3][0])
        expect('label', (profile.texts[label[1][0]], label[3][0], profile.texts[label[4][0]]),
               ('bytes', 65536, 'bytes'))
        expect('comment', [profile.texts[i] for i in numbers(profile.fields[13])],
               ['exact: 115343360 bytes in use'])
        expect('period', profile.fields[12], [524288])
        expect('time', profile.fields[9][0] > 1600000000000000000, True)
        expect('default type', 14 in profile.fields, False)
    profile = Profile(world.collect(world.programs['pprofset'], 'table', 'table.gz'))
    expect('default type', profile.texts[profile.fields[14][0]], 'objects')
    label = message(profile.samples[0][3][0])
    expect('label', (profile.texts[label[1][0]], profile.texts[label[2][0]]), ('job', 'a "b"'))


def part_programs(world):
    """-top, -traces and -list of every form of the program."""
    for name, program in sorted(world.programs.items()):
        path = world.collect(program, 'heap', name + '.gz')
        seen = top(world.pprof('-top', path))
        if 'stripped' in name:
            if len(seen) != 4 or not all(re.match(r'%s\+0x[0-9a-f]+$' % name, f) for f in seen):
                raise Fail('%s: %s' % (name, seen))
            expect(name, sorted(flat for flat, cum in seen.values()), ['0', '0', '100MB', '10MB'])
            # Whoever has the file with DWARF gets the names of it.
            whole = top(world.pprof('-top', world.programs[name.replace('_stripped', '')], path))
            expect(name + ' with the file named', whole.get('make_other'), ('10MB', '10MB'))
            continue
        inlined = 'nodwarf' not in name
        expect(name, seen.get('make_other'), ('10MB', '10MB'))
        expect(name, seen.get('inlined_step'), ('100MB', '100MB') if inlined else None)
        expect(name, seen.get('make_list'), ('0' if inlined else '100MB', '100MB'))
        expect(name, seen.get('add'), ('0', '110MB'))
        traces = world.pprof('-traces', path)
        if not re.search(r'100MB +%s' % ('inlined_step' if inlined else 'make_list'), traces):
            raise Fail('%s: -traces says %s' % (name, traces))
        if inlined:
            listed = world.pprof('-list', '^make_other$', path)
            if not re.search(r'10MB +10MB +%d:.*// line OTHER' % line_of('OTHER'), listed):
                raise Fail('%s: -list says %s' % (name, listed))
    # Stripped, with its DWARF in a file beside it.
    program = world.file('linked')
    subprocess.run(['objcopy', '--only-keep-debug', world.programs['pprofset'],
                    program + '.debug'], check=True)
    subprocess.run(['objcopy', '--strip-all', '--add-gnu-debuglink=' + program + '.debug',
                    world.programs['pprofset'], program], check=True, cwd=world.folder)
    profile = Profile(world.collect(program, 'heap', 'linked.gz'))
    expect('names of the file beside', [name for name, file, line in
                                        profile.stack(profile.samples[0])[:3]],
           ['inlined_step', 'make_list', 'run_job'])
    base = world.collect(world.programs['pprofset'], 'heap', 'base.gz')
    expect('-base', top(world.pprof('-top', '-base', base, base)), {})


def part_web(world):
    """The pages of pprof's own server, and a graph as text."""
    path = world.collect(world.programs['pprofset'], 'heap', 'web.gz')
    graph = world.pprof('-dot', path)
    if not re.search(r'N\d+ -> N\d+ \[label=" 100MB', graph) or 'make_list' not in graph:
        raise Fail('-dot says %s' % graph)
    port = sysutil.free_port()
    argv = [world.go, 'tool', 'pprof', '-http=127.0.0.1:%d' % port, '-no_browser', path]
    server = sysutil.spawn(sysutil.GLIBC, argv, extra=world.env, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
    sysutil.wait_port(port, server)
    for page, wanted in (('top', 'make_other'), ('flamegraph', 'run_job'),
                         ('peek?f=make_list', 'add'), ('top?si=alloc_objects', 'inlined_step')):
        url = 'http://127.0.0.1:%d/ui/%s' % (port, page)
        with urllib.request.urlopen(url, timeout=20) as answer:
            text = answer.read().decode()
        if wanted not in text:
            raise Fail('/ui/%s has no %s' % (page, wanted))
    sysutil.kill(server)


def part_texts(world):
    """The texts read back: values, and names by the program's DWARF or by /symbol."""
    program = world.programs['pprofset']
    raw = world.pprof('-raw', world.collect(program, 'heap-text', 'heap.txt'))
    rows = [list(map(int, row)) for row in re.findall(r'^ +(\d+) +(\d+) +(\d+) +(\d+):', raw, re.M)]
    wanted = [[3200, 209715200, 1600, 104857600], [2560, 10485760, 2560, 10485760]]
    for row, want in zip(rows, wanted):
        if any(abs(a - b) > b * 0.01 for a, b in zip(row, want)):
            raise Fail('heap text: %s, expected about %s' % (row, want))
    expect('rows of the heap text', len(rows), 2)
    text = open(world.file('heap.txt'), encoding='utf-8').read()
    if not re.match(r'heap profile: \d+: \d+ \[\d+: \d+\] @ heap/1048576\n# exact: ', text):
        raise Fail('heap text begins %r' % text[:100])
    if not re.search(r'^#\t0x[0-9a-f]+\tmake_other\+0x[0-9a-f]+\t\S*pprofset\.c:%d$'
                     % line_of('OTHER'), text, re.M):
        raise Fail('heap text has no line of make_other: %s' % text[:2000])
    for form in ('contention', 'mutex'):
        raw = world.pprof('-raw', world.collect(program, form + '-text', form + '.txt'))
        rows = re.findall(r'^ +(\d+) +(\d+):', raw, re.M)
        expect(form + ' text', rows, [('3', '9000000'), ('8', '6000000')])
    raw = world.pprof('-raw', world.collect(program, 'count-text', 'count.txt'))
    expect('count text', re.findall(r'^ +(\d+):(?: \d+){3} *$', raw, re.M), ['8', '3'])


class Served:
    """pprofset, waiting to answer for its addresses."""

    def __init__(self, world, program, form, lib=None, user=None):
        self.path = world.file('served-%s' % user)
        if user is not None and not os.path.exists(self.path):
            open(self.path, 'wb').close()
            os.chown(self.path, user, user)
        self.process = sysutil.spawn(
            sysutil.GLIBC, [program, form, self.path, 'serve'] + ([lib] if lib else []),
            before=lambda: self.prepare(user), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            bufsize=0)
        self.first, self.second = self.process.stdout.readline().split()[1:3]

    @staticmethod
    def prepare(user):
        if os.geteuid() == 0:  # mounts of its own
            sysutil.libc.unshare(CLONE_NEWNS)
            sysutil.libc.mount(b'none', b'/', None, MS_REC | MS_PRIVATE, None)
        if user is not None:
            os.setuid(user)

    def cover(self, path, other):
        """Lets the process see another file under a name. Whether that could be done."""
        argv = ['nsenter', '-t', str(self.process.pid), '-m', 'mount', '--bind', other, path]
        return os.geteuid() == 0 and shutil.which('nsenter') and subprocess.run(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def ask(self, query):
        self.process.stdin.write(query + b'\n')
        lines = []
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise Fail('pprofset ended with status %s at %r' % (self.process.wait(), query))
            if line == b'\n':
                return b''.join(lines)
            lines.append(line)

    def name(self, address):
        answer = self.ask(address).decode(errors='replace').split('\n')[:-1]
        expect('first line', answer[0], 'num_symbols: 1')
        return answer[1].split(' ', 1)[1] if len(answer) > 1 else None

    def end(self):
        self.process.stdin.close()
        expect('status', self.process.wait(10), 0)


def part_symbol(world):
    """Over HTTP: a text has no names, so pprof asks for them."""
    for name, wanted in (('pprofset', 'make_other'), ('pprofset_fixed_nodwarf', 'make_other'),
                         ('pprofset_stripped', r'pprofset_stripped\+0x[0-9a-f]+')):
        served = Served(world, world.programs[name], 'heap-text')
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def reply(self, body):
                self.send_response(200)
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                with open(served.path, 'rb') as file:
                    self.reply(file.read())

            def do_POST(self):
                asked.append(self.path)
                self.reply(served.ask(self.rfile.read(int(self.headers['Content-Length']))))

            def log_message(self, *args):
                pass

        server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = 'http://127.0.0.1:%d/debug/pprof/heap' % server.server_address[1]
            seen = top(world.pprof('-top', '-symbolize=remote', url))
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
        served.end()
        expect('pprof asks', asked[:1], ['/debug/pprof/symbol'])
        if not any(re.match(wanted + '$', function) and flat[0].startswith('10')
                   for function, flat in seen.items()):
            raise Fail('%s over HTTP: %s' % (name, seen))


def library(world, target, *flags):
    subprocess.run(['gcc', '-g', '-O1', '-shared', '-fPIC', '-o', target,
                    os.path.join(sysutil.HERE, 'prog', 'pproflib.c')] + list(flags), check=True)
    return target


def replace(path, other):
    """As an installer does: another file under the name."""
    shutil.copy(other, path + '.new')
    os.rename(path + '.new', path)


def sections(data):
    """The section headers of an ELF file, each with its place and its name."""
    start, count, names = struct.unpack_from('<Q', data, 40) + struct.unpack_from('<HH', data, 60)
    out = []
    for i in range(count):
        at = start + 64 * i
        out.append((at,) + struct.unpack_from('<IIQQQQIIQQ', data, at))
    texts = data[out[names][5]:]
    return [(texts[section[1]:].split(b'\0')[0].decode(), section) for section in out]


def outside_dwarf(data):
    """Where an ELF file has no DWARF, headers twice. Inside of it libbacktrace is on its own."""
    places = set(range(len(data)))
    heads = list(range(64))
    for name, section in sections(data):
        heads += range(section[0], section[0] + 64)
        if name.startswith('.debug_'):
            places -= set(range(section[5], section[5] + section[6]))
    return sorted(places) + heads


def spoiled(data):
    """Files with the damage that libbacktrace itself does not look for."""
    for name, section in sections(data):
        if name in ('.dynsym', '.symtab'):
            for link in (0, len(sections(data)), 0xffffffff):
                yield section[0] + 40, struct.pack('<I', link)
        if name == '.note.gnu.build-id':
            yield section[5] + 4, struct.pack('<I', 0x7fffff)
    yield 60, struct.pack('<H', 0)  # no sections
    yield 62, struct.pack('<H', 0)  # no names of sections
    yield 58, struct.pack('<H', 63)  # headers of another size


def part_gone(world):
    """The files of a program and of a library removed or replaced while it runs; root reaches the
    mapped file itself, others get no name of a library rather than a wrong one."""
    users = [None, 65534] if os.geteuid() == 0 else [None]
    lib = world.file('libone.so')
    for user in users:
        copy = world.file('gone')
        shutil.copy(world.programs['pprofset'], copy)
        served = Served(world, copy, 'heap', user=user)
        address = hex(Profile(served.path).locations[1][3][0]).encode()
        os.unlink(copy)
        expect('program removed', served.name(address), 'inlined_step')
        shutil.copy(world.programs['pprofset_stripped'], copy)
        expect('program replaced', served.name(address), 'inlined_step')
        served.end()

        library(world, lib)
        other = library(world, world.file('libother.so'), '-Dlib_first=wrong_first',
                        '-Dlib_second=wrong_second', '-Dlib_inlined=wrong_inlined')
        root = os.geteuid() == 0 and user is None
        wanted = 'lib_inlined' if root else r'libone\.so\+0x1[0-9a-f]+'
        for what in ('covered', 'replaced', 'removed'):
            served = Served(world, world.programs['pprofset'], 'heap', lib, user)
            expect('library', served.name(served.first), 'lib_inlined')
            if what == 'covered' and not served.cover(lib, other):
                say('no mounts here')
                served.end()
                continue
            if what == 'replaced':
                replace(lib, other)
            elif what == 'removed':
                os.unlink(lib)
            got = served.name(served.first)
            if not re.match(wanted + '$', got or ''):
                raise Fail('library %s: %s, expected %s' % (what, got, wanted))
            served.end()
            library(world, lib)


def part_large(world):
    """More DWARF than is read: names all the same."""
    lib = library(world, world.file('liblarge.so'))
    filler = world.file('filler')
    with open(filler, 'wb') as file:
        file.truncate(70 << 20)
    subprocess.run(['objcopy', '--update-section', '.debug_str=' + filler, lib], check=True)
    served = Served(world, world.programs['pprofset'], 'heap', lib)
    expect('library with 70 MB of DWARF', served.name(served.first), 'lib_first')
    served.end()
    # Pressed DWARF.
    lib = library(world, world.file('libpressed.so'), '-gz')
    served = Served(world, world.programs['pprofset'], 'heap', lib)
    expect('library with pressed DWARF', served.name(served.first), 'lib_inlined')
    served.end()


def part_damaged(world):
    """The same inode, cut and damaged: any answer will do, but an answer."""
    random.seed(int(os.environ.get('EBB_SEED', '1')))
    program = world.programs['pprofset']
    lib = library(world, world.file('libone.so'))
    other = world.file('libwhole.so')
    shutil.copy(lib, other)
    with open(lib, 'rb') as file:
        whole = file.read()
    served = Served(world, program, 'heap', lib)
    for place, data in spoiled(whole):
        with open(lib, 'r+b') as file:
            file.write(whole)
            file.seek(place)
            file.write(data)
        served.name(served.first)
    for length in sorted(random.sample(range(len(whole)), 60), reverse=True) + [0]:
        os.truncate(lib, length)
        served.name(served.second)
    served.end()
    damaged = 0
    places = outside_dwarf(whole)
    for _ in range(3):
        replace(lib, other)
        served = Served(world, program, 'heap', lib)
        for _ in range(100):
            with open(lib, 'r+b') as file:
                file.write(whole)
                for _ in range(random.choice((1, 4, 64))):
                    file.seek(random.choice(places))
                    file.write(bytes([random.randrange(256)]))
            damaged += served.name(served.first) != 'lib_inlined'
        served.end()
    say('of 300 damaged files %d gave another answer' % damaged)


def part_order(world):
    """The program first, even where libraries lie below it."""
    program = world.programs['pprofset']
    path = world.file('order.gz')
    done = sysutil.run(sysutil.GLIBC, [program, 'heap', path],
                       before=lambda: sysutil.libc.personality(ADDR_COMPAT_LAYOUT))
    profile = Profile(path)
    expect('first mapping', (done.returncode, profile.path(0)), (0, program))
    starts = [mapping[2][0] for mapping in profile.mappings]
    say('program at %#x, the lowest mapping at %#x' % (starts[0], min(starts)))
    expect('the others in order', starts[1:], sorted(starts[1:]))


PARTS = [part_proto, part_order, part_programs, part_web, part_texts, part_symbol, part_gone,
         part_large, part_damaged]


def test(args):
    world = World()
    for part in PARTS:
        if args.name is None or part.__name__ == 'part_' + args.name:
            part(world)
            say('%s: ok' % part.__name__[5:])


if __name__ == '__main__':
    sysutil.main(test, __doc__)
