//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package transport

import (
	"os"
	"syscall"
)

// lockFile takes the lock that ends with the process. A file system without
// locks is used without one.
func lockFile(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == syscall.EWOULDBLOCK {
		f.Close()
		return nil, errLocked
	}
	return f, nil
}

func platformNoSpace(error) bool { return false }

func platformMisnamed(syscall.Errno) bool { return false }
