//go:build unix

package main

import "syscall"

// offHeap returns memory that the collector of garbage does not count. It is never freed.
func offHeap(size int) []byte {
	m, err := pages(size)
	if err != nil {
		return make([]byte, size)
	}
	return m
}

func pages(size int) ([]byte, error) {
	return syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
}

// warmPages has the system touch so much memory that it has free. What has been free for a while the host
// of a virtual machine may have taken back, and whoever gets it next waits for it up to seven times as
// long, as for the pages of a file that is written.
func warmPages(size int) {
	m, err := pages(size)
	if err != nil {
		return
	}
	for i := 0; i < len(m); i += syscall.Getpagesize() {
		m[i] = 1
	}
	_ = syscall.Munmap(m)
}
