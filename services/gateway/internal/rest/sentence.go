package rest

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"devpilot.io/bitbucket/services/gateway/internal/activity"
)

// namedFields are the fields of an app as people call them; others go by their own names.
var namedFields = map[string]string{
	"autoDeploy": "auto-deploy", "cancelRunning": "cancelling of running deployments", "commitStatus": "commit statuses",
	"configAsCode": "the file .devpilot.yaml", "branch": "the branch", "server": "the server", "retention": "the number of releases kept",
	"sharedPaths": "the shared paths", "rules": "the rules of pushes", "source": "the source options", "serve": "what is served",
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
	return []string{"Changed " + name + " of " + target + "."}
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
