#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""PostgreSQL on Ebb: initdb, a server, pgbench; the books balance, queries answer as on glibc."""
import glob
import os
import pwd
import re
import signal

import sysutil
from sysutil import EBB, GLIBC, Fail

BIN = '/usr/lib/postgresql/*/bin/'
QUERY = '''
    create table q as select i, md5(i::text) m, repeat('x', i % 500) r
      from generate_series(1, 60000) i;
    create index on q (m);
    select count(*), sum(length(r)), max(m) from q;
    select left(m, 1) c, count(*), string_agg(i::text, ',' order by i) from q group by 1 order by 1;
    with recursive w(n) as (select 1 union all select n + 1 from w where n < 5000)
      select sum(n), count(distinct n % 37) from w;
    select jsonb_agg(jsonb_build_object('i', i, 'm', m) order by i)::text from q where i < 3000;
    select a.i, b.i from q a join q b on left(a.m, 5) = left(b.m, 5) and a.i < b.i order by 1, 2;
'''


def binaries():
    found = sorted(glob.glob(BIN + 'initdb'))
    return os.path.dirname(found[-1]) if found else None


def unprivileged():
    """What makes a child an ordinary user: the server refuses to run as root."""
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam('nobody')

    def become():
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    return become


class Cluster:
    def __init__(self, kind, folder, user):
        self.kind, self.folder, self.user = kind, folder, user
        self.port = sysutil.free_port()
        self.extra = {'PGHOST': folder, 'PGPORT': str(self.port), 'PGUSER': 'postgres',
                      'PGDATABASE': 'postgres', 'HOME': folder}
        self.call('initdb', '-D', folder + '/data', '-U', 'postgres', '-A', 'trust', '-E', 'UTF8',
                  '--locale=C', '-N')
        self.server = sysutil.spawn(
            kind, [os.path.join(binaries(), 'postgres'), '-D', folder + '/data', '-k', folder,
                   '-p', str(self.port), '-c', 'listen_addresses=127.0.0.1', '-c', 'fsync=off',
                   '-c', 'shared_buffers=32MB'],
            before=user, stdout=open(folder + '/log', 'wb'), stderr=-2)
        sysutil.wait_port(self.port, self.server, 30)
        sysutil.wait_for(lambda: self.call('psql', '-c', 'select 1', check=False).returncode == 0,
                         20, 'PostgreSQL answering', self.server)

    def call(self, name, *words, check=True, stdin=None, timeout=120):
        path = os.path.join(binaries(), name)
        return sysutil.run(self.kind, [path] + list(words), extra=self.extra, before=self.user,
                           check=check, stdin=stdin, timeout=timeout, cwd=self.folder,
                           command=True)

    def sql(self, text):
        return self.call('psql', '-qAt', '-v', 'ON_ERROR_STOP=1', stdin=text.encode()).stdout

    def stop(self):
        self.server.send_signal(signal.SIGINT)  # fast shutdown
        if self.server.wait(30) != 0:
            raise Fail('PostgreSQL on %s: %s at shutdown'
                       % (self.kind, sysutil.ended(self.server.returncode)))
        with open(self.folder + '/log') as log:
            bad = re.findall(r'.*(?:PANIC|terminated by signal).*', log.read())
        if bad:
            raise Fail('PostgreSQL on %s: %s' % (self.kind, bad[0]))


def place():
    folder = sysutil.tempdir(0o755)
    if os.geteuid() == 0:
        user = pwd.getpwnam('nobody')
        os.chown(folder, user.pw_uid, user.pw_gid)
    return folder


def test(args):
    sysutil.need('postgresql', 'initdb', binaries)
    user = unprivileged()
    sysutil.publish()
    ours = Cluster(EBB, place(), user)
    sysutil.require_mapped(ours.server)
    ours.call('pgbench', '-q', '-i', '-s', '10' if args.long else '2')
    out = ours.call('pgbench', '-c', '8', '-j', '2', '-T', '60' if args.long else '5').stdout
    count = re.search(rb'actually processed: (\d+)', out)
    if not count or int(count.group(1)) < 10:
        raise Fail('pgbench: %s' % sysutil.tail(out))
    sums = ours.sql('select (select sum(abalance) from pgbench_accounts) ='
                    ' (select sum(delta) from pgbench_history),'
                    ' (select sum(bbalance) from pgbench_branches) ='
                    ' (select sum(tbalance) from pgbench_tellers),'
                    ' (select count(*) from pgbench_history)')
    if sums.strip() != b't|t|' + count.group(1):
        raise Fail('pgbench: after %s transactions the sums are %s'
                   % (count.group(1).decode(), sums.decode().strip()))
    said = ours.sql(QUERY)
    ours.stop()
    reference = Cluster(GLIBC, place(), user)
    if reference.sql(QUERY) != said:
        raise Fail('PostgreSQL: queries answer otherwise than on glibc')
    reference.stop()
    sysutil.say('%s transactions, the sums agree' % count.group(1).decode())


sysutil.main(test, __doc__)
