#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Bad input gets a name: one line on stderr that says what the program did, and abort.

Where the standard has an answer (NULL with ENOMEM, EINVAL) the program gets that answer.
"""
import re
import signal

import sysutil
from sysutil import EBB, Fail

# What the line must say, besides beginning with "ebb: ".
FATAL = {
    'double-free-small': r'double free|freed twice|already free',
    'double-free-page': r'double free|freed twice|already free',
    'double-free-large': r'double free|freed twice|already free|invalid pointer|not allocated',
    'double-free-later': r'double free|freed twice|already free',
    'realloc-freed': r'realloc.*(free|invalid)|already free',
    'free-stack': r'invalid pointer|never allocated|not (allocated|ours|from)',
    'free-global': r'invalid pointer|never allocated|not (allocated|ours|from)',
    'free-interior': r'interior|inside|middle',
    'free-interior-large': r'interior|inside|middle',
    'free-misaligned': r'interior|inside|middle|align',
    'free-wild': r'invalid pointer|never allocated|not (allocated|ours|from)',
    'free-noncanonical': r'invalid pointer|never allocated|not (allocated|ours|from)',
    'free-low': r'invalid pointer|never allocated|not (allocated|ours|from)',
    'realloc-interior': r'(?=.*realloc).*(interior|inside|middle)',
    # The page of the block has been given back: what shows a double free elsewhere is gone with it.
    'hole-double-free': r'double free: free\(\).*already free',
    'hole-double-free-warm': r'double free: free\(\).*already free',
    'hole-double-free-thread': r'double free: free\(\).*already free',
    'hole-realloc': r'double free: realloc.*already free',
    'hole-realloc-little': r'double free: realloc.*already free',
    'hole-usable': r'double free: malloc_usable_size.*already free',
    'hole-interior': r'interior|inside|middle',
    'realloc-wild': r'(?=.*realloc).*(invalid pointer|never allocated|not (allocated|ours|from))',
}
# Found by check=2 only.
STRICT = {
    'write-after-free': r'use after free.*offset 100\b',
    'write-after-free-key': r'use after free|double free',
    'double-free-much-later': r'double free',
}
ANSWERED = ('calloc-overflow', 'absurd-sizes', 'bad-alignment', 'errno-kept')


def fatal_case(program, case, words, options=None):
    # Sampled blocks lie elsewhere, by chance; how they are named is in test/unit/malloc_test.c.
    options = dict(options or {}, profile_rate=0)
    done = sysutil.run(EBB, [program, case], options=options, check=False, timeout=20)
    text = done.stderr.decode('utf-8', 'replace')
    lines = [line for line in text.splitlines() if line.startswith('ebb: ')]
    if b'survived' in done.stdout:
        return '%s: the program went on' % case
    if done.returncode != -signal.SIGABRT:
        return '%s: %s instead of abort; %s' % (case, sysutil.ended(done.returncode),
                                                sysutil.tail(text))
    if len(lines) != 1 or len(text.splitlines()) != 1:
        return '%s: instead of one line beginning "ebb: " it says %r' % (case, text)
    if not re.search(words, lines[0], re.IGNORECASE):
        return '%s: the line does not name what the program did: %s' % (case, lines[0])
    sysutil.say('%-20s %s' % (case, lines[0]))
    return None


def test(args):
    program = sysutil.prog('bad')
    for case in ANSWERED:
        for kind in (sysutil.GLIBC, EBB):
            sysutil.run(kind, [program, case], timeout=20)
    said = [fatal_case(program, c, words) for c, words in FATAL.items()]
    for case, words in {**FATAL, **STRICT}.items():
        said.append(fatal_case(program, case, words, {'check': '2'}))
    wrong = [w for w in said if w]
    for line in wrong:
        sysutil.say(line)
    if wrong:
        raise Fail('%d of %d cases; the first: %s' % (len(wrong), len(said), wrong[0]))


sysutil.main(test, __doc__)
