package tcpx

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/pixferry/pixferry/transport"
)

// oneSided is what to do about the likely cause of a failure with the first message.
const oneSided = "set tcpx.Transport.TLS, or tcps:// in a URL, on both sides or on none"

// tlsError says what is likely the cause of a failure in TLS with a peer. Certificates that do not fit are
// transport.ErrConfig; one that is out of date may be so by a clock that is not set yet.
func tlsError(peer string, err error) error {
	invalid, unverified := x509.CertificateInvalidError{}, (*tls.CertificateVerificationError)(nil)
	op := (*net.OpError)(nil)
	switch {
	case errors.As(err, &tls.RecordHeaderError{}), errors.Is(err, io.EOF), wasReset(err):
		return fmt.Errorf("the peer at %s does not answer in TLS: %s: %w", peer, oneSided, err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("TLS with %s: set the clock of this host, or renew the peer's certificate: %w", peer, err)
	case alerted(err) && strings.Contains(err.Error(), "expired"):
		return fmt.Errorf("TLS with %s: set the clock of the peer, or renew this side's certificate: %w", peer, err)
	case errors.As(err, &unverified):
		return fmt.Errorf("%w: the certificate of the peer at %s: see RootCAs and ServerName, or to listen ClientCAs, of tcpx.Transport.TLS: %w", transport.ErrConfig, peer, err)
	case alerted(err) && errors.As(err, &op) && strings.Contains(op.Err.Error(), "certificate"):
		return fmt.Errorf("%w: the peer at %s refuses the certificate of this side, or its want of one: set Certificates of tcpx.Transport.TLS to one that the peer's CAs have signed: %w", transport.ErrConfig, peer, err)
	}
	return fmt.Errorf("TLS with %s: %w", peer, err)
}

// alerted reports whether an error is the peer's alert (RFC 8446, section 6).
func alerted(err error) bool {
	op := (*net.OpError)(nil)
	return errors.As(err, &op) && op.Op == "remote error"
}

// inTLS reports whether an error is of TLS, on a connection from which no message has come.
func inTLS(conn net.Conn, err error) bool {
	t, ok := conn.(*tls.Conn)
	return ok && (alerted(err) || !t.ConnectionState().HandshakeComplete)
}

// nameOf is the name in the peer's verified certificate: the CommonName, else the first URI or DNS name. It is empty if
// there is none.
func nameOf(conn net.Conn) string {
	t, ok := conn.(*tls.Conn)
	if !ok {
		return ""
	}
	chains := t.ConnectionState().VerifiedChains
	if len(chains) == 0 {
		return ""
	}
	cert := chains[0][0]
	switch {
	case cert.Subject.CommonName != "":
		return cert.Subject.CommonName
	case len(cert.URIs) > 0:
		return cert.URIs[0].String()
	case len(cert.DNSNames) > 0:
		return cert.DNSNames[0]
	}
	return ""
}
