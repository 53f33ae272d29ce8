package apidocs

import (
	"cmp"
	"fmt"
	"slices"
)

// field is a parameter, or a field by its path, as problems name it: app.hooks[].stage.
type field struct {
	Name, In, Type, Text string
	Required, ReadOnly   bool
	Limits               []string
	Values               []string
	Reason               bool // its values are the reasons
}

// shapes are the fields of a body: one shape, or one for each of what is possible.
func (d *document31) shapes(media string, s *schema) []shape {
	if s != nil && s.ContentSchema != nil { // a stream: of each line or event
		return d.shapes(media, s.ContentSchema)
	}
	name, to := d.resolve(s)
	if len(to.OneOf) > 0 {
		var out []shape
		for _, one := range to.OneOf {
			of, _ := d.resolve(one)
			for _, sh := range d.shapes(media, one) {
				sh.Name = media + ", " + of
				out = append(out, sh)
			}
		}
		return out
	}
	title := media
	if name != "" {
		title += ", " + name
	}
	return []shape{{Name: title, Fields: d.fields("", to, []string{name})}}
}

// fields lists the fields of a message and, below each, those of the message that it is; what is required comes first.
func (d *document31) fields(prefix string, s *schema, within []string) []field {
	names := sorted(s.Properties)
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(rank(s, a), rank(s, b))
	})
	var out []field
	for _, name := range names {
		of := s.Properties[name]
		out = append(out, d.field(prefix+name, of, slices.Contains(s.Required, name)))
		path := prefix + name + "."
		inner, to := d.resolve(of)
		if to.Type == "array" {
			path = prefix + name + "[]."
			inner, to = d.resolve(to.Items)
		}
		if len(to.Properties) > 0 && !slices.Contains(within, inner) {
			out = append(out, d.fields(path, to, append(slices.Clone(within), inner))...)
		}
	}
	return out
}

func rank(s *schema, name string) int {
	if slices.Contains(s.Required, name) {
		return 0
	}
	return 1
}

func (d *document31) field(name string, s *schema, required bool) field {
	ref, to := d.resolve(s)
	f := field{Name: name, Type: d.typeOf(s), Text: s.Description, Required: required, ReadOnly: s.ReadOnly, Limits: append(limits(to), itemLimits(to)...), Reason: ref == "Reason"}
	if f.Text == "" {
		f.Text = to.Description
	}
	values := to
	if to.Type == "array" {
		ref, values = d.resolve(to.Items)
	}
	if f.Reason = ref == "Reason"; f.Reason {
		f.Text = s.Description // the table of reasons has a page of its own
		return f
	}
	f.Values = values.Enum
	return f
}

func (d *document31) typeOf(s *schema) string {
	name, to := d.resolve(s)
	switch {
	case to.Type == "array":
		return "list of " + d.typeOf(to.Items)
	case to.others() != nil:
		return "map of " + d.typeOf(to.others())
	case to.Type == "object" && name != "":
		return name
	case to.Format == "date-time":
		return "time"
	case to.Format == "byte", to.Format == "binary":
		return "bytes"
	}
	return to.Type
}

// limits says in words what a value must be.
func limits(s *schema) []string {
	var out []string
	say := func(format string, n *int) {
		if n != nil {
			out = append(out, fmt.Sprintf(format, *n))
		}
	}
	if len(s.Default) > 0 {
		out = append(out, "default "+string(s.Default))
	}
	say("at least %d", s.Minimum)
	say("at most %d", s.Maximum)
	say("%d characters at least", s.MinLength)
	say("%d characters at most", s.MaxLength)
	say("%d entries at least", s.MinItems)
	say("%d entries at most", s.MaxItems)
	if s.Pattern != "" {
		out = append(out, "form `"+s.Pattern+"`")
	}
	return out
}

func itemLimits(s *schema) []string {
	if s.Items == nil || s.Items.Ref != "" {
		return nil
	}
	out := limits(s.Items)
	for i := range out {
		out[i] = "each " + out[i]
	}
	return out
}
