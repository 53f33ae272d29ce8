package catalog

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
)

// ServeSuggestion is a directory that could be served, and the file that speaks for it.
type ServeSuggestion struct {
	Directory string // as an app's serve.directory; "." is the whole repository
	Found     string // the file's path
	Built     bool   // a build has to make the directory
	Message   string // for people
}

const indexPage = "index.html"

// committed are directories that repositories keep a finished site in, the likeliest first.
var committed = []string{"public", "dist", "build", "docs", "site", "www", "html", "out", "_site", "htdocs", "web", "static"}

// A builder is a program that makes a site, known by a file in the root, and the directory it writes by
// default.
type builder struct{ file, directory string }

// builders are tried in this order. A name that ends in a dot stands for all extensions.
var builders = []builder{
	{"angular.json", "dist"}, {"astro.config.", "dist"}, {"docusaurus.config.", "build"}, {"gatsby-config.", "public"},
	{"next.config.", "out"}, {"nuxt.config.", ".output/public"}, {"svelte.config.", "build"}, {"vue.config.", "dist"},
	{"eleventy.config.", "_site"}, {".eleventy.", "_site"}, {"hugo.", "public"}, {"mkdocs.yml", "site"}, {"_config.yml", "_site"},
	{"vite.config.", "dist"}, {"webpack.config.", "dist"}, {"rollup.config.", "dist"},
}

// sourceDepth is how deep the files stand that are asked for: in the root and in its directories.
const sourceDepth = 2

// telling are texts, one of which is in the path of every file that says something here: a large
// repository's other files do not fill the one page that is asked for.
var telling = []string{indexPage, "package.json", "angular.json", "config.", "gatsby-config.", "eleventy.", "hugo.", "mkdocs.yml"}

// SuggestServe says from the names of a commit's files which directories could be served. It costs one
// call at most, which counts as a person's.
func (c *Catalog) SuggestServe(ctx context.Context, workspace, id, commit string) ([]ServeSuggestion, error) {
	conn, err := c.open(ctx, workspace)
	if err != nil {
		return nil, err
	}
	question := strings.Join([]string{"files", conn.ID, id, commit}, " ")
	paths, err := c.files.ask(ctx, question, func(ctx context.Context) ([]string, error) {
		if hint, known := c.current(ctx, conn).snapshot.find(id); known {
			paths, err := conn.Account.Files(ctx, hint.ref(), commit, sourceDepth, telling...)
			if err == nil || !unreachable(err) {
				return paths, err
			}
		}
		r, err := c.within(ctx, conn, id) // unknown, or moved
		if err != nil {
			return nil, err
		}
		return conn.Account.Files(ctx, r.Ref(), commit, sourceDepth, telling...)
	})
	if err != nil {
		return nil, err
	}
	return suggest(paths), nil
}

// suggest puts first what a build makes where the repository has one: a page that is committed beside a
// build is its template. Then come the directories with a page, and the root with one.
func suggest(paths []string) []ServeSuggestion {
	var out []ServeSuggestion
	has := func(p string) bool { return slices.Contains(paths, p) }
	built := ""
	for _, b := range builders {
		if i := slices.IndexFunc(paths, func(p string) bool {
			return p == b.file || strings.HasSuffix(b.file, ".") && strings.HasPrefix(p, b.file) && !strings.Contains(p, "/")
		}); i >= 0 && built == "" {
			built = b.directory
			out = append(out, made(built, paths[i]))
		}
	}
	// A page in public and one of these without any of the above is what create-react-app leaves.
	if built == "" && has("package.json") && has("public/"+indexPage) && !has(indexPage) {
		built = "build"
		out = append(out, made(built, "package.json"))
	}
	var pages []ServeSuggestion
	for _, p := range paths {
		if path.Base(p) != indexPage || strings.Count(p, "/") > 1 {
			continue
		}
		dir := path.Dir(p)
		if dir != "." && !slices.Contains(committed, dir) || dir == built {
			continue
		}
		pages = append(pages, ServeSuggestion{Directory: dir, Found: p, Message: fmt.Sprintf("The repository has %s.", p)})
	}
	rank := func(s ServeSuggestion) int {
		if s.Directory == "." {
			return -1 // the page that the repository itself shows first
		}
		return slices.Index(committed, s.Directory)
	}
	slices.SortStableFunc(pages, func(a, b ServeSuggestion) int { return cmp.Compare(rank(a), rank(b)) })
	return append(out, pages...)
}

func made(directory, found string) ServeSuggestion {
	return ServeSuggestion{Directory: directory, Found: found, Built: true, Message: fmt.Sprintf(
		"The repository has %s, whose build usually writes %s. Add a hook at POST_SETUP that runs the build.", found, directory)}
}
