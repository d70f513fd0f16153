package native_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

func isMistake(t *testing.T, err error, says string) {
	t.Helper()
	if !errors.Is(err, transport.ErrConfig) || transport.Retryable(err) || !strings.Contains(err.Error(), says) {
		t.Errorf("%v, which is to be a configuration mistake that says %q", err, says)
	}
}

func TestMistakenConfig(t *testing.T) {
	for says, cfg := range map[string]native.Config{
		"IdleTimeout is 30ns":  {IdleTimeout: 30},
		"IdleTimeout is -1s":   {IdleTimeout: -time.Second},
		"Window is -1":         {Window: -1},
		"MaxTransfers is -100": {MaxTransfers: -100},
	} {
		m := newMedium(reliable)
		tr := native.Over(m.dial, m.listen, cfg)
		_, err := tr.Dial(t.Context())
		isMistake(t, err, says)
		_, err = tr.Listen(t.Context())
		isMistake(t, err, says)
	}
}

// A Link that cannot carry a session at all is not "no receiver answers".
func TestLinkWithTooSmallMessages(t *testing.T) {
	m := newMedium(reliable)
	m.info.MaxMessage = 100
	tr := native.Over(m.dial, m.listen, native.Config{})
	l := mustListen(t, tr)
	defer l.Close()
	_, err := tr.Dial(t.Context())
	isMistake(t, err, "MaxMessage of 100 bytes")
	_, err = l.Accept(t.Context())
	isMistake(t, err, "MaxMessage of 100 bytes")
}
