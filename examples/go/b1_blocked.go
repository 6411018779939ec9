// SPDX-License-Identifier: MIT

// Case B1, "blocked receivers": 10,000 goroutines append 10,000 int64 each, then wait for a channel
// that nobody sends on. About 1.5 GiB; -items 2500 makes it a quarter.
//
//	go build b1_blocked.go && ./b1_blocked -http 127.0.0.1:8090
//
// Watch: /debug/pprof/: 10,00x goroutines, all of one creation site, in chan receive; the heap
// profile holds the arrays. It is a leak: no runtime and no setting gives this back.
//
// Ended: a sender, or a select with a context.
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

// receive keeps its numbers for a message that never comes.
func receive(items int, done <-chan bool, ready *sync.WaitGroup) {
	var numbers []int64
	for i := 0; i < items; i++ {
		numbers = append(numbers, int64(i))
	}
	ready.Done()
	<-done
	runtime.KeepAlive(numbers)
}

func main() {
	n := flag.Int("n", 10000, "number of goroutines")
	items := flag.Int("items", 10000, "int64 that each holds")
	at := flag.String("http", "127.0.0.1:0", "loopback address of /debug/pprof/; empty: none")
	limit := flag.Duration("for", 120*time.Second, "end after this time at the latest")
	flag.Parse()

	done := make(chan bool)
	var ready sync.WaitGroup
	for i := 0; i < *n; i++ {
		ready.Add(1)
		go receive(*items, done, &ready)
	}
	ready.Wait()
	runtime.GC()
	serve(*at)
	hold("b1", *limit)
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
