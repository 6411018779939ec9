#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""gcc, g++ and make on Ebb: the object files are those made on glibc, bit by bit, and they run.

Built are a generated C project under make -j2, a C++ program heavy in templates, and (long form)
something real: this project's own sources, by Meson and Ninja, all of it under Ebb.
"""
import glob
import hashlib
import os
import shutil
import textwrap

import sysutil
from sysutil import EBB, GLIBC, Fail

TEMPLATES = '''
    #include <algorithm>
    #include <iostream>
    #include <map>
    #include <memory>
    #include <numeric>
    #include <regex>
    #include <string>
    #include <tuple>
    #include <unordered_map>
    #include <variant>
    #include <vector>
    template <int N> struct tower { using type = std::tuple<int[N], typename tower<N - 1>::type>;
        static constexpr long sum = N + tower<N - 1>::sum; };
    template <> struct tower<0> { using type = int; static constexpr long sum = 0; };
    template <class... T> auto fold(T... t) { return (... + t); }
    template <int... I> long spread(std::integer_sequence<int, I...>) {
        return (0L + ... + tower<I % 300>::sum); }
    using any = std::variant<int, std::string, std::vector<std::map<int, std::string>>>;
    int main() {
        std::unordered_map<std::string, std::shared_ptr<any>> table;
        for (int i = 0; i < 20000; i++) {
            auto key = "key" + std::to_string(i * 7919 % 10007);
            table[key] = std::make_shared<any>(i % 2 ? any(i) : any(key));
        }
        std::vector<std::string> keys;
        for (auto &[k, v] : table) { keys.push_back(k); }
        std::sort(keys.begin(), keys.end());
        std::regex odd("key[0-9]*[13579]");
        long n = std::count_if(keys.begin(), keys.end(),
                               [&](auto &k) { return std::regex_match(k, odd); });
        std::cout << keys.size() << " " << n << " " << fold(1, 2.5, 3L) << " "
                  << spread(std::make_integer_sequence<int, 200>()) << "\\n";
    }
'''
MAKEFILE = '''
    SRC = $(wildcard part*.c)
    prog: $(SRC:.c=.o)
    \tgcc -o $@ $^
    %.o: %.c
    \tgcc -O2 -c -o $@ $<
'''


def generate(folder, count):
    """A C project of count files whose functions call each other."""
    for i in range(count):
        body = ['#include <stdio.h>', '#include <string.h>', 'int f%d(int);' % ((i + 1) % count)]
        for j in range(60):
            body.append('static int g%d(int x) { int a[%d]; memset(a, x, sizeof a);'
                        ' for (int k = 0; k < x %% 50; k++) { a[k %% %d] += x * k ^ %d; }'
                        ' switch (x & 7) { case 0: return a[1]; case 3: return x / %d;'
                        ' default: return a[0] + x; } }' % (j, j + 2, j + 2, j * 31 + i, j + 1))
        calls = ' + '.join('g%d(x + %d)' % (j, j) for j in range(60))
        body.append('int f%d(int x) { return x > 9000 ? x : (%s) %% 1000 + f%d(x + 777); }'
                    % (i, calls, (i + 1) % count))
        if i == 0:
            body.append('int main(void) { printf("%d\\n", f0(1)); return 0; }')
        with open(os.path.join(folder, 'part%d.c' % i), 'w') as file:
            file.write('\n'.join(body))
    with open(os.path.join(folder, 'Makefile'), 'w') as file:
        file.write(textwrap.dedent(MAKEFILE).replace('    \t', '\t'))
    with open(os.path.join(folder, 'templates.cc'), 'w') as file:
        file.write(TEMPLATES)


def digests(pattern, root):
    made = {}
    for path in sorted(glob.glob(os.path.join(root, pattern), recursive=True)):
        with open(path, 'rb') as file:
            made[os.path.relpath(path, root)] = hashlib.sha256(file.read()).hexdigest()
    return made


def build(kind, place, count):
    """Builds in the same folder each time: paths are part of what a compiler writes."""
    shutil.rmtree(place, ignore_errors=True)
    os.mkdir(place)
    generate(place, count)
    sysutil.run(kind, ['make', '-j2'], cwd=place, timeout=300, command=True)
    sysutil.run(kind, ['g++', '-std=c++17', '-O1', '-g', '-c', '-o', 'templates.o',
                       'templates.cc'], cwd=place, timeout=300, command=True)
    sysutil.run(kind, ['g++', '-o', 'templates', 'templates.o'], cwd=place, command=True)
    said = b''.join(sysutil.run(kind, [os.path.join(place, name)], command=True).stdout
                    for name in ('prog', 'templates'))
    return said, digests('*.o', place)


def build_self(kind, place):
    """This project, built by Meson and Ninja, for the objects it leaves."""
    shutil.rmtree(place, ignore_errors=True)
    sysutil.run(kind, ['meson', 'setup', '--buildtype=debugoptimized', place, sysutil.REPO],
                extra={'PATH': '/usr/bin:/bin:/usr/sbin:/sbin'}, timeout=300, command=True)
    sysutil.run(kind, ['ninja', '-j2', '-C', place, 'products'],
                extra={'PATH': '/usr/bin:/bin:/usr/sbin:/sbin'}, timeout=600, command=True)
    return digests('**/*.o', place)


def differing(one, other):
    return sorted(name for name in set(one) | set(other) if one.get(name) != other.get(name))


def test(args):
    for package, binary in (('gcc', 'gcc'), ('g++', 'g++'), ('make', 'make')):
        sysutil.need(package, binary)
    place = os.path.join(sysutil.tempdir(), 'project')
    count = 40 if args.long else 4
    said, objects = build(EBB, place, count)
    reference, wanted = build(GLIBC, place, count)
    if said != reference:
        raise Fail('programs compiled on Ebb say %r, on glibc %r' % (said, reference))
    changed = differing(objects, wanted)
    if changed:
        raise Fail('object files compiled on Ebb differ: %s' % ' '.join(changed[:5]))
    sysutil.say('%d object files, the same' % len(objects))
    if args.long:
        for package, binary in (('meson', 'meson'), ('ninja-build', 'ninja')):
            sysutil.need(package, binary)
        changed = differing(build_self(EBB, place), build_self(GLIBC, place))
        if changed:
            raise Fail('this project built on Ebb differs: %s' % ' '.join(changed[:5]))


sysutil.main(test, __doc__)
