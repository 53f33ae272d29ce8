package rest

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode"

	"devpilot.io/bitbucket/services/gateway/internal/activity"
)

// maxInSentence is how long a value may be that a sentence tells, in characters; the record has longer ones.
const maxInSentence = 60

// namedFields are the fields of an app and of a notification target as people call them; others go by their own
// names.
var namedFields = map[string]string{
	"autoDeploy": "auto-deploy", "cancelRunning": "cancelling of running deployments", "commitStatus": "commit statuses",
	"configAsCode": "the file .devpilot.yaml", "branch": "the branch", "server": "the server", "retention": "the number of releases kept",
	"sharedPaths": "the shared paths", "rules": "the rules of pushes", "source": "the source options", "serve": "what is served",
	"badge": "the status badge", "rules.tags": "the tags that deploy", "rules.paths": "the paths that deploy", "rules.pathsIgnore": "the paths that do not count",
	"rules.skip": "the skip phrases", "rules.skip.phrases": "the skip phrases", "source.directory": "the directory in the repository", "source.fullHistory": "full history", "source.submodules": "submodules", "source.lfs": "large files (LFS)",
	"source.submoduleWorkspaces": "the Bitbucket workspaces of submodules", "serve.directory": "the directory that is served", "serve.fallback": "the page for what is not found",
	"label": "the name", "active": "sending", "url": "the address", "recipients": "the recipients", "events": "what is told", "apps": "the apps",
	"behindMinutes": "the minutes that an app may be behind", "quietHours": "the quiet hours", "quietHours.start": "the beginning of the quiet hours",
	"quietHours.end": "the end of the quiet hours", "quietHours.timeZone": "the time zone of the quiet hours", "kind": "the kind", "repository": "the repository",
}

// sentence says what was changed of a target, in words: values of variables are never in it.
func sentence(target string, changes []activity.Change) string {
	var all []string
	for _, c := range changes {
		all = append(all, changed(target, c)...)
	}
	return strings.Join(all, " ")
}

func changed(target string, c activity.Change) []string {
	name := c.Field
	if words, ok := namedFields[c.Field]; ok {
		name = words
	}
	switch {
	case c.Field == "variables":
		return items("variable", target, c)
	case c.Field == "hooks":
		return items("hook", target, c)
	case c.After == "true":
		return []string{"Switched " + name + " of " + target + " on."}
	case c.After == "false":
		return []string{"Switched " + name + " of " + target + " off."}
	}
	before, plainBefore := plain(c.Before)
	after, plainAfter := plain(c.After)
	switch {
	case !plainBefore || !plainAfter:
		return []string{"Changed " + name + " of " + target + "."}
	case before == "":
		return []string{"Set " + name + " of " + target + " to " + after + "."}
	case after == "":
		return []string{"Emptied " + name + " of " + target + ", which was " + before + "."}
	}
	return []string{"Changed " + name + " of " + target + " from " + before + " to " + after + "."}
}

// plain is a value that a sentence can tell: a short text or number, or a list of such. Not ok for others.
func plain(value string) (text string, ok bool) {
	if value == "" {
		return "", true // not set
	}
	var v any
	d := json.NewDecoder(strings.NewReader(value))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return "", false
	}
	list, isList := v.([]any)
	if !isList {
		list = []any{v}
	}
	var words []string
	for _, e := range list {
		switch e := e.(type) {
		case string:
			words = append(words, quoted(e))
		case json.Number:
			words = append(words, e.String())
		default:
			return "", false
		}
	}
	text = strings.Join(words, ", ")
	return text, len([]rune(text)) <= maxInSentence && !strings.ContainsFunc(text, unicode.IsControl)
}

// quoted puts a text in quotes that would be read as part of the sentence around it, such as a directory named ".".
func quoted(text string) string {
	if strings.ContainsFunc(text, unicode.IsSpace) || strings.ContainsAny(text, ",;") || strings.ContainsAny(text[max(len(text)-1, 0):], ".:!?") {
		return `"` + text + `"`
	}
	return text
}

// items compares two lists of things that have names.
func items(kind, target string, c activity.Change) (all []string) {
	before, after := byName(c.Before), byName(c.After)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		old, was := before[name]
		if !was {
			all = append(all, "Added the "+kind+" "+name+" to "+target+".")
			continue
		}
		for _, field := range slices.Sorted(maps.Keys(after[name])) {
			if field != "updateTime" && string(old[field]) != string(after[name][field]) {
				all = append(all, "Changed the "+name+" "+kind+"'s "+field+" of "+target+".")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, is := after[name]; !is {
			all = append(all, "Removed the "+kind+" "+name+" from "+target+".")
		}
	}
	if len(all) == 0 {
		all = append(all, "Changed the "+kind+"s of "+target+".")
	}
	return all
}

func byName(list string) map[string]map[string]json.RawMessage {
	var all []map[string]json.RawMessage
	if json.Unmarshal([]byte(list), &all) != nil {
		return nil // not set
	}
	named := map[string]map[string]json.RawMessage{}
	for _, one := range all {
		var name string
		if json.Unmarshal(one["name"], &name) == nil {
			named[name] = one
		}
	}
	return named
}
