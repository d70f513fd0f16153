package interop_test

import (
	"strings"
	"testing"
)

// TestPeersAlone has the peers talk with each other, to tell whose fault another
// failure is.
func TestPeersAlone(t *testing.T) {
	needPaho(t)
	t.Parallel()
	broker, _ := base(t, "")
	for _, c := range []struct{ receiver, sender string }{
		{"base_recv.py", "base_send.py --file"},
		{"base_recv.py --bad=5 --noise --twice", "base_send.py --file"},
		{"field_base_hw.py --number=0 --bad=5", "base_send.py --number=0 --file"},
		{"base_recv.py --last-first", "field_base_send.py --timeout=1 --file"},
		{"face_service.py", "face_terminal.py"},
		{"field_face_service.py", "face_terminal.py"},
		{"datagram_recv.py --mode=datagram", "datagram_send.py --mode=datagram"},
		{"datagram_recv.py", "datagram_send.py"},
		{"datagram_recv.py", "field_camera.py"},
		{"field_header_recv.py", "datagram_send.py"},
		{"tcp_recv.py", "tcp_send.py --cut=100 --file"},
		{"tcp_recv.py", "field_tcp_client.py --file"},
		{"field_tcp_server.py", "tcp_send.py --file"},
		{"tcp_recv.py --mode=command --commands=weeding,stop", "tcp_send.py --mode=command --commands=stop,weeding --join --file"},
		{"field_tcp_server.py --mode=command", "tcp_send.py --mode=command --commands=stop,weeding --file"},
		{"frames_recv.py", "frames_send.py"},
		{"frames_recv.py", "field_frames_client.py"},
		{"field_frames_server.py", "frames_send.py"},
	} {
		t.Run(c.receiver+" "+c.sender, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			script, flags, _ := strings.Cut(c.receiver, " ")
			args := append(strings.Fields(flags), "--out", dir)
			script2, flags2, _ := strings.Cut(c.sender, " ")
			args2 := strings.Fields(flags2)
			name := strings.Map(func(r rune) rune {
				if r == '/' {
					return '_'
				}
				return r
			}, t.Name())
			topics := []string{broker, "--to=to/" + name, "--from=from/" + name}
			switch {
			case strings.Contains(script, "base"):
				args = append(args, topics...)
				args2 = append(topics, args2...)
			case strings.Contains(script, "face"):
				args = append(args, broker, "--sn="+script)
				args2 = append(args2, broker, "--sn="+script)
			}
			p := python(t, script, args...)
			where := p.listening(t)
			if !strings.Contains(script, "base") && !strings.Contains(script, "face") {
				args2 = append([]string{"--port=" + where[strings.LastIndexByte(where, ':')+1:]}, args2...)
			}
			python(t, script2, append(args2, file(t, "7.jpg", jpeg(35935)))...).good(t)
			equalAll(t, dir, p.good(t), jpeg(35935))
		})
	}
}
