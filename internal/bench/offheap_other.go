//go:build !unix

package main

// offHeap is not known here.
func offHeap(size int) []byte { return make([]byte, size) }

// warmPages is not known here.
func warmPages(size int) {}
