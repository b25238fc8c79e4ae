package server

import (
	"net"
	"net/netip"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
)

// onlyLoopback reports whether a listener can be reached only from this machine.
func onlyLoopback(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// checkExposure refuses listeners that other machines can reach while guest is the only user.
// guest's password is public, and guest may log in from this machine only, so the server would be
// unusable from outside anyway.
func checkExposure(users []auth.UserInfo, listeners []net.Listener) error {
	for _, u := range users {
		if u.Name != "guest" {
			return nil
		}
	}
	for _, l := range listeners {
		if !onlyLoopback(l.Addr()) {
			return surgetank.Errorf(surgetank.CodeDenied,
				"refusing to listen on %s, which other machines can reach, while guest is the only user: start on a loopback address, create a user (surgetank user set NAME --password …), then start on this address again",
				l.Addr())
		}
	}
	return nil
}
