package main

import (
	"context"
	"testing"
)

// TestMemory holds sessions, at rest and with a receiver that takes nothing, to what they may have.
func TestMemory(t *testing.T) {
	for name, measure := range map[string]func(context.Context, *options, *report) error{
		"tcp": func(ctx context.Context, o *options, r *report) error {
			return memoryRows(ctx, o, r, "tcp", openTCPParty)
		},
		"udp": udpMemoryRows,
	} {
		t.Run(name, func(t *testing.T) {
			check(t, func(o *options, r *report) error { return measure(t.Context(), o, r) })
		})
	}
}
