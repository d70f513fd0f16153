// Command bench measures pixferry beside the limit of the medium and what one would use
// instead, in one run, on loopback and on simulated links:
//
//	go run -C internal/bench . -suite tcp|udp|mqtt|lossy|fleet|all -json FILE -plot DIR
//
// The systems of a case take turns, so that what else the machine does falls on all of them
// alike; a ratio is the median of the ratios of each turn, but for the first, which pays for
// memory that the others find. pixferry is used through its public
// API with its defaults, both ends make and compare the digest, and a receipt is waited for.
// Sender and receiver are one process for every system; CPU time is that of both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// options are the flags.
type options struct {
	suite, json, plot, profile string
	runs                       int
	quick                      bool
	only                       *regexp.Regexp
	profiling                  sync.Once
	t                          *testing.T // for virtual time
}

// A suite measures and adds what it finds to the report.
type suite struct {
	name string
	run  func(ctx context.Context, o *options, r *report) error
}

var suites = []suite{{"tcp", tcpSuite}, {"udp", udpSuite}, {"mqtt", mqttSuite}, {"lossy", lossySuite}, {"fleet", fleetSuite}}

func main() {
	o := options{only: regexp.MustCompile("")}
	flag.StringVar(&o.suite, "suite", "all", "tcp, udp, mqtt, lossy, fleet or all")
	flag.StringVar(&o.json, "json", "", "write the results to this file")
	flag.StringVar(&o.plot, "plot", "", "write SVG plots to this directory")
	flag.IntVar(&o.runs, "runs", 5, "turns of each system that count; one more goes before them")
	flag.BoolVar(&o.quick, "quick", false, "128 MiB instead of 1 GiB, fewer images and seeds")
	flag.Func("only", "measure only what matches: a regular `expression` for \"case: system\"", func(s string) (err error) {
		o.only, err = regexp.Compile(s)
		return err
	})
	flag.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile from the first measured image on to this file")
	flag.Parse()
	command := "go run -C internal/bench . " + strings.Join(os.Args[1:], " ")
	runAsTest(func(t *testing.T) {
		// A reader of the output that has had enough is a SIGPIPE; brokers are to end then too.
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE)
		defer stop()
		o.t = t
		if err := run(ctx, &o, newReport(command)); err != nil {
			t.Error(err)
		}
	})
}

func run(ctx context.Context, o *options, r *report) error {
	if o.runs < 1 {
		return errors.New("-runs must be at least 1")
	}
	defer pprof.StopCPUProfile()
	if o.suite != "all" && !slices.ContainsFunc(suites, func(s suite) bool { return s.name == o.suite }) {
		return fmt.Errorf("there is no suite %q", o.suite)
	}
	for _, s := range suites {
		if o.suite != s.name && o.suite != "all" {
			continue
		}
		if err := s.run(ctx, o, r); err != nil {
			return fmt.Errorf("suite %s: %w", s.name, err)
		}
	}
	r.summary()
	return errors.Join(r.save(o.json), r.plot(o.plot))
}

// startProfile begins the CPU profile, if one is wanted, without what was prepared before.
func (o *options) startProfile() (err error) {
	if o.profile == "" {
		return nil
	}
	o.profiling.Do(func() {
		var f *os.File
		if f, err = os.Create(o.profile); err == nil {
			err = pprof.StartCPUProfile(f)
		}
	})
	return err
}
