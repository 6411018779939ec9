// SPDX-License-Identifier: MIT
//
// heap: node with a session store of about 200 MiB of objects in V8's heap, all in use.
// Go  none
'use strict';

const sessions = new Map();
for (let i = 0; i < 900000; i++) {
    sessions.set(i, {id: i, seen: i * 1.5, user: 'user ' + i, roles: [i, i + 1, i + 2]});
}
console.log('ready bytes=' + process.memoryUsage().heapUsed);
setTimeout(() => process.exit(0), 120000);
process.stdin.on('end', () => process.exit(sessions.size ? 0 : 1));
process.stdin.resume();
