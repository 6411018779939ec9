// SPDX-License-Identifier: MIT

// Case A5, "waves": a load that comes and goes with a period, for as long as it is watched. In each
// wave the heap is large for a quarter of the period.
//
//	go build a5_waves.go && ./a5_waves -mib 200 -period 10s
//
// Watch: RSS over some periods: a plateau at the height of the waves (Go up to 1.11, whose only
// rule is an age of five minutes; 1.12 to 1.15, where the dips are LazyFree), or a saw (1.16 and
// later). `wave` of a line says how many have begun, `high` whether one is on.
//
// Ended: by no single rule: what is right depends on the price of memory and of page faults.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

var (
	sea  [][]byte
	wave int32
	high int32
)

// rise holds blocks of 1 to 16 KiB for some time.
func rise(bytes int, hold time.Duration) {
	var all [][]byte
	atomic.AddInt32(&wave, 1)
	for sum, size := 0, 0; sum < bytes; sum += size {
		size = 1024 * (1 + len(all)%16)
		all = append(all, made(size))
	}
	atomic.StoreInt32(&high, 1)
	time.Sleep(hold)
	atomic.StoreInt32(&high, 0)
	runtime.KeepAlive(all)
}

func main() {
	mib := flag.Int("mib", 200, "height of a wave")
	stays := flag.Int("live", 8, "MiB that stay")
	period := flag.Duration("period", 10*time.Second, "from one wave to the next")
	limit := flag.Duration("for", 120*time.Second, "end after this time at the latest")
	flag.Parse()

	for sum := 0; sum < *stays<<20; sum += 4096 {
		sea = append(sea, made(4096))
	}
	first := make(chan bool)
	go func() {
		for tick := time.NewTicker(*period); ; <-tick.C {
			rise(*mib<<20, *period/4)
			runtime.GC()
			runtime.GC()
			if atomic.LoadInt32(&wave) == 2 {
				close(first)
			}
		}
	}()
	<-first
	hold("a5", *limit)
	runtime.KeepAlive(sea)
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
		"goroutines=%d wave=%d high=%d\n", word, runtime.Version(), m.HeapAlloc, m.HeapInuse, m.HeapIdle,
		m.HeapReleased, m.HeapSys, m.Sys, m.StackInuse, m.NumGC, runtime.NumGoroutine(),
		atomic.LoadInt32(&wave), atomic.LoadInt32(&high))
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
