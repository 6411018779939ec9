// SPDX-License-Identifier: MIT

// Case A4, "one big query": a service with a small heap answers one query with a very large result,
// once, and never again.
//
//	go build a4_query.go && ./a4_query -mib 300
//
// Watch: `idle` and `released` of the ready line against RSS. Up to Go 1.12 the memory stays with
// the runtime, which expects the next such query; 1.13 to 1.15 hand it back lazily, which looks the
// same from outside; from 1.16 on RSS falls.
//
// Ended: Go 1.13: a smooth, paced return towards the live heap and a margin; seen from outside,
// 1.16.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"
)

type row struct {
	id   int
	name string
	data []byte
}

var shelf [][]byte

// query makes a result of rows, and one large answer out of them.
func query(bytes int) int {
	var rows []*row
	for sum := 0; sum < bytes/2; sum += 4096 {
		rows = append(rows, &row{sum, fmt.Sprint("row ", sum), made(3968)})
	}
	answer := make([]byte, 0, bytes/2)
	for _, r := range rows {
		answer = append(answer, r.data...)
	}
	runtime.KeepAlive(rows)
	return len(answer)
}

func main() {
	mib := flag.Int("mib", 300, "size of the query's rows and answer")
	stays := flag.Int("live", 16, "MiB of the service itself")
	wait := flag.Duration("settle", 30*time.Second, "time for the runtime to hand back pages")
	limit := flag.Duration("for", 120*time.Second, "end after this time at the latest")
	flag.Parse()

	for sum := 0; sum < *stays<<20; sum += 8192 {
		shelf = append(shelf, made(8192))
	}
	runtime.GC()
	fmt.Printf("answer=%d\n", query(*mib<<20))
	for i := 0; i < 3; i++ {
		runtime.GC()
	}
	settle(*wait)
	hold("a4", *limit)
	runtime.KeepAlive(shelf)
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
