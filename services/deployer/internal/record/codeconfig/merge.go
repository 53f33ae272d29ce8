package codeconfig

import "slices"

// Field is a setting that the file can make, by its name there.
type Field string

// The fields.
const (
	FieldHooks       Field = "hooks"
	FieldSharedPaths Field = "sharedPaths"
	FieldPaths       Field = "rules.paths"
	FieldPathsIgnore Field = "rules.pathsIgnore"
	FieldSkipPhrases Field = "rules.skipPhrases"
	FieldServe       Field = "serve"
)

// Fields are all fields, in the order in which people read them.
var Fields = []Field{FieldHooks, FieldSharedPaths, FieldPaths, FieldPathsIgnore, FieldSkipPhrases, FieldServe}

// Settings are what both an app and the file can set.
type Settings struct {
	Hooks       []Hook
	SharedPaths []string
	Paths       []string
	PathsIgnore []string
	SkipPhrases []string // nil: the defaults; empty and not nil: none
	Serve       Serve
}

// Origin tells where a setting comes from.
type Origin string

// The origins.
const (
	FromApp  Origin = "app"
	FromFile Origin = "file"
)

// Merge returns the settings that hold: those that the file makes, and the app's for the rest.
// Hooks, shared paths and serve are replaced as a whole, rules one by one; an empty list in the
// file is a setting too. origins has every field. A nil file sets nothing. The result shares no
// slice with either.
func Merge(app Settings, f *File) (effective Settings, origins map[Field]Origin) {
	effective = app
	origins = make(map[Field]Origin, len(Fields))
	for _, field := range Fields {
		origins[field] = FromApp
		if !f.Sets(field) {
			continue
		}
		origins[field] = FromFile
		switch field {
		case FieldHooks:
			effective.Hooks = f.Settings.Hooks
		case FieldSharedPaths:
			effective.SharedPaths = f.Settings.SharedPaths
		case FieldPaths:
			effective.Paths = f.Settings.Paths
		case FieldPathsIgnore:
			effective.PathsIgnore = f.Settings.PathsIgnore
		case FieldSkipPhrases:
			effective.SkipPhrases = f.Settings.SkipPhrases
		case FieldServe:
			effective.Serve = f.Settings.Serve
		}
	}
	effective.Hooks = slices.Clone(effective.Hooks)
	effective.SharedPaths = slices.Clone(effective.SharedPaths)
	effective.Paths = slices.Clone(effective.Paths)
	effective.PathsIgnore = slices.Clone(effective.PathsIgnore)
	effective.SkipPhrases = slices.Clone(effective.SkipPhrases)
	return effective, origins
}
