package notify

import (
	"encoding/json"
	"fmt"
	"html/template"
	"strings"
	"time"

	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

// eventNames are the types in a webhook's body: while it is so, and when it is over.
var eventNames = map[gatewayv1.NotificationTarget_Event][2]string{
	gatewayv1.NotificationTarget_EVENT_UNSPECIFIED:    {"test"},
	gatewayv1.NotificationTarget_DEPLOYMENT_FAILED:    {"deployment.failed"},
	gatewayv1.NotificationTarget_DEPLOYMENT_RECOVERED: {"deployment.recovered"},
	gatewayv1.NotificationTarget_APP_BEHIND:           {"app.behind"},
	gatewayv1.NotificationTarget_CONNECTION:           {"connection.failing", "connection.restored"},
	gatewayv1.NotificationTarget_WEBHOOK_NEEDS_PERSON: {"webhook.needsPerson", "webhook.restored"},
	gatewayv1.NotificationTarget_DISK_LOW:             {"disk.low", "disk.restored"},
	gatewayv1.NotificationTarget_KEY_EXPIRING:         {"apiKey.expiring"},
	gatewayv1.NotificationTarget_CERTIFICATE_EXPIRING: {"certificate.expiring", "certificate.renewed"},
}

func eventName(n *gatewaystorev1.Notification) string {
	names := eventNames[n.GetEvent()]
	if n.GetResolved() {
		return names[1]
	}
	return names[0]
}

// mark begins a line, so that good and bad news are told apart at a glance and without colours.
func mark(n *gatewaystorev1.Notification) string {
	switch {
	case n.GetEvent() == gatewayv1.NotificationTarget_EVENT_UNSPECIFIED:
		return "•"
	case n.GetResolved() || n.GetEvent() == gatewayv1.NotificationTarget_DEPLOYMENT_RECOVERED:
		return "✓"
	case n.GetEvent() == gatewayv1.NotificationTarget_DEPLOYMENT_FAILED || n.GetEvent() == gatewayv1.NotificationTarget_CONNECTION:
		return "✗"
	}
	return "!"
}

// rendering is a message on its way to people.
type rendering struct {
	workspace string
	publicURL string // without a final slash
	msg       *gatewaystorev1.NotificationMessage
}

func (r rendering) link(n *gatewaystorev1.Notification) string { return r.publicURL + n.GetPath() }

// title is the message in a few words.
func (r rendering) title() string {
	list := r.msg.GetNotifications()
	if len(list) == 1 && r.msg.GetDropped() == 0 {
		return mark(list[0]) + " " + list[0].GetTitle()
	}
	return fmt.Sprintf("%d notifications of %s", len(list)+int(r.msg.GetDropped()), r.workspace)
}

// more says what is left out; empty when nothing is.
func (r rendering) more() string {
	if n := r.msg.GetDropped(); n > 0 {
		return fmt.Sprintf("And %d more, which are not listed: too much happened at once.", n)
	}
	return ""
}

// item is a notification as a webhook gets it.
type item struct {
	ID         string    `json:"id"`
	Type       string    `json:"type"`
	Time       time.Time `json:"time"`
	Workspace  string    `json:"workspace"`
	App        string    `json:"app,omitempty"`
	Deployment int32     `json:"deployment,omitempty"`
	Branch     string    `json:"branch,omitempty"`
	Commit     string    `json:"commit,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Title      string    `json:"title"`
	Text       string    `json:"text,omitempty"`
	Lines      []string  `json:"lines,omitempty"`
	URL        string    `json:"url"`
}

func (r rendering) item(n *gatewaystorev1.Notification) item {
	return item{
		ID: n.GetId(), Type: eventName(n), Time: n.GetTime().AsTime(), Workspace: r.workspace, App: n.GetApp(), Deployment: n.GetDeployment(),
		Branch: n.GetBranch(), Commit: n.GetCommit(), Reason: n.GetReason(), Title: n.GetTitle(), Text: n.GetText(), Lines: n.GetLines(), URL: r.link(n),
	}
}

// webhook is the body of a WEBHOOK: the notification, or several under "notifications".
func (r rendering) webhook() ([]byte, error) {
	list := r.msg.GetNotifications()
	if len(list) == 1 && r.msg.GetDropped() == 0 {
		return json.Marshal(r.item(list[0]))
	}
	several := struct {
		ID            string `json:"id"`
		Type          string `json:"type"`
		Workspace     string `json:"workspace"`
		Title         string `json:"title"`
		Notifications []item `json:"notifications"`
		NotListed     int32  `json:"notListed"`
	}{ID: r.msg.GetId(), Type: "several", Workspace: r.workspace, Title: r.title(), NotListed: r.msg.GetDropped()}
	for _, n := range list {
		several.Notifications = append(several.Notifications, r.item(n))
	}
	return json.Marshal(several)
}

// Slack takes at most 50 blocks, and 3,000 characters in each.
const (
	maxBlocks    = 45   // beyond them notifications are counted
	maxBlockText = 2900 // characters
)

var slackEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

type slackText struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type slackBlock struct {
	Type string    `json:"type"`
	Text slackText `json:"text"`
}

// slack is the body for an incoming webhook of Slack, and of those that take the same. What a person or
// a program wrote is escaped: nothing in a log may ring for a channel or make a link.
func (r rendering) slack() ([]byte, error) {
	var blocks []slackBlock
	section := func(text string) {
		if chars := []rune(text); len(chars) > maxBlockText {
			text = string(chars[:maxBlockText]) + "…"
		}
		blocks = append(blocks, slackBlock{Type: "section", Text: slackText{Type: "mrkdwn", Text: text}})
	}
	list, left := r.msg.GetNotifications(), r.more()
	if len(list) > 1 {
		section("*" + slackEscapes.Replace(r.title()) + "*")
	}
	for i, n := range list {
		if len(blocks) >= maxBlocks {
			left = fmt.Sprintf("And %d more.", len(list)-i+int(r.msg.GetDropped()))
			break
		}
		section(fmt.Sprintf("*<%s|%s %s>*\n%s", r.link(n), mark(n), slackEscapes.Replace(n.GetTitle()), slackEscapes.Replace(n.GetText())))
		if lines := n.GetLines(); len(lines) > 0 {
			text := slackEscapes.Replace(strings.ReplaceAll(strings.Join(lines, "\n"), "```", "'''"))
			if chars := []rune(text); len(chars) > maxBlockText-10 {
				text = "…" + string(chars[len(chars)-(maxBlockText-10):])
			}
			section("```\n" + text + "\n```")
		}
	}
	if left != "" {
		section(left)
	}
	return json.Marshal(struct {
		Text   string       `json:"text"`
		Blocks []slackBlock `json:"blocks"`
	}{slackEscapes.Replace(r.title()), blocks})
}

// text is the plain part of a mail.
func (r rendering) text() string {
	var b strings.Builder
	for i, n := range r.msg.GetNotifications() {
		if i > 0 {
			b.WriteString("\n----\n\n")
		}
		fmt.Fprintf(&b, "%s %s\n\n%s\n", mark(n), n.GetTitle(), n.GetText())
		if len(n.GetLines()) > 0 {
			b.WriteString("\n")
		}
		for _, line := range n.GetLines() {
			b.WriteString("    " + line + "\n")
		}
		fmt.Fprintf(&b, "\n%s\n", r.link(n))
	}
	if more := r.more(); more != "" {
		b.WriteString("\n" + more + "\n")
	}
	fmt.Fprintf(&b, "\n--\nDevpilot, workspace %s. Choose what you hear of: %s\n", r.workspace, r.settings())
	return b.String()
}

// settings is the page on which targets are changed.
func (r rendering) settings() string { return r.publicURL + settingsPath(r.workspace) }

var mailPage = template.Must(template.New("mail").Parse(`<!doctype html>
<html lang="en"><body style="font-family:sans-serif;line-height:1.5;max-width:40em">
{{range .List}}<h2 style="font-size:1.1em">{{.Mark}} {{.Title}}</h2>
<p>{{.Text}}</p>
{{with .Lines}}<pre style="padding:8px;border:1px solid #999;overflow:auto">{{range .}}{{.}}
{{end}}</pre>
{{end}}<p><a href="{{.URL}}">{{.URL}}</a></p>
{{end}}{{with .More}}<p>{{.}}</p>
{{end}}<hr><p style="font-size:.9em">Devpilot, workspace {{.Workspace}}. <a href="{{.Settings}}">Choose what you hear of</a></p>
</body></html>
`))

// html is the other part of a mail.
func (r rendering) html() (string, error) {
	type entry struct {
		item
		Mark string
	}
	data := struct {
		List                      []entry
		More, Workspace, Settings string
	}{More: r.more(), Workspace: r.workspace, Settings: r.settings()}
	for _, n := range r.msg.GetNotifications() {
		data.List = append(data.List, entry{r.item(n), mark(n)})
	}
	var b strings.Builder
	err := mailPage.Execute(&b, data)
	return b.String(), err
}
