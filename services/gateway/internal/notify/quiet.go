package notify

import (
	"time"
	_ "time/tzdata" // a container may have no time zones

	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

// quietUntil is when the quiet hours end that a moment lies in; zero when it lies in none. They are
// times of the clock on the wall: on days on which that is moved they are shorter or longer.
func quietUntil(q *gatewayv1.QuietHours, at time.Time) time.Time {
	if q == nil {
		return time.Time{}
	}
	zone, err := time.LoadLocation(q.GetTimeZone())
	if err != nil {
		return time.Time{} // never stored
	}
	start, err1 := time.Parse(quietLayout, q.GetStart())
	end, err2 := time.Parse(quietLayout, q.GetEnd())
	if err1 != nil || err2 != nil {
		return time.Time{}
	}
	at = at.In(zone)
	for _, days := range []int{-1, 0} { // hours that began yesterday may last
		day := at.AddDate(0, 0, days)
		from := time.Date(day.Year(), day.Month(), day.Day(), start.Hour(), start.Minute(), 0, 0, zone)
		until := time.Date(day.Year(), day.Month(), day.Day(), end.Hour(), end.Minute(), 0, 0, zone)
		if !end.After(start) {
			until = time.Date(day.Year(), day.Month(), day.Day()+1, end.Hour(), end.Minute(), 0, 0, zone)
		}
		if !at.Before(from) && at.Before(until) {
			return until
		}
	}
	return time.Time{}
}
