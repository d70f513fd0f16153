//go:build !linux

package main

import (
	"context"
	"errors"
)

// openRawUDP needs system calls of Linux.
func openRawUDP(context.Context, bool) (runner, error) { return nil, errors.ErrUnsupported }
