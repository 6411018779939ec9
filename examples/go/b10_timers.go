// SPDX-License-Identifier: MIT

// Case B10, "timers in a loop": each turn of a busy loop makes a timer of three minutes and never
// stops it. Each lives until it fires, and with it the request that it was to end.
//
//	go build b10_timers.go && ./b10_timers -n 20000 -rate 500 -for 5m
//
// Watch: `alloc` grows by rate * bytes a second for three minutes and then stays: a slope to
// whoever looks for less. The heap profile names where timers and requests are made.
//
// Ended: Stop on the way out. time.After in a loop does the same up to Go 1.22; from 1.23 on such
// timers are collected, but not those of time.AfterFunc, as here.
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
	"sync/atomic"
	"time"
)

type request struct {
	id   int
	body []byte
}

var expired int32

// answer makes a timer against a client that never comes back; this one was quick.
func answer(id, bytes int, timeout time.Duration) {
	r := &request{id, made(bytes)}
	time.AfterFunc(timeout, func() {
		atomic.AddInt32(&expired, 1)
		r.body[0] = byte(r.id)
	})
}

func main() {
	n := flag.Int("n", 20000, "timers made at the start")
	rate := flag.Int("rate", 500, "timers a second from then on")
	bytes := flag.Int("bytes", 4096, "what each holds")
	timeout := flag.Duration("timeout", 3*time.Minute, "of each timer")
	at := flag.String("http", "", "loopback address of /debug/pprof/; empty: none")
	limit := flag.Duration("for", 120*time.Second, "end after this time at the latest")
	flag.Parse()

	for i := 0; i < *n; i++ {
		answer(i, *bytes, *timeout)
	}
	serve(*at)
	go func() {
		const turns = 50
		for i := *n; ; time.Sleep(time.Second / turns) {
			for end := i + *rate/turns; i < end; i++ {
				answer(i, *bytes, *timeout)
			}
		}
	}()
	hold("b10", *limit)
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
		"goroutines=%d expired=%d\n", word, runtime.Version(), m.HeapAlloc, m.HeapInuse, m.HeapIdle,
		m.HeapReleased, m.HeapSys, m.Sys, m.StackInuse, m.NumGC, runtime.NumGoroutine(),
		atomic.LoadInt32(&expired))
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
