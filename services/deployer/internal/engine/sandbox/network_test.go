package sandbox

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

var online = sync.OnceValues(func() (*Sandbox, error) { return NewSandbox(SandboxConfig{Network: NetworkInternet}) })

// listen answers connections on an address of this machine.
func listen(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "hello")
			c.Close()
		}
	}()
	return l.Addr().String()
}

// reach is a hook that tries to reach addresses.
func reach(addresses ...string) string {
	var b strings.Builder
	b.WriteString("#!/bin/bash\n")
	for _, a := range addresses {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(&b, "if (exec 3<>/dev/tcp/%s/%s && read -r -t 2 line <&3 && echo \"$line\" | grep hello) >/dev/null 2>&1; then echo REACHED %s; else echo failed %s; fi\n", host, port, a, a)
	}
	return b.String()
}

func TestSandbox_networkReachesNothingOfThisMachine(t *testing.T) {
	x, err := online()
	if err != nil {
		t.Fatal(err)
	}
	own := []string{"127.0.0.1", "::1"}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var outer []string
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			own = append(own, n.IP.String())
			if n.IP.To4() != nil {
				outer = append(outer, listen(t, n.IP.String()))
			}
		}
	}
	var targets []string
	for _, h := range own {
		targets = append(targets, listen(t, h))
	}
	_, loopbackPort, _ := net.SplitHostPort(targets[0])
	// By the names that slirp4netns has for the machine, too.
	for _, h := range []string{slirpGateway, slirpDNS, "10.0.2.15", "10.0.2.100", "0.0.0.0", "169.254.169.254", "192.168.0.1", "172.17.0.1", "10.0.0.1", "168.63.129.16", "161.26.0.6"} {
		targets = append(targets, net.JoinHostPort(h, loopbackPort))
	}
	begin := time.Now()
	res, text := run(t, x, reach(targets...))
	if !res.OK() || strings.Contains(text, "REACHED") || strings.Count(text, "failed") != len(targets) {
		t.Fatalf("%+v %s", res, text)
	}
	t.Logf("%d addresses refused in %s", len(targets), time.Since(begin))

	// The same without the fence reaches the machine, so the try itself is good. Its loopback
	// stays closed even so.
	ajar := *x
	ajar.open = true
	_, text = run(t, &ajar, reach(append(outer, targets[0])...))
	if strings.Count(text, "REACHED") != len(outer) || !strings.Contains(text, "failed "+targets[0]) {
		t.Fatalf("%d addresses: %s", len(outer), text)
	}
}

func TestSandbox_routes(t *testing.T) {
	x := &Sandbox{cfg: SandboxConfig{
		Deny:  []netip.Prefix{netip.MustParsePrefix("203.0.113.7/24"), netip.MustParsePrefix("2001:db8::/32")},
		Allow: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/32")},
	}}
	deny, allow, err := x.routes()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(deny, "tap0") || !strings.HasPrefix(allow, "route replace 10.1.2.3/32 via") {
		t.Errorf("%s\n%s", deny, allow)
	}
	got := deny + allow
	for _, want := range []string{"unreachable 203.0.113.0/24\n", "replace 10.1.2.3/32 via 10.0.2.2", "unreachable 10.0.0.0/8\n", "unreachable 168.63.129.16/32\n", "unreachable 127.0.0.1/32\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "2001:db8") {
		t.Error(got)
	}
}

// A network of this machine's that is allowed still does not lead to the machine itself.
func TestSandbox_allowedNetwork(t *testing.T) {
	x, err := online()
	if err != nil {
		t.Fatal(err)
	}
	y := *x
	y.cfg.Allow = []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("127.0.0.0/8")}
	own := []string{listen(t, "127.0.0.1")}
	for _, a := range must(net.InterfaceAddrs()) {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			y.cfg.Allow = append(y.cfg.Allow, netip.MustParsePrefix(n.String()).Masked())
			own = append(own, listen(t, n.IP.String()))
		}
	}
	_, text := run(t, &y, strings.Replace(reach(own...), "\n", "\nip route get 10.1.2.3; ip route get 10.1.3.3\n", 1))
	if strings.Contains(text, "REACHED") || !strings.Contains(text, "10.1.2.3 via 10.0.2.2 dev tap0") || !strings.Contains(text, "stderr: RTNETLINK answers: No route to host") {
		t.Fatal(text)
	}
}

func TestSandbox_networkDevices(t *testing.T) {
	const script = "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; cat /etc/resolv.conf; echo $(grep -c @ /proc/net/unix); ip route del 10.0.0.0/8 2>&1"
	l, err := net.Listen("unix", fmt.Sprintf("@hook-test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	x, err := online()
	if err != nil {
		t.Fatal(err)
	}
	_, text := run(t, x, script+" || true")
	if !strings.HasPrefix(text, "stdout: lo\nstdout: tap0\nstdout: nameserver 10.0.2.3\nstdout: 0") || !strings.Contains(text, "Operation not permitted") {
		t.Errorf("%s", text)
	}
	if !strings.Contains(x.Describe(), "public internet") {
		t.Error(x.Describe())
	}
	_, text = run(t, sandbox(t), script+" || true")
	if !strings.HasPrefix(text, "stdout: lo\nstdout: # no network\nstdout: 0") {
		t.Errorf("%s", text)
	}
	for pid, name := range childrenOf(t, os.Getpid()) {
		if s, ok := readStat("/proc", pid); ok && !s.ended {
			t.Errorf("left after the hooks: %s", name)
		}
	}
}
