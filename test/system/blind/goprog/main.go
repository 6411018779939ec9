// SPDX-License-Identifier: MIT
//
// goprog KIND: Go with much memory for three reasons.
//
//	mmap    a cache of 256 MiB in mappings of its own, so that the collector need not look at it
//	live    a map of 200 MiB of records in the heap, in use
//	stacks  8,000 goroutines that each went deep once and wait inside: their stacks have grown
package main

import (
	"bufio"
	"fmt"
	"math/rand"
	"os"
	"sync"
	"syscall"
	"time"
)

const mib = 1 << 20

func mapped(count int) [][]byte {
	var parts [][]byte
	for i := 0; i < count; i++ {
		part, err := syscall.Mmap(-1, 0, mib, syscall.PROT_READ|syscall.PROT_WRITE,
			syscall.MAP_PRIVATE|syscall.MAP_ANON)
		if err != nil {
			fmt.Fprintln(os.Stderr, "mmap:", err)
			os.Exit(1)
		}
		rand.Read(part)
		parts = append(parts, part)
	}
	return parts
}

func records(count int) [][]byte {
	var all [][]byte
	for i := 0; i < count; i++ {
		record := make([]byte, 2048)
		rand.Read(record)
		all = append(all, record)
	}
	return all
}

func descend(left int, down *sync.WaitGroup, stay chan int) int {
	var frame [256]byte
	frame[left%256] = byte(left)
	if left > 0 {
		return descend(left-1, down, stay) + int(frame[0])
	}
	down.Done()
	return <-stay
}

func resident() uint64 {
	var size, pages uint64
	text, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscan(string(text), &size, &pages)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "statm:", err)
		os.Exit(1)
	}
	return pages * uint64(os.Getpagesize())
}

func main() {
	var parts [][]byte
	var bytes uint64
	if len(os.Args) > 1 && os.Args[1] == "mmap" {
		parts = mapped(256)
		bytes = 256 * mib
	} else if len(os.Args) > 1 && os.Args[1] == "live" {
		parts = records(200 * 512)
		bytes = 200 * mib
	} else {
		before := resident()
		var down sync.WaitGroup
		stay := make(chan int)
		for i := 0; i < 8000; i++ {
			down.Add(1)
			go descend(70, &down, stay)
		}
		down.Wait()
		// StackInuse counts whole stacks, also what of them was never touched.
		bytes = resident() - before
	}
	time.AfterFunc(120*time.Second, func() { os.Exit(0) })
	fmt.Printf("ready bytes=%d\n", bytes)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
	}
	if len(parts) == 1 {
		fmt.Println(parts[0][0])
	}
}
