package catalog

import (
	"slices"
	"testing"
)

func TestSuggest(t *testing.T) {
	for what, c := range map[string]struct {
		paths []string
		want  []string // directories; one that a build makes ends in "!"
	}{
		"nothing":                        {nil, nil},
		"a page in the root":             {[]string{"index.html"}, []string{"."}},
		"a page in public":               {[]string{"public/index.html"}, []string{"public"}},
		"public before docs":             {[]string{"docs/index.html", "public/index.html"}, []string{"public", "docs"}},
		"the root before docs":           {[]string{"docs/index.html", "index.html"}, []string{".", "docs"}},
		"a page where none is served":    {[]string{"tests/index.html", "src/index.html"}, nil},
		"a page that is too deep":        {[]string{"docs/api/index.html"}, nil},
		"a program without a page":       {[]string{"package.json", "docs/index.htm"}, nil},
		"vite, whose page is a template": {[]string{"index.html", "package.json", "vite.config.ts"}, []string{"dist!", "."}},
		"vite of a test in a directory":  {[]string{"index.html", "tests/vite.config.ts"}, []string{"."}},
		"angular":                        {[]string{"angular.json", "package.json"}, []string{"dist!"}},
		"next before a bundler's":        {[]string{"next.config.mjs", "webpack.config.js"}, []string{"out!"}},
		"create-react-app":               {[]string{"package.json", "public/index.html"}, []string{"build!", "public"}},
		"a built directory, committed":   {[]string{"package.json", "vite.config.js", "dist/index.html"}, []string{"dist!"}},
		"jekyll":                         {[]string{"_config.yml", "index.html"}, []string{"_site!", "."}},
	} {
		var got []string
		for _, s := range suggest(c.paths) {
			if s.Message == "" || !slices.Contains(c.paths, s.Found) {
				t.Errorf("%s: %+v", what, s)
			}
			d := s.Directory
			if s.Built {
				d += "!"
			}
			got = append(got, d)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}
