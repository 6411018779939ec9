// SPDX-License-Identifier: MIT

// Case A3, "percent per minute": after a busy day a container is near its limit and falls by a
// hundredth of a percent a minute, as the kernel takes lazily freed pages one by one. Nobody can
// say what the service needs. A sudden demand meets memory that is free and counted all the same.
//
//	go build a3_demand.go && ./a3_demand -mib 300      then write `demand` to its standard input
//
// Watch: with Go 1.12 to 1.15: RSS and the charge of the cgroup against `alloc`, LazyFree of
// smaps_rollup; memory.events of the cgroup when the demand comes. Run it in a cgroup whose limit
// is a tenth over the peak to see the real thing.
//
// Ended: as A1: prompt release, Go 1.16 or GODEBUG=madvdontneed=1.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"
)

var live, demanded [][]byte

func main() {
	mib := flag.Int("mib", 300, "size of the busy day")
	stays := flag.Int("live", 8, "MiB that stay")
	sudden := flag.Int("demand", 200, "MiB that a line `demand` takes")
	wait := flag.Duration("settle", 30*time.Second, "time for the runtime to hand back pages")
	limit := flag.Duration("for", 120*time.Second, "end after this time at the latest")
	flag.Parse()

	live = take(*stays << 20)
	day := take(*mib << 20)
	runtime.KeepAlive(day)
	day = nil
	for i := 0; i < 3; i++ {
		runtime.GC()
	}
	settle(*wait)
	go trickle()
	time.AfterFunc(*limit, func() { os.Exit(0) })
	numbers("ready a3")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if lines.Text() == "demand" {
			demanded = take(*sudden << 20)
		}
		numbers("now a3")
	}
	runtime.KeepAlive(live)
	runtime.KeepAlive(demanded)
}

// take holds rows of one size, so much as is asked for in all.
func take(bytes int) [][]byte {
	const row = 2048
	all := make([][]byte, 0, bytes/row)
	for sum := 0; sum < bytes; sum += row {
		all = append(all, made(row))
	}
	return all
}

// trickle is the little that happens at night: less in an hour than one collection needs to begin.
func trickle() {
	for range time.Tick(100 * time.Millisecond) {
		live[0] = made(1024)
	}
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
