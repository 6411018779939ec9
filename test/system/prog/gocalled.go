// SPDX-License-Identifier: MIT

// Threads of C call into Go and wait there; one comes back and waits in C. Each line of input gets
// the number of goroutines as an answer. The end of its input ends it.
package main

/*
#cgo LDFLAGS: -lpthread
#include <pthread.h>
#include <stddef.h>
#include <unistd.h>

extern void called(int stays);

static void *run(void *arg)
{
	called(arg != NULL);
	pause();
	return NULL;
}

static int thread(int stays)
{
	pthread_t id;
	return pthread_create(&id, NULL, run, stays ? &id : NULL);
}
*/
import "C"

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
)

const threads = 5

var (
	inside = make(chan int)
	never  = make(chan int)
)

//export called
//go:noinline
func called(stays C.int) {
	inside <- 1
	if stays != 0 {
		<-never
	}
}

func main() {
	for i := 0; i <= threads; i++ {
		stays := C.int(1)
		if i == threads {
			stays = 0
		}
		if C.thread(stays) != 0 {
			os.Exit(1)
		}
		<-inside
	}
	fmt.Println("ready")
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		fmt.Printf("now goroutines=%d\n", runtime.NumGoroutine())
	}
}
