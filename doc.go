// Package pixferry is documentation only. pixferry moves images reliably between
// services and devices, over MQTT, UDP and TCP, with one API.
//
//   - [github.com/pixferry/pixferry/transport]: Image, Conn, Server, Store, Receipt; begin here
//   - [github.com/pixferry/pixferry/tcpx], [github.com/pixferry/pixferry/udpx],
//     [github.com/pixferry/pixferry/mqttx]: the backends, and the protocols of devices in the field
//   - [github.com/pixferry/pixferry/transport/native]: the native protocol over a medium of your own
//   - [github.com/pixferry/pixferry/transport/transporttest]: conformance kits for transports and links
//   - [github.com/pixferry/pixferry/chunk], [github.com/pixferry/pixferry/framing]: the parts below
//
// README.md has an example for each question, SPEC.md the native protocol on the
// wire, ARCHITECTURE.md how it is built.
package pixferry
