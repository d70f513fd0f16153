package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// work is what a system is to do: deliver images, so many of them at once.
type work struct {
	size   int64 // of an image, in bytes
	images int
	at     int // at once
}

func (w work) bytes() int64 { return w.size * int64(w.images) }

// each has put deliver the images, one after the other in each of the places that w.at are.
func (w work) each(ctx context.Context, put func(context.Context, []byte) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range w.at {
		group.Go(func() error {
			for range share(w.images, w.at, i) {
				if err := put(ctx, image(w.size)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// share is how many of all fall to the i-th of n.
func share(all, n, i int) int { return (all + n - 1 - i) / n }

// A runner is a system that is ready: connected, for example.
type runner interface {
	// do delivers the images and returns when the receiver has confirmed all of them.
	do(ctx context.Context, w work) error
	close()
}

// A system is one way to do the work.
type system struct {
	name string
	role role
	want float64 // pixferry's speed is to be at least so much of this one's; 0: nothing is asked
	open func(ctx context.Context) (runner, error)
}

type role string

const (
	ours    role = "pixferry"
	limit   role = "limit"   // the medium by itself
	peer    role = "peer"    // what one would use instead
	setting role = "setting" // pixferry, with another setting than its defaults
)

// benchCase is work that several systems do in turns.
type benchCase struct {
	suite, name string
	work        work
	systems     []system
}

const (
	// leastTime is how long a system is measured at least; the work is repeated until then.
	leastTime = 300 * time.Millisecond
	// patience is how long one turn may take.
	patience = 3 * time.Minute
	// warmSize is how many bytes at most go through a connection before it is measured.
	warmSize = 16 << 20
)

// measure lets the systems of a case take turns and reports them.
func (c *benchCase) measure(ctx context.Context, o *options, r *report) error {
	systems := slices.DeleteFunc(slices.Clone(c.systems), func(s system) bool { return !o.only.MatchString(c.name + ": " + s.name) })
	if len(systems) == 0 {
		return nil
	}
	fmt.Fprintf(os.Stderr, "measuring %s: %s\n", c.suite, c.name)
	samples := make([][]sample, len(systems))
	for turn := range 1 + o.runs {
		for k := range systems {
			i := (turn + k) % len(systems)
			s, err := c.sample(ctx, o, &systems[i])
			if errors.Is(err, errors.ErrUnsupported) {
				continue // on this operating system
			}
			if err != nil {
				return fmt.Errorf("%s: %s: %w", c.name, systems[i].name, err)
			}
			// Who comes first in this process pays for memory that the others find, such as that of an
			// embedded broker, so the first turn does not count.
			if turn > 0 {
				samples[i] = append(samples[i], s)
			}
		}
	}
	r.add(c, systems, samples)
	return nil
}

// sample is what one turn gave.
type sample struct {
	rate float64 // MB/s
	cpu  float64 // seconds for each GB
}

func (c *benchCase) sample(ctx context.Context, o *options, s *system) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	run, err := s.open(ctx)
	if err != nil {
		return sample{}, err
	}
	defer run.close()
	image(c.work.size) // made before it is measured
	warm := c.work
	warm.size = min(warm.size, warmSize)
	warm.images = int(max(1, min(int64(warm.images), warmSize/warm.size)))
	if err := run.do(ctx, warm); err != nil {
		return sample{}, err
	}
	if err := o.startProfile(); err != nil {
		return sample{}, err
	}
	runtime.GC()
	began, cpu := time.Now(), cpuTime()
	var done int64
	for time.Since(began) < leastTime {
		if err := run.do(ctx, c.work); err != nil {
			return sample{}, err
		}
		done += c.work.bytes()
	}
	elapsed := time.Since(began)
	return sample{float64(done) / 1e6 / elapsed.Seconds(), (cpuTime() - cpu).Seconds() / float64(done) * 1e9}, nil
}

// measureAll measures one case after the other.
func measureAll(ctx context.Context, o *options, r *report, cases []benchCase) error {
	for i := range cases {
		if err := cases[i].measure(ctx, o, r); err != nil {
			return err
		}
	}
	return nil
}
