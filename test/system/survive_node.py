#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""node on Ebb: buffers, JSON, regular expressions, zlib, crypto, workers and a child process."""
import os
import textwrap

import sysutil

SCRIPT = '''
    const crypto = require('crypto'), zlib = require('zlib');
    const { Worker } = require('worker_threads');
    const { execFileSync } = require('child_process');
    const rounds = Number(process.argv[2]);
    const hash = crypto.createHash('sha256');
    let list = [];
    for (let i = 0; i < rounds * 1000; i++) {
        list.push({ id: i, text: 'x'.repeat(i % 300), nested: { a: [i, i * 2], b: String(i) } });
        if (list.length > 5000) { hash.update(JSON.stringify(list.splice(0, 2500))); }
    }
    for (let i = 0; i < rounds; i++) {
        const data = Buffer.alloc(1000 + i * 9973 % 400000, 'pattern' + i);
        const packed = zlib.gzipSync(data);
        if (!zlib.gunzipSync(packed).equals(data)) { throw new Error('zlib'); }
        const key = Buffer.alloc(32, i);
        const cipher = crypto.createCipheriv('aes-256-ctr', key, Buffer.alloc(16, 1));
        hash.update(Buffer.concat([cipher.update(data), cipher.final()]));
    }
    hash.update(JSON.stringify('a1b22c333'.repeat(rounds).match(/[a-z][0-9]+/g)));
    const code = `const { parentPort, workerData } = require('worker_threads');
        let s = 0; const keep = new Map();
        for (let i = 0; i < 200000; i++) {
            keep.set('k' + i % 5000, Buffer.alloc(i % 200)); s += i; }
        parentPort.postMessage(s + workerData + keep.size);`;
    const work = n => new Promise((done, failed) => {
        const w = new Worker(code, { eval: true, workerData: n });
        w.on('message', done); w.on('error', failed); });
    Promise.all([1, 2, 3, 4].map(work)).then(results => {
        hash.update(JSON.stringify(results));
        hash.update(execFileSync(process.execPath, ['-p', '6 * 7']));
        console.log(hash.digest('hex'));
    });
'''


def test(args):
    node = sysutil.need('nodejs', 'node')
    path = os.path.join(sysutil.tempdir(), 'work.js')
    with open(path, 'w') as file:
        file.write(textwrap.dedent(SCRIPT))
    sysutil.same([node, path, '400' if args.long else '60'], 'node', timeout=200)


sysutil.main(test, __doc__)
