package edge

import (
	"bytes"
	"mime"
	"net/http"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
)

// formType is what curl says of a body when nobody tells it otherwise.
const formType = "application/x-www-form-urlencoded"

// JSONBody refuses a body whose sender says that it is something else than JSON in UTF-8. Where nothing is said it is
// JSON, which is all that is taken; so it is where curl said a form by itself and an object of JSON begins. That no page
// of another site sends either is what the cross-origin rules see to.
func JSONBody(r *http.Request, body []byte) error {
	said := r.Header.Values("Content-Type")
	if len(said) == 0 {
		return nil
	}
	kind, parameters, err := mime.ParseMediaType(said[0])
	charset, named := parameters["charset"]
	json := kind == "application/json" || strings.HasSuffix(kind, "+json") || kind == formType && bytes.HasPrefix(bytes.TrimSpace(body), []byte("{"))
	if err == nil && len(said) == 1 && json && (!named || strings.EqualFold(charset, "utf-8")) {
		return nil
	}
	return apierr.New(apierr.ReasonUnsupportedMedia, "The body must be JSON in UTF-8: send it with Content-Type: application/json.", apierr.WithField("Content-Type", "must be application/json"))
}
