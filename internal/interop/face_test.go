package interop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/mqttx/face"
	"github.com/pixferry/pixferry/transport"
)

const openDoor = `{"cmd": "openDoorD"}`

// A faceService is pixferry's service and what it has taken.
type faceService struct {
	records  chan face.Record
	pictures chan []byte
	messages chan string
}

func serveFaces(t *testing.T, tr *face.Transport, answer string) *faceService {
	t.Helper()
	s := &faceService{make(chan face.Record, 100), make(chan []byte, 100), make(chan string, 100)}
	l, err := tr.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	srv := &transport.Server{
		Store: &transport.MemStore{},
		Handler: func(ctx context.Context, in *transport.Incoming) error {
			r, ok := face.RecordOf(in)
			if !ok {
				return fmt.Errorf("no record")
			}
			b, err := in.Image.Body.ReadAll(ctx)
			if err != nil {
				return err
			}
			s.records <- r
			s.pictures <- b
			if answer != "" {
				return in.Conn.SendMessage(ctx, transport.Message{Data: []byte(answer)})
			}
			return nil
		},
		Message: func(_ context.Context, _ transport.Conn, m transport.Message) error {
			s.messages <- string(m.Data)
			return nil
		},
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(context.WithoutCancel(t.Context()), l) }) // ErrServerClosed
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
	return s
}

// take returns the next value of a channel.
func take[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("no %s came", what)
	}
	return v
}

// none says that nothing is in a channel.
func none[T any](t *testing.T, what string, c <-chan T) {
	t.Helper()
	select {
	case v := <-c:
		t.Errorf("a %s too many: %.200v", what, v)
	default:
	}
}

func TestFaceFromPython(t *testing.T) {
	needPaho(t)
	t.Parallel()
	for _, c := range []struct {
		name  string
		flags []string
		tr    face.Transport
	}{
		{name: "one by one"},
		{name: "together", flags: []string{"--together"}},
		{name: "prefix", flags: []string{"--prefix", "--together"}},
		{name: "strangers", flags: []string{"--stranger"}, tr: face.Transport{Strangers: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tr := &c.tr
			tr.Broker = testbroker.Embedded(t, testbroker.Options{}).URL()
			tr.Serials = []string{"SN1"}
			s := serveFaces(t, tr, openDoor)
			all := images(jpeg, 35935, 10, 35*1024, 2_000_000)
			args := append(c.flags, "--broker", tr.Broker, "--commands", itoa(len(all)))
			r := python(t, "face_terminal.py", append(args, files(t, all)...)...).good(t)
			if _, err := time.ParseInLocation(time.DateTime, r.Time, time.Local); err != nil {
				t.Error(err)
			}
			var commands []map[string]string
			if err := json.Unmarshal(r.Commands, &commands); err != nil || len(commands) != len(all) || commands[0]["cmd"] != "openDoorD" {
				t.Errorf("commands %s", r.Commands)
			}
			pictures := map[string][]byte{}
			for range all {
				r := take(t, "record", s.records)
				pictures[string(r.Num)] = take(t, "picture", s.pictures)
				if r.Verified == tr.Strangers || string(r.Time) != `"2024-02-29 12:34:56"` {
					t.Errorf("record %s", r.Raw[:min(len(r.Raw), 100)])
				}
			}
			for i, want := range all {
				if !bytes.Equal(pictures[itoa(i)], want) {
					t.Errorf("picture %d is another", i)
				}
			}
		})
	}
}

func TestFaceFromField(t *testing.T) {
	needPaho(t)
	t.Parallel()
	broker := testbroker.Embedded(t, testbroker.Options{}).URL()
	s := serveFaces(t, &face.Transport{Broker: broker, Serials: []string{"SN1"}}, openDoor)
	all := images(jpeg, 35935, 100, 5000)
	p := python(t, "field_face_terminal.py", append([]string{"--broker", broker, "--commands", itoa(len(all))}, files(t, all)...)...)
	pictures := map[string][]byte{}
	times := map[string]string{}
	for range all {
		r := take(t, "record", s.records)
		pictures[string(r.Num)] = take(t, "picture", s.pictures)
		times[string(r.Num)] = string(r.Time)
	}
	if r := p.good(t); r.Heartbeats < 3 {
		t.Errorf("%d heartbeats were answered", r.Heartbeats)
	}
	for i, want := range all {
		num, when := itoa(i), `1709210096`
		if i%2 == 1 {
			num, when = `"`+num+`"`, `"2024-02-29 12:34:56"`
		}
		if !bytes.Equal(pictures[num], want) {
			t.Errorf("picture %s is another", num)
		}
		if times[num] != when {
			t.Errorf("time %s of %s, want %s", times[num], num, when)
		}
	}
	none(t, "record", s.records)
	for {
		var m map[string]any
		if err := json.Unmarshal([]byte(take(t, "message", s.messages)), &m); err == nil && m["cmd"] == "doorU" {
			break
		}
	}
}

func TestFaceToPython(t *testing.T) {
	needPaho(t)
	t.Parallel()
	for _, script := range []string{"face_service.py", "field_face_service.py"} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			broker := testbroker.Embedded(t, testbroker.Options{}).URL()
			all := images(jpeg, 35935, 1, 35*1024, 2_000_000)
			dir := t.TempDir()
			args := []string{"--broker", broker, "--out", dir, "--count", itoa(len(all))}
			if script == "face_service.py" {
				args = append(args, "--command", openDoor)
			}
			p := python(t, script, args...)
			p.listening(t)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			conn, err := (&face.Transport{Broker: broker, Serials: []string{"SN1"}}).Dial(ctx)
			if err != nil {
				t.Fatal(err)
			}
			down := make(chan string, 100)
			srv := &transport.Server{Store: &transport.MemStore{}, Message: func(_ context.Context, _ transport.Conn, m transport.Message) error {
				down <- string(m.Data)
				return nil
			}}
			var wg sync.WaitGroup
			wg.Go(func() { _ = srv.ServeConn(ctx, conn) }) // it ends with Close
			defer wg.Wait()
			defer conn.Close()
			if err := conn.SendMessage(ctx, transport.Message{Type: "heartU"}); err != nil {
				t.Fatal(err)
			}
			for i, b := range all {
				img := &transport.Image{Body: transport.Bytes(b), Meta: map[string]string{"num": itoa(i), "name": "Änne"}}
				receipt, err := conn.Send(ctx, img, nil)
				if err != nil || receipt.Level != transport.Sent {
					t.Fatal(receipt, err)
				}
			}
			r := p.good(t)
			equalAll(t, dir, r, all...)
			var records []struct{ Name string }
			if err := json.Unmarshal(r.Records, &records); err != nil || records[0].Name != "Änne" {
				t.Errorf("records %s", r.Records)
			}
			if script != "face_service.py" {
				return
			}
			if r.Heartbeats < 1 {
				t.Error("no heartbeat came")
			}
			for commands := 0; commands < len(all); {
				var m map[string]string
				if err := json.Unmarshal([]byte(take(t, "command", down)), &m); err != nil {
					t.Fatal(err)
				}
				if m["cmd"] == "openDoorD" {
					commands++
				}
			}
		})
	}
}
