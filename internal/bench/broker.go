package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
)

// A broker is one that runs on a loopback port.
type broker struct {
	name string
	url  string
	stop func()
}

// startBrokers starts mosquitto as it is installed, mosquitto as its manual tunes it, and the
// broker that is embedded in this process. Without mosquitto there is only the last.
func startBrokers() (all []broker, err error) {
	path, lookErr := exec.LookPath("mosquitto")
	if lookErr != nil {
		path, lookErr = exec.LookPath("/usr/sbin/mosquitto") // not in everybody's PATH
	}
	if lookErr != nil {
		fmt.Fprintln(os.Stderr, "mosquitto is not installed: only the embedded broker is measured")
	}
	for _, kind := range []struct{ name, lines string }{
		{"mosquitto", ""},
		{"mosquitto tuned", "set_tcp_nodelay true\nmax_queued_messages 0\nmax_inflight_messages 0\n"},
	} {
		if lookErr != nil {
			continue
		}
		b, err := startMosquitto(path, kind.name, kind.lines)
		if err != nil {
			stopBrokers(all)
			return nil, err
		}
		all = append(all, b)
	}
	b, err := startEmbedded()
	if err != nil {
		stopBrokers(all)
		return nil, err
	}
	return append(all, b), nil
}

func stopBrokers(all []broker) {
	for _, b := range all {
		b.stop()
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func startMosquitto(path, name, lines string) (broker, error) {
	port, err := freePort()
	if err != nil {
		return broker{}, err
	}
	dir, err := os.MkdirTemp("", "pixferry-bench")
	if err != nil {
		return broker{}, err
	}
	config := filepath.Join(dir, "mosquitto.conf")
	lines = fmt.Sprintf("listener %d 127.0.0.1\nlog_dest stderr\npersistence false\nallow_anonymous true\nuser root\n%s", port, lines)
	if err := os.WriteFile(config, []byte(lines), 0o600); err != nil {
		return broker{}, err
	}
	cmd := exec.Command(path, "-c", config)
	log, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		os.RemoveAll(dir)
		return broker{}, err
	}
	b := broker{name, fmt.Sprintf("mqtt://127.0.0.1:%d", port), func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(dir)
	}}
	var said strings.Builder
	for in := bufio.NewScanner(log); in.Scan(); {
		if said.WriteString(in.Text() + "\n"); strings.HasSuffix(in.Text(), " running") {
			go io.Copy(io.Discard, log)
			return b, nil
		}
	}
	b.stop()
	return broker{}, fmt.Errorf("mosquitto does not start: %s", said.String())
}

func startEmbedded() (broker, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return broker{}, err
	}
	s := mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	err = errors.Join(s.AddHook(new(auth.AllowHook), nil), s.AddListener(listeners.NewNet("tcp", l)), s.Serve())
	return broker{"mochi", "mqtt://" + l.Addr().String(), func() { s.Close() }}, err
}
