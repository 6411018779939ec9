// SPDX-License-Identifier: MIT

// Case B2, "the same, released": as B1, but after -wait the channel is closed, the goroutines end
// and the heap is collected; and the process still looks big.
//
//	go build b2_released.go && ./b2_released -items 2500 -http 127.0.0.1:8090
//
// Watch: /debug/pprof/: a handful of goroutines, nothing in the heap profile. The difference
// between `idle`, `released` and RSS: with Go 1.12 to 1.15 it is LazyFree of smaps_rollup, so this
// is case A1 and not B1. Stacks and descriptors of 10,000 goroutines stay with the runtime.
//
// Ended: as A1.
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
	"sync"
	"time"
)

func receive(items int, done <-chan bool, ready, gone *sync.WaitGroup) {
	var numbers []int64
	for i := 0; i < items; i++ {
		numbers = append(numbers, int64(i))
	}
	ready.Done()
	<-done
	runtime.KeepAlive(numbers)
	gone.Done()
}

func main() {
	n := flag.Int("n", 10000, "number of goroutines")
	items := flag.Int("items", 10000, "int64 that each holds")
	held := flag.Duration("wait", time.Second, "time that they wait")
	wait := flag.Duration("settle", 30*time.Second, "time for the runtime to hand back pages")
	at := flag.String("http", "127.0.0.1:0", "loopback address of /debug/pprof/; empty: none")
	limit := flag.Duration("for", 120*time.Second, "end after this time at the latest")
	flag.Parse()

	done := make(chan bool)
	var ready, gone sync.WaitGroup
	for i := 0; i < *n; i++ {
		ready.Add(1)
		gone.Add(1)
		go receive(*items, done, &ready, &gone)
	}
	ready.Wait()
	numbers("waiting b2")
	time.Sleep(*held)
	close(done)
	gone.Wait()
	for i := 0; i < 3; i++ {
		runtime.GC()
	}
	settle(*wait)
	serve(*at)
	hold("b2", *limit)
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
