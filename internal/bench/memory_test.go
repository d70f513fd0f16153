package main

import "testing"

// TestMemory holds sessions, at rest and with a receiver that takes nothing, to what they may have.
func TestMemory(t *testing.T) {
	for _, suite := range []struct {
		name string
		open openParties
	}{{"tcp", openTCPParty}, {"udp", openUDPParty}} {
		t.Run(suite.name, func(t *testing.T) {
			check(t, func(o *options, r *report) error { return memoryRows(t.Context(), o, r, suite.name, suite.open) })
		})
	}
}
