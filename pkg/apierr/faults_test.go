package apierr_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"devpilot.io/bitbucket/pkg/apierr"
)

func TestFaults_tellsAllAtOnce(t *testing.T) {
	var f apierr.Faults
	if f.Err() != nil {
		t.Error("an error without a fault")
	}
	f.Add("branch", "must be text")
	if one := apierr.From(f.Err()); one.Message() != apierr.InvalidArgument("branch", "must be text").Message() || len(one.Fields()) != 1 {
		t.Errorf("one fault: %v %v", one, one.Fields())
	}
	f.Add("branch", "something else")
	if err := f.Take(apierr.InvalidArgument("retention", "keep between 1 and 50 releases")); err != nil {
		t.Error(err)
	}
	other := errors.New("the disk is full")
	if err := f.Take(other); !errors.Is(err, other) {
		t.Errorf("another error became %v", err)
	}
	if err := f.Take(apierr.New(apierr.ReasonInvalidArgument, "no field")); err == nil {
		t.Error("an error that names no field was swallowed")
	}
	all := apierr.From(f.Err())
	if len(all.Fields()) != 2 || all.Fields()[0].Message != "must be text" || all.Fields()[1].Name != "retention" {
		t.Errorf("fields %v", all.Fields())
	}
	for _, word := range []string{"2 fields", `"branch": must be text`, `"retention": keep`} {
		if !strings.Contains(all.Message(), word) {
			t.Errorf("%q does not say %q", all.Message(), word)
		}
	}
}

func TestFaults_namesOfTheCallerAreBounded(t *testing.T) {
	var f apierr.Faults
	f.Add(strings.Repeat("ä", 1<<20), "unknown field")
	f.Add("bad\xffname", "unknown field")
	for i := range 1000 {
		f.Add(strings.Repeat("x", i+1), "unknown field")
	}
	e := apierr.From(f.Err())
	if !f.Full() || len(e.Fields()) != 50 || len(e.Message()) > 20<<10 {
		t.Errorf("%d fields, %d bytes", len(e.Fields()), len(e.Message()))
	}
	for _, v := range e.Fields() {
		if !utf8.ValidString(v.Name) || len(v.Name) > 210 {
			t.Errorf("name %q", v.Name)
		}
	}
}
