package reference

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/gateway"
)

type setting struct{ group, flag, variable, fallback, bounds, help string }

func settingsTable() []setting {
	var list []setting
	for _, group := range servicemain.Groups() {
		t := reflect.TypeOf(group)
		for i := range t.NumField() {
			f := t.Field(i)
			s := setting{group: t.Name(), flag: f.Tag.Get("name"), variable: f.Tag.Get("env"), help: f.Tag.Get("help")}
			s.fallback = code1(f.Tag.Get("default"))
			switch least, most := f.Tag.Get("min"), f.Tag.Get("max"); {
			case f.Tag.Get("enum") != "":
				s.bounds = strings.ReplaceAll(f.Tag.Get("enum"), ",", ", ")
			case least != "" && most != "":
				s.bounds = least + " to " + most
			case least != "":
				s.bounds = "at least " + least
			}
			switch k := f.Type.Kind(); {
			case s.fallback != "none":
			case k == reflect.Bool:
				s.fallback = "`false`"
			case k == reflect.Int || k == reflect.Int64:
				s.fallback = "`0`"
			}
			if strings.HasPrefix(f.Tag.Get("default"), "${") {
				s.fallback = "[by program](#addresses)"
				if s.flag == "drain-delay" {
					s.fallback = "5s; 0s in one process"
				}
			}
			if f.Type == reflect.TypeFor[seal.Secret]() {
				s.variable += "`, `" + s.variable + "_FILE"
				s.bounds = "a secret: never a flag"
			}
			list = append(list, s)
		}
	}
	return list
}

func code1(text string) string {
	if text == "" {
		return "none"
	}
	return "`" + text + "`"
}

func writeSettings(b *strings.Builder, list []setting) {
	b.WriteString("\n## Settings\n\nA flag goes before its variable, and that before the default. `<program> --help` lists those that a program reads; one environment may be given\nto all of them.\n\n| flag | variable | default | takes | meaning |\n| --- | --- | --- | --- | --- |\n")
	for _, s := range list {
		fmt.Fprintf(b, "| `--%s` | `%s` | %s | %s | %s |\n", s.flag, s.variable, s.fallback, s.bounds, cell(s.help))
	}
}

func cell(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", "\\|")
}

// writeAddresses lists the default addresses of the programs' Specs and of the all-in-one process.
func (c *code) writeAddresses(b *strings.Builder) {
	b.WriteString("\n## Addresses\n\nDefaults of `--listen`, `--grpc-listen` and `--ops-listen`.\n\n| program | HTTP | gRPC | ops |\n| --- | --- | --- | --- |\n")
	for _, s := range c.packages {
		for _, f := range s.files {
			ast.Inspect(f, func(n ast.Node) bool {
				lit, ok := n.(*ast.CompositeLit)
				if !ok || !isSpec(lit.Type) {
					return true
				}
				has := map[string]string{}
				for _, e := range lit.Elts {
					if kv, ok := e.(*ast.KeyValueExpr); ok {
						if key, ok := kv.Key.(*ast.Ident); ok {
							has[key.Name] = s.text(kv.Value)
						}
					}
				}
				if has["Name"] != "" {
					fmt.Fprintf(b, "| %s | %s | %s | %s |\n", has["Name"], code1(has["Listen"]), code1(has["GRPCListen"]), code1(has["OpsListen"]))
				}
				return true
			})
		}
	}
	for _, s := range c.packages {
		if s.dir == "services/allinone" {
			fmt.Fprintf(b, "| devpilot (all in one) | %s | in memory | %s |\n", code1(s.named("DefaultListen")), code1(s.named("DefaultOpsListen")))
		}
	}
}

func isSpec(t ast.Expr) bool {
	if i, ok := t.(*ast.IndexExpr); ok {
		t = i.X
	}
	sel, ok := t.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "Spec"
}

// text is the value of a constant text, or "".
func (s *source) text(e ast.Expr) string {
	if v := s.info.Types[e].Value; v != nil && v.Kind() == constant.String {
		return constant.StringVal(v)
	}
	return ""
}

func (s *source) named(name string) string {
	for id, o := range s.info.Defs {
		if c, ok := o.(*types.Const); ok && id.Name == name && c.Val().Kind() == constant.String {
			return constant.StringVal(c.Val())
		}
	}
	return ""
}

func writeRoles(b *strings.Builder) {
	b.WriteString("\n## Roles and scopes\n\nWhat each call of the public API takes: the least role in its workspace, of an API key or token also the least scope, and\n" +
		"what it is for one that is limited to some apps.\n\n| call | role | scope | limited to apps |\n| --- | --- | --- | --- |\n")
	for _, row := range gateway.AccessTable() {
		role, scope, apps := row.Role.String(), row.Scope.String(), row.Apps
		if row.Access != gateway.Authenticated {
			role, scope, apps = "everybody", "", ""
		}
		if row.Operator {
			role = "operator"
		}
		if row.NoTokens {
			scope += ", keys only"
		}
		if row.NoPrograms {
			scope, apps = "none: for people and the admin token", ""
		}
		if row.Browser {
			scope, apps = "none: it takes a browser", ""
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", row.Name, role, scope, apps)
	}
}

var (
	bucketName = regexp.MustCompile(`^(?:(?:auth|repo|webhook|deployer|gateway|installation)[-_][a-z][a-z_-]*|DEVPILOT_AUTH_[A-Z]+)$`)
	streamName = regexp.MustCompile(`^DEVPILOT_[A-Z_]+$`)
)

// stores returns the buckets and the streams that the code names, each with the directory that does.
func (c *code) stores() (buckets, streams map[string]string) {
	buckets, streams = map[string]string{}, map[string]string{}
	for _, s := range c.packages {
		// These name settings and checks, and have no stores of their own.
		if s.dir == "pkg/servicemain" || s.dir == "pkg/checkup" || s.dir == "services/allinone/doctor" || !s.imports["github.com/nats-io/nats.go/jetstream"] && !strings.HasPrefix(s.dir, "pkg/stream") {
			continue
		}
		others := s.others()
		for _, name := range s.opened() {
			buckets[name] = s.dir
			delete(others, name)
		}
		for _, v := range s.info.Types {
			if v.Value == nil || v.Value.Kind() != constant.String {
				continue
			}
			switch name := constant.StringVal(v.Value); {
			case others[name]:
			case bucketName.MatchString(name):
				buckets[name] = s.dir
			case streamName.MatchString(name):
				streams[name] = s.dir
			}
		}
		for _, o := range s.info.Defs {
			if k, ok := o.(*types.Const); ok && k.Val().Kind() == constant.String && streamName.MatchString(constant.StringVal(k.Val())) {
				switch name := constant.StringVal(k.Val()); {
				case others[name]:
				case bucketName.MatchString(name):
					buckets[name] = s.dir
				default:
					streams[name] = s.dir
				}
			}
		}
	}
	return buckets, streams
}

// opened are the names of buckets that are named where they are opened, and their inventories.
func (s *source) opened() []string {
	var names []string
	take := func(key, value ast.Expr) {
		id, ok := key.(*ast.Ident)
		if sel, isSel := key.(*ast.SelectorExpr); isSel {
			id, ok = sel.Sel, true
		}
		switch text := s.text(value); {
		case !ok || text == "":
		case id.Name == "Inventory":
			names = append(names, text+"-inventory")
		case id.Name == "Name" && bucketName.MatchString(text):
			names = append(names, text)
		}
	}
	for _, f := range s.files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				take(n.Key, n.Value)
			case *ast.AssignStmt:
				take(n.Lhs[0], n.Rhs[0])
			}
			return true
		})
	}
	return names
}

// others are names of the same form that are no store's: of consumers, and parts of keys.
func (s *source) others() map[string]bool {
	names := map[string]bool{}
	for _, f := range s.files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Durable" {
					names[s.text(n.Value)] = true
				}
			case *ast.CallExpr:
				if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "EncodeKey" {
					for _, a := range n.Args {
						names[s.text(a)] = true
					}
				}
			}
			return true
		})
	}
	return names
}

func (c *code) writeStores(b *strings.Builder) {
	buckets, streams := c.stores()
	b.WriteString("\n## Buckets\n\nA new bucket is called `<service>-<plural>`. Those of `auth` and `gateway` are older than the rule and keep their names: a bucket's name is in the subject\nof every record, so another name would be another bucket, with other revisions, which callers hold as `etag`.\n\n| bucket | where |\n| --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(buckets)) {
		fmt.Fprintf(b, "| `%s` | `%s` |\n", name, buckets[name])
	}
	b.WriteString("\n## Streams\n\nA stream is called `DEVPILOT_<WHAT>`; its subjects begin with `devpilot.<what>.v1`. All names are of an installation without a name. One called\n`acme` (`DEVPILOT_INSTALLATION`) puts `acme_` before those of streams, buckets (`KV_acme_…`, `$KV.acme_….>`) and consumers, `acme.` before subjects and `acme:` before keys in Redis.\n\nThe share is of what `DEVPILOT_STREAMS_MIB` gives all streams together. Without one a stream has its own bound.\n\n| stream | where | share | why |\n| --- | --- | --- | --- |\n")
	shares := map[string]stream.Share{}
	for _, s := range stream.Shares() {
		shares[s.Stream] = s
	}
	for _, name := range slices.Sorted(maps.Keys(streams)) {
		share := ""
		if s, ok := shares[name]; ok {
			share = fmt.Sprintf("%d of %d", s.Of, stream.ShareParts)
		}
		fmt.Fprintf(b, "| `%s` | `%s` | %s | %s |\n", name, streams[name], share, shares[name].Why)
	}
}

type limit struct{ dir, name, value, meaning string }

// limits are the constants that are a time or a number and say in a comment what for.
func (c *code) limits() []limit {
	var list []limit
	for _, s := range c.packages {
		if strings.HasPrefix(s.dir, "pkg/bitbucket/emulator") || strings.Contains(s.dir, "/internal/papers") || strings.HasSuffix(s.dir, "/internal/reference") {
			continue
		}
		for _, f := range s.files {
			for _, d := range f.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok || g.Tok != token.CONST {
					continue
				}
				for _, spec := range g.Specs {
					list = append(list, s.limitsOf(g, spec.(*ast.ValueSpec))...)
				}
			}
		}
	}
	slices.SortStableFunc(list, func(a, b limit) int { return strings.Compare(a.dir+" "+a.name, b.dir+" "+b.name) })
	return list
}

func (s *source) limitsOf(g *ast.GenDecl, v *ast.ValueSpec) []limit {
	meaning := v.Doc.Text()
	if meaning == "" {
		meaning = v.Comment.Text()
	}
	if meaning == "" {
		meaning = g.Doc.Text()
	}
	if len(v.Values) != len(v.Names) {
		return nil // counts by iota
	}
	var list []limit
	for i, name := range v.Names {
		k, ok := s.info.Defs[name].(*types.Const)
		if !ok || k.Val().Kind() != constant.Int || counts(v.Values[i]) {
			continue
		}
		n, exact := constant.Int64Val(k.Val())
		if !exact {
			continue
		}
		var value string
		switch k.Type().String() {
		case "time.Duration":
			value = duration(time.Duration(n))
		case "int", "int64", "untyped int":
			value = number(n, v.Values[i])
		default:
			continue
		}
		if list = append(list, limit{s.dir, name.Name, value, cell(sentence(meaning))}); meaning == "" {
			s.mute = append(s.mute, s.dir+": "+name.Name)
		}
	}
	return list
}

// counts reports a constant that is one of a list, or a bit pattern of somebody else's.
func counts(e ast.Expr) bool {
	odd := false
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			odd = odd || n.Name == "iota"
		case *ast.BasicLit:
			odd = odd || strings.HasPrefix(n.Value, "0x")
		}
		return true
	})
	return odd
}

func sentence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if at := strings.Index(text, ". "); at > 0 {
		text = text[:at+1]
	}
	return text
}

func duration(d time.Duration) string {
	switch {
	case d >= 48*time.Hour && d%(24*time.Hour) == 0:
		return strconv.Itoa(int(d/(24*time.Hour))) + " days"
	default:
		text := d.String()
		text = strings.TrimSuffix(text, "m0s")
		if text != d.String() {
			text += "m"
		}
		if strings.HasSuffix(text, "h0m") {
			text = strings.TrimSuffix(text, "0m")
		}
		return text
	}
}

func number(n int64, e ast.Expr) string {
	size := false
	ast.Inspect(e, func(x ast.Node) bool {
		if b, ok := x.(*ast.BinaryExpr); ok && b.Op == token.SHL {
			size = true
		}
		return true
	})
	switch {
	case size && n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case size && n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case size && n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	text := strconv.FormatInt(n, 10)
	for at := len(text) - 3; at > 0 && n >= 10000; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

func writeLimits(b *strings.Builder, list []limit) {
	b.WriteString("\n## Limits\n\nConstants that decide something: sizes, counts, times, leases, pauses. Each stands once, in the package named.\n")
	dir := ""
	for _, l := range list {
		if l.dir != dir {
			dir = l.dir
			fmt.Fprintf(b, "\n### %s\n\n| name | value | what it decides |\n| --- | --- | --- |\n", strings.TrimPrefix(strings.Replace(dir, "services/", "", 1), "internal/"))
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", l.name, l.value, l.meaning)
	}
}
