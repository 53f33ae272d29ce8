// Command chart-settings keeps the chart's schema of settings equal to the programs': it makes the part "settings" of
// values.schema.json of the table in services/REFERENCE.md. With -check it says whether that was done.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// decided are the settings that the chart itself decides, by values of its own or because ports and directories
// are the pod's: they are no part of config.
var decided = map[string]bool{
	"listen": true, "grpc-listen": true, "ops-listen": true, "nats-url": true, "redis-url": true, "encryption-keyset-file": true, "identity-key-file": true,
	"auth-addr": true, "repo-addr": true, "webhook-addr": true, "deployer-addr": true, "bitbucket-client-secret": true, "admin-token": true,
	"identity-providers-file": true, "smtp-password": true, "data-dir": true, "cache-dir": true, "server": true, "roles": true,
	"live-listen": true, "live-advertise": true, "live-url": true,
	"tls-cert-file": true, "tls-key-file": true, "tls-ca-file": true, "allow-plaintext": true,
	// TLS ends at the ingress.
	"listen-cert-file": true, "listen-key-file": true,
	// Of the all-in-one process only.
	"emulator": true, "emulator-listen": true, "emulator-scenario": true, "scenario": true, "scenario-time": true,
}

func main() {
	reference := flag.String("reference", "../services/REFERENCE.md", "where the settings stand")
	schema := flag.String("schema", "chart/devpilot/values.schema.json", "the schema to write")
	check := flag.Bool("check", false, "write nothing, and fail where something is to be written")
	flag.Parse()
	if err := run(*reference, *schema, *check); err != nil {
		fmt.Fprintln(os.Stderr, "chart-settings:", err)
		os.Exit(1)
	}
}

func run(reference, schema string, check bool) error {
	table, err := os.ReadFile(reference)
	if err != nil {
		return err
	}
	old, err := os.ReadFile(schema)
	if err != nil {
		return err
	}
	var document map[string]any
	if err := json.Unmarshal(old, &document); err != nil {
		return fmt.Errorf("%s: %w", schema, err)
	}
	defs, ok := document["$defs"].(map[string]any)
	if !ok {
		return fmt.Errorf("%s has no $defs", schema)
	}
	properties := properties(string(table))
	if len(properties) == 0 {
		return fmt.Errorf("%s has no table of settings", reference)
	}
	defs["settings"] = map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(document); err != nil {
		return err
	}
	switch {
	case bytes.Equal(out.Bytes(), old):
		return nil
	case check:
		return fmt.Errorf("%s does not have the settings of %s: run make generate", schema, reference)
	}
	return os.WriteFile(schema, out.Bytes(), 0o644)
}

var row = regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\| [^|]* \\| ([^|]*) \\| ([^|]*) \\| (.*) \\|$")

// properties are the settings of the table that the chart leaves to its users.
func properties(table string) map[string]any {
	out := map[string]any{}
	for _, m := range row.FindAllStringSubmatch(table, -1) {
		if name := m[1]; !decided[name] {
			p := takes(strings.Trim(m[2], "` "), strings.TrimSpace(m[3]))
			p["description"] = m[4]
			out[name] = p
		}
	}
	return out
}

var (
	between = regexp.MustCompile(`^(-?\d+) to (-?\d+)$`)
	atLeast = regexp.MustCompile(`^at least (-?\d+)$`)
	someOf  = regexp.MustCompile(`^[a-z]+(, [a-z]+)+$`)
	numbers = regexp.MustCompile(`^\d+(, \d+)+$`)
)

// takes is the schema of what a setting takes.
func takes(standard, text string) map[string]any {
	switch {
	case standard == "true" || standard == "false":
		return map[string]any{"type": "boolean"}
	case between.MatchString(text):
		m := between.FindStringSubmatch(text)
		return map[string]any{"type": "integer", "minimum": number(m[1]), "maximum": number(m[2])}
	case atLeast.MatchString(text):
		return map[string]any{"type": "integer", "minimum": number(atLeast.FindStringSubmatch(text)[1])}
	case someOf.MatchString(text):
		return map[string]any{"enum": strings.Split(text, ", ")}
	case numbers.MatchString(text):
		var some []int64
		for _, n := range strings.Split(text, ", ") {
			some = append(some, number(n))
		}
		return map[string]any{"enum": some}
	case text != "": // a time
		return map[string]any{"type": "string", "pattern": `^([0-9.]+(ms|s|m|h))+$|^0$`}
	}
	return map[string]any{"type": []string{"string", "array"}, "items": map[string]any{"type": "string"}}
}

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err) // the expression has digits only
	}
	return n
}
