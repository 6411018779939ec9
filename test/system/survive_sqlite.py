#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""sqlite3 on Ebb answers as on glibc, and its database is sound."""
import hashlib
import os

import sysutil
from sysutil import Fail

SCRIPT = '''
PRAGMA cache_size=-20000;
CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT, v BLOB, n REAL);
WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x<{rows})
  INSERT INTO t SELECT x, printf('%08x', x*2654435761 % 4294967296),
    zeroblob(x % 700), x*1.5 FROM c;
CREATE INDEX tk ON t(k);
CREATE VIRTUAL TABLE f USING fts5(body);
INSERT INTO f SELECT k || ' ' || hex(id) FROM t WHERE id % 5 = 0;
SELECT count(*), sum(length(v)), max(k), avg(n) FROM t;
SELECT substr(k,1,1), count(*), group_concat(id % 7) FROM t GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM f WHERE f MATCH 'a*';
UPDATE t SET v = zeroblob(length(v) * 2) WHERE id % 3 = 0;
DELETE FROM t WHERE id % 4 = 0;
SELECT json_group_array(json_object('i', id, 'k', k)) FROM (SELECT * FROM t ORDER BY k LIMIT 2000);
SELECT a.id, b.id FROM t a JOIN t b ON a.k = b.k AND a.id < b.id LIMIT 50;
VACUUM;
PRAGMA integrity_check;
SELECT count(*), sum(length(v)) FROM t;
.dump t
'''


def test(args):
    sqlite = sysutil.need('sqlite3', 'sqlite3')
    script = SCRIPT.replace('{rows}', '400000' if args.long else '40000').encode()
    # .dump makes some tens of megabytes: same() compares them whole.
    done = sysutil.same([sqlite, '-batch', ':memory:'], 'sqlite3 in memory', stdin=script,
                        timeout=300)
    if b'\nok\n' not in done.stdout:
        raise Fail('sqlite3: integrity_check is not ok')
    digests = []
    for kind in (sysutil.GLIBC, sysutil.EBB):
        path = os.path.join(sysutil.tempdir(), 'db')
        sysutil.run(kind, [sqlite, '-batch', path], stdin=script, timeout=300, command=True)
        with open(path, 'rb') as file:
            digests.append(hashlib.sha256(file.read()).hexdigest())
    if digests[0] != digests[1]:
        raise Fail('sqlite3: the database file written on Ebb differs from that on glibc')


sysutil.main(test, __doc__)
