// SPDX-License-Identifier: MIT

// Case A7, "give it back now": a program that has dropped much and has not collected since, because
// GOGC is high. A line on its standard input calls debug.FreeOSMemory, whatever the line says.
//
//	go build a7_giveback.go && ./a7_giveback -mib 300
//
// Watch: before: `alloc` counts garbage that nobody can reach. After: `alloc` is small and
// `released` large; RSS has fallen from Go 1.16 on, with 1.12 to 1.15 LazyFree has grown instead.
// The line `gave` says how much the runtime says it released, and how long that took.
//
// Ended: by itself, for a while: a collection, everything released under the heap's lock, faults
// afterwards.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

var live [][]byte

func main() {
	mib := flag.Int("mib", 300, "size of what is dropped")
	stays := flag.Int("live", 8, "MiB that stay")
	limit := flag.Duration("for", 120*time.Second, "end after this time at the latest")
	flag.Parse()

	debug.SetGCPercent(100000)
	live = take(*stays << 20)
	take(*mib << 20)
	time.AfterFunc(*limit, func() { os.Exit(0) })
	numbers("ready a7")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		give()
		numbers("now a7")
	}
	runtime.KeepAlive(live)
}

func give() {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	debug.FreeOSMemory()
	took := time.Since(begin)
	runtime.ReadMemStats(&after)
	fmt.Printf("gave released=%d ms=%d\n", after.HeapReleased-before.HeapReleased,
		took.Milliseconds())
}

// take holds blocks of mixed sizes, so much as is asked for in all.
func take(bytes int) [][]byte {
	var all [][]byte
	for sum, size := 0, 0; sum < bytes; sum += size {
		size = 512 * (1 + len(all)%64)
		all = append(all, made(size))
	}
	return all
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
