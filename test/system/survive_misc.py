#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The small programs of every Debian, on Ebb, say what they say on glibc."""
import os
import shutil

import sysutil
from sysutil import Fail

# Run by sh, which is itself on Ebb, in a folder with a file `numbers` (one number to a line).
COMMANDS = (
    ('sort', 'sort --parallel=4 -S 20M numbers | sha256sum'),
    ('sort', 'sort -g -u -S 2M -T . numbers | sha256sum'),
    ('awk', "awk '{ n[$1 % 9973]++; s = s length($1) } END { for (k in n) t += n[k] * k;"
            " print t, length(s) }' numbers"),
    ('sed', "sed -E 's/(.)(.)/\\2\\1/g; s/7+/<&>/g' numbers | sha256sum"),
    ('grep', "grep -cE '(1[0-9]*2|3.*4.*5)$' numbers"),
    ('grep', "grep -cP '(?<=9)8(?!7)' numbers"),
    ('tar', 'tar -C / -cf - usr/share/perl 2>/dev/null | tar -tf - | sort | sha256sum'),
    ('gzip', 'gzip -9 -c numbers | gzip -d | sha256sum'),
    ('bzip2', 'bzip2 -c numbers | sha256sum'),
    ('openssl', 'openssl enc -aes-256-cbc -K 00 -iv 00 -in numbers | sha256sum'),
    ('diff', "sed -n 'p;n' numbers >half; diff numbers half | sha256sum; exit 0"),
    ('find', "find /usr/share/doc -name 'c*' -type f | sort | head -5000 | xargs -P 4 -n 50 "
             'wc -c | sort | sha256sum'),
    ('bc', "echo '2^9000 % 10^50; scale=400; 1/7' | bc"),
    ('objdump', 'objdump -d /bin/true | sha256sum'),
    ('nm', 'nm -D /lib/*/libc.so.6 | sha256sum'),
    ('m4', "printf 'define(f,`ifelse($1,0,x,`$1 f(decr($1))'\"')')f(300)\" | m4 | sha256sum"),
    ('clang', "printf 'int f(int x){return x*3;}' | clang -O2 -S -o - -x c - | sha256sum"),
    ('jq', "jq -n '[range(20000)|{a:.,b:(.|tostring)}]|group_by(.a%7)|map(length)' -c"),
    ('ls', 'ls -lR /usr/lib/python3 | sha256sum'),
    ('getent', 'getent passwd root'),
    ('date', 'TZ=Europe/Berlin date -d @1700000000'),
    ('iconv', 'iconv -f latin1 -t utf16 numbers | sha256sum'),
    ('perl', "perl -ne 'END { print $n } $n += $_' numbers"),
)


def test(args):
    folder = sysutil.tempdir()
    state = 12345
    with open(os.path.join(folder, 'numbers'), 'w') as file:
        for _ in range(2_000_000 if args.long else 150_000):
            state = (state * 1103515245 + 12345) % (1 << 31)
            file.write('%d\n' % state)
    ran = []
    for binary, line in COMMANDS:
        if shutil.which(binary):
            sysutil.same(['/bin/sh', '-c', line], line[:60], cwd=folder, timeout=120)
            ran.append(binary)
    if len(set(ran)) < 10:
        raise Fail('only %s are here: too few to say anything' % ' '.join(sorted(set(ran))))
    sysutil.say('%d commands, the same' % len(ran))


sysutil.main(test, __doc__)
