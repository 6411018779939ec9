#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mkarchive.sh OUT.a ARCHIVE...: all members become one object whose hidden symbols are made local,
# so that an internal name such as span_free cannot collide with one of the program's. Of
# libparts.a, which is made of other people's libraries, nothing is hidden yet: all its names become
# local. All code goes to the section ebb_text: the linker says where it begins and ends, and so the
# heap's own frames can be left out of stacks. LD, NM, OBJCOPY, OBJDUMP and AR choose other tools.
set -eu
out=$1
shift
object=$(dirname "$out")/ebb.o
"${LD:-ld}" -r -o "$object" --defsym malloc=ebb_malloc --defsym free=ebb_free \
    --whole-archive "$@" --no-whole-archive
names=$(dirname "$out")/ebb.names
for archive in "$@"; do
    case $archive in
    *libparts.a) "${NM:-nm}" -g --defined-only "$archive" | awk 'NF == 3 { print $3 }' ;;
    esac
done >"$names"
renamed=$("${OBJDUMP:-objdump}" -h "$object" |
    awk '$2 ~ /^\.text(\.|$)/ { print "--rename-section=" $2 "=ebb_text" }' | sort -u)
# shellcheck disable=SC2086 # one word an option
"${OBJCOPY:-objcopy}" --localize-hidden --localize-symbols="$names" $renamed "$object"
rm -f "$names"
rm -f "$out"
"${AR:-ar}" rcsD "$out" "$object"
rm -f "$object"
