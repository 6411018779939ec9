#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# wrap.py [FILE...]: breaks lines of comment, and of Python docstrings, that are longer than 100
# columns; without names, in all files that tidy.py reads. What does not fit goes to the front of
# the next line if that goes on with the same text, and otherwise onto a line of its own. No other
# line is touched, so tables, labels and examples stay as they are.

import ast
import os
import re
import sys

sys.dont_write_bytecode = True
import tidy  # noqa: E402

# Lead of the line, then perhaps a label with two or more blanks behind it, as in "Go       none".
LABEL = r"((?:[A-Za-z_][\w ]*?|\(\w\)) {2,})?(\S.*)$"
COMMENT = re.compile(r"(\s*(?://|#) *)" + LABEL)
DOCSTRING = re.compile(r"( *)" + LABEL)


def parts(line, pattern):
    """(lead, label, text) of a line of comment; None of another line."""
    match = pattern.match(line)
    if not match or line.startswith("#!") or "//" in match.group(3):
        return None
    return match.group(1), match.group(2) or "", match.group(3)


def absorbs(line, indent, pattern):
    """Whether the line goes on with a text whose lines begin at column indent."""
    found = parts(line, pattern)
    return (found is not None and not found[1] and len(found[0]) == indent
            and not re.match(r"[-*|]|\S+ {2,}|\w+:", found[2]))


def wrapped(lines, pattern):
    lines = list(lines)
    at = 0
    while at < len(lines):
        found = parts(lines[at], pattern) if len(lines[at]) > tidy.LINE_COLUMNS else None
        space = lines[at].rfind(" ", 0, tidy.LINE_COLUMNS + 1) if found else -1
        indent = len(found[0]) + len(found[1]) if found else 0
        if space > indent:
            tail = lines[at][space + 1:]
            lines[at] = lines[at][:space].rstrip()
            if at + 1 < len(lines) and absorbs(lines[at + 1], indent, pattern):
                lines[at + 1] = lines[at + 1][:indent] + tail + " " + lines[at + 1][indent:]
            else:
                lines.insert(at + 1, found[0] + " " * len(found[1]) + tail)
        at += 1
    return lines


def docstrings(text):
    """The ranges of lines inside docstrings, without the first and the last line of each."""
    found = []
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
            found.append((first.lineno, first.end_lineno - 1))
    return sorted(span for span in found if span[0] < span[1])


def wrapped_file(path, text):
    lines = text.split("\n")
    new, at = [], 0
    for start, end in docstrings(text) if path.endswith(".py") else []:
        new += wrapped(lines[at:start], COMMENT) + wrapped(lines[start:end], DOCSTRING)
        at = end
    return "\n".join(new + wrapped(lines[at:], COMMENT))


def main(paths):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not paths:
        # A corpus is bytes, not text.
        paths = [os.path.join(root, file.path) for file in tidy.Tree(root).files
                 if "/corpus/" not in file.path]
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except UnicodeDecodeError:
            continue  # inputs of the fuzzers
        new = wrapped_file(path, text)
        if new != text:
            with open(path, "w", encoding="utf-8") as file:
                file.write(new)
            print("wrapped %s" % os.path.relpath(path, root))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
