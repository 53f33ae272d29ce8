package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Where things are inside the sandbox.
const (
	scriptPath = "/run/devpilot/hook"
	homePath   = "/home/" + user
	hostName   = "hook"
)

// shownEtc are the host's files in /etc that programs need and that hold nothing secret: trusted
// certificates (not /etc/ssl/private), the dynamic linker's cache, chosen alternatives, the time
// zone, the names of protocols, terminals and fonts.
var shownEtc = []string{
	"/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ssl/cert.pem", "/etc/ca-certificates", "/etc/ca-certificates.conf",
	"/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/tls/openssl.cnf", "/etc/pki/ca-trust/extracted", "/etc/crypto-policies",
	"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime", "/etc/timezone",
	"/etc/protocols", "/etc/services", "/etc/mime.types", "/etc/fonts", "/etc/java-17-openjdk", "/etc/java-21-openjdk", "/etc/java-25-openjdk", "/etc/maven",
	"/etc/terminfo", "/etc/profile", "/etc/os-release", "/etc/debian_version",
}

// made are the files that the sandbox has instead of the host's.
func made(network Network) map[string]string {
	resolv := "# no network\n"
	if network == NetworkInternet {
		resolv = "nameserver " + slirpDNS + "\n"
	}
	return map[string]string{
		"/etc/passwd":        user + ":x:1000:1000::" + homePath + ":/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"/etc/group":         user + ":x:1000:\nnogroup:x:65534:\n",
		"/etc/hosts":         "127.0.0.1 localhost " + hostName + "\n::1 localhost\n",
		"/etc/hostname":      hostName + "\n",
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
		"/etc/resolv.conf":   resolv,
	}
}

// handover collects the files that a program is given.
type handover struct {
	files []*os.File
	err   error
}

// text hands over a text and returns the number of its descriptor.
func (h *handover) text(name, text string) string {
	if h.err != nil {
		return ""
	}
	f, err := memory(name, text)
	if err != nil {
		h.err = err
		return ""
	}
	return h.file(f)
}

func (h *handover) file(f *os.File) string {
	h.files = append(h.files, f)
	return strconv.Itoa(2 + len(h.files)) // exec.Cmd.ExtraFiles begin at 3
}

func (h *handover) close() {
	for _, f := range h.files {
		f.Close()
	}
}

// system are the arguments that show the host's programs: /usr, and what is beside it.
func system(extra []string) ([]string, error) {
	args := []string{"--ro-bind", "/usr", "/usr"}
	for _, p := range []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} {
		info, err := os.Lstat(p)
		switch {
		case err != nil: // this host has none
		case info.Mode()&os.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return nil, err
			}
			args = append(args, "--symlink", to, p)
		default:
			args = append(args, "--ro-bind", p, p)
		}
	}
	for _, p := range shownEtc {
		if _, err := os.Stat(p); err == nil {
			args = append(args, "--ro-bind", p, p)
		}
	}
	for _, p := range extra {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" {
			return nil, fmt.Errorf("%q is not an absolute, clean path", p)
		}
		if _, err := os.Stat(p); err != nil {
			return nil, err
		}
		args = append(args, "--ro-bind", p, p)
	}
	return args, nil
}

// taken are the places of the sandbox itself; a release cannot lie there.
var taken = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/proc", "/dev", "/sys", "/run/devpilot/hook"}

func placeable(p string) error {
	for _, t := range taken {
		if within(p, t) || within(t, p) {
			return fmt.Errorf("%w: %q cannot be shown in a sandbox: keep the data directory outside of %s", ErrSpec, p, t)
		}
	}
	if p == "/tmp" || p == "/home" {
		return fmt.Errorf("%w: %q itself cannot be shown in a sandbox", ErrSpec, p)
	}
	return nil
}

// arguments are bubblewrap's, for its --args: they hold the variables and must not be on its
// command line. Order matters: later mounts lie over earlier ones.
//
// The variables are not in bubblewrap's own environment either: it would obey LD_PRELOAD and the
// like outside of the sandbox.
func (x *Sandbox) arguments(s Spec, h *handover) []string {
	space := strconv.FormatInt(s.Limits.Memory, 10)
	args := []string{
		"--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup",
		"--disable-userns", "--uid", "1000", "--gid", "1000", "--hostname", hostName,
		"--new-session", "--die-with-parent", "--cap-drop", "ALL",
		"--proc", "/proc", "--dev", "/dev", "--size", space, "--tmpfs", "/dev/shm",
		"--perms", "1777", "--size", space, "--tmpfs", "/tmp",
		"--size", space, "--tmpfs", "/home", "--perms", "0700", "--dir", homePath,
	}
	args = append(args, x.system...)
	for path, text := range made(x.network) {
		args = append(args, "--perms", "0444", "--ro-bind-data", h.text("etc", text), path)
	}
	args = append(args, "--perms", "0555", "--ro-bind-data", h.text("hook", s.Command), scriptPath)
	if f := filter(); f != "" {
		args = append(args, "--seccomp", h.text("seccomp", f))
	}
	for _, p := range append([]string{s.Release}, s.Shared...) {
		args = append(args, "--bind", p, p)
	}
	// /proc is read-only because the kernel lets user 0 write its settings (/proc/sys) without any
	// capability: a worker that runs as root would open the whole machine to its hooks.
	args = append(args, "--remount-ro", "/dev", "--remount-ro", "/proc", "--remount-ro", "/", "--chdir", s.Dir, "--clearenv")
	for _, v := range environment(BaseEnv(x.cfg.path(), homePath, "/tmp"), s.Env) {
		name, value, _ := strings.Cut(v, "=")
		args = append(args, "--setenv", name, value)
	}
	return args
}
