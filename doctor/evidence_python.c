// SPDX-License-Identifier: MIT
//
// Doctor, evidence of Python.
//
// Go  none.
#include "doctor_int.h"
