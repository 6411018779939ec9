// SPDX-License-Identifier: MIT
//
// Doctor, evidence of a JVM.
//
// Go  none.
#include "doctor_int.h"

void evidence_jvm(struct exam *exam)
{
    (void)exam;
}
