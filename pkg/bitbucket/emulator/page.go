package emulator

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// foreignOrigin is where FaultForeignNext points: a name that never resolves (RFC 6761).
const foreignOrigin = "https://api.bitbucket.invalid"

// paginate answers one page of items in the envelope of BITBUCKET.md#pages. render is called for that page only.
func paginate[T any](c *call, items []T, render func(T) any) response {
	pagelen, answer, valid := c.pagelen()
	if !valid {
		return answer
	}
	page, valid := c.page()
	start := (page - 1) * pagelen
	if !valid || (start >= len(items) && page > 1) {
		return failure(http.StatusNotFound, "Invalid page")
	}
	end := min(start+pagelen, len(items))
	values := make([]any, 0, end-start)
	for _, item := range items[start:end] {
		values = append(values, render(item))
	}
	body := obj{"values": values, "pagelen": pagelen, "page": page}
	if !c.switches.OmitSize {
		body["size"] = len(items)
	}
	if end < len(items) {
		body["next"] = c.pageURL(page + 1)
	}
	if page > 1 {
		body["previous"] = c.pageURL(page - 1)
	}
	return ok(body)
}

// pagelen is 10 unless asked otherwise; smaller ones than the documented 10 work, more than 100 does not.
func (c *call) pagelen() (int, response, bool) {
	raw := c.query.Get("pagelen")
	if raw == "" {
		return 10, response{}, true
	}
	pagelen, err := strconv.Atoi(raw)
	if err != nil || pagelen < 1 || pagelen > 100 {
		return 0, failure(http.StatusBadRequest, "Invalid pagelen"), false
	}
	return pagelen, response{}, true
}

const opaquePrefix = "page:"

func (c *call) page() (int, bool) {
	raw := c.query.Get("page")
	if raw == "" {
		return 1, true
	}
	if c.switches.OpaquePages {
		decoded, err := base64.RawURLEncoding.DecodeString(raw)
		if number, ok := strings.CutPrefix(string(decoded), opaquePrefix); err == nil && ok {
			raw = number
		}
	}
	page, err := strconv.Atoi(raw)
	return page, err == nil && page >= 1
}

// pageURL is the request's own URL, absolute, as it was addressed, with another page.
func (c *call) pageURL(page int) string {
	query := url.Values{}
	for name, values := range c.query {
		query[name] = values
	}
	query.Set("page", strconv.Itoa(page))
	if c.switches.OpaquePages {
		query.Set("page", base64.RawURLEncoding.EncodeToString([]byte(opaquePrefix+strconv.Itoa(page))))
	}
	origin := c.e.opts.SiteURL
	if c.x.foreignNext {
		origin = foreignOrigin
	}
	return origin + c.r.URL.EscapedPath() + "?" + query.Encode()
}

// selectFields applies the fields parameter (BITBUCKET.md#filters): names whitelist, "-name" removes, "+name" is there already;
// "*" stands for any one name.
func selectFields(body any, fields string) any {
	object, isObject := body.(obj)
	if !isObject {
		return body
	}
	var include, exclude [][]string
	for field := range strings.SplitSeq(fields, ",") {
		field = strings.TrimSpace(field)
		switch {
		case strings.HasPrefix(field, "-"):
			exclude = append(exclude, strings.Split(field[1:], "."))
		case field != "" && !strings.HasPrefix(field, "+"):
			include = append(include, strings.Split(field, "."))
		}
	}
	var result any = object
	if len(include) > 0 {
		result = keepFields(object, include)
	}
	return dropFields(result, exclude)
}

// keepFields copies what the paths name; a path that ends at an object keeps all of it.
func keepFields(value any, paths [][]string) any {
	switch value := value.(type) {
	case obj:
		kept := obj{}
		for name, child := range value {
			if rest, whole := descend(name, paths); whole {
				kept[name] = child
			} else if len(rest) > 0 {
				kept[name] = keepFields(child, rest)
			}
		}
		return kept
	case []any:
		kept := make([]any, len(value))
		for i, child := range value {
			kept[i] = keepFields(child, paths)
		}
		return kept
	default:
		return value
	}
}

func dropFields(value any, paths [][]string) any {
	if len(paths) == 0 {
		return value
	}
	switch value := value.(type) {
	case obj:
		kept := obj{}
		for name, child := range value {
			rest, whole := descend(name, paths)
			if !whole {
				kept[name] = dropFields(child, rest)
			}
		}
		return kept
	case []any:
		kept := make([]any, len(value))
		for i, child := range value {
			kept[i] = dropFields(child, paths)
		}
		return kept
	default:
		return value
	}
}

// descend returns what is left of the paths below a name, and whether one of them ends there.
func descend(name string, paths [][]string) (rest [][]string, whole bool) {
	for _, path := range paths {
		if path[0] != name && path[0] != "*" {
			continue
		}
		if len(path) == 1 {
			return nil, true
		}
		rest = append(rest, path[1:])
	}
	return rest, false
}
