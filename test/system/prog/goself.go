// SPDX-License-Identifier: MIT

// A program that knows its own numbers: what it allocates, keeps, lets go, blocks and times is set,
// and each line of input gets runtime.ReadMemStats as an answer. The end of its input ends it.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

const (
	blocked = 700
	timers  = 40
	kept    = 40000 // of 1 KiB each
	passing = 80000
)

var keep [][]byte

func stuck(never chan int) {
	<-never
	fmt.Println("never")
}

//go:noinline
func touched(bytes int) []byte {
	b := make([]byte, bytes)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

//go:noinline
func holder() {
	for i := 0; i < kept; i++ {
		keep = append(keep, touched(1024))
	}
}

//go:noinline
func passer() {
	var gone [][]byte
	for i := 0; i < passing; i++ {
		gone = append(gone, touched(1024))
	}
	runtime.KeepAlive(gone)
}

func tell() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Printf("now Sys=%d HeapSys=%d HeapIdle=%d HeapInuse=%d HeapReleased=%d HeapAlloc=%d",
		m.Sys, m.HeapSys, m.HeapIdle, m.HeapInuse, m.HeapReleased, m.HeapAlloc)
	fmt.Printf(" NextGC=%d goroutines=%d\n", m.NextGC, runtime.NumGoroutine())
}

func main() {
	never := make(chan int)
	for i := 0; i < blocked; i++ {
		go stuck(never)
	}
	for i := 0; i < timers; i++ {
		time.AfterFunc(time.Hour, func() {})
	}
	holder()
	passer()
	runtime.GC()
	runtime.GC()
	fmt.Println("ready profiles=", len(pprof.Profiles()))
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		tell()
	}
}
