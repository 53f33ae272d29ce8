package servicemain

import (
	"context"
	"fmt"
	"net"
)

// Live is where releases are served.
type Live struct {
	URL      string       // below which releases have their host names; empty where none are served
	Listener net.Listener // nil in a process that serves none itself
}

// ListenLive settles where releases are served, and takes the address in a process that serves them.
func (f LiveFlags) ListenLive(ctx context.Context, serve bool) (Live, error) {
	if f.LiveListen == "" {
		return Live{}, nil
	}
	var out Live
	var err error
	address := f.LiveListen
	if serve {
		if out.Listener, err = Listen(ctx, "--live-listen", address); err != nil {
			return Live{}, err
		}
		address = out.Listener.Addr().String()
	}
	if out.URL, err = f.liveURL(address); err != nil && out.Listener != nil {
		_ = out.Listener.Close()
	}
	return out, err
}

func (f LiveFlags) liveURL(address string) (string, error) {
	if f.LiveURL == "" {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return "", fmt.Errorf("--live-listen (DEVPILOT_LIVE_LISTEN): %w", err)
		}
		return "http://" + net.JoinHostPort("localhost", port), nil
	}
	return origin("--live-url (DEVPILOT_LIVE_URL)", "https://live.example.com", f.LiveURL)
}
