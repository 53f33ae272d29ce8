package papers

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Packages returns one line per directory of Go files in which no file but a test says what the package is.
// What is generated is left out.
func Packages(tree fs.FS, names []string) ([]string, error) {
	said := map[string]bool{} // by directory
	for _, name := range names {
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || !readable(name) || said[path.Dir(name)] {
			continue
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		said[path.Dir(name)] = file.Doc != nil && strings.TrimSpace(file.Doc.Text()) != ""
	}
	var faults []string
	for dir, ok := range said {
		if !ok {
			faults = append(faults, dir+": no file has a comment above its package clause that says what the package is for")
		}
	}
	slices.Sort(faults)
	return faults, nil
}
