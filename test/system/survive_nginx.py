#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""nginx on Ebb under wrk: every answer is well, and the files come back byte by byte."""
import gzip
import os
import random
import re
import urllib.request

import sysutil
from sysutil import EBB, Fail

CONF = '''
daemon off;
worker_processes 2;
pid {dir}/pid;
error_log {dir}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log {dir}/access.log;
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f;
    uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
    gzip on; gzip_types text/plain; gzip_min_length 100;
    default_type text/plain;
    server {{
        listen 127.0.0.1:{port};
        location / {{ root {dir}/www; }}
        location /again/ {{ proxy_pass http://127.0.0.1:{port}/; proxy_buffers 8 4k; }}
    }}
}}
{user}
'''


def files(folder):
    made = {}
    source = random.Random(7)
    os.mkdir(os.path.join(folder, 'www'))
    for size in (0, 1, 100, 4096, 50_000, 700_000, 5_000_000):
        words = b' '.join(b'%x' % source.getrandbits(20) for _ in range(size // 6 + 1))
        made['file%d.txt' % size] = words[:size]
    for name, data in made.items():
        with open(os.path.join(folder, 'www', name), 'wb') as file:
            file.write(data)
    return made


def fetch(url, compressed):
    request = urllib.request.Request(url)
    if compressed:
        request.add_header('Accept-Encoding', 'gzip')
    with urllib.request.urlopen(request, timeout=20) as answer:
        data = answer.read()
        if answer.headers.get('Content-Encoding') == 'gzip':
            data = gzip.decompress(data)
    return data


def compare(base, made):
    for prefix in ('', 'again/'):
        for name, data in made.items():
            for compressed in (False, True):
                if fetch(base + prefix + name, compressed) != data:
                    raise Fail('nginx: %s%s came back changed (gzip %s)'
                               % (prefix, name, compressed))


def test(args):
    nginx = sysutil.need('nginx-light', 'nginx')
    wrk = sysutil.need('wrk', 'wrk')
    folder, port = sysutil.tempdir(), sysutil.free_port()
    made = files(folder)
    user = 'user root;' if os.geteuid() == 0 else ''
    with open(os.path.join(folder, 'conf'), 'w') as file:
        file.write(CONF.format(dir=folder, port=port, user=user))
    server = sysutil.spawn(EBB, [nginx, '-p', folder, '-c', folder + '/conf',
                                 '-e', folder + '/error.log'])
    sysutil.wait_port(port, server)
    sysutil.require_mapped(server)
    base = 'http://127.0.0.1:%d/' % port
    compare(base, made)
    for path in ('file4096.txt', 'again/file50000.txt'):
        out = sysutil.run(EBB, [wrk, '-t', '2', '-c', '32', '-d', '20s' if args.long else '3s',
                                '-H', 'Accept-Encoding: gzip', base + path],
                          timeout=90, command=True).stdout.decode()
        count = re.search(r'(\d+) requests in', out)
        if not count or int(count.group(1)) < 100 or 'Non-2xx' in out or 'Socket errors' in out:
            raise Fail('nginx under wrk, %s: %s' % (path, sysutil.tail(out, 5)))
        sysutil.say('%s: %s requests' % (path, count.group(1)))
    compare(base, made)
    with open(os.path.join(folder, 'error.log')) as log:
        text = log.read()
    if 'signal' in text or '[alert]' in text or '[emerg]' in text:
        raise Fail('nginx: %s' % sysutil.tail(text, 1))


sysutil.main(test, __doc__)
