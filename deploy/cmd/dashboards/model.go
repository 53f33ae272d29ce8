package main

type object = map[string]any

// The page has 24 columns.
const (
	panelWidth, panelHeight = 8, 7
	schemaVersion           = 39 // of Grafana 10, which later ones read
)

// source is the variable that names the Prometheus to ask.
var source = object{"type": "prometheus", "uid": "${datasource}"}

// model is a board as Grafana imports it.
func model(b board) object {
	var panels []object
	id, y := 0, 0
	next := func() int { id++; return id }
	for _, r := range b.rows {
		panels = append(panels, object{"id": next(), "type": "row", "title": r.title, "collapsed": false, "panels": []object{}, "gridPos": object{"x": 0, "y": y, "w": 24, "h": 1}})
		y++
		for i, p := range r.panels {
			if i > 0 && i%3 == 0 {
				y += panelHeight
			}
			panels = append(panels, graph(p, next(), object{"x": i % 3 * panelWidth, "y": y, "w": panelWidth, "h": panelHeight}))
		}
		y += panelHeight
	}
	return object{
		"uid": "devpilot-" + b.file, "title": b.title, "description": b.about, "tags": []string{"devpilot"},
		"schemaVersion": schemaVersion, "editable": true, "graphTooltip": 1, "refresh": "30s", "time": object{"from": "now-6h", "to": "now"},
		"links": []object{{"type": "dashboards", "tags": []string{"devpilot"}, "asDropdown": true, "title": "Devpilot", "keepTime": true, "includeVars": true}},
		"templating": object{"list": []object{
			{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
			{
				"name": "namespace", "type": "query", "label": "Namespace", "datasource": source, "refresh": 2, "multi": true, "includeAll": true,
				// Where there are no namespaces, all is meant.
				"allValue": ".*", "current": object{"text": "All", "value": "$__all"}, "query": "label_values(devpilot_build_info, namespace)",
			},
		}},
		"panels": panels,
	}
}

func graph(p panel, id int, place object) object {
	var targets []object
	for i, l := range p.lines {
		targets = append(targets, object{"refId": string(rune('A' + i)), "datasource": source, "expr": l.expr, "legendFormat": l.legend})
	}
	return object{
		"id": id, "type": "timeseries", "title": p.title, "description": p.what, "datasource": source, "gridPos": place, "targets": targets,
		"fieldConfig": object{"defaults": object{"unit": p.unit, "min": 0, "custom": object{"fillOpacity": 10, "showPoints": "never"}}, "overrides": []object{}},
		"options":     object{"legend": object{"displayMode": "list", "placement": "bottom"}, "tooltip": object{"mode": "multi", "sort": "desc"}},
	}
}
