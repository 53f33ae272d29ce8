package main

import (
	"fmt"
	"strings"
)

// where is what every question is bounded by: the variable of the page, for whoever runs several installations.
const where = `namespace=~"$namespace"`

// rates is how often something happens in a second, by labels.
func rates(counter string, by ...string) []line {
	return []line{{fmt.Sprintf("sum%s (rate(%s{%s}[$__rate_interval]))", grouped(by), counter, where), legend(counter, by)}}
}

// quantiles are the median and what 99 of 100 stay below.
func quantiles(histogram string) []line {
	var all []line
	for _, q := range []struct{ of, called string }{{"0.5", "median"}, {"0.99", "99 of 100"}} {
		all = append(all, line{fmt.Sprintf("histogram_quantile(%s, sum by (le) (rate(%s_bucket{%s}[$__rate_interval])))", q.of, histogram, where), q.called})
	}
	return all
}

// most is the largest that any replica tells: of what all tell the same, that.
func most(gauge string, by ...string) []line { return extreme("max", gauge, by) }

// least is the smallest that any replica tells.
func least(gauge string, by ...string) []line { return extreme("min", gauge, by) }

func extreme(of, gauge string, by []string) []line {
	return []line{{fmt.Sprintf("%s%s (%s{%s})", of, grouped(by), gauge, where), legend(gauge, by)}}
}

func grouped(by []string) string {
	if len(by) == 0 {
		return ""
	}
	return " by (" + strings.Join(by, ", ") + ")"
}

// legend names a series by its labels, and by its metric where a picture has more than one.
func legend(metric string, by []string) string {
	words := []string{strings.ReplaceAll(strings.TrimPrefix(metric, "devpilot_"), "_", " ")}
	for _, label := range by {
		words = append(words, "{{"+label+"}}")
	}
	return strings.Join(words, " ")
}
