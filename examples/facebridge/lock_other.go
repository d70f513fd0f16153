//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package main

import "os"

// lockFile only makes the file: run one bridge for each outbox.
func lockFile(path string) (*os.File, error) { return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644) }

// syncDir does nothing: directories cannot be synced.
func syncDir(string) error { return nil }
