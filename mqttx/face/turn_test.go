package face

import (
	"net"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// slowBroker takes 6 s for a message, where a write may take 10.
func slowBroker(conn net.Conn) {
	for {
		p, err := packets.ReadPacket(conn)
		if err != nil {
			return
		}
		answer := packets.ControlPacket(nil)
		switch p := p.(type) {
		case *packets.ConnectPacket:
			answer = packets.NewControlPacket(packets.Connack)
		case *packets.SubscribePacket:
			suback := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
			suback.MessageID, suback.ReturnCodes = p.MessageID, p.Qoss
			answer = suback
		case *packets.PublishPacket:
			time.Sleep(6 * time.Second)
			puback := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
			puback.MessageID = p.MessageID
			answer = puback
		}
		if answer != nil {
			answer.Write(conn)
		}
	}
}

// A record behind some that the link takes long for, each of them in time, gets its turn.
func TestRecordBehindSlowOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go slowBroker(far)
		o := mqtt.NewClientOptions().SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return near, nil })
		conn, err := (&Transport{Broker: "mqtt://broker", Serials: []string{"SN1"}, ClientOptions: o}).Dial(within(t))
		if err != nil {
			t.Fatal(err)
		}
		c := conn.(*terminal).client
		sent := make(chan error, 5)
		for range 5 { // as of calls that have ended meanwhile
			go func() { sent <- c.publish(t.Context(), up, 1, []byte("record")) }()
		}
		for n := range 5 {
			select {
			case err := <-sent:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(time.Minute):
				t.Errorf("%d of 5 are sent", n)
			}
		}
		conn.Close()
		time.Sleep(time.Minute) // for the client's goroutines
	})
}
