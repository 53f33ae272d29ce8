package activityexport

import (
	"bytes"
	"encoding/csv"
	"strconv"
	"strings"
	"time"

	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/rest"
)

type format string

const (
	formatCSV   format = "csv"
	formatJSONL format = "jsonl"
)

var formats = []format{formatCSV, formatJSONL}

func (f format) contentType() string {
	if f == formatCSV {
		return "text/csv; charset=utf-8"
	}
	return "application/x-ndjson"
}

// encode writes a page; a CSV file begins with the names of its columns.
func (f format) encode(list []*gatewayv1.ActivityRecord, first bool) ([]byte, error) {
	var b bytes.Buffer
	if f == formatJSONL {
		for _, a := range list {
			line, err := rest.Marshal(a)
			if err != nil {
				return nil, err
			}
			b.Write(line)
			b.WriteByte('\n')
		}
		return b.Bytes(), nil
	}
	w := csv.NewWriter(&b)
	if first {
		if err := w.Write(columns); err != nil {
			return nil, err
		}
	}
	for _, a := range list {
		if err := w.Write(row(a)); err != nil {
			return nil, err
		}
	}
	w.Flush()
	return b.Bytes(), w.Error()
}

var columns = []string{
	"time", "number", "actor", "actorKind", "action", "target", "succeeded", "reason", "message", "address", "requestId", "changes", "resource",
}

func row(a *gatewayv1.ActivityRecord) []string {
	var changes []string
	for _, c := range a.GetChanges() {
		changes = append(changes, c.GetField()+": "+orNotSet(c.GetBefore())+" → "+orNotSet(c.GetAfter()))
	}
	cells := []string{
		a.GetTime().AsTime().UTC().Format(time.RFC3339), strconv.Itoa(int(a.GetNumber())), a.GetActorLabel(), a.GetActorKind(), a.GetAction(), a.GetTarget(),
		strconv.FormatBool(a.GetSucceeded()), a.GetReason(), a.GetMessage(), a.GetAddress(), a.GetRequestId(), strings.Join(changes, "; "), a.GetResource(),
	}
	for i, c := range cells {
		cells[i] = asText(c)
	}
	return cells
}

func orNotSet(value string) string {
	if value == "" {
		return "not set"
	}
	return value
}

// asText keeps a spreadsheet from taking a cell for a formula: names and messages are other people's.
func asText(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r\n", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}
