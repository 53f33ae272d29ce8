// Package codeconfig reads .devpilot.yaml, the file by which a repository says how it is deployed:
//
//	version: 1
//	hooks:
//	  - name: Install
//	    stage: POST_SOURCE_CONTROL
//	    command: npm ci
//	    timeout: 5m
//	sharedPaths: [uploads/, .env]
//	rules:
//	  paths: ["site/**"]
//	serve:
//	  directory: dist
//
// Whoever can push can change the file, and so run commands: it counts only where an admin allowed
// it for the app. What it sets replaces the app's own setting ([Merge]), field by field; what it
// does not mention stays the app's. It is known only once the source is there, so it can neither
// have hooks of an earlier stage nor say which branches and tags are watched.
//
// The file is hostile until proven otherwise: its size, nesting and counts are bounded before it is
// parsed, and anchors, aliases, merge keys, tags and further documents are refused, since nothing
// here needs them. Unknown and repeated keys are errors. Every problem has its line and column, and
// all that are found are told at once ([Problems]).
//
// [Schema] is the same as a JSON Schema, for editors. It says all that a schema can say; names that
// must differ, paths that overlap and the syntax of patterns are left to [Parse].
//
// The checks are exported, since they hold for the settings of an app as well.
//
// Depends on internal/record/rules, for its patterns.
package codeconfig
