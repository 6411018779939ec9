// SPDX-License-Identifier: MIT

// A program that knows its own numbers: what it allocates, keeps, lets go, blocks and times is set,
// and each line of input gets runtime.ReadMemStats as an answer. The end of its input ends it.
package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
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

// What Go itself makes of its samples: bytes in use that touched has allocated for holder, scaled
// as runtime/pprof does.
func sampled() int64 {
	records := make([]runtime.MemProfileRecord, 4000)
	n, ok := runtime.MemProfile(records, false)
	if !ok {
		panic("more than 4000 records")
	}
	sum := 0.0
	for _, r := range records[:n] {
		frames := runtime.CallersFrames(r.Stack())
		frame, more := frames.Next()
		for more && strings.HasPrefix(frame.Function, "runtime.") {
			frame, more = frames.Next()
		}
		caller, _ := frames.Next()
		if frame.Function == "main.touched" && caller.Function == "main.holder" {
			size := float64(r.AllocBytes) / float64(r.AllocObjects)
			sum += float64(r.InUseBytes()) / (1 - math.Exp(-size/float64(runtime.MemProfileRate)))
		}
	}
	return int64(sum)
}

func tell() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Printf("now Sys=%d HeapSys=%d HeapIdle=%d HeapInuse=%d HeapReleased=%d HeapAlloc=%d",
		m.Sys, m.HeapSys, m.HeapIdle, m.HeapInuse, m.HeapReleased, m.HeapAlloc)
	fmt.Printf(" NextGC=%d goroutines=%d\n", m.NextGC, runtime.NumGoroutine())
}

func main() {
	runtime.MemProfileRate = 32 << 10 // a number of samples that tells whether the doctor scales them
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
	fmt.Printf("ready profiles=%d sampled=%d\n", len(pprof.Profiles()), sampled())
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		tell()
	}
}
