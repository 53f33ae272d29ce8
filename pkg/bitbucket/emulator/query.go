package emulator

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
)

// fieldsOf returns a field of an item for filtering and sorting: string, bool, time.Time or nil. ok is false for fields
// that cannot be filtered by.
type fieldsOf[T any] func(item T, field string) (value any, ok bool)

// filterAndSort applies the q and sort parameters (BITBUCKET.md#filters) to a copy of items.
func filterAndSort[T any](c *call, items []T, field fieldsOf[T]) ([]T, response, bool) {
	items = slices.Clone(items)
	if q := strings.TrimSpace(c.query.Get("q")); q != "" {
		predicate, err := parseQuery(q)
		if err != nil {
			return nil, failure(http.StatusBadRequest, err.Error()), false
		}
		var failed error
		items = slices.DeleteFunc(items, func(item T) bool {
			match, err := predicate(func(name string) (any, bool) { return field(item, name) })
			if err != nil {
				failed = err
			}
			return !match
		})
		if failed != nil {
			return nil, failure(http.StatusBadRequest, failed.Error()), false
		}
	}
	sortBy := c.query.Get("sort")
	if sortBy == "" {
		return items, response{}, true
	}
	name, descending := strings.CutPrefix(sortBy, "-")
	if len(items) > 0 {
		if _, known := field(items[0], name); !known {
			return nil, failure(http.StatusBadRequest, fmt.Sprintf("Field %q does not support sorting", name)), false
		}
	}
	slices.SortStableFunc(items, func(a, b T) int {
		left, _ := field(a, name)
		right, _ := field(b, name)
		if descending {
			return compareValues(right, left)
		}
		return compareValues(left, right)
	})
	return items, response{}, true
}

func compareValues(a, b any) int {
	switch a := a.(type) {
	case time.Time:
		if b, same := b.(time.Time); same {
			return a.Compare(b)
		}
	case bool:
		if b, same := b.(bool); same && a != b {
			if b {
				return -1
			}
			return 1
		}
		return 0
	case string:
		if b, same := b.(string); same {
			return cmp.Compare(a, b)
		}
	}
	return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

// predicate evaluates a parsed query over one item's fields.
type predicate func(field func(name string) (any, bool)) (bool, error)

type queryParser struct {
	tokens []string
	next   int
}

// parseQuery parses BBQL: comparisons joined by AND, OR and parentheses.
func parseQuery(q string) (predicate, error) {
	tokens, err := queryTokens(q)
	if err != nil {
		return nil, err
	}
	p := &queryParser{tokens: tokens}
	parsed, err := p.or()
	if err == nil && p.next < len(p.tokens) {
		err = fmt.Errorf("Invalid query near %q", p.tokens[p.next]) //nolint:staticcheck // wire text
	}
	return parsed, err
}

// queryTokens splits into names, operators, parentheses and values. Strings keep their opening quote as a mark.
func queryTokens(q string) ([]string, error) {
	var tokens []string
	for i := 0; i < len(q); {
		ch := q[i]
		switch {
		case ch == ' ' || ch == '\t' || ch == '\n':
			i++
		case ch == '(' || ch == ')':
			tokens = append(tokens, string(ch))
			i++
		case ch == '"':
			text, length, err := quoted(q[i:])
			if err != nil {
				return nil, err
			}
			tokens = append(tokens, `"`+text)
			i += length
		case strings.ContainsRune("=!~<>", rune(ch)):
			length := 1
			if i+1 < len(q) && slices.Contains([]string{"!=", "!~", ">=", "<="}, q[i:i+2]) {
				length = 2
			}
			tokens = append(tokens, q[i:i+length])
			i += length
		default:
			end := i
			for end < len(q) && !unicode.IsSpace(rune(q[end])) && !strings.ContainsRune(`()"=!~<>`, rune(q[end])) {
				end++
			}
			tokens = append(tokens, q[i:end])
			i = end
		}
	}
	return tokens, nil
}

// quoted reads a double-quoted string with \" and \\, and returns its text and its length in the source.
func quoted(source string) (string, int, error) {
	var text strings.Builder
	for i := 1; i < len(source); i++ {
		switch source[i] {
		case '\\':
			i++
			if i < len(source) {
				text.WriteByte(source[i])
			}
		case '"':
			return text.String(), i + 1, nil
		default:
			text.WriteByte(source[i])
		}
	}
	return "", 0, fmt.Errorf("Unterminated string in query") //nolint:staticcheck // wire text
}

func (p *queryParser) peek() string {
	if p.next < len(p.tokens) {
		return p.tokens[p.next]
	}
	return ""
}

func (p *queryParser) or() (predicate, error)  { return p.chain("OR", p.and) }
func (p *queryParser) and() (predicate, error) { return p.chain("AND", p.term) }

func (p *queryParser) chain(word string, operand func() (predicate, error)) (predicate, error) {
	left, err := operand()
	for err == nil && strings.EqualFold(p.peek(), word) {
		p.next++
		var right predicate
		if right, err = operand(); err == nil {
			left = join(word, left, right)
		}
	}
	return left, err
}

func join(word string, left, right predicate) predicate {
	return func(field func(string) (any, bool)) (bool, error) {
		a, err := left(field)
		if err != nil {
			return false, err
		}
		b, err := right(field)
		if word == "OR" {
			return a || b, err
		}
		return a && b, err
	}
}

func (p *queryParser) term() (predicate, error) {
	if p.peek() == "(" {
		p.next++
		inner, err := p.or()
		if err != nil {
			return nil, err
		}
		if p.peek() != ")" {
			return nil, fmt.Errorf("Invalid query: missing )") //nolint:staticcheck // wire text
		}
		p.next++
		return inner, nil
	}
	if p.next+3 > len(p.tokens) {
		return nil, fmt.Errorf("Invalid query near %q", p.peek()) //nolint:staticcheck // wire text
	}
	name, operator, value := p.tokens[p.next], p.tokens[p.next+1], p.tokens[p.next+2]
	if !slices.Contains([]string{"=", "!=", "~", "!~", ">", ">=", "<", "<="}, operator) {
		return nil, fmt.Errorf("Invalid query near %q", operator) //nolint:staticcheck // wire text
	}
	p.next += 3
	return comparison(name, operator, value), nil
}

func comparison(name, operator, literal string) predicate {
	return func(field func(string) (any, bool)) (bool, error) {
		have, known := field(name)
		if !known {
			return false, fmt.Errorf("Field %q does not support filtering", name) //nolint:staticcheck // wire text
		}
		want := literalFor(literal, have)
		contains := strings.Contains(strings.ToLower(fmt.Sprint(have)), strings.ToLower(fmt.Sprint(want)))
		order := compareValues(have, want)
		if name == "permission" { // none < read < write < admin, not the alphabet
			order = cmp.Compare(permissionRank(fmt.Sprint(have)), permissionRank(fmt.Sprint(want)))
		}
		switch operator {
		case "=":
			return order == 0, nil
		case "!=":
			return order != 0, nil
		case "~":
			return contains, nil
		case "!~":
			return !contains, nil
		case ">":
			return order > 0, nil
		case ">=":
			return order >= 0, nil
		case "<":
			return order < 0, nil
		default:
			return order <= 0, nil
		}
	}
}

// literalFor reads a literal of the query as the type of the field it is compared with.
func literalFor(literal string, have any) any {
	text, isString := strings.CutPrefix(literal, `"`)
	if _, isTime := have.(time.Time); isTime {
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
			if at, err := time.Parse(layout, text); err == nil {
				return at
			}
		}
	}
	switch {
	case isString:
		return text
	case strings.EqualFold(text, "true"):
		return true
	case strings.EqualFold(text, "false"):
		return false
	case strings.EqualFold(text, "null"):
		return nil
	default:
		return text
	}
}
