package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses of slirp4netns' own network (slirp4netns(1)). With its way to the host's loopback
// closed, the gateway answers nothing, and the name server forwards port 53 only.
const (
	slirpNet     = "10.0.2.0/24"
	slirpGateway = "10.0.2.2"
	slirpDNS     = "10.0.2.3"
)

// notPublic are the networks that are not the public internet (RFC 6890 and its registry): this
// host, private use, shared with a provider, link-local (cloud metadata), protocol assignments,
// documentation, the old 6to4 relays, benchmarks, multicast and reserved. Then the addresses that look
// public and lead to a cloud's own services from inside of it alone: Azure's, which hands out a
// machine's settings and certificates, and IBM's private network. IPv6 needs no list: the sandbox has
// none.
var notPublic = []string{
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"224.0.0.0/4", "240.0.0.0/4",
	"168.63.129.16/32", "161.26.0.0/16", "166.8.0.0/14",
}

// slirpRest is slirpNet without the gateway and the name server.
var slirpRest = []string{"10.0.2.0/31", "10.0.2.4/30", "10.0.2.8/29", "10.0.2.16/28", "10.0.2.32/27", "10.0.2.64/26", "10.0.2.128/25"}

// tools are the programs that make a network for a sandbox.
type tools struct{ slirp, ip, nsenter string }

func (t *tools) find() error {
	for name, path := range map[string]*string{"slirp4netns": &t.slirp, "ip": &t.ip, "nsenter": &t.nsenter} {
		p, err := exec.LookPath(name)
		if err != nil && name == "ip" { // often outside of a service's PATH
			p, err = lookUp(name)
		}
		if err != nil {
			return fmt.Errorf("the program %s is missing (packages slirp4netns, iproute2, util-linux)", name)
		}
		*path = p
	}
	return nil
}

// tunDevice is where slirp4netns gets the sandbox's network device from. udev opens it to everybody;
// where there is none, as in containers and small machines, it is root's.
const tunDevice = "/dev/net/tun"

// openable makes sure that hooks can get a network device.
func openable(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no %s here, which the network of a sandbox is made with: load the kernel's module (modprobe tun), in a container give it the device, or pass --hook-network=none", device)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf(`this worker's user may not open %[1]s, which the network of a sandbox is made with: as root run "chmod 666 %[1]s", which lasts until the next boot, or for good write KERNEL=="tun", MODE="0666" to /etc/udev/rules.d/80-tun.rules, or pass --hook-network=none`, device)
	}
	return fmt.Errorf("the network of a sandbox cannot be made here: %w", err)
}

// link is a sandbox's network while it lives.
type link struct {
	slirp *process
	exit  *os.File // slirp4netns ends when this is closed, so also with us
}

func (n *link) close() {
	if n == nil {
		return
	}
	if n.exit != nil {
		n.exit.Close()
	}
	n.slirp.stop()
}

// connect gives the network namespace of a process a way to the public internet. The link is to be
// closed, also after an error.
func (x *Sandbox) connect(ctx context.Context, pid int) (*link, error) {
	n := &link{}
	if err := awaitMaps(ctx, pid); err != nil {
		return n, err
	}
	netns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return n, fmt.Errorf("network of the sandbox: %w", err)
	}
	defer netns.Close()
	// The namespace belongs to the user namespace in which it was made, not to the one in it where
	// the command runs (bubblewrap's --disable-userns).
	fd, err := unix.IoctlRetInt(int(netns.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return n, fmt.Errorf("owner of the sandbox's network: %w", err)
	}
	userns := os.NewFile(uintptr(fd), "userns")
	defer userns.Close()
	deny, allow, err := x.routes()
	if err != nil {
		return n, err
	}
	// What is denied needs no device: the fence goes up while the link is made.
	fenced := make(chan error, 1)
	go func() { fenced <- x.fence(ctx, userns, netns, deny) }()
	if err := errors.Join(n.start(ctx, x.tools, userns, netns), <-fenced); err != nil {
		return n, err
	}
	return n, x.fence(ctx, userns, netns, allow)
}

// awaitMaps waits until bubblewrap has said who is who in the user namespace: a program that is
// started in it before has no capabilities there.
func awaitMaps(ctx context.Context, pid int) error {
	for deadline := time.Now().Add(10 * time.Second); ; {
		users, err1 := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", pid))
		groups, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/gid_map", pid))
		switch err := errors.Join(err1, err2, ctx.Err()); {
		case err != nil:
			return fmt.Errorf("users of the sandbox: %w", err)
		case len(users) > 0 && len(groups) > 0:
			return nil
		case time.Now().After(deadline):
			return errors.New("users of the sandbox: bubblewrap did not set them")
		}
		_, _ = unix.Poll(nil, 1)
	}
}

// start starts slirp4netns and waits until it carries packets.
func (n *link) start(ctx context.Context, t tools, userns, netns *os.File) error {
	ready, readyWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	exitRead, exit, err := os.Pipe()
	if err != nil {
		readyWrite.Close()
		return err
	}
	n.exit = exit
	said, err := memory("slirp4netns", "")
	if err != nil {
		readyWrite.Close()
		exitRead.Close()
		return err
	}
	defer said.Close()
	args := []string{"--configure", "--mtu=65520", "--disable-host-loopback", "--enable-seccomp", "--cidr=" + slirpNet, "--ready-fd=3", "--exit-fd=4"}
	if os.Geteuid() == 0 { // it gives up root's file system and capabilities; as another user it cannot
		args = append(args, "--enable-sandbox")
	}
	args = append(args, "--netns-type=path", "--userns-path=/proc/self/fd/5", "/proc/self/fd/6", "tap0")
	cmd := exec.Command(t.slirp, args...) //nolint:noctx // it lives as long as the hook
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.ExtraFiles = []*os.File{readyWrite, exitRead, userns, netns}
	n.slirp, err = spawn(cmd)
	readyWrite.Close()
	exitRead.Close()
	if err != nil {
		return fmt.Errorf("slirp4netns: %w", err)
	}
	_ = ready.SetReadDeadline(time.Now().Add(10 * time.Second))
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		n.slirp.stop()
		text := make([]byte, 2<<10)
		k, _ := said.ReadAt(text, 0) // what there is
		return fmt.Errorf("slirp4netns made no network: %w: %s", err, strings.TrimSpace(string(text[:k])))
	}
	return nil
}

// fence sets routes. The command in the sandbox has no capability over its network and cannot take
// one away.
func (x *Sandbox) fence(ctx context.Context, userns, netns *os.File, routes string) error {
	if routes == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, x.tools.nsenter, "--user=/proc/self/fd/3", "--net=/proc/self/fd/4", "--preserve-credentials", x.tools.ip, "-batch", "-")
	cmd.Dir, cmd.Env, cmd.Stdin = "/", []string{}, strings.NewReader(routes)
	cmd.ExtraFiles = []*os.File{userns, netns}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // see spawn
	defer runtime.UnlockOSThread()
	cmd.WaitDelay = time.Second
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("deny private networks: %w: %s", err, strings.TrimSpace(string(said)))
	}
	return nil
}

// routes are ip's commands: what is denied, and then, once there is a link, what is allowed. Of
// slirp's own network only the gateway and the name server stay reachable: its other addresses might
// be real ones in this machine's surroundings.
func (x *Sandbox) routes() (deny, allow string, err error) {
	if x.open {
		return "", "", nil
	}
	var all, own strings.Builder
	for _, n := range append(append([]string(nil), notPublic...), slirpRest...) {
		fmt.Fprintf(&all, "route replace unreachable %s\n", n)
	}
	for _, n := range x.cfg.Deny {
		if n.Addr().Is4() {
			fmt.Fprintf(&all, "route replace unreachable %s\n", n.Masked())
		}
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", "", fmt.Errorf("addresses of this machine: %w", err)
	}
	for _, a := range addresses {
		p, ok := a.(*net.IPNet)
		if !ok {
			return "", "", errors.New("addresses of this machine: one of unknown kind")
		}
		ip, _ := netip.AddrFromSlice(p.IP)
		if ip = ip.Unmap(); !ip.Is4() || ip.String() == slirpGateway || ip.String() == slirpDNS {
			continue // those two lead to slirp itself
		}
		fmt.Fprintf(&own, "route replace unreachable %s/32\n", ip)
	}
	if len(x.cfg.Allow) == 0 {
		return all.String() + own.String(), "", nil
	}
	var some strings.Builder
	for _, n := range x.cfg.Allow {
		if n.Addr().Is4() {
			fmt.Fprintf(&some, "route replace %s via %s dev tap0\n", n.Masked(), slirpGateway)
		}
	}
	return all.String(), some.String() + own.String(), nil
}
