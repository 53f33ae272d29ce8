package servicemain

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"devpilot.io/bitbucket/pkg/pasted"
	"devpilot.io/bitbucket/pkg/seal"
)

// envPrefix is of all our variables; those under it that nobody knows are errors.
const envPrefix = "DEVPILOT_"

// Process is what a program gets from outside.
type Process struct {
	Args    []string // without the program's name
	Environ []string // "NAME=value", as os.Environ
	Stdout  io.Writer
	Stderr  io.Writer

	adoptLogs bool // the process is ours: libraries that log by themselves do it through our logger
}

// OSProcess is the real one.
func OSProcess() Process {
	return Process{Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr, adoptLogs: true}
}

// Settings says what Parse reads.
type Settings struct {
	Name        string // of the program
	Description string
	Grammar     any               // pointer to a kong struct
	Embed       []any             // pointers to further kong structs, for the same level
	Vars        map[string]string // for ${…} in tags: ops_listen, drain_delay, listen, grpc_listen
	Required    []string          // variables that must be set, by flag or environment
}

// ErrHelp is returned by Parse after --help or --version was answered: nothing is left to do.
var ErrHelp = errors.New("help was shown")

// Parse reads flags and environment into the grammar. Its errors are for the person who starts the
// program: one sentence each that names the flag or the variable.
func Parse(p Process, s Settings) (*kong.Context, error) {
	if slices.Contains(p.Args, "--version") { // before anything is required
		fmt.Fprintln(p.Stdout, s.Name, Version)
		return nil, ErrHelp
	}
	var version struct {
		Version bool `name:"version" help:"Print the version and exit."`
	}
	r := &resolver{environ: environMap(p.Environ), names: map[*kong.Value]string{}}
	opts := []kong.Option{
		kong.Name(s.Name), kong.Description(s.Description), kong.Vars(s.Vars), kong.Writers(p.Stdout, p.Stderr),
		kong.PostBuild(r.adopt), kong.Resolvers(r), kong.ValueFormatter(r.help),
		kong.Exit(func(int) { panic(ErrHelp) }), // kong's --help ends the program; ours ends in Main only
	}
	for _, e := range append(s.Embed, &version) {
		opts = append(opts, kong.Embed(e))
	}
	parser, err := kong.New(s.Grammar, opts...)
	if err != nil {
		return nil, fmt.Errorf("settings of %s: %w", s.Name, err)
	}
	args, err := r.asMeant(p.Args)
	if err != nil {
		return nil, err
	}
	ctx, err := parse(parser, args)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(r.unknown(), r.secretsInArguments(ctx), r.outOfBounds(), r.missing(s.Required)); err != nil {
		return nil, err
	}
	return ctx, nil
}

func parse(parser *kong.Kong, args []string) (ctx *kong.Context, err error) {
	defer func() {
		if v := recover(); v != nil {
			if e, ok := v.(error); ok && errors.Is(e, ErrHelp) {
				ctx, err = nil, ErrHelp
				return
			}
			panic(v)
		}
	}()
	ctx, err = parser.Parse(args)
	if err != nil {
		return nil, fmt.Errorf("%w (--help lists the settings)", err)
	}
	return ctx, nil
}

func environMap(environ []string) map[string]string {
	m := make(map[string]string, len(environ))
	for _, kv := range environ {
		name, value, ok := strings.Cut(kv, "=")
		if ok && strings.HasPrefix(name, envPrefix) {
			value = pasted.Line(value)
		}
		if ok {
			m[name] = value
		}
	}
	return m
}

// resolver reads settings from the environment in kong's place: kong knows neither files nor empty
// variables, and quotes values in its errors.
type resolver struct {
	environ map[string]string
	names   map[*kong.Value]string // the variable of each flag
	flags   []*kong.Flag
}

var secretType = reflect.TypeFor[seal.Secret]()

func isSecret(v *kong.Value) bool { return v.Target.Type() == secretType }

// adopt takes the variables over from kong, which would read them itself.
func (r *resolver) adopt(k *kong.Kong) error {
	r.adoptNode(k.Model.Node)
	return nil
}

func (r *resolver) adoptNode(n *kong.Node) {
	for _, f := range n.Flags {
		if len(f.Tag.Envs) > 0 {
			r.names[f.Value] = f.Tag.Envs[0]
			f.Tag.Envs, f.Envs = nil, nil
		}
		r.flags = append(r.flags, f)
	}
	for _, child := range n.Children {
		r.adoptNode(child)
	}
}

// Validate implements kong.Resolver.
func (*resolver) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver: the value of a flag that was not given.
func (r *resolver) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	name, ok := r.names[flag.Value]
	if !ok {
		return nil, nil
	}
	value, set := r.environ[name]
	if set && value == "" && !mayBeNone(flag) {
		set = false
	}
	if err := oneLine(name, value); err != nil {
		return nil, err
	}
	if !isSecret(flag.Value) {
		if !set {
			return nil, nil
		}
		if flag.IsSlice() {
			value = eachAsMeant(value)
		}
		return value, nil
	}
	path := r.environ[name+"_FILE"]
	fromFile := path != ""
	switch {
	case set && fromFile:
		return nil, fmt.Errorf("both %s and %s_FILE are set: keep one", name, name)
	case set:
		return value, nil
	case !fromFile:
		return nil, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s_FILE: %w", name, err)
	}
	if !utf8.Valid(content) {
		return nil, fmt.Errorf("%s_FILE: %s is no text in UTF-8: save it as that, or as plain ASCII", name, path)
	}
	secret := pasted.Line(string(content))
	if secret == "" {
		return nil, fmt.Errorf("%s_FILE: %s is empty", name, path)
	}
	return secret, oneLine(name+"_FILE: "+path, secret)
}

// mayBeNone reports whether a setting that is given empty means none. Others then have their default.
func mayBeNone(flag *kong.Flag) bool { return flag.Tag.Get("empty") == "none" }

// oneLine refuses a value of several lines, as of a file or a clipboard that holds more than it. It does
// not show it: it may be a secret.
func oneLine(what, value string) error {
	if strings.ContainsFunc(value, unicode.IsControl) {
		return fmt.Errorf("%s has a line end or another control character within it: give the value alone, in one line", what)
	}
	return nil
}

// eachAsMeant takes the blanks around the members of a list away.
func eachAsMeant(list string) string {
	members := strings.Split(list, ",")
	for i, m := range members {
		members[i] = pasted.Line(m)
	}
	return strings.Join(slices.DeleteFunc(members, func(m string) bool { return m == "" }), ",")
}

// asMeant reads arguments as the environment is read: a flag that is given empty is as one that was not
// given, unless it may be none.
func (r *resolver) asMeant(args []string) ([]string, error) {
	var out []string
	for i := 0; i < len(args); i++ {
		name, value, joined := strings.Cut(args[i], "=")
		at := slices.IndexFunc(r.flags, func(f *kong.Flag) bool { return "--"+f.Name == name })
		if at < 0 || r.flags[at].IsBool() && !joined || !joined && i+1 == len(args) {
			out = append(out, args[i])
			continue
		}
		flag := r.flags[at]
		if !joined {
			i++
			value = args[i]
		}
		if value = pasted.Line(value); flag.IsSlice() {
			value = eachAsMeant(value)
		}
		if err := oneLine(name, value); err != nil {
			return nil, err
		}
		if value != "" || mayBeNone(flag) {
			out = append(out, name+"="+value)
		}
	}
	return out, nil
}

// help adds the variable to the help of a flag.
func (r *resolver) help(v *kong.Value) string {
	name, ok := r.names[v]
	switch {
	case !ok:
		return v.Help
	case isSecret(v):
		return fmt.Sprintf("%s Only by $%s or $%s_FILE, never as a flag.", v.Help, name, name)
	default:
		return fmt.Sprintf("%s ($%s)", v.Help, name)
	}
}

// secretsInArguments refuses secrets that were given as flags: every user of the machine can read
// the arguments of a process.
func (r *resolver) secretsInArguments(ctx *kong.Context) error {
	for _, p := range ctx.Path {
		if p.Flag != nil && !p.Resolved && isSecret(p.Flag.Value) {
			name := r.names[p.Flag.Value]
			return fmt.Errorf("--%s is not taken as a flag, since others can read a process's arguments: set %s, or %s_FILE to the path of a file that holds it",
				p.Flag.Name, name, name)
		}
	}
	return nil
}

// outOfBounds refuses numbers and times below a setting's min or above its max. A default is never refused: 0 is
// how some settings say that nothing is set.
func (r *resolver) outOfBounds() error {
	var errs []error
	for _, f := range r.flags {
		least, most := f.Tag.Get("min"), f.Tag.Get("max")
		low, high, got := amount(least, math.MinInt64), amount(most, math.MaxInt64), f.Target
		if !got.CanInt() || got.Int() >= low && got.Int() <= high || got.Int() == amount(f.Default, low) {
			continue
		}
		want := "at least " + least
		switch {
		case least == "":
			want = "at most " + most
		case most != "":
			want = "from " + least + " to " + most
		}
		name := "--" + f.Name
		if variable, ok := r.names[f.Value]; ok {
			name += " (" + variable + ")"
		}
		errs = append(errs, fmt.Errorf("%s is %v, which makes no sense: give %s. %s", name, got.Interface(), want, f.Help))
	}
	return errors.Join(errs...)
}

// amount reads a bound: a number or a time.
func amount(text string, none int64) int64 {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	if d, err := time.ParseDuration(text); err == nil {
		return int64(d)
	}
	return none
}

func (r *resolver) missing(required []string) error {
	var errs []error
	for _, name := range required {
		for _, f := range r.flags {
			if r.names[f.Value] != name || f.Set {
				continue
			}
			if isSecret(f.Value) {
				errs = append(errs, fmt.Errorf("%s is not set (nor %s_FILE): %s", name, name, f.Help))
			} else {
				errs = append(errs, fmt.Errorf("%s is not set (flag --%s): %s", name, f.Name, f.Help))
			}
		}
	}
	return errors.Join(errs...)
}

// UnknownError tells of a DEVPILOT_ variable that no program of the product reads.
type UnknownError struct {
	Name string // of the variable
	Near string // the setting that may have been meant; empty where none is near
}

func (e *UnknownError) Error() string {
	if e.Near != "" {
		return fmt.Sprintf("unknown setting %s in the environment: did you mean %s?", e.Name, e.Near)
	}
	return fmt.Sprintf("unknown setting %s in the environment (--help lists the settings)", e.Name)
}

// unknown refuses DEVPILOT_ variables that no program of the product reads: most likely misspelt.
func (r *resolver) unknown() error {
	// Those of the command line (services/cli), which a shell may have for its own use.
	known := map[string]bool{envPrefix + "URL": true, envPrefix + "KEY": true, envPrefix + "WORKSPACE": true}
	for v, name := range r.names {
		known[name] = true
		if isSecret(v) {
			known[name+"_FILE"] = true
		}
	}
	for _, group := range productFlags() {
		t := reflect.TypeOf(group)
		for i := range t.NumField() {
			name := t.Field(i).Tag.Get("env")
			known[name] = true
			if t.Field(i).Type == secretType {
				known[name+"_FILE"] = true
			}
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(r.environ)) {
		if !strings.HasPrefix(name, envPrefix) || known[name] || r.environ[name] == "" {
			continue
		}
		errs = append(errs, &UnknownError{Name: name, Near: nearest(name, slices.Sorted(maps.Keys(known)))})
	}
	return errors.Join(errs...)
}

// nearest returns the candidate with the fewest edits, or "" where none is near.
func nearest(name string, candidates []string) string {
	best, bestDistance := "", len(name)/4+1
	for _, c := range candidates {
		if d := distance(name, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
