// SPDX-License-Identifier: MIT
//
// Doctor, evidence of the program file.
//
// Go  none.
#include "doctor_int.h"

void evidence_exe(struct exam *exam)
{
    (void)exam;
}
