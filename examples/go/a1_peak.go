// SPDX-License-Identifier: MIT

// Case A1, "alarm after a move": one peak of small objects, then a small heap and nothing to do.
//
//	go build a1_peak.go && ./a1_peak -mib 300
//
// Watch: RSS and LazyFree of /proc/PID/smaps_rollup beside `released` of the ready line. With Go
// 1.12 to 1.15 RSS stays as it was at the peak, LazyFree is nearly all of it, and `released` says
// the same number: the runtime has handed back every page, the kernel takes them when it must.
//
// Ended: GODEBUG=madvdontneed=1, or Go 1.16 and later, where that is the default: RSS falls to the
// live heap within seconds.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"
)

var live [][]byte

func main() {
	mib := flag.Int("mib", 300, "size of the peak")
	stays := flag.Int("live", 8, "MiB that stay")
	wait := flag.Duration("settle", 30*time.Second, "time for the runtime to hand back pages")
	limit := flag.Duration("for", 120*time.Second, "end after this time at the latest")
	flag.Parse()

	live = peak(*stays << 20)
	all := peak(*mib << 20)
	numbers("peak a1")
	runtime.KeepAlive(all)
	all = nil
	// The goal of what is kept follows the last two collections.
	for i := 0; i < 3; i++ {
		runtime.GC()
	}
	settle(*wait)
	hold("a1", *limit)
	runtime.KeepAlive(live)
}

// peak holds many small objects of 16 to 1024 bytes, so much as is asked for in all.
func peak(bytes int) [][]byte {
	var all [][]byte
	for sum, size := 0, 16; sum < bytes; sum += size {
		size = 16 + (size*7+13)%1009
		all = append(all, made(size))
	}
	return all
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
