package servicemain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// Listen binds a TCP address. The error is one sentence that names the flag to change, e.g.
// "--listen", from which the variable's name follows.
func Listen(ctx context.Context, flag, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err == nil {
		return l, nil
	}
	variable := envPrefix + strings.ToUpper(strings.ReplaceAll(strings.TrimLeft(flag, "-"), "-", "_"))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("the address %s is in use by another program: stop that one, or choose another address with %s (%s)", address, flag, variable)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("this user may not listen on %s: choose a port above 1023 with %s (%s)", address, flag, variable)
	default:
		return nil, fmt.Errorf("cannot listen on %s, set by %s (%s): %w", address, flag, variable, err)
	}
}
