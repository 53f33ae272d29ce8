package bitbucket

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Files lists the paths of the files of a commit that stand at most depth directories deep (1: in the
// root) and whose path contains one of the texts, case ignored: one call, and so at most the first 100
// of them (BITBUCKET.md#source). It needs the scope `repository`.
func (a *Account) Files(ctx context.Context, ref Ref, commit string, depth int, containing ...string) ([]string, error) {
	var filters []string
	for _, text := range containing {
		filters = append(filters, Contains("path", text))
	}
	var w struct {
		Values entries[struct {
			Type string `json:"type"`
			Path string `json:"path"`
		}] `json:"values"`
	}
	k := call{
		method: http.MethodGet, route: RouteSource, subject: ref.subject(), object: ref.path(), path: ref.path() + "/src/" + url.PathEscape(commit) + "/",
		query: listQuery("", strings.Join(filters, " OR "), "values.type,values.path"), out: &w,
	}
	k.query.Set("max_depth", strconv.Itoa(depth))
	if err := a.do(ctx, k); err != nil {
		return nil, err
	}
	var paths []string
	for _, f := range w.Values.list {
		if f.Type == "commit_file" && f.Path != "" {
			paths = append(paths, f.Path)
		}
	}
	return paths, nil
}
