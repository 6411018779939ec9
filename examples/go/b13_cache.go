// SPDX-License-Identifier: MIT

// Case B13, "cache that only grows": entries keyed by host, port and tags are refreshed every three
// seconds and never removed. The tags hold the number of the connection, so that every client makes
// new ones.
//
//	go build b13_cache.go && ./b13_cache -mib 32 -rate 4
//
// Watch: `alloc` and RSS rise by the same steady rate, which is -rate in MiB a second; every byte
// is reachable and every entry was touched seconds ago. Goroutines are flat.
//
// Ended: a bound on the number of entries, or an age; fewer tags.
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

type key struct {
	host string
	port int
	tags string
}

type entry struct {
	refreshed time.Time
	count     uint64
	sample    [1800]byte
}

var (
	lock  sync.Mutex
	cache = map[key]*entry{}
)

// entryBytes is what an entry takes with its key and its share of the map.
const entryBytes = 2048 + 256

func add(n int) {
	lock.Lock()
	defer lock.Unlock()
	for i := 0; i < n; i++ {
		id := len(cache)
		name := key{fmt.Sprintf("h%d", id%500), 8000 + id%16,
			fmt.Sprintf("env=prod,conn=%d", id)}
		cache[name] = &entry{refreshed: time.Now()}
	}
}

func entries() int {
	lock.Lock()
	defer lock.Unlock()
	return len(cache)
}

func refresh() {
	lock.Lock()
	defer lock.Unlock()
	now := time.Now()
	for _, e := range cache {
		e.refreshed = now
		e.count++
	}
}

func main() {
	mib := flag.Int("mib", 32, "size of the cache when it is ready")
	rate := flag.Float64("rate", 4, "MiB it grows by in a second")
	every := flag.Duration("refresh", 3*time.Second, "time between two refreshes")
	at := flag.String("http", "", "loopback address of /debug/pprof/; empty: none")
	limit := flag.Duration("for", 120*time.Second, "end after this time at the latest")
	flag.Parse()

	add((*mib << 20) / entryBytes)
	serve(*at)
	go func() {
		const turns = 20
		for range time.Tick(time.Second / turns) {
			add(int(*rate * (1 << 20) / entryBytes / turns))
		}
	}()
	go func() {
		for range time.Tick(*every) {
			refresh()
		}
	}()
	hold("b13", *limit)
}

// numbers prints what the runtime counts, in one line. Pages handed back lazily count as released.
func numbers(word string) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Printf("%s go=%s alloc=%d inuse=%d idle=%d released=%d heapsys=%d sys=%d stacks=%d gc=%d "+
		"goroutines=%d entries=%d\n", word, runtime.Version(), m.HeapAlloc, m.HeapInuse, m.HeapIdle,
		m.HeapReleased, m.HeapSys, m.Sys, m.StackInuse, m.NumGC, runtime.NumGoroutine(), entries())
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
