package interop_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pixferry/pixferry/internal/testbroker"
)

var baseSizes = []int{35935, 1, 1399, 1400, 1401, 2800, 35 * 1024, 2_000_000}

// base returns a broker of the test's own, as a flag and as pixferry's URL. The
// programs in the field have client IDs that meet on a common one.
func base(t *testing.T, options string) (flag, url string) {
	t.Helper()
	broker := testbroker.Embedded(t, testbroker.Options{}).URL()
	if !strings.Contains(options, "timeout") {
		options = "&timeout=5s" + options
	}
	return "--broker=" + broker, "mqtt+base" + strings.TrimPrefix(broker, "mqtt") + "?" + options[1:]
}

func TestBaseFromPython(t *testing.T) {
	needPaho(t)
	t.Parallel()
	for _, c := range []struct {
		name, options string
		flags         []string
	}{
		{name: "plain"},
		{name: "last first", options: "&last=first"},
		{name: "from 0", options: "&last=first&number=0", flags: []string{"--number=0"}},
		{name: "size", options: "&last=first&size=500", flags: []string{"--size=500"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sizes := baseSizes
			if c.name != "plain" {
				sizes = sizes[:5]
			}
			broker, url := base(t, c.options)
			r := receive(t, url)
			for i, path := range files(t, images(jpeg, sizes...)) {
				python(t, "base_send.py", append(c.flags, broker, "--file", path)...).good(t)
				r.expect(t, jpeg(sizes[i]))
			}
		})
	}
}

func TestBaseFromField(t *testing.T) {
	needPaho(t)
	t.Parallel()
	run := func(name, options string, size int, flags []string, check func(t *testing.T, r *receiver, field report)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker, url := base(t, options)
			r := receive(t, url)
			path := file(t, "image.jpg", jpeg(size))
			// It ends only when BASE has said function 3.
			field := python(t, "field_base_send.py", append(flags, broker, "--file", path)...).good(t)
			check(t, r, field)
		})
	}
	whole := func(size int) func(*testing.T, *receiver, report) {
		return func(t *testing.T, r *receiver, field report) {
			r.expect(t, jpeg(size))
			if last := field.Packages - 1; field.First != last {
				t.Errorf("package %d was sent first, want %d", field.First, last)
			}
		}
	}
	incomplete := func(missing, ranges string) func(*testing.T, *receiver, report) {
		return func(t *testing.T, r *receiver, _ report) {
			res := r.next(t)
			if res.Status == "delivered" || !strings.Contains(res.Error, missing) || !strings.Contains(res.Error, ranges) {
				t.Errorf("%+v, which does not tell %q and %q", res, missing, ranges)
			}
		}
	}
	quick := []string{"--timeout=1", "--again=0.5"}
	run("last first", "&last=first", 35935, quick, whole(35935))
	run("the last package is missing", "&timeout=1s", 35935, quick, incomplete("935 of 35935", "35000-35934"))
	if testing.Short() {
		return
	}
	run("the pace of the field", "&last=first", 35935, nil, whole(35935))
	run("one package, last first", "&last=first", 1000, quick, whole(1000))
	run("one byte, last first", "&last=first", 1, quick, whole(1))
	run("two packages, last first", "&last=first", 1401, quick, whole(1401))
	run("2 MB, last first", "&last=first", 2_000_000, quick, whole(2_000_000))
	run("one package, which is missing", "&timeout=1s", 1400, quick, incomplete("1400 of 1400", "0-1399"))
	run("truncated", "&truncated=keep&timeout=1s", 35935, quick, func(t *testing.T, r *receiver, f report) {
		incomplete("935 of 35935", "35000-35934")(t, r, f)
		res := r.next(t)
		if !strings.Contains(res.Name, "truncated") || res.Bytes != 35000 {
			t.Errorf("%+v, which does not look truncated", res)
		}
		equal(t, filepath.Join(r.dir, res.Name), jpeg(35935)[:35000])
	})
	run("begin repeated", "&last=first", 35935, append([]string{"--begins=3"}, quick...), func(t *testing.T, r *receiver, f report) {
		whole(35935)(t, r, f)
		if f.Streams != 1 {
			t.Errorf("repeated begins were answered: there are %d streams", f.Streams)
		}
	})
	run("two streams", "&last=first", 35935, append([]string{"--doubled"}, quick...), whole(35935))
	run("two streams without the last package", "&timeout=1s", 35935, append([]string{"--doubled"}, quick...), incomplete("935 of 35935", "35000-35934"))

	t.Run("one after the other", func(t *testing.T) {
		t.Parallel()
		broker, url := base(t, "&last=first")
		r := receive(t, url)
		for _, b := range images(jpeg, 35935, 20000, 1400) {
			python(t, "field_base_send.py", append(quick, broker, "--name=image.jpg", "--file", file(t, "x", b))...).good(t)
			r.expect(t, b)
		}
	})
}

func TestBaseToPython(t *testing.T) {
	needPaho(t)
	t.Parallel()
	for _, c := range []struct {
		name, script, options string
		flags                 []string
		sizes                 int
	}{
		{name: "plain", script: "base_recv.py", sizes: len(baseSizes)},
		{name: "last first", script: "base_recv.py", flags: []string{"--last-first"}, sizes: 6},
		{name: "bad packages", script: "base_recv.py", flags: []string{"--bad=5"}, sizes: 6},
		{name: "bad packages from 0", script: "base_recv.py", options: "&number=0", flags: []string{"--bad=5", "--number=0"}, sizes: 6},
		{name: "lost answers", script: "base_recv.py", options: "&timeout=500ms", flags: []string{"--mute=11"}, sizes: 2},
		{name: "doubled answers", script: "base_recv.py", flags: []string{"--twice"}, sizes: 6},
		{name: "noise", script: "base_recv.py", options: "&timeout=500ms", flags: []string{"--noise"}, sizes: 6},
		{name: "everything", script: "base_recv.py", options: "&timeout=500ms", flags: []string{"--noise", "--twice", "--mute=11", "--bad=5"}, sizes: 6},
		{name: "size", script: "base_recv.py", options: "&size=500", flags: []string{"--size=500", "--last-first"}, sizes: 6},
		{name: "field", script: "field_base_hw.py", flags: []string{"--bad=5"}, sizes: 1},
		{name: "field from 0", script: "field_base_hw.py", options: "&number=0", flags: []string{"--bad=5", "--number=0"}, sizes: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.name == "everything" {
				long(t)
			}
			broker, url := base(t, c.options)
			all := images(jpeg, baseSizes[:c.sizes]...)
			dir := t.TempDir()
			flags := append(c.flags, broker, "--out", dir)
			if c.script == "base_recv.py" {
				flags = append(flags, "--count", itoa(len(all)))
			}
			p := python(t, c.script, flags...)
			p.listening(t)
			send(t, url, append([]string{"-concurrency", "1"}, files(t, all)...)...)
			r := p.good(t)
			equalAll(t, dir, r, all...)
			if r.Unexpected != 0 {
				t.Errorf("%d packages came in the wrong order or twice", r.Unexpected)
			}
		})
	}
}

// TestBaseAtOnce has many transfers over one broker, whose client IDs must not be one.
func TestBaseAtOnce(t *testing.T) {
	needPaho(t)
	t.Parallel()
	broker, url := base(t, "")
	var senders, bases []*process
	var dirs []string
	for i := range 3 {
		to, from := fmt.Sprintf("to/%d", i), fmt.Sprintf("from/%d", i)
		dir := t.TempDir()
		p := python(t, "base_recv.py", broker, "--to", to, "--from", from, "--out", dir)
		p.listening(t)
		bases, dirs = append(bases, p), append(dirs, dir)
		url := url + "&to=" + to + "&from=" + from
		senders = append(senders, pixferry(t, "send", url, file(t, "x.jpg", jpeg(200_000+i))))
	}
	for i, p := range senders {
		if code := p.wait(t); code != 0 {
			t.Errorf("sender %d: exit code %d", i, code)
		}
		equalAll(t, dirs[i], bases[i].good(t), jpeg(200_000+i))
	}
}

// TestBaseEndsEarly has a BASE that says function 3 although packages are missing.
func TestBaseEndsEarly(t *testing.T) {
	needPaho(t)
	t.Parallel()
	broker, url := base(t, "")
	p := python(t, "base_recv.py", broker, "--over=5")
	p.listening(t)
	if results, err := trySend(t, url, file(t, "x.jpg", jpeg(35935))); err == nil || len(results) != 1 || results[0].Status == "delivered" {
		t.Errorf("BASE has ended it early, and yet: %+v", results)
	}
	p.report(t)
}

func TestBaseRefuses(t *testing.T) {
	needPaho(t)
	t.Parallel()
	broker, url := base(t, "")
	dir := t.TempDir()
	p := python(t, "field_base_hw.py", broker, "--out", dir)
	p.listening(t)
	large := file(t, "large.jpg", nil)
	if err := os.Truncate(large, 32767*1400+1); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file(t, "empty.jpg", nil), large} {
		if results, err := trySend(t, url, path); err == nil || len(results) != 1 || results[0].Error == "" {
			t.Errorf("%s was not refused: %+v", path, results)
		}
	}
	send(t, url, file(t, "good.jpg", jpeg(35935)))
	r := p.good(t)
	equalAll(t, dir, r, jpeg(35935))
	if r.Begins != 1 {
		t.Errorf("BASE has heard of %d images", r.Begins)
	}
}

func TestBaseAlone(t *testing.T) {
	needPython(t) // for the sake of the others it stands among them
	t.Parallel()
	_, url := base(t, "&timeout=100ms")
	results, err := trySend(t, url, file(t, "x.jpg", jpeg(5000)))
	if err == nil || len(results) != 1 || results[0].Status == "delivered" {
		t.Errorf("there is no BASE, and yet: %+v", results)
	}
}
