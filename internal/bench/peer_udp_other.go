//go:build !linux || 386 || arm

package main

import (
	"context"
	"errors"
)

// openRawUDP needs system calls of Linux, which are laid out for 64 bits here.
func openRawUDP(context.Context, bool) (runner, error) { return nil, errors.ErrUnsupported }
