package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/internal/testimage"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// TestHostileNames: a name ends in the directory or in a clear refusal.
func TestHostileNames(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b", "in")
	recv := startRecv(t, "-dir", dir, "tcp://127.0.0.1:0")
	conn, err := (&tcpx.Transport{Addr: strings.TrimPrefix(recv.url, "tcp://")}).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, name := range []string{"../../x", "../x", "/etc/x", "a/b", `a\b`, `..\x`, "C:x", ".", "..", "CON", "nul.jpg", ".pixferry", ".pixferry/receipts", ".PIXFERRY /lock",
		"x\x00y", "x\ny", "\xff", "x ", "x.", strings.Repeat("n", 10_000), strings.Repeat("n", 256)} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := conn.Send(ctx, &transport.Image{Name: name, Body: transport.Bytes([]byte(name))}, nil)
		cancel()
		if err == nil {
			if content, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(content) != name {
				t.Errorf("%.20q was taken and is not there: %v", name, err)
			}
			continue
		}
		if transport.Retryable(err) || !strings.Contains(err.Error(), "name") {
			t.Errorf("%.20q: %v", name, err)
		}
	}
	if _, err := conn.Send(t.Context(), &transport.Image{Body: transport.Bytes(nil)}, nil); err != nil {
		t.Errorf("without a name: %v", err)
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasPrefix(path, dir) {
			t.Errorf("outside of the directory: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// authority makes a CA and a certificate of 127.0.0.1, as files.
func authority(t *testing.T) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	caDER, err := x509.CreateCertificate(crand.Reader, &template, &template, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test"}, NotBefore: template.NotBefore, NotAfter: template.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(crand.Reader, &leaf, &template, leafKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return write("ca.pem", "CERTIFICATE", caDER), write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "PRIVATE KEY", keyDER)
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := authority(t)
	both := fmt.Sprintf("cert=%s&key=%s", cert, key)
	file := randomFile(t, 100_000)
	mutual := startRecv(t, "-dir", t.TempDir(), "tcps://127.0.0.1:0?ca="+ca+"&"+both)
	oneSided := startRecv(t, "-dir", t.TempDir(), "tcps://127.0.0.1:0?"+both)
	plain := startRecv(t, "-dir", t.TempDir(), "tcp://127.0.0.1:0")
	at := func(p *process, scheme, query string) string {
		host, _, _ := strings.Cut(p.url[strings.Index(p.url, "//"):], "?")
		return scheme + ":" + host + query
	}
	for url, delivered := range map[string]bool{
		at(mutual, "tcps", "?ca="+ca+"&"+both): true,
		at(oneSided, "tcps", "?ca="+ca):        true,
		at(mutual, "tcps", "?ca="+ca):          false, // no certificate
		at(oneSided, "tcps", ""):               false, // an authority that the system does not know
		at(mutual, "tcp", ""):                  false,
		at(plain, "tcps", "?ca="+ca):           false,
	} {
		t.Run(url[:strings.LastIndex(url, ":")], func(t *testing.T) {
			t.Parallel()
			r, err := sendOne(t, "-timeout", "2s", "-journal", newJournal(t), url, file)
			if delivered != (err == nil && r.Status == "delivered") || !delivered && r.Error == "" {
				t.Errorf("%s: %+v, %v", url, r, err)
			}
		})
	}
	if r, err := sendOne(t, "-journal", newJournal(t), plain.url, file); err != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestMQTTOverTLSWithPasswords(t *testing.T) {
	t.Parallel()
	ca, cert, key := authority(t)
	passwords := filepath.Join(t.TempDir(), "passwords")
	tool, err := exec.LookPath("mosquitto_passwd")
	if err != nil {
		t.Skip("mosquitto_passwd is not installed")
	}
	if out, err := exec.Command(tool, "-b", "-c", passwords, "user", "secret").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	broker := testbroker.Mosquitto(t, fmt.Sprintf("allow_anonymous false\npassword_file %s\ncafile %s\ncertfile %s\nkeyfile %s", passwords, ca, cert, key))
	at := func(scheme, user, query string) string {
		return scheme + "://" + user + strings.TrimPrefix(broker.URL(), "mqtt://") + "/gate" + query
	}
	url := at("mqtts", "user:secret@", "?ca="+ca)
	recv := startRecv(t, "-dir", t.TempDir(), url)
	if recv.url != strings.Replace(url, "secret", "xxxxx", 1) {
		t.Errorf("recv listens at %s", recv.url)
	}
	file, journal := randomFile(t, 100_000), newJournal(t)
	if r, err := sendOne(t, "-journal", journal, url, file); err != nil || r.Status != "delivered" {
		t.Errorf("%+v, %v", r, err)
	}
	if content, err := os.ReadFile(journal); err != nil || bytes.Contains(content, []byte("secret")) {
		t.Errorf("the journal has the password: %v %s", err, content)
	}
	for url, says := range map[string]string{
		at("mqtts", "user:wrong@", "?ca="+ca): "check Username, Password",
		at("mqtts", "", "?ca="+ca):            "does not let this client connect",
		at("mqtts", "user:secret@", ""):       "certificate",
		at("mqtt", "user:secret@", ""):        "cannot connect",
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			if r, err := sendOne(t, "-timeout", "4s", "-journal", newJournal(t), url, file); err == nil || !strings.Contains(r.Error, says) {
				t.Errorf("%s: %+v, want %q", url, r, says)
			}
		})
	}
}

// TestEveryProtocolAtOnce has one recv take images by all protocols.
func TestEveryProtocolAtOnce(t *testing.T) {
	t.Parallel()
	broker, dir := testbroker.Embedded(t, testbroker.Options{}), t.TempDir()
	queries := []struct{ scheme, query string }{
		{"tcp", ""}, {"udp", ""}, {"mqtt", "/name"}, {"mqtt+base", "?to=down&from=up&number=0&size=900&timeout=2s&truncated=keep&last=first"},
		{"udp+datagram", ""}, {"udp+header", "?width=4&order=be&gap=100us"}, {"udp+json", ""}, {"tcp+begin", "?pause=10ms"},
		{"tcp+command", "?pause=10ms&commands=weeding,stop"}, {"tcp+frames", "?format=infrared&dir=got"},
	}
	args := []string{"-dir", dir}
	var urls []string
	for _, q := range queries {
		network, _, _ := strings.Cut(q.scheme, "+")
		host := strings.TrimPrefix(broker.URL(), "mqtt://")
		if network != "mqtt" {
			host = freePort(t, network)
		}
		urls = append(urls, q.scheme+"://"+host+q.query)
	}
	recv := startRecv(t, append(args, urls...)...)
	picture := filepath.Join(t.TempDir(), "cam.jpg")
	if err := os.WriteFile(picture, testimage.JPEG(1, 160, 120), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, url := range urls {
		if strings.HasPrefix(url, "udp+json:") { // messages alone
			if _, stderr, code := runs(t, nil, "send", "-message", `{"name":"x"}`, url); code != 0 {
				t.Errorf("%s: exit %d: %s", url, code, stderr)
			}
			continue
		}
		r, err := sendOne(t, "-timeout", "15s", "-journal", newJournal(t), url, picture)
		native := !strings.Contains(url, "+")
		if err != nil || r.Status != "delivered" && (native || r.Status != "sent") {
			t.Errorf("%s: %+v, %v", url, r, err)
		}
	}
	late := time.After(10 * time.Second)
	for told := 0; told < len(urls)-1; { // what was only sent is kept a moment later
		select {
		case line := <-recv.lines:
			if strings.Contains(line, `"delivered"`) {
				told++
			}
		case <-late:
			t.Fatalf("recv tells of %d images of %d", told, len(urls)-1)
		}
	}
	kept := 0
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == ".pixferry" {
			return filepath.SkipDir
		}
		if err == nil && d.Type().IsRegular() {
			kept++
		}
		return nil
	})
	if kept != len(urls)-1 {
		t.Errorf("%d of %d kept", kept, len(urls)-1)
	}
}

// TestSignalled: whoever is told to end tells the peer, and both end with 1.
func TestSignalled(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("no signals")
	}
	onEach(t, func(t *testing.T, url string) {
		for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			recv := startRecv(t, "-dir", t.TempDir(), url)
			stdin, feed, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer feed.Close()
			send := command(t.Context(), "send", "-json", recv.url, "-")
			var out bytes.Buffer
			send.Stdin, send.Stdout = stdin, &out
			err = send.Start()
			stdin.Close() // its own alone, so that the copy ends if it does
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(feed, rng(1), 3<<20); err != nil { // it has begun
				t.Fatal(err)
			}
			send.Process.Signal(sig)
			began := time.Now()
			if send.Wait(); send.ProcessState.ExitCode() != 1 || time.Since(began) > 20*time.Second {
				t.Errorf("%v: exit %d after %v", sig, send.ProcessState.ExitCode(), time.Since(began))
			}
			if all := results(t, out.String()); len(all) != 1 || all[0].Status != "failed" || all[0].Error == "" {
				t.Errorf("%v: %s", sig, &out)
			}
			if r := recv.next(t); r.Status != "failed" || !strings.Contains(r.Error, "cancel") {
				t.Errorf("%v: recv: %+v", sig, r)
			}
			recv.Process.Signal(sig)
			if code := recv.end(t); code != 1 {
				t.Errorf("%v: recv: exit %d", sig, code)
			}
		}
	})
}

// TestProcessSlowReader: a program that reads recv's output late misses nothing.
func TestProcessSlowReader(t *testing.T) {
	needsProcesses(t)
	const images = 2000
	url, from := "tcp://"+freePort(t, "tcp"), t.TempDir()
	args := []string{"send", "-json", "-concurrency", "8", "-journal", newJournal(t), url}
	for i := range images {
		args = append(args, filepath.Join(from, fmt.Sprint(i)))
		if err := os.WriteFile(args[len(args)-1], []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	recv := command(t.Context(), "recv", "-json", "-dir", t.TempDir(), "-count", fmt.Sprint(images), url)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	recv.Stdout = in
	begin(t, recv)
	in.Close()
	send := command(t.Context(), args...)
	begin(t, send)
	sent := make(chan error, 1)
	go func() { sent <- send.Wait() }()
	select {
	case err := <-sent:
		t.Fatalf("send has ended (%v), though nobody reads what recv has to tell before", err)
	case <-time.After(5 * time.Second): // the pipe is full, and holds up recv, and that send
	}
	lines, err := io.ReadAll(out)
	if n := bytes.Count(lines, []byte(`"delivered"`)); err != nil || n != images {
		t.Errorf("%d of %d told: %v", n, images, err)
	}
	if err := <-sent; err != nil {
		t.Error("send: ", err)
	}
	if err := recv.Wait(); err != nil {
		t.Error("recv: ", err)
	}
}
