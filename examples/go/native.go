// SPDX-License-Identifier: MIT

// Native memory under Go: memory that the runtime knows nothing of, as a C library under cgo has
// it. Here it is mapped by the program itself, so that no C compiler is needed.
//
//	go build native.go && ./native -mib 256
//
// Watch: RSS against `sys`: the difference is anonymous memory outside of the heap. The heap
// profile is empty, GOGC and madvdontneed change nothing.
//
// Ended: where the native library frees; a limit of its own.
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
	"syscall"
	"time"
)

var blocks [][]byte

func main() {
	mib := flag.Int("mib", 256, "MiB of native memory")
	piece := flag.Int("piece", 16, "MiB of one mapping")
	at := flag.String("http", "", "loopback address of /debug/pprof/; empty: none")
	limit := flag.Duration("for", 120*time.Second, "end after this time at the latest")
	flag.Parse()

	for sum := 0; sum < *mib; sum += *piece {
		block, err := syscall.Mmap(-1, 0, *piece<<20, syscall.PROT_READ|syscall.PROT_WRITE,
			syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			fmt.Fprintln(os.Stderr, "mmap:", err)
			os.Exit(2)
		}
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		blocks = append(blocks, block)
	}
	serve(*at)
	hold("native", *limit)
	runtime.KeepAlive(blocks)
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
