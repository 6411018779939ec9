#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""java on Ebb: its version, and where a compiler is present a program with threads and zlib."""
import os
import shutil
import textwrap

import sysutil
from sysutil import EBB, Skip

PROGRAM = '''
    import java.io.*;
    import java.util.*;
    import java.util.concurrent.*;
    import java.util.zip.*;
    class Work {
        static long one(int n) throws Exception {
            Map<String, byte[]> map = new HashMap<>();
            CRC32 crc = new CRC32();
            for (int i = 0; i < 20000; i++) {
                map.put("k" + (i * 31 + n) % 3000, new byte[i % 700]);
            }
            for (int i = 0; i < 60; i++) {
                ByteArrayOutputStream bytes = new ByteArrayOutputStream();
                try (GZIPOutputStream zip = new GZIPOutputStream(bytes)) {
                    for (int j = 0; j < 400; j++) { zip.write(("line " + i * j + n).getBytes()); }
                }
                GZIPInputStream in = new GZIPInputStream(
                    new ByteArrayInputStream(bytes.toByteArray()));
                crc.update(in.readAllBytes());
            }
            java.nio.ByteBuffer direct = java.nio.ByteBuffer.allocateDirect(1 << 20);
            direct.putLong(0, crc.getValue());
            return direct.getLong(0) + map.size();
        }
        public static void main(String[] args) throws Exception {
            ExecutorService pool = Executors.newFixedThreadPool(4);
            List<Future<Long>> all = new ArrayList<>();
            for (int i = 0; i < Integer.parseInt(args[0]); i++) {
                final int n = i;
                all.add(pool.submit(() -> one(n)));
            }
            long sum = 0;
            for (Future<Long> f : all) { sum = sum * 31 + f.get(); }
            pool.shutdown();
            System.out.println(sum);
        }
    }
'''


def test(args):
    java = shutil.which('java')
    if not java:
        raise Skip('no java here; it is not installed for this test alone')
    sysutil.run(EBB, [java, '-version'], timeout=60, command=True)
    sysutil.run(EBB, [java, '-Xmx128m', '-XX:+UseSerialGC', '-version'], timeout=60, command=True)
    if not shutil.which('javac'):
        return
    folder = sysutil.tempdir()
    with open(os.path.join(folder, 'Work.java'), 'w') as file:
        file.write(textwrap.dedent(PROGRAM))
    sysutil.run(EBB, ['javac', '-d', folder, folder + '/Work.java'], timeout=120, command=True)
    sysutil.same([java, '-Xmx256m', '-cp', folder, 'Work', '200' if args.long else '16'], 'java',
                 timeout=200)


sysutil.main(test, __doc__)
