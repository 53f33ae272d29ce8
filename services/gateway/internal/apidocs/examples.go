package apidocs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// examples are what can be copied: each runs against the emulator as it stands, once the first page's lines did.
// Where there is none, Without says why.
type examples struct {
	Curl, Command, TypeScript, Without string
	// Variables are set by whoever runs them.
	Variables []variable
}

// variable is something that only the installation knows, and the operation that lists it.
type variable struct{ Name, From string }

// variables are the path parameters that are different in each installation.
var variables = map[string]variable{
	"webhook":    {"WEBHOOK_ID", "listWebhooks"},
	"apiKey":     {"API_KEY_ID", "listApiKeys"},
	"member":     {"MEMBER_ID", "listMembers"},
	"session":    {"SESSION_ID", "listSessions"},
	"invitation": {"INVITATION_ID", "listInvitations"},
	"target":     {"TARGET_ID", "listNotificationTargets"},
	"commit":     {"COMMIT", "listBranches"},
	"userCode":   {"USER_CODE", "createLoginRequest"},
}

// queries are the parameters of examples, in order, by operation: a call that takes one of several needs one.
var queries = map[string][][2]string{
	"explain":        {{"app", "web"}, {"deployment", "1"}},
	"suggestServe":   {{"commit", "$COMMIT"}},
	"exportActivity": {{"format", "csv"}},
	"readLog":        {{"format", "text"}},
}

// others are the operations that are not for programs.
var others = map[string]string{
	"startAuthorization":  "A browser opens it: connectIntegration answers the address.",
	"finishAuthorization": "Bitbucket sends the browser here.",
	"deliver":             "Bitbucket sends deliveries here, signed with the webhook's secret.",
}

const placeholder = `\{([a-zA-Z_]+)\}`

var inPath = regexp.MustCompile(placeholder)

func exampleOf(method, path string, op op31) (examples, error) {
	if why, ok := others[op.OperationID]; ok {
		return examples{Without: why}, nil
	}
	var body []byte
	if op.RequestBody != nil {
		raw := op.RequestBody.Content["application/json"].Example
		if len(raw) == 0 {
			return examples{}, fmt.Errorf("apidocs: the document has no example of the body of %s", op.OperationID)
		}
		var b bytes.Buffer
		if err := json.Indent(&b, raw, "", "  "); err != nil {
			return examples{}, fmt.Errorf("apidocs: example of %s: %w", op.OperationID, err)
		}
		body = b.Bytes()
	}
	out := examples{Command: commands[op.OperationID]}
	for _, p := range op.Parameters {
		if v, ok := variables[p.Name]; ok && p.In == "path" {
			out.Variables = append(out.Variables, v)
		}
	}
	for _, q := range queries[op.OperationID] {
		if strings.HasPrefix(q[1], "$") {
			out.Variables = append(out.Variables, variables[q[0]])
		}
	}
	out.Curl = curl(method, path, op, body)
	out.TypeScript = typeScript(method, path, op, body)
	return out, nil
}

// value is what stands for a path parameter: of the emulator's sample, or a variable.
func value(op op31, name string) string {
	if v, ok := variables[name]; ok {
		return "$" + v.Name
	}
	for _, p := range op.Parameters {
		if p.In == "path" && p.Name == name {
			return strings.Trim(string(p.Example), `"`)
		}
	}
	return ""
}

// curl reads the key from a file, so that it stands in no list of processes.
func curl(method, path string, op op31, body []byte) string {
	if special, ok := curls[op.OperationID]; ok {
		return special
	}
	address := inPath.ReplaceAllStringFunc(path, func(p string) string { return value(op, strings.Trim(p, "{}")) })
	var query []string
	for _, q := range queries[op.OperationID] {
		query = append(query, q[0]+"="+q[1])
	}
	if len(query) > 0 {
		address += "?" + strings.Join(query, "&")
	}
	out := "curl -sS --fail-with-body -H @devpilot.header"
	if method != "get" {
		out += " -X " + strings.ToUpper(method)
	}
	out += ` "$DEVPILOT_URL` + address + `"`
	if body != nil {
		out += " \\\n  -H 'Content-Type: application/json' -d '" + strings.ReplaceAll(string(body), "'", `'\''`) + "'"
	}
	return out
}

// curls are the calls that differ: one that sends the secret itself, and one that does not end.
var curls = map[string]string{
	"createSession": `printf '{"token":"%s"}' "$DEVPILOT_KEY" | curl -sS --fail-with-body -c devpilot.cookies "$DEVPILOT_URL/v1/session" \
  -H 'Content-Type: application/json' -d @-`,
	"streamEvents": `curl -sS --fail-with-body -N -H @devpilot.header "$DEVPILOT_URL/v1/workspaces/default/events?include=object" | sed '/^event: ready/q'`,
}

// typeScripts are the calls for which the client has more than a method.
var typeScripts = map[string]string{
	"createSession": `const answer = await take(devpilot.POST("/v1/session", { body: { token: process.env["DEVPILOT_KEY"]! } }));
console.log(answer);`,
	"streamEvents": `for await (const event of followEvents(devpilot, { workspace: "default", include: ["object"] })) {
  console.log(event);
  if (event.event === "ready") break; // from here on it is live
}`,
	"readLog": `for await (const line of followLog(devpilot, { workspace: "default", app: "web", number: 1 })) console.log(line.text);`,
	"exportActivity": `const answer = await devpilot.open("/v1/workspaces/default/activity:export?format=csv", {});
console.log(await answer.text());`,
}

func typeScript(method, path string, op op31, body []byte) string {
	if special, ok := typeScripts[op.OperationID]; ok {
		return special
	}
	var params []string
	if names := inPath.FindAllStringSubmatch(path, -1); len(names) > 0 {
		var of []string
		for _, n := range names {
			of = append(of, n[1]+": "+literal(value(op, n[1]), n[1] == "number" || n[1] == "delivery"))
		}
		params = append(params, "path: { "+strings.Join(of, ", ")+" }")
	}
	if list := queries[op.OperationID]; len(list) > 0 {
		var of []string
		for _, q := range list {
			of = append(of, q[0]+": "+literal(q[1], q[0] == "deployment"))
		}
		params = append(params, "query: { "+strings.Join(of, ", ")+" }")
	}
	var parts []string
	if len(params) > 0 {
		parts = append(parts, "  params: { "+strings.Join(params, ", ")+" },\n")
	}
	if body != nil {
		parts = append(parts, "  body: "+strings.ReplaceAll(string(body), "\n", "\n  ")+",\n")
	}
	init := ""
	if len(parts) > 0 {
		init = ", {\n" + strings.Join(parts, "") + "}"
	}
	return fmt.Sprintf("const answer = await take(devpilot.%s(%q%s));\nconsole.log(answer);", strings.ToUpper(method), path, init)
}

// literal is a value as TypeScript writes it.
func literal(value string, number bool) string {
	if name, ok := strings.CutPrefix(value, "$"); ok {
		return fmt.Sprintf("process.env[%q]!", name)
	}
	if number {
		return value
	}
	return strconv.Quote(value)
}
