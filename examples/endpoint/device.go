package endpoint

import (
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pixferry/pixferry/framing"
	"github.com/pixferry/pixferry/mqttx"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// device makes the transport of a device protocol.
func (q *query) device(u *url.URL) transport.Transport {
	switch u.Scheme {
	case "mqtt+base", "mqtts+base":
		b := &mqttx.Base{
			Broker: strings.TrimSuffix(u.Scheme, "+base") + "://" + u.Host,
			ToBase: q.text("to", ""), FromBase: q.text("from", ""),
			PackageSize: q.number("size", 0), Timeout: q.duration("timeout"),
			ZeroBased: q.text("number", "1", "1", "0") == "0",
			Truncated: q.text("truncated", "", "keep") == "keep",
			LastFirst: q.text("last", "", "first") == "first",
			Logger:    q.log,
		}
		if u.User != nil {
			b.Username = u.User.Username()
			b.Password, _ = u.User.Password()
		}
		if u.Scheme == "mqtts+base" {
			b.TLS = q.tls(u.Hostname(), false)
		}
		return b
	case "udp+datagram":
		return &udpx.Datagram{Addr: u.Host, Logger: q.log}
	case "udp+header":
		h := &udpx.Header{Addr: u.Host, Width: q.number("width", 8, 4, 8), Gap: q.duration("gap"), Logger: q.log}
		if q.text("order", "le", "le", "be") == "be" {
			h.Order = framing.BigEndian
		}
		return h
	case "udp+json":
		return &udpx.JSON{Addr: u.Host, Logger: q.log}
	case "tcp+begin":
		return &tcpx.Begin{Addr: u.Host, Pause: q.duration("pause")}
	case "tcp+command":
		c := &tcpx.Command{Addr: u.Host, Pause: q.duration("pause")}
		if set := q.text("commands", ""); set != "" {
			c.Commands = strings.Split(set, ",")
		}
		return c
	case "tcp+frames":
		f := &tcpx.Frames{Addr: u.Host, Format: q.text("format", ""), Dir: q.text("dir", ""), Pause: q.duration("pause")}
		if f.Format != "" { // what a receiver accepts
			f.Formats = strings.Split(f.Format, ",")
		}
		return f
	}
	q.fail("unknown scheme %q", u.Scheme)
	return nil
}

// query reads options and keeps the first mistake.
type query struct {
	log    *slog.Logger
	values url.Values
	known  []string
	err    error
}

func (q *query) fail(format string, a ...any) {
	if q.err == nil {
		q.err = fmt.Errorf(format, a...)
	}
}

// text reads an option; one with allowed values must have one of them.
func (q *query) text(name, def string, allowed ...string) string {
	q.known = append(q.known, name)
	v := q.values.Get(name)
	if v == "" {
		return def
	}
	if len(allowed) > 0 && !slices.Contains(allowed, v) {
		q.fail("%s=%s: want %s", name, v, strings.Join(allowed, " or "))
	}
	return v
}

func (q *query) number(name string, def int, allowed ...int) int {
	v := q.text(name, "")
	if v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || len(allowed) > 0 && !slices.Contains(allowed, n) {
		q.fail("%s=%s: not a number that fits", name, v)
	}
	return n
}

// duration reads a time such as 500ms; 0 means none at all.
func (q *query) duration(name string) time.Duration {
	v := q.text(name, "")
	if v == "" {
		return 0
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		q.fail("%s=%s: want a time such as 500ms", name, v)
	}
	if d == 0 {
		return -1 // the transports' word for none
	}
	return d
}
