package rest

import (
	"bytes"
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func TestCompact_isJSONWithoutTheSpacesBetween(t *testing.T) {
	for _, text := range []string{
		``, ` `, `"`, `\`, `\"`, `" , " : "`, `a\\" b`, "tab\there", "line\nbreak", `\u0022 `, "ж \u2028 end", `{"a": "b", "c": [1, 2]}`, `ends in \\`,
	} {
		for _, spaced := range []bool{false, true} {
			raw, err := protojson.MarshalOptions{Multiline: false}.Marshal(&deployerv1.App{Id: text, Branch: text + text, Server: " "})
			if err != nil {
				t.Fatal(err)
			}
			if spaced { // protojson's own spaces come and go with the build
				raw = bytes.ReplaceAll(raw, []byte(`":"`), []byte(`": "`))
			}
			var want bytes.Buffer
			if err := json.Compact(&want, raw); err != nil {
				t.Fatal(err)
			}
			if got := compact(bytes.Clone(raw)); !bytes.Equal(got, want.Bytes()) {
				t.Errorf("%s became %s, not %s", raw, got, want.Bytes())
			}
		}
	}
}
