package reference

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// code is the production Go of the tree, package by package, in order of their directories.
type code struct{ packages []*source }

type source struct {
	dir     string // from the root
	files   []*ast.File
	fset    *token.FileSet
	info    *types.Info
	imports map[string]bool
	mute    []string // limits without a word of what they decide
}

// read parses all packages and works out their constants. Types of other packages are left open but
// for time's, so a constant made of another package's is not known.
func read(root string) (*code, error) {
	c := &code{}
	timePackage := durations()
	for _, top := range []string{"pkg", "services"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			if n := d.Name(); n == "testdata" || n == "node_modules" || n == "testkit" || n == "e2e" {
				return filepath.SkipDir
			}
			s, err := parse(path, timePackage)
			if err != nil || s == nil {
				return err
			}
			if s.dir, err = filepath.Rel(root, path); err != nil {
				return err
			}
			c.packages = append(c.packages, s)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

func parse(dir string, timePackage *types.Package) (*source, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	s := &source{fset: token.NewFileSet(), imports: map[string]bool{}, info: &types.Info{Defs: map[*ast.Ident]types.Object{}, Types: map[ast.Expr]types.TypeAndValue{}}}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		if ok, err := build.Default.MatchFile(dir, name); err != nil || !ok {
			continue
		}
		f, err := parser.ParseFile(s.fset, filepath.Join(dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", name, err)
		}
		s.files = append(s.files, f)
		for _, i := range f.Imports {
			s.imports[strings.Trim(i.Path.Value, `"`)] = true
		}
	}
	if len(s.files) == 0 {
		return nil, nil
	}
	cfg := types.Config{Error: func(error) {}, FakeImportC: true, Importer: opener{timePackage}}
	_, _ = cfg.Check(dir, s.fset, s.files, s.info) // what is not known is left out
	return s, nil
}

// durations is as much of the package time as constants are made of.
func durations() *types.Package {
	p := types.NewPackage("time", "time")
	d := types.NewNamed(types.NewTypeName(token.NoPos, p, "Duration", nil), types.Typ[types.Int64], nil)
	p.Scope().Insert(d.Obj())
	for name, value := range map[string]time.Duration{"Nanosecond": 1, "Microsecond": time.Microsecond, "Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour} {
		p.Scope().Insert(types.NewConst(token.NoPos, p, name, d, constant.MakeInt64(int64(value))))
	}
	p.MarkComplete()
	return p
}

// opener knows the package time; all others are empty.
type opener struct{ time *types.Package }

func (o opener) Import(path string) (*types.Package, error) {
	if path == "time" {
		return o.time, nil
	}
	p := types.NewPackage(path, filepath.Base(path))
	p.MarkComplete()
	return p, nil
}
