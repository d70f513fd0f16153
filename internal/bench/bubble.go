package main

import (
	"flag"
	"os"
	"testing"
	"testing/synctest"
)

// Virtual time is testing/synctest's, which wants a *testing.T. A program gets one from
// testing.Main, which is kept for programs that stand in for "go test": all of this program is
// one test. testing.Main reads the command line, so it must not see ours.

// runAsTest calls f with a T and ends the program.
func runAsTest(f func(t *testing.T)) {
	os.Args = os.Args[:1]
	flag.CommandLine = flag.NewFlagSet(os.Args[0], flag.ExitOnError)
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "bench", F: f}}, nil, nil)
}

// inBubble runs f in virtual time and returns when all that it has started has ended.
func inBubble(t *testing.T, f func(t *testing.T) error) (err error) {
	t.Run("", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { err = f(t) })
	})
	return err
}
