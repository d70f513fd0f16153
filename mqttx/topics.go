package mqttx

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Topics have at most four slashes and 200 bytes, which every broker and bridge takes
// (AWS IoT: seven and 256).
const (
	maxName  = 128
	maxTopic = 200

	inboxPrefix    = "pf/i/"
	presencePrefix = "pf/p/"
)

// inboxTopic is where everything goes that from sends to one peer.
func inboxTopic(to, from string) string { return inboxPrefix + encodeName(to) + "/" + encodeName(from) }

// inboxFilter matches what all peers send to me.
func inboxFilter(me string) string { return inboxPrefix + encodeName(me) + "/+" }

func presenceTopic(name string) string { return presencePrefix + encodeName(name) }

// checkName says why a name cannot be that of a peer.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("the name of a peer on MQTT is empty")
	case len(name) > maxName:
		return fmt.Errorf("the name %.40q... has %d bytes: at most %d are possible on MQTT", name, len(name), maxName)
	case len(inboxTopic(name, "x")) > maxTopic: // nobody could send to it
		return fmt.Errorf("the name %.40q... makes topics that are too long for MQTT: shorten it, or use letters, digits, '-' and '_', of which none is written as three bytes", name)
	}
	return nil
}

// checkTopic is for two names that are long, or of many bytes that must be encoded.
func checkTopic(to, from string) error {
	if n := len(inboxTopic(to, from)); n > maxTopic {
		return fmt.Errorf("the names %.40q and %.40q make a topic of %d bytes: at most %d are possible, shorten one", to, from, n, maxTopic)
	}
	return nil
}

const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// encodeName writes bytes other than letters, digits, '-' and '_' as '%' and two hexadecimal
// digits, so that a name is one level of a topic. (RabbitMQ delivers a '.' as a '/', and
// NATS takes no client ID with one.)
func encodeName(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// sender returns the name in the last level of an inbox topic. Only what encodeName
// writes is one, so that a peer has one name.
func sender(topic string) (string, bool) {
	level := topic[strings.LastIndexByte(topic, '/')+1:]
	if strings.Trim(level, plain) == "" {
		return level, checkName(level) == nil
	}
	name, err := url.PathUnescape(level)
	return name, err == nil && checkName(name) == nil && encodeName(name) == level
}

// randomName returns a name that nobody has. Brokers need take no client ID of more than 23 bytes (MQTT 3.1.1, section 3.1.3.1).
func randomName() string { return "pf-" + rand.Text()[:20] }
