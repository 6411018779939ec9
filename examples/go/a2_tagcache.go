// SPDX-License-Identifier: MIT

// Case A2, "two gigabytes for a 170 MB heap": a service with a steady heap, of which a cache of
// metric tags is the largest part. The cache empties itself at every 16,384 inserts. A few busy
// moments come at the start; then requests go on at a low rate.
//
//	go build a2_tagcache.go && ./a2_tagcache -mib 48 -http 127.0.0.1:0
//
// Watch: three suspicions in order: goroutines (flat), code (the heap profile shows the cache,
// which does not grow), release (`alloc` is a small part of RSS; with Go 1.12 to 1.15 LazyFree of
// smaps_rollup is the rest).
//
// Ended: a runtime that releases promptly (1.16), or GODEBUG=madvdontneed=1 at the price of page
// faults and TLB flushes.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"time"
)

const cacheLimit = 16384

type tags struct {
	names  [8]string
	values [1900]byte
}

var (
	base  [][]byte
	cache = map[string]*tags{}
	turn  int
)

// insert adds what no request has asked for before, and empties the cache when it is full.
func insert() {
	if len(cache) >= cacheLimit {
		cache = map[string]*tags{}
	}
	turn++
	entry := &tags{}
	for i := range entry.names {
		entry.names[i] = fmt.Sprintf("tag%d=%d", i, turn)
	}
	cache[fmt.Sprintf("requests,host=h%d,shard=%d", turn%977, turn)] = entry
}

// busy is a moment in which many requests are under way at once.
func busy(bytes int) {
	var all [][]byte
	for sum := 0; sum < bytes; sum += 4096 {
		all = append(all, made(4096))
	}
	runtime.KeepAlive(all)
}

func main() {
	mib := flag.Int("mib", 32, "size of the heap beside the cache, in MiB")
	peak := flag.Int("peak", 400, "MiB of a busy moment")
	n := flag.Int("n", 2, "number of busy moments")
	rate := flag.Int("rate", 500, "inserts a second while it is watched")
	wait := flag.Duration("settle", 30*time.Second, "time for the runtime to hand back pages")
	at := flag.String("http", "", "loopback address of /debug/pprof/; empty: none")
	limit := flag.Duration("for", 120*time.Second, "end after this time at the latest")
	flag.Parse()

	for sum := 0; sum < *mib<<20; sum += 16384 {
		base = append(base, made(16384))
	}
	for i := 0; i < *n; i++ {
		for j := 0; j < cacheLimit; j++ {
			insert()
		}
		busy(*peak << 20)
		runtime.GC()
	}
	runtime.GC()
	settle(*wait)
	serve(*at)
	go func() {
		const turns = 20
		for range time.Tick(time.Second / turns) {
			for i := 0; i < *rate/turns; i++ {
				insert()
			}
		}
	}()
	hold("a2", *limit)
	runtime.KeepAlive(base)
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

// serve opens /debug/pprof/ at a loopback address and says where; an empty address opens nothing.
func serve(address string) {
	if address == "" {
		return
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	go http.Serve(listener, nil)
}
