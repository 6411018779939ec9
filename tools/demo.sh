#!/bin/sh
# SPDX-License-Identifier: MIT
#
# A real redis-server under glibc and under Ebb, at the same time: tools/demo/demo.py does the work.
#   tools/demo.sh [--mib N] [--watch SECONDS] [--build DIR] [--ascii] [--width COLUMNS]
set -u
here=$(cd "$(dirname "$0")" && pwd) || exit 1
python=/usr/bin/python3
[ -x "$python" ] || python=python3
export PYTHONDONTWRITEBYTECODE=1
exec "$python" "$here/demo/demo.py" "$@"
