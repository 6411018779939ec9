// SPDX-License-Identifier: MIT
//
// Doctor, evidence of glibc malloc.
//
// Go  none.
#include "doctor_int.h"

void evidence_glibc(struct exam *exam)
{
    (void)exam;
}

void evidence_glibc_divide(struct exam *exam)
{
    (void)exam;
}
