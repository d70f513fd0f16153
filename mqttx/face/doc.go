// Package face speaks with face recognition terminals over MQTT, whose reports are JSON objects
// with the picture in Base64. Listen is the service, which takes what terminals report. Dial is a
// terminal: for tests, for simulations, or to replace one.
//
//	t := &face.Transport{Broker: "mqtt://localhost:1883", Serials: []string{"SN1"}}
//	l, err := t.Listen(ctx)
//	if err != nil { ... }
//	srv := &transport.Server{Handler: opened}
//	err = srv.Serve(ctx, l)
//
//	func opened(ctx context.Context, in *transport.Incoming) error {
//		r, _ := face.RecordOf(in)
//		if r.Verified && time.Since(in.Image.Captured).Abs() < time.Minute { // a broker may have kept it for long
//			return in.Conn.SendMessage(ctx, transport.Message{Data: []byte(`{"cmd": "openDoorD"}`)})
//		}
//		return nil
//	}
//
// # What is spoken
//
// In the dialect [Fungxi] the terminal SN publishes on fungxi_SN_upLink and takes commands on
// fungxi_SN_downLink:
//
//	{"cmd": "heartU"}              is answered with {"cmd": "heartD", "time": "2006-01-02 15:04:05"}
//	{"cmd": "verifiedRecordU",     each element is an Image
//	 "data": [{"num": "7", "name": "Ann", "liveImageBase64": "/9j/...",
//	           "verifiedCode": 0, "time": "2024-02-29 12:34:56", "personType": "1"}]}
//	{"cmd": "strangerRecordU", ..} is a Message, or with Transport.Strangers an Image
//	{"cmd": "doorU", ...}          whatever else there is, is a Message
//
// In the dialect [HFSecurity] it publishes on mqtt/face/SN/Rec, /Snap and /Ack, takes commands on
// mqtt/face/SN, and repeats each record until it is acknowledged:
//
//	{"operator": "RecPush", "info": {"customId": "7", "persionName": "Ann", "RecordID": "389",
//	 "VerifyStatus": "1", "time": "2024-02-29 12:34:56", "pic": "data:image/jpeg;base64,/9j/..."}}
//	{"operator": "PushAck", "messageId": "...", "info": {"PushAckType": 2, "SnapOrRecordID": 389}}
//
// # What is guaranteed
//
// A record becomes a [transport.Image] whose Source is the terminal and whose Meta holds the
// fields as text. Its transfer ID is made of terminal, num, time and picture: a record that comes
// twice is one image, while the Store remembers its receipt. A record without a usable picture
// becomes a Message.
//
// Fungxi terminals get no answer to their records: Send reaches the level Sent. What the service
// has received waits in memory for the Handler, up to Transport.Queue bytes. Beyond that the
// oldest is lost: each loss is an [ErrDropped] for Logger and OnTrouble. An image that the
// Handler refuses for now is offered again, as Transport.Retry says. With Transport.ClientID the
// broker keeps what a terminal publishes at QoS 1 while the service is away, and until the
// service has kept it. Some brokers deliver only a few messages that are not yet kept, of all
// terminals together (mosquitto 20, unless max_inflight_messages is 0), so that one slow Handler
// holds up all.
//
// HFSecurity terminals get an acknowledgement for each record after it was kept, and not before.
// Send reaches only the level Received, since other services acknowledge without checking.
//
// Commands are published at QoS 0: one that opens a door must not come late.
package face
