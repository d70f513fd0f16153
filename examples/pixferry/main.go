// Pixferry sends and receives images from the command line.
//
//	pixferry send [flags] URL FILE...
//	pixferry recv [flags] URL...
//
// Exit status 0 means that every image was delivered (or sent, where the
// protocol has no answer), 1 that some was not, 2 a mistake in the command.
//
// With the native protocol a receiver may be restarted or killed in mid-transfer: send
// waits for it, for some minutes or the -timeout, and goes on. A send that has ended
// early goes on when it is run again, under the ID that its journal remembers; of many files
// those that were delivered are not stored again, until all are. Of two
// sends of one file to one receiver at the same time the second goes on with the image,
// and the first ends: it is stored once.
//
// recv prints a line for each image when it is kept, or when an attempt at it has failed,
// and no second one for an attempt that fails in the same way.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage:
  pixferry send [flags] URL FILE...   send files ("-" is standard input)
  pixferry recv [flags] URL...        receive images into a directory
  pixferry send -h, pixferry recv -h  list the flags

URL is one of
  tcp://HOST:PORT        udp://HOST:PORT        tcps://HOST:PORT?ca=&cert=&key=
  mqtt://HOST:PORT/NAME  mqtts://HOST:PORT/NAME?ca=&cert=&key=
where NAME is the receiver's name on the broker, or a device protocol:
  mqtt+base://HOST:PORT?to=TOPIC&from=TOPIC&number=1|0&size=1400&timeout=5s&truncated=keep&last=first
  udp+datagram://HOST:PORT  udp+header://HOST:PORT?width=8|4&order=le|be&gap=250us  udp+json://HOST:PORT
  tcp+begin://HOST:PORT?pause=300ms  tcp+command://HOST:PORT?pause=300ms&commands=weeding,stop
  tcp+frames://HOST:PORT?format=infrared&dir=got&pause=50ms

Each image ends as delivered; as sent, where the protocol confirms nothing; as rejected by the receiver; as
failed; or as unknown: it may be kept. Over tcp, udp and mqtt the same command then sends what is missing, and
nothing is stored twice.
`

// errUsage marks a mistake in the command; errFailed one that was reported.
var (
	errUsage  = errors.New("usage")
	errFailed = errors.New("not every image was delivered")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		if !errors.Is(err, errFailed) {
			fmt.Fprintln(os.Stderr, "pixferry:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "send":
			return send(ctx, args[1:], stdin, stdout, stderr)
		case "recv":
			return recv(ctx, args[1:], stdout, stderr)
		case "help", "-h", "-help", "--help":
			fmt.Fprint(stdout, usage)
			return nil
		}
	}
	fmt.Fprint(stderr, usage)
	return errUsage
}

// parse parses a command's flags. What is wrong with them, and what -h wants to know, the flags have printed.
func parse(flags *flag.FlagSet, args []string) error {
	err := flags.Parse(args)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		return errUsage
	}
	return err
}

// misuse prints what is wrong with the command and how it should be.
func misuse(stderr io.Writer, format string, a ...any) error {
	fmt.Fprintf(stderr, "%s\npixferry: "+format+"\n", append([]any{usage}, a...)...)
	return errUsage
}
