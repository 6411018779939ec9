#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mkarchive.sh OUT.a ARCHIVE...: all members become one object whose hidden symbols are made local,
# so that an internal name such as span_free cannot collide with one of the program's. LD, OBJCOPY
# and AR choose other tools.
set -eu
out=$1
shift
object=$(dirname "$out")/ebb.o
"${LD:-ld}" -r -o "$object" --defsym malloc=ebb_malloc --defsym free=ebb_free \
    --whole-archive "$@" --no-whole-archive
"${OBJCOPY:-objcopy}" --localize-hidden "$object"
rm -f "$out"
"${AR:-ar}" rcsD "$out" "$object"
rm -f "$object"
