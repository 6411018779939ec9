// SPDX-License-Identifier: MIT

// Nothing is wrong here: a service with a steady live heap and a moderate rate of garbage.
//
//	go build healthy.go && ./healthy -mib 64 -rate 20
//
// Watch: RSS goes up and down between the live heap and twice that, as GOGC=100 has it, and has no
// slope. Whoever reports a leak here is wrong.
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

var (
	records [][]byte
	turn    int
)

// work replaces records one by one, and makes garbage of the same size on the way.
func work(bytes int) {
	for sum := 0; sum < bytes; sum += 2048 {
		turn++
		records[turn*7919%len(records)] = made(1024)
		runtime.KeepAlive(made(1024 + turn%2))
	}
}

// warm works until the heap has been through collections at its full size.
func warm() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for first := m.NumGC; m.NumGC < first+2; runtime.ReadMemStats(&m) {
		work(1 << 20)
	}
}

func main() {
	mib := flag.Int("mib", 64, "size of the live heap")
	rate := flag.Int("rate", 20, "MiB of garbage in a second")
	at := flag.String("http", "", "loopback address of /debug/pprof/; empty: none")
	limit := flag.Duration("for", 120*time.Second, "end after this time at the latest")
	flag.Parse()

	records = make([][]byte, *mib<<20/1024)
	for i := range records {
		records[i] = made(1024)
	}
	warm()
	serve(*at)
	go func() {
		const turns = 50
		for range time.Tick(time.Second / turns) {
			work(*rate << 20 / turns)
		}
	}()
	hold("healthy", *limit)
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
