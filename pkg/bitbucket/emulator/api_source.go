package emulator

import (
	"net/http"
	"strconv"
	"strings"
)

// sourceEntry is a file or a directory of a commit.
type sourceEntry struct{ path, kind string }

// listSource is BITBUCKET.md#source: what a commit has, down to max_depth directories.
func (c *call) listSource() response {
	repo, at, _, refused, found := c.commit(true)
	if !found {
		return refused
	}
	depth := 1
	if asked := c.query.Get("max_depth"); asked != "" {
		n, err := strconv.Atoi(asked)
		if err != nil || n < 1 {
			return failure(http.StatusBadRequest, "max_depth is not a positive number")
		}
		depth = n
	}
	dir, _, err := c.e.opened(c.r.Context(), &repo)
	if err != nil {
		return c.e.internal("source not read", err)
	}
	list, err := c.e.git.tree(c.r.Context(), dir, at.hash, depth)
	if err != nil {
		return c.e.internal("source not read", err)
	}
	list, refused, valid := filterAndSort(c, list, func(s sourceEntry, field string) (any, bool) {
		switch field {
		case "path":
			return s.path, true
		case "type":
			return s.kind, true
		default:
			return nil, false
		}
	})
	if !valid {
		return refused
	}
	return paginate(c, list, func(s sourceEntry) any {
		return obj{"type": s.kind, "path": s.path, "commit": obj{"type": "commit", "hash": at.hash}}
	})
}

// kinds are Bitbucket's words for what git lists.
var kinds = map[string]string{"blob": "commit_file", "tree": "commit_directory", "commit": "commit_submodule"}

// readTree reads the lines of git ls-tree -z: mode, kind and hash, a tab, and the path.
func readTree(out string, depth int) []sourceEntry {
	var list []sourceEntry
	for line := range strings.SplitSeq(out, "\x00") {
		about, path, ok := strings.Cut(line, "\t")
		fields := strings.Fields(about)
		if ok && len(fields) == 3 && strings.Count(path, "/") < depth {
			list = append(list, sourceEntry{path, kinds[fields[1]]})
		}
	}
	return list
}
