//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package transport

import (
	"os"
	"syscall"
)

// lockFile takes no lock here: the system has none that ends with the process.
func lockFile(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
}

func platformNoSpace(error) bool { return false }

func platformMisnamed(syscall.Errno) bool { return false }
