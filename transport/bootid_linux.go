package transport

import (
	"os"
	"strings"
)

// bootID names this run of the operating system; empty: unknown. What was
// written during it is in the page cache, so even without a sync it is there
// for later processes.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}
