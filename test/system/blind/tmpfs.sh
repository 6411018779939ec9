#!/bin/bash
# SPDX-License-Identifier: MIT
#
# tmpfs.sh FILE: a spool file of 240 MiB in a tmpfs, deleted while it was open. No directory lists
# it, no process has it resident; the cgroup is charged for it as "cache".
set -e
exec 9>"$1"
rm "$1"
head -c 251658240 /dev/urandom >&9
echo "ready bytes=251658240"
while read -r -t 120 line; do
    echo "$line"
done
