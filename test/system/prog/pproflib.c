// SPDX-License-Identifier: MIT
//
// A library with two functions that names are asked of; test/system/pprof.py damages its file.
//
// Go  none
int lib_first(int value);
int lib_second(int value);

static inline __attribute__((always_inline)) int lib_inlined(int value)
{
    return value * 3 + 1;
}

int lib_first(int value)
{
    return lib_inlined(value) / 5;
}

int lib_second(int value)
{
    return lib_inlined(value) - lib_first(value);
}
