package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	changes "devpilot.io/bitbucket/services/gateway/internal/events"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// streams adds the routes that do not come from the protos.
func streams(doc object) {
	schemas := at(doc, "components", "schemas")
	schemas["LogRecord"] = schemaOf((&deployerv1.LogRecord{}).ProtoReflect().Descriptor())
	schemas["LogRecordStream"] = enumOf(deployerv1.LogRecord_STDOUT.Descriptor())
	schemas["LogEnd"] = schemaOf((&deployerv1.LogEnd{}).ProtoReflect().Descriptor())
	wrapped := func(name, inner string) object {
		return object{"type": "object", "required": []any{name}, "properties": object{name: object{"$ref": refPrefix + inner}}}
	}
	schemas["LogHeartbeat"] = object{"type": "object", "required": []any{"time"}, "properties": object{"time": object{"type": "string", "format": "date-time"}}}
	schemas["LogHeartbeatLine"] = wrapped("heartbeat", "LogHeartbeat")
	schemas["LogEndLine"] = wrapped("end", "LogEnd")
	schemas["LogErrorLine"] = wrapped("error", "Problem")
	schemas["LogLine"] = object{
		"description": "One line of a log as NDJSON. A log that ended ends with end; one that was cut does not, or ends with error.",
		"oneOf":       refs("LogRecord", "LogHeartbeatLine", "LogEndLine", "LogErrorLine"),
	}
	schemas["Change"] = object{
		"type": "object", "description": "Something changed: look again.",
		"required": []any{"kind", "id", "service", "deleted", "time"},
		"properties": object{
			"kind":    object{"type": "string", "description": "What changed: " + strings.Join(changes.Kinds(), ", ") + ". More may come."},
			"id":      object{"type": "string", "description": "Its id within the workspace, such as web or web/12."},
			"service": object{"type": "string", "description": "The owner of it."},
			"deleted": object{"type": "boolean", "description": "Whether it is gone."},
			"time":    object{"type": "string", "format": "date-time"},
			"object":  object{"$ref": refPrefix + "ChangeObject"},
			"etag":    object{"type": "string", "description": "With object: its ETag, as its GET answers it."},
			"app":     object{"description": "With include=app, of a deployment: its app, as object is brought.", "allOf": refs("App")},
			"appEtag": object{"type": "string", "description": "With app: its ETag."},
		},
	}
	schemas["ChangeObject"] = object{
		"description": "With include=object: what changed, as its GET answers it, by kind; it may be newer than the event. Absent where it is gone, where the kind has none (" + strings.Join(withoutObject(), ", ") + "), where it is larger than 64 KiB, and where it could not be read within a second: look yourself.",
		"oneOf":       refs("App", "Deployment", "Integration", "Webhook"),
	}
	schemas["StreamEnd"] = object{
		"type": "object", "required": []any{"reason"}, "properties": object{"reason": object{"$ref": refPrefix + "Reason"}},
	}
	schemas["Nothing"] = object{"type": "object", "description": "No fields."}
	events(schemas, "WorkspaceEvent", map[string]string{"change": "Change", "ready": "Nothing", "reset": "Nothing", "end": "StreamEnd"})
	events(schemas, "LogEvent", map[string]string{"record": "LogRecord", "end": "LogEndLine", "problem": "LogErrorLine"})
	text := func(d string) object { return object{"type": "string", "description": d} }
	paths := at(doc, "paths")
	paths[routes.EventsTemplate] = object{"get": object{
		"tags": []any{"Live"}, "operationId": "streamEvents", "summary": "Streams what changes in the workspace",
		"description": "Server-sent events. Event `change` has a Change as data and its place as id. `ready` says that from here on it is live; `reset` that you missed something and should load everything again; `end` that your session or membership ended. A stream that ends otherwise is to be opened again, with Last-Event-ID, as browsers do by themselves.",
		"x-role":      "MEMBER",
		"x-scope":     "READ",
		"parameters": []any{
			pathParameter("workspace"), object{"$ref": "#/components/parameters/LastEventId"},
			query("lastEventId", "The same as Last-Event-ID, for the first request of a page.", object{"type": "string"}),
			query("kind", "Only changes of these kinds; of all when absent.", object{"type": "array", "items": object{"type": "string", "enum": words(changes.Kinds())}}),
			query("app", "Only changes of this app and its deployments.", object{"type": "string"}),
			query("include", "What changes bring along. `object` is what changed, as its GET answers it to you: an app, a deployment, the integration or a webhook; of several changes of one that wait to be sent the newest is. `app` is, of a deployment, its app as well. An event waits for it for a second at most.", object{"type": "array", "items": object{"type": "string", "enum": words(changes.Inclusions())}}),
		},
		"responses": object{
			"200":     object{"description": "The stream.", "content": object{"text/event-stream": object{"schema": streamOf("text/event-stream", "WorkspaceEvent")}}},
			"default": object{"$ref": "#/components/responses/Failure"},
		},
	}}
	paths[routes.LogTemplate] = object{"get": object{
		"tags": []any{"Live"}, "operationId": "readLog", "summary": "Reads or follows a deployment's log",
		"description": "NDJSON unless Accept or format say otherwise: each line is a LogLine. As server-sent events, the id of a `record` is its line, by which a client resumes; `end` and `problem` end the stream. A client that resumes by Last-Event-ID after the last line of a deployment that has ended gets 204, by which an EventSource stops. Plain text ends with a line that begins with `-- end:` or `-- cut:`.",
		"x-role":      "MEMBER",
		"x-scope":     "READ",
		"x-reasons":   []any{string(apierr.ReasonAppNotFound), string(apierr.ReasonDeploymentNotFound)},
		"parameters": []any{
			pathParameter("workspace"), pathParameter("app"),
			object{"name": "number", "in": "path", "required": true, "schema": object{"type": "integer", "format": "int32"}},
			query("after", "Only lines after this one.", object{"type": "integer", "format": "int32", "minimum": 0}),
			query("tail", "Only the last so many lines.", object{"type": "integer", "format": "int32", "minimum": 0}),
			query("follow", "Stay until the deployment ends.", object{"type": "boolean"}),
			query("format", "Instead of Accept.", object{"type": "string", "enum": []any{"ndjson", "sse", "text"}}),
			object{"$ref": "#/components/parameters/LastEventId"},
		},
		"responses": object{
			"200": object{"description": "The log.", "content": object{
				"application/x-ndjson": object{"schema": streamOf("application/x-ndjson", "LogLine")},
				"text/event-stream":    object{"schema": streamOf("text/event-stream", "LogEvent")},
				"text/plain":           object{"schema": text("Time, stage and text.")},
			}},
			"204":     object{"description": "Nothing is left: the deployment has ended, and Last-Event-ID is its last line or behind it."},
			"default": object{"$ref": "#/components/responses/Failure"},
		},
	}}
	exports(paths)
}

func words(list []string) []any {
	var all []any
	for _, k := range list {
		all = append(all, k)
	}
	return all
}

// withoutObject are the kinds that only say "look again".
func withoutObject() []string {
	return slices.DeleteFunc(changes.Kinds(), func(k string) bool { return slices.Contains(changes.KindsWithObject(), k) })
}

// streamOf is a body that goes on: contentSchema is of each line or event of it, and not of the whole.
// OpenAPI 3.1 has no word for that; that the body is binary makes generators give a reader.
func streamOf(media, item string) object {
	what := "line"
	if media == "text/event-stream" {
		what = "event"
	}
	return object{
		"type": "string", "format": "binary", "description": fmt.Sprintf("Each %s is %s.", what, item),
		"contentMediaType": media, "contentSchema": object{"$ref": refPrefix + item},
	}
}

// events makes the schemas of server-sent events: name and id as they stand in the stream, data parsed.
func events(schemas object, stream string, data map[string]string) {
	var names []string
	mapping := object{}
	for _, event := range slices.Sorted(maps.Keys(data)) {
		name := stream + strings.ToUpper(event[:1]) + event[1:]
		names, mapping[event] = append(names, name), refPrefix+name
		schemas[name] = object{
			"type": "object", "required": []any{"event", "data"},
			"properties": object{
				"event": object{"type": "string", "enum": []any{event}},
				"id":    object{"type": "string", "description": "For Last-Event-ID; absent where nobody goes on after it."},
				"data":  object{"$ref": refPrefix + data[event]},
			},
		}
	}
	schemas[stream] = object{
		"description": "A server-sent event, its data read as JSON.", "oneOf": refs(names...),
		"discriminator": object{"propertyName": "event", "mapping": mapping},
	}
}

func refs(names ...string) []any {
	var all []any
	for _, n := range names {
		all = append(all, object{"$ref": refPrefix + n})
	}
	return all
}

// exports adds the lists that are given as files.
func exports(paths object) {
	text := func(d string) object { return object{"type": "string", "description": d} }
	paths[routes.ActivityExportTemplate] = object{"get": object{
		"tags": []any{"Sign-in and workspaces"}, "operationId": "exportActivity", "summary": "Exports what was done in the workspace, as a file",
		"description": "The activity list, newest first: CSV, in which no cell is a formula, or JSON lines of ActivityRecord. One file has 20,000 records at most; when there are more, the trailer Next-Page-Token has the pageToken to go on with. A file that could not be read to its end breaks off with the connection.",
		"x-role":      "MEMBER",
		"x-scope":     "READ",
		"x-reasons":   []any{string(apierr.ReasonPageTokenInvalid), string(apierr.ReasonStorageUnavailable)},
		"parameters": []any{
			pathParameter("workspace"),
			query("format", "CSV when absent.", object{"type": "string", "enum": []any{"csv", "jsonl"}}),
			query("actor", "Only what was done by somebody whose name has this in it.", object{"type": "string"}),
			query("action", "Only this action, such as app.create, or all of a kind, such as app.", object{"type": "string"}),
			query("app", "Only what was done to this app or its deployments.", object{"type": "string"}),
			query("after", "Only what was done at or after.", object{"type": "string", "format": "date-time"}),
			query("before", "Only what was done before.", object{"type": "string", "format": "date-time"}),
			query("pageToken", "From the trailer of the file before.", object{"type": "string"}),
		},
		"responses": object{
			"200": object{"description": "The file.", "content": object{
				"text/csv":             object{"schema": text("A row per record, after the names of the columns.")},
				"application/x-ndjson": object{"schema": streamOf("application/x-ndjson", "ActivityRecord")},
			}},
			"default": object{"$ref": "#/components/responses/Failure"},
		},
	}}
}
