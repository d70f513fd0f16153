package mqttx

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"encoding/pem"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/transport"
)

func TestTLS(t *testing.T) {
	web := httptest.NewUnstartedServer(nil) // for its certificate
	web.StartTLS()
	defer web.Close()
	pair := web.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		keyFile:  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := testbroker.Mosquitto(t, "certfile "+certFile+"\nkeyfile "+keyFile)
	url := "mqtts" + b.URL()[len("mqtt"):]
	pool := x509.NewCertPool()
	pool.AddCert(web.Certificate())
	config := &tls.Config{RootCAs: pool}
	r := receive(t, &Transport{Broker: url, Name: "receiver", TLS: config})
	c := dial(t, &Transport{Broker: url, Peer: "receiver", TLS: config})
	content := random(1 << 20)
	mustSend(t, c, "image", content)
	r.expect(t, "image", content)
	if _, err := (&Transport{Broker: url, Peer: "receiver"}).Dial(within(t)); !errors.Is(err, transport.ErrConfig) || strings.Contains(err.Error(), "use mqtt") {
		t.Errorf("a certificate of an unknown authority: %v", err)
	}
	plain := testbroker.Mosquitto(t, "")
	for broker, use := range map[string]string{
		b.URL():                             "if it expects TLS, use mqtts://",
		"mqtts" + plain.URL()[len("mqtt"):]: "if it does not speak TLS, use mqtt://",
		"wss" + plain.URL()[len("mqtt"):]:   "if it does not speak TLS, use ws://",
		"mqtts" + testbroker.Embedded(t, testbroker.Options{}).URL()[len("mqtt"):]: "if it does not speak TLS, use mqtt://",
	} {
		if _, err := (&Transport{Broker: broker, Peer: "receiver", TLS: config}).Dial(within(t)); err == nil || !strings.HasSuffix(err.Error(), use) {
			t.Errorf("%s: %v, want %q", broker, err, use)
		}
	}
}
