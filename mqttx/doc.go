// Package mqttx carries images through any MQTT 3.1.1 broker, with the native protocol
// of SPEC.md. Broker and clients may lose, double and delay messages, and restart.
//
//	t := &mqttx.Transport{Broker: "mqtt://broker.example:1883", Name: "archive"}
//	l, err := t.Listen(ctx)
//
//	t := &mqttx.Transport{Broker: "mqtt://broker.example:1883", Peer: "archive"}
//	conn, err := t.Dial(ctx)
//
// # A client of your own
//
// A Hub puts any number of peers on a client that you have anyway, with one subscription,
// and leaves your other traffic alone:
//
//	opts := mqtt.NewClientOptions().AddBroker("tcp://broker.example:1883").SetClientID("service")
//	hub, err := mqttx.Attach(opts, nil) // last, before NewClient
//	client := mqtt.NewClient(opts)
//	client.Connect()
//	conn, err := hub.Peer("dev-17").Dial(ctx)
//	l, err := hub.Listen(ctx)
//
// Its messages have at most 120 KiB there. Leave SetOrderMatters as it is: handlers that
// run in disorder cost speed. A handler of yours that blocks holds up the images too.
//
// # Names
//
// Peers have names, which say who sends and who receives: 1 to 128 bytes, of which all
// but letters, digits, '-', '_' and '.' are written as '%' and two hexadecimal digits.
// A Transport's name is also its client ID.
//
//	pf/i/{to}/{from}   all messages, at QoS 0
//	pf/p/{name}        retained while a receiver of that name listens
//
// Without rules in the broker every client can use every name. These lines of a
// mosquitto ACL file (acl_file) keep each client to its own, which then is proven; with
// %u in place of %c the names are those of users:
//
//	pattern write pf/i/+/%c
//	pattern read pf/i/%c/+
//	pattern readwrite pf/p/%c
//
// # What can go wrong
//
//   - Nobody answers for 3 seconds: transport.ErrNoReceiver. A broker that does not let
//     one of the two read or write says no more than this; a receiver to which not even
//     its own presence comes back warns of it in Config.Logger.
//   - A second receiver of a name: transport.ErrNameTaken from Listen; the first goes on.
//     Where the broker does not let it see pf/p/{name} under another client ID, or both
//     begin at once, one of the two ends with that or transport.ErrClientIDTaken.
//   - A broker that refuses the client or its subscription: an error that says what to
//     allow, and for which transport.Retryable is false.
//   - A broker that is restarted: transfers wait, for Config.IdleTimeout at most, and go
//     on where they were. Those that end meanwhile say why there is no connection, and
//     Config.Logger hears of its end, of the reason, once, and of the next one.
//   - Two clients with one client ID at mochi: when one ends the other's connection, the
//     broker may forget the one that stays, which then hears nothing, and is not told.
//   - A broker with a limit for messages: sessions begin with 16 KiB and try larger ones
//     carefully. One that drops even 16 KiB gets smaller ones; set MaxMessage for one that
//     ends the connection then.
//
// # Speed
//
// The broker is the slow part. mosquitto gives the memory of each message back to the
// system, where it is built with glibc. These in its environment have it keep some, which
// doubles its speed (go run -C internal/bench . -suite mqtt -only '^mosquitto: 1 GiB: pixferry$',
// with and without them):
//
//	MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=33554432
package mqttx
