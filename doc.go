// Package pixferry is documentation only. The packages below it move images reliably between
// services and devices, over MQTT, UDP and TCP, with one API.
//
//	t := &tcpx.Transport{Addr: "receiver.example:9999"}
//	conn, err := t.Dial(ctx)
//	if err != nil { ... }
//	defer conn.Close()
//	receipt, err := conn.Send(ctx, &transport.Image{Body: transport.File("cam.jpg")}, nil)
//
// The packages, in the order in which to read them:
//
//   - [github.com/pixferry/pixferry/transport]: the API: Image, Conn, Server, Store, Receipt. Begin here
//   - [github.com/pixferry/pixferry/tcpx], [github.com/pixferry/pixferry/udpx],
//     [github.com/pixferry/pixferry/mqttx]: the backends, and the protocols of devices in the field
//   - [github.com/pixferry/pixferry/mqttx/face]: face recognition terminals over MQTT
//   - [github.com/pixferry/pixferry/transport/native]: the native protocol over a medium of your own
//   - [github.com/pixferry/pixferry/transport/transporttest]: conformance kits for transports, links and stores
//   - [github.com/pixferry/pixferry/chunk], [github.com/pixferry/pixferry/framing]: the parts that these are built of
//
// The example below shows both sides. README.md has an example for each question, SPEC.md the
// native protocol on the wire, ARCHITECTURE.md how it is built.
package pixferry
