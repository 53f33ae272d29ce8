package gittest

import (
	"fmt"
	"net/http"
	"strings"
)

// Pkt is a line of git's protocol.
func Pkt(line string) string { return fmt.Sprintf("%04x%s", len(line)+4, line) }

// Advertise has the server list refs of its own making, in version 0 of the protocol.
func (s *Server) Advertise(list func(ref func(hash, name string))) {
	s.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/info/refs") {
			return false
		}
		if _, _, ok := r.BasicAuth(); !ok {
			return false
		}
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		_, _ = w.Write([]byte(Pkt("# service=git-upload-pack\n") + "0000"))
		first := true
		list(func(hash, name string) {
			line := hash + " " + name
			if first {
				line += "\x00side-band-64k ofs-delta shallow allow-tip-sha1-in-want allow-reachable-sha1-in-want"
				first = false
			}
			_, _ = w.Write([]byte(Pkt(line + "\n")))
		})
		_, _ = w.Write([]byte("0000"))
		return true
	})
}
