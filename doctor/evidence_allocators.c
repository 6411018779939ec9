// SPDX-License-Identifier: MIT
//
// Doctor, evidence of allocators that are not glibc.
//
// Go  none.
#include "doctor_int.h"

void evidence_allocators(struct exam *exam)
{
    (void)exam;
}

void evidence_allocators_divide(struct exam *exam)
{
    (void)exam;
}
