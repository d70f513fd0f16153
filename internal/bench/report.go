package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// report is what all suites have found. It is also the layout of the JSON file.
type report struct {
	Command string `json:"command"`
	Go      string `json:"go"`
	System  string `json:"system"`
	CPUs    int    `json:"cpus"`
	Rows    []row  `json:"rows"`

	out io.Writer
}

// row is one system in one case.
type row struct {
	Suite  string  `json:"suite"`
	Case   string  `json:"case"`
	System string  `json:"system"`
	Role   role    `json:"role"`
	Unit   string  `json:"unit"` // of the figures
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	CPU    float64 `json:"cpu_s_per_gb,omitempty"` // seconds
	Note   string  `json:"note,omitempty"`

	// Ratio is pixferry's figure to this one's. Want is what it is to be: at least so much,
	// or with AtMost at most; 0: nothing is asked. In rows without others to compare with it
	// is the figure to what is allowed.
	Ratio  float64 `json:"ratio,omitempty"`
	Want   float64 `json:"want,omitempty"`
	AtMost bool    `json:"at_most,omitempty"`
}

func newReport(command string) *report {
	return &report{Command: command, Go: runtime.Version(), System: systemName(), CPUs: runtime.NumCPU(), out: os.Stdout}
}

// add turns the samples of a case into rows and prints them.
func (r *report) add(c *benchCase, systems []system, samples [][]sample) {
	mine := slices.IndexFunc(systems, func(s system) bool { return s.role == ours })
	var rows []row
	for i, s := range systems {
		if len(samples[i]) == 0 {
			continue
		}
		rates := each(samples[i], func(s sample) float64 { return s.rate })
		median, low, high := spread(rates)
		w := row{Suite: c.suite, Case: c.name, System: s.name, Role: s.role, Unit: "MB/s", Median: median, Min: low, Max: high, Want: s.want}
		w.CPU, _, _ = spread(each(samples[i], func(s sample) float64 { return s.cpu }))
		if mine >= 0 && mine != i {
			ratios := make([]float64, len(rates))
			for k := range rates {
				ratios[k] = samples[mine][k].rate / rates[k]
			}
			w.Ratio, _, _ = spread(ratios)
		}
		if c.work.images > 1 {
			w.Note = fmt.Sprintf("%.0f images/s", median*1e6/float64(c.work.size))
		}
		rows = append(rows, w)
	}
	r.print(rows)
	r.Rows = append(r.Rows, rows...)
}

// figure adds a row that stands for itself: a figure and what is allowed.
func (r *report) figure(w row) {
	if w.Want > 0 && w.Ratio == 0 {
		w.Ratio = w.Median
	}
	r.print([]row{w})
	r.Rows = append(r.Rows, w)
}

func (r *report) print(rows []row) {
	t := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	for _, w := range rows {
		fmt.Fprintf(t, "%s\t%s\t%.4g %s\t(%.4g to %.4g)\t%s\t%s\t%s\n", w.Case, w.System, w.Median, w.Unit, w.Min, w.Max, w.cost(), w.verdict(), w.Note)
	}
	t.Flush()
}

func (w *row) cost() string {
	if w.CPU == 0 {
		return ""
	}
	return fmt.Sprintf("%.3g CPU s/GB", w.CPU)
}

// verdict is the ratio and whether it is as wanted.
func (w *row) verdict() string {
	switch {
	case w.Ratio == 0:
		return ""
	case w.Want == 0:
		return fmt.Sprintf("%.3g x", w.Ratio)
	case w.AtMost:
		return fmt.Sprintf("%.3g x, at most %.3g: %s", w.Ratio, w.Want, pass(w.reached()))
	}
	return fmt.Sprintf("%.3g x, want %.3g: %s", w.Ratio, w.Want, pass(w.reached()))
}

func (w *row) reached() bool {
	if w.AtMost {
		return w.Ratio <= w.Want
	}
	return w.Ratio >= w.Want
}

func pass(ok bool) string {
	if ok {
		return "reached"
	}
	return "SHORT"
}

// summary prints what is not as wanted.
func (r *report) summary() {
	asked, reached := 0, 0
	for _, w := range r.Rows {
		if w.Want == 0 || w.Ratio == 0 {
			continue
		}
		if asked++; w.reached() {
			reached++
		} else {
			fmt.Fprintf(r.out, "short: %s %s: %s: %s\n", w.Suite, w.Case, w.System, w.verdict())
		}
	}
	fmt.Fprintf(r.out, "%d of %d goals reached\n", reached, asked)
}

func (r *report) save(path string) error {
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

func each[T any](in []T, f func(T) float64) []float64 {
	out := make([]float64, len(in))
	for i, v := range in {
		out[i] = f(v)
	}
	return out
}

// spread returns the median, the least and the most of some figures.
func spread(v []float64) (median, low, high float64) {
	if len(v) == 0 {
		return 0, 0, 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2, v[0], v[len(v)-1]
}

// systemName is the operating system with its release where that is easily known.
func systemName() string {
	name := runtime.GOOS + "/" + runtime.GOARCH
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		name += " " + strings.TrimSpace(string(b))
	}
	return name
}
