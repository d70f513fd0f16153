package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

// errForbidden is the error of an address that is not fetched from.
var errForbidden = errors.New("it is at an address that is not on the public Internet (see -allow-private)")

// public are the addresses that are given out on the Internet, but for special.
var public = prefixes("0.0.0.0/0", "2000::/3")

// special are those that are not: the IANA registries of special-purpose addresses, and
// multicast. 6to4, Teredo and NAT64 could carry any IPv4 address.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)

func prefixes(list ...string) (ps []netip.Prefix) {
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func within(a netip.Addr, ps []netip.Prefix) bool {
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}

// isPublic reports whether an address is one of the public Internet. IPv4 addresses may
// come in the clothes of IPv6.
func isPublic(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return within(a, public) && !within(a, special)
}

// guard is a net.Dialer's Control. It sees the address that a name was resolved to, right
// before it is connected to: also after redirects, and whatever DNS said before.
func guard(network, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	if network != "tcp4" && network != "tcp6" || !isPublic(a) {
		return fmt.Errorf("%v: %w", a, errForbidden)
	}
	return nil
}
