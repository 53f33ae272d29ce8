package checkup

import (
	"context"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
)

// Task is a check that is to be made.
type Task struct {
	Name  string
	Where string // which of several of the kind; see Check
	Run   func(ctx context.Context) Check
}

// How says how tasks are run.
type How struct {
	Limit time.Duration // of one check
	Late  string        // what to do about a check that does not end; see Check.Remedy
	// Secrets are texts that no check may show.
	Secrets []string
	// Tell hears which tasks have not ended yet, from several goroutines in turn. It may be nil.
	Tell func(open []string, all int)
}

// Run makes all checks at once, in the order of their tasks.
func Run(ctx context.Context, tasks []Task, how How) []Check {
	checks := make([]Check, len(tasks))
	tell := how.Tell
	if tell == nil {
		tell = func([]string, int) {}
	}
	var open []string
	for _, t := range tasks {
		open = append(open, t.Name)
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	tell(open, len(tasks))
	for i, t := range tasks {
		all.Go(func() {
			c := one(ctx, t, how)
			mu.Lock()
			defer mu.Unlock()
			checks[i] = c
			if at := slices.Index(open, t.Name); at >= 0 {
				open = slices.Delete(open, at, at+1)
			}
			tell(open, len(tasks))
		})
	}
	all.Wait()
	return checks
}

// one makes a check within its time, whether it keeps to that or not. What is said holds no secret.
func one(ctx context.Context, t Task, how How) Check {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, how.Limit)
	defer cancel()
	done := make(chan Check, 1)
	go func() { done <- t.Run(ctx) }()
	var c Check
	select {
	case c = <-done:
	case <-ctx.Done():
		c = Fail(fmt.Sprintf("It did not end within %s.", how.Limit), how.Late)
	}
	c.Name, c.Where, c.DurationMillis = t.Name, t.Where, time.Since(began).Milliseconds()
	for _, secret := range how.Secrets {
		c.Found, c.Remedy = strings.ReplaceAll(c.Found, secret, "[redacted]"), strings.ReplaceAll(c.Remedy, secret, "[redacted]")
	}
	return c
}

// SecretsOf are the texts that must not be shown of settings, a pointer to a struct of flags: those that are secrets, and the
// parts of URLs.
func SecretsOf(settings any) (all []string) {
	collect(reflect.ValueOf(settings).Elem(), &all)
	return all
}

func collect(v reflect.Value, all *[]string) {
	for i := range v.NumField() {
		switch field := v.Field(i); {
		case !v.Type().Field(i).IsExported():
		case field.Type() == reflect.TypeFor[seal.Secret]():
			*all = append(*all, secretParts(field.Interface().(seal.Secret).Reveal())...)
		case field.Kind() == reflect.Struct:
			collect(field, all)
		}
	}
}

// secretParts are a secret and, of an URL that has passwords, those, or what stands for the user.
func secretParts(text string) (parts []string) {
	for one := range strings.SplitSeq(text, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Scheme == "" || u.Host == "" {
			if one != "" {
				parts = append(parts, one)
			}
			continue
		}
		for name, values := range u.Query() {
			for _, value := range values {
				if strings.HasSuffix(name, "password") && value != "" {
					parts = append(parts, value, url.QueryEscape(value))
				}
			}
		}
		if password, has := u.User.Password(); has && password != "" {
			parts = append(parts, password, url.PathEscape(password))
		} else if u.User.Username() != "" {
			parts = append(parts, u.User.Username()) // a token
		}
	}
	return parts
}
