//go:build !linux

package transport

// bootID names this run of the operating system; empty: unknown.
func bootID() string { return "" }
