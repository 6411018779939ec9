// SPDX-License-Identifier: MIT

// Case A6, "big, small, big": take one large block, free it, take small ones out of its place, keep
// a few of them, and take a large one again. It fits nowhere, so the heap grows; and so on.
//
//	go build a6_holes.go && ./a6_holes -mib 64 -n 5
//
// Watch: `heapsys` against `alloc`: address space that was taken once and never again in one piece;
// `inuse` against `alloc`: spans with a few small objects in them. With Go 1.12 to 1.15 the holes
// are LazyFree of smaps_rollup, later they are gone from RSS.
//
// Ended: first fit by address, and free runs that merge whether released or not: Go 1.14.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"
)

const smallSize = 1024

var kept [][]byte

// crumbs fills bytes with small objects and keeps one of so many.
func crumbs(bytes, keep int) {
	all := make([][]byte, 0, bytes/smallSize)
	for i := 0; i < bytes/smallSize; i++ {
		all = append(all, made(smallSize))
	}
	for i := 0; i < len(all); i += keep {
		kept = append(kept, all[i])
	}
}

func main() {
	mib := flag.Int("mib", 64, "size of a large block")
	n := flag.Int("n", 4, "number of rounds")
	keep := flag.Int("keep", 24, "one small object of so many stays")
	wait := flag.Duration("settle", 30*time.Second, "time for the runtime to hand back pages")
	limit := flag.Duration("for", 120*time.Second, "end after this time at the latest")
	flag.Parse()

	for i := 0; i < *n; i++ {
		runtime.KeepAlive(made(*mib << 20))
		runtime.GC()
		crumbs(*mib<<20, *keep)
		runtime.GC()
	}
	runtime.KeepAlive(made(*mib << 20))
	for i := 0; i < 3; i++ {
		runtime.GC()
	}
	settle(*wait)
	hold("a6", *limit)
	runtime.KeepAlive(kept)
}

// settle waits until the runtime has handed back nearly all it does not use, or the time is over.
func settle(limit time.Duration) {
	var m runtime.MemStats
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		runtime.ReadMemStats(&m)
		if m.HeapIdle-m.HeapReleased < m.HeapInuse/8+(2<<20) {
			return
		}
	}
}

// made is a block that is written to: fresh memory of the kernel is not resident before.
func made(bytes int) []byte {
	block := make([]byte, bytes)
	for i := 0; i < bytes; i += 4096 {
		block[i] = 1
	}
	return block
}

// numbers prints what the runtime counts, in one line. Pages handed back lazily count as released.
func numbers(word string) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Printf("%s go=%s alloc=%d inuse=%d idle=%d released=%d heapsys=%d sys=%d stacks=%d gc=%d "+
		"goroutines=%d\n", word, runtime.Version(), m.HeapAlloc, m.HeapInuse, m.HeapIdle,
		m.HeapReleased, m.HeapSys, m.Sys, m.StackInuse, m.NumGC, runtime.NumGoroutine())
}

// hold keeps the program as it is. Each line of standard input is answered with the numbers of that
// moment; the end of the input, or of the time, ends the program.
func hold(name string, limit time.Duration) {
	time.AfterFunc(limit, func() { os.Exit(0) })
	numbers("ready " + name)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		numbers("now " + name)
	}
}
