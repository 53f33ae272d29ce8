// Command gen makes the OpenAPI document of the gateway. Run it at the root of the repository, with
// buf and protoc-gen-openapiv3 on the PATH:
//
//	go run ./services/gateway/internal/openapi/gen [-out FILE]
//
// protoc-gen-openapiv3 makes one document per proto file. This program merges them and adds what the
// generator cannot know: which fields an answer always has, separate schemas for what is sent, short
// names, roles, problems and their reasons, entity tags, credentials, the streams and the pages.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

const (
	template   = "services/gateway/internal/openapi/gen/buf.gen.yaml"
	defaultOut = "services/gateway/internal/openapi/openapi.json"
)

func main() {
	out := flag.String("out", defaultOut, "file to write")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1) //nolint:forbidigo // this is a main
	}
}

func run(out string) error {
	dir, err := os.MkdirTemp("", "devpilot-openapi-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()                                  // a leftover in the temporary directory harms nobody
	buf := exec.Command("buf", "generate", "--template", template, "-o", dir) //nolint:noctx // a program of a developer, who can end it
	buf.Stdout, buf.Stderr = os.Stderr, os.Stderr
	if err := buf.Run(); err != nil {
		return fmt.Errorf("run buf at the root of the repository: %w", err)
	}
	doc, err := load(dir)
	if err != nil {
		return err
	}
	if err := finish(doc); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(raw, '\n'), 0o644) //nolint:gosec // a source file
}

type object = map[string]any

// load merges the generated documents. The same schema comes in several of them, always equal.
func load(dir string) (object, error) {
	paths, schemas := object{}, object{}
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".openapi.json") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	if len(files) == 0 {
		return nil, errors.New("buf made no documents")
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var doc object
		if err := json.Unmarshal(raw, &doc); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for path, item := range at(doc, "paths") {
			if err := mergePath(paths, path, item.(object)); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
		for name, schema := range at(doc, "components", "schemas") {
			if have, ok := schemas[name]; ok && !equal(have, schema) {
				return nil, fmt.Errorf("%s: schema %s differs from that of another file", file, name)
			}
			schemas[name] = schema
		}
	}
	return object{"paths": paths, "components": object{"schemas": schemas}}, nil
}

func mergePath(paths object, path string, item object) error {
	path = routes.Route{Template: path}.Public() // OpenAPI wants one path for one address
	have, ok := paths[path].(object)
	if !ok {
		have = object{}
		paths[path] = have
	}
	for method, op := range item {
		if _, taken := have[method]; taken {
			return fmt.Errorf("%s %s is there twice", method, path)
		}
		for _, p := range list(op.(object), "parameters") {
			param := p.(object)
			if param["in"] == "path" {
				param["name"] = routes.Route{}.PathName(param["name"].(string))
			}
		}
		have[method] = op
	}
	return nil
}

func equal(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// at walks into objects; what is not there is empty.
func at(o object, path ...string) object {
	for _, p := range path {
		next, ok := o[p].(object)
		if !ok {
			return object{}
		}
		o = next
	}
	return o
}

func list(o object, name string) []any {
	l, _ := o[name].([]any)
	return l
}
