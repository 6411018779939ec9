#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mkparts.sh OUT.a LIBZ.a LIBPROTOBUF-NANOPB.a LIBBACKTRACE.a LIBGCC_EH.a: what profiles are taken
# and written with, as one archive that uses nothing of libc but memory and strings, because it runs
# in threads that libc does not know.
#
# Of each library only the members are taken that compute. What they want from a system (memory,
# files, the list of modules, errno, texts for errors) gets names that src/profile/parts.c defines;
# zlib's own names get its prefix z_, so that they do not stand in for those of a libz.so, and
# libgcc's unwinder gets parts_, so that it does not stand in for the program's. A use of libc that
# is not on the list below ends the build. AR, NM and OBJCOPY choose other tools.
set -eu
out=$1
zlib=$2
nanopb=$3
backtrace=$4
unwinder=$5
ar=${AR:-ar}
nm=${NM:-nm}
objcopy=${OBJCOPY:-objcopy}
here=$(pwd)
case $out in /*) ;; *) out=$here/$out ;; esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

absolute() {
    case $1 in /*) echo "$1" ;; *) echo "$here/$1" ;; esac
}

# members ARCHIVE NAME...: takes the members out.
members() {
    archive=$(absolute "$1")
    shift
    (cd "$folder" && "$ar" x "$archive" "$@") || {
        echo "mkparts: $archive has no $*; another version than we know" >&2
        exit 1
    }
}

members "$zlib" deflate.o trees.o adler32.o crc32.o
(cd "$folder" && "$nm" -g --defined-only ./*.o) |
    awk 'NF == 3 { print $3, "z_" $3 }' | sort -u >"$folder/names"
members "$unwinder" unwind-dw2.o
(cd "$folder" && "$nm" -g --defined-only unwind-dw2.o) |
    awk 'NF == 3 { print $3, "parts_" $3 }' >>"$folder/names"
members "$nanopb" pb_encode.c.o pb_common.c.o
members "$backtrace" dwarf.o elf.o fileline.o sort.o state.o
for name in _Unwind_Find_FDE zcalloc zcfree z_errmsg dl_iterate_phdr fstat lstat readlink getpid \
    snprintf __errno_location; do
    echo "$name parts_$name"
done >"$folder/wanted"
cat "$folder/wanted" >>"$folder/names"
for member in "$folder"/*.o; do
    "$objcopy" --redefine-syms="$folder/names" "$member"
done
rm -f "$out"
(cd "$folder" && "$ar" rcsD "$out" ./*.o)

# Fixed names, so that whatever a new version wants is seen.
{
    "$nm" -g --defined-only "$out" | awk 'NF == 3 { print $3 }'
    sed 's/.* //' "$folder/wanted"
    for name in alloc free vector_grow vector_finish vector_release get_view release_view open close
    do
        echo "backtrace_$name"
    done
    printf '%s\n' memcpy memset memcmp memmove memchr strlen strcmp strnlen strrchr strncmp \
        abort __stack_chk_fail __stack_chk_guard _GLOBAL_OFFSET_TABLE_
} | sort -u >"$folder/known"
strange=$("$nm" -u "$out" | awk 'NF == 2 && $1 == "U" && $2 !~ /^__aarch64_/ { print $2 }' |
    sort -u | comm -23 - "$folder/known" | tr '\n' ' ')
if [ -n "$strange" ]; then
    rm -f "$out"
    echo "mkparts: the libraries use what a thread without libc has not: $strange" >&2
    exit 1
fi
