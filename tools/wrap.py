#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# wrap.py [FILE...]: breaks lines of comment that are longer than 100 columns; without names, in all
# files that tidy.py reads. What does not fit goes to the front of the next line if that goes on with
# the same text, and otherwise onto a line of its own. No other line is touched, so tables, labels and
# examples stay as they are.

import os
import re
import sys

sys.dont_write_bytecode = True
import tidy  # noqa: E402

# Lead of the comment, then perhaps a label with two or more blanks behind it, as in "Go       none".
LINE = re.compile(r"(\s*(?://|#) *)((?:[A-Za-z_][\w ]*?|\(\w\)) {2,})?(.*)$")


def parts(line):
    """(lead, label, text) of a line that is only comment; None of another line."""
    match = LINE.match(line)
    if not match or line.startswith("#!") or not match.group(3):
        return None
    return match.group(1), match.group(2) or "", match.group(3)


def absorbs(line, indent):
    """Whether the line goes on with a text whose lines begin at column indent."""
    found = parts(line)
    return (found is not None and not found[1] and len(found[0]) == indent
            and not re.match(r"[-*|]|\S+ {2,}|\w+:", found[2]))


def wrapped(lines):
    lines = list(lines)
    at = 0
    while at < len(lines):
        found = parts(lines[at]) if len(lines[at]) > tidy.LINE_COLUMNS else None
        space = lines[at].rfind(" ", 0, tidy.LINE_COLUMNS + 1) if found else -1
        indent = len(found[0]) + len(found[1]) if found else 0
        if space > indent:
            tail = lines[at][space + 1:]
            lines[at] = lines[at][:space].rstrip()
            if at + 1 < len(lines) and absorbs(lines[at + 1], indent):
                lines[at + 1] = lines[at + 1][:indent] + tail + " " + lines[at + 1][indent:]
            else:
                lines.insert(at + 1, found[0] + " " * len(found[1]) + tail)
        at += 1
    return lines


def main(names):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not names:
        names = [os.path.join(root, file.path) for file in tidy.Tree(root).files]
    for name in names:
        with open(name, encoding="utf-8") as file:
            text = file.read()
        lines = text.split("\n")
        new = wrapped(lines)
        if new != lines:
            with open(name, "w", encoding="utf-8") as file:
                file.write("\n".join(new))
            print("wrapped %s" % os.path.relpath(name, root))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
