package tree

import (
	"path"
	"strings"
)

// checkLinks refuses symbolic links that leave the tree, followed as the kernel would follow them,
// through other links of the tree. Links to nothing are harmless. Only the links in the directory that
// an app deploys count; those beside it are written as they are, and nothing of ours follows them. Where
// the directory is reached through a link, or is empty, all links count.
func checkLinks(entries []entry, directory string) error {
	w := walk{links: map[string]string{}, left: maxLinkSteps}
	for i := range entries {
		if e := &entries[i]; e.Mode == ModeLink {
			w.links[e.Path] = e.link
		}
	}
	for link := range w.links {
		if strings.EqualFold(link, directory) || below(directory, link) {
			directory = ""
			break
		}
	}
	for i := range entries {
		if e := &entries[i]; e.Mode == ModeLink {
			if !nameable(e.link) {
				return Refuse("the symbolic link %q points to nothing that can be named.", e.Path)
			}
			if !below(e.Path, directory) {
				continue
			}
			if err := w.staysInside(e.Path, e.link); err != nil {
				return err
			}
		}
	}
	return nil
}

func nameable(target string) bool { return target != "" && !strings.ContainsRune(target, 0) }

// below tells whether a path is in a directory. A volume may take names that differ in case for one.
func below(p, directory string) bool {
	n := len(directory)
	return n == 0 || len(p) > n && p[n] == '/' && strings.EqualFold(p[:n], directory)
}

// walk follows the links of one tree.
type walk struct {
	links map[string]string
	left  int // how many more names are followed: links of links can make it very many
}

const (
	maxLink      = 4095      // bytes of a link's target; Linux takes no longer path
	maxLinkBytes = 16 << 20  // of all links together
	maxLinkSteps = 4_000_000 // steps of following all links of a tree
	maxFollow    = 40        // how many links the kernel follows before it gives up
)

func (w *walk) staysInside(p, target string) error {
	at := splitPath(path.Dir(p)) // never itself a link: a path below a link is no path of a tree
	rest := []string{target}
	for followed := 0; len(rest) > 0; {
		if w.left -= 1 + len(at); w.left < 0 {
			return Refuse("its symbolic links lead through one another too often.")
		}
		next := rest[0]
		rest = rest[1:]
		if strings.HasPrefix(next, "/") {
			return Refuse("the symbolic link %q points to %q, outside the repository.", p, target)
		}
		first, more, deeper := strings.Cut(next, "/")
		if deeper {
			rest = append([]string{more}, rest...)
			if more == "" || strings.HasPrefix(more, "/") {
				rest[0] = strings.TrimLeft(more, "/")
				if rest[0] == "" {
					rest = rest[1:]
				}
			}
		}
		switch first {
		case "", ".":
			continue
		case "..":
			if len(at) == 0 {
				return Refuse("the symbolic link %q points to %q, outside the repository.", p, target)
			}
			at = at[:len(at)-1]
			continue
		}
		at = append(at[:len(at):len(at)], first)
		if onward, ok := w.links[strings.Join(at, "/")]; ok {
			if followed++; followed > maxFollow {
				return nil // the kernel gives up too
			}
			at = at[:len(at)-1]
			rest = append([]string{onward}, rest...)
		}
	}
	return nil
}

func splitPath(p string) []string {
	if p == "." || p == "" {
		return nil
	}
	return strings.Split(p, "/")
}
