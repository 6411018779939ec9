#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# mksituations.py FOLDER: the tables of docs/SITUATIONS.md, from what the doctor's tests have seen.
#
#     EBB_TABLES=FOLDER python3 test/system/doctor_situations.py --long
#     EBB_TABLES=FOLDER python3 test/system/doctor_cases.py
#     EBB_TABLES=FOLDER python3 test/system/doctor.py --long glibc
#     tools/mksituations.py FOLDER
#
# A test adds its rows to FOLDER/NAME.rows (doctorutil.row). Here they take the place of all rows
# beneath the line "<!-- rows: NAME -->"; a table without a file stays. FOLDER begins empty, or
# rows of an earlier run stand there twice, which is refused.

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOCUMENT = os.path.join(ROOT, "docs", "SITUATIONS.md")
# The line with the name, the head and the rule beneath it, the rows.
TABLE = re.compile(r"(<!-- rows: (\w+) -->\n\n\|.*\n\|[-|:]+\|\n)((?:\|.*\n)*)")


def rows_of(folder, name):
    """The rows of a table as one text, or None where no test has written any."""
    path = os.path.join(folder, name + ".rows")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        rows = file.read().splitlines()
    keys = [tuple(row.split("|")[1:3]) for row in rows]
    twice = sorted({" ".join(key) for key in keys if keys.count(key) > 1})
    if twice:
        sys.exit("%s: twice: %s; begin with an empty folder" % (path, ", ".join(twice)))
    return "\n".join(rows) + "\n"


def main(args):
    if len(args) != 1 or not os.path.isdir(args[0]):
        sys.exit("mksituations.py FOLDER: the folder that EBB_TABLES named to the doctor's tests")

    def replaced(table):
        head, name, old = table.groups()
        new = rows_of(args[0], name)
        print("%-12s %3d rows, %s" % (name, (new or old).count("\n"),
                                      "not measured" if new is None else "were %d" %
                                      old.count("\n")))
        return head + (old if new is None else new)

    with open(DOCUMENT, encoding="utf-8") as file:
        text = file.read()
    with open(DOCUMENT, "w", encoding="utf-8") as file:
        file.write(TABLE.sub(replaced, text))


main(sys.argv[1:])
