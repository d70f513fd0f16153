// Facebridge takes what face recognition terminals report over MQTT, posts the records of
// people to an HTTP callback, and publishes commands for the terminals. Nothing is lost
// while the callback is down, or when the bridge is killed. README.md says more.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// list is a flag that may be repeated.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// config is what the flags say.
type config struct {
	broker   string
	serials  list
	topic    string
	callback string
	listen   string
	outbox   string
	limit    int64 // of the outbox, in bytes
	all, raw bool
	pictures string
	rules    string
}

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	f := flag.NewFlagSet("facebridge", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&c.broker, "broker", "mqtt://127.0.0.1:1883", "`URL` of the MQTT broker: mqtt://USER:PASSWORD@HOST:PORT, mqtts://...")
	f.Var(&c.serials, "sn", "serial `number` of a terminal; repeat it for each")
	f.StringVar(&c.topic, "topic", "", "one `topic` for both directions instead of fungxi_SN_upLink and _downLink; {sn} stands for the serial number")
	f.StringVar(&c.callback, "callback", "http://127.0.0.1:6688/api/user/mqtt_msg", "`URL` that records are posted to")
	f.StringVar(&c.listen, "listen", ":6699", "`address` for commands (POST /) and GET /status")
	f.StringVar(&c.outbox, "outbox", "outbox", "`directory` of the records that the callback has not taken yet")
	f.Int64Var(&c.limit, "outbox-limit", 4<<30, "most `bytes` in the outbox; beyond that records wait in memory and at the broker")
	f.BoolVar(&c.all, "all", false, "post all verified records, not only those of people who are enrolled and have passed")
	f.BoolVar(&c.raw, "raw", false, "post every JSON object as it is: the simple installation, mostly with -topic")
	f.StringVar(&c.pictures, "pictures", "", "keep the pictures in this `directory`, too")
	f.StringVar(&c.rules, "rules", "", "JSON `file` with the commands that records lead to")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("%q is not a flag", f.Arg(0))
	}
	if c.limit < maxPayload {
		return c, fmt.Errorf("-outbox-limit is at least %d, which is one report", maxPayload)
	}
	if len(c.serials) == 0 && c.topic != "" && !strings.Contains(c.topic, "{sn}") {
		c.serials = list{"terminal"}
	}
	if len(c.serials) == 0 {
		return c, errors.New("name the terminals: -sn NUMBER for each")
	}
	return c, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "facebridge:", err)
		os.Exit(exitStatus(err))
	}
}

// A usageError is a mistake in the flags.
type usageError struct{ error }

func exitStatus(err error) int {
	if errors.As(err, new(usageError)) {
		return 2
	}
	return 1
}

func run(ctx context.Context, args []string, stderr io.Writer) error {
	c, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	if err != nil {
		return usageError{err}
	}
	b, err := newBridge(c, slog.New(slog.NewTextHandler(stderr, nil)))
	if err != nil {
		return err
	}
	return b.run(ctx)
}
