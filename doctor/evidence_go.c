// SPDX-License-Identifier: MIT
//
// Doctor, evidence of a Go program.
//
// Go  none.
#include "doctor_int.h"

void evidence_go(struct exam *exam)
{
    (void)exam;
}

void evidence_go_divide(struct exam *exam)
{
    (void)exam;
}
