// Package mqttx carries images through any MQTT 3.1.1 broker, with the native protocol of
// SPEC.md. Broker and clients may lose, double and delay messages, and restart.
//
//	t := &mqttx.Transport{Broker: "mqtt://broker.example:1883", Name: "archive"}
//	l, err := t.Listen(ctx)
//
//	t := &mqttx.Transport{Broker: "mqtt://broker.example:1883", Peer: "archive"}
//	conn, err := t.Dial(ctx)
//
// [Base] is a protocol of image hardware. Package face, below this one, is for face recognition
// terminals.
//
// # A client of your own
//
// A [Hub] uses an MQTT client that you have anyway, with one subscription for any number of
// peers, and leaves your other traffic alone:
//
//	opts := mqtt.NewClientOptions().AddBroker("tcp://broker.example:1883").SetClientID("service")
//	hub, err := mqttx.Attach(opts, nil) // last, before NewClient
//	client := mqtt.NewClient(opts)
//	client.Connect()
//	conn, err := hub.Peer("dev-17").Dial(ctx)
//	l, err := hub.Listen(ctx)
//
// Its messages have at most 120 KiB. Leave SetOrderMatters as it is: handlers that run out of
// order cost speed. A handler of yours that blocks holds up images too.
//
// # Names
//
// Peers have names of 1 to 128 bytes, which say who sends and who receives. In topics all bytes
// but letters, digits, '-' and '_' are written as '%' and two hexadecimal digits. The name
// of a Transport, so written, is its client ID too, unless ClientOptions has one.
//
//	pf/i/{to}/{from}   all messages, at QoS 0
//	pf/p/{name}        retained while a client with this name is connected
//
// A client with a name that ends without a word leaves one byte retained on pf/p/{name}, its will, until
// one of that name ends in good order. With names that never come back these add up at the broker.
//
// Without rules in the broker every client can use every name. These lines of a mosquitto ACL
// file (acl_file) keep each user of the broker to its own, so that names are proven; they must then
// need no '%'. With %c in place of %u the names are those of clients: that keeps them apart, but
// proves nothing, as a client says itself what it is called.
//
//	pattern write pf/i/+/%u
//	pattern read pf/i/%u/+
//	pattern readwrite pf/p/%u
//
// # What can go wrong
//
//   - Nobody answers for 3 seconds (AnswerTimeout): transport.ErrNoReceiver. A broker that does not let one of the two
//     read or write looks the same; a receiver to which not even its own presence comes back warns of it in
//     Config.Logger.
//   - A second client takes a name: its Listen or Dial fails with transport.ErrNameTaken, and the first goes
//     on. If the broker does not let it see pf/p/{name} under another client ID, or both begin at once, one
//     of the two ends with that error or transport.ErrClientIDTaken.
//   - The broker refuses the client or its subscription: an error that says what to allow, for which
//     transport.Retryable is false. Brokers that end the connection instead (RabbitMQ does) do not say
//     why: after 10 seconds the error of Dial or Listen says what they may want to be allowed.
//   - The broker is restarted: transfers wait, for at most Config.IdleTimeout, and continue. Those that end
//     meanwhile say why there is no connection. Config.Logger hears of its end, of the reason, once, and of
//     the next one.
//   - Two clients use one client ID at a mochi broker: when one ends the other's connection, the broker may
//     forget the one that stays, which then hears nothing and is not told.
//   - The broker limits messages: sessions begin with 16 KiB and try larger ones carefully. A broker that
//     drops even these gets smaller ones. For one that ends the connection instead, set MaxMessage.
//
// # Brokers
//
// This package and face have been tried, restarts of the broker included, with mosquitto 2.0.11, RabbitMQ 3.10.8,
// nats-server 2.15.3, aedes 1.2.0 and mochi 2.7.9. What is special:
//
//   - RabbitMQ delivers a '.' in a topic as a '/': leave it out of Base's topics, and of serial numbers of face.
//   - NATS takes no client ID with a '.', no topic with a space, and messages of at most 1 MiB (max_payload). What
//     a service of face has not dealt with it delivers again after 30 s (ack_wait).
//   - mosquitto's websockets listener, with libwebsockets, takes some 100 KB/s, whoever sends.
//
// # Speed
//
// The broker is the slow part. A mosquitto that is built with glibc gives the memory of each
// message back to the system. These variables in its environment make it keep some, which doubles
// its speed (compare with go run -C internal/bench . -suite mqtt -only '^mosquitto: 1 GiB:
// pixferry$'):
//
//	MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=33554432
package mqttx
