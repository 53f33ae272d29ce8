// Command released keeps what a chart renders, with its defaults and as in production, to try upgrades from it later.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"sigs.k8s.io/yaml"

	"devpilot.io/bitbucket/deploy/kube"
)

func main() {
	from := flag.String("chart", "../chart", "directory of devpilot and examples")
	to := flag.String("to", "testdata/released", "directory that the objects are written to")
	flag.Parse()
	if err := run(*from, *to); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(from, to string) error {
	c, err := loader.Load(filepath.Join(from, "devpilot"))
	if err != nil {
		return err
	}
	production, err := chartutil.ReadValuesFile(filepath.Join(from, "examples/production.yaml"))
	if err != nil {
		return err
	}
	for name, values := range map[string]map[string]any{"defaults": {}, "production": production} {
		objects, err := kube.Render(c, values, chartutil.DefaultCapabilities)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		var out bytes.Buffer
		for _, o := range objects {
			text, err := yaml.Marshal(o.Object)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			fmt.Fprintf(&out, "---\n%s", text)
		}
		if err := os.WriteFile(filepath.Join(to, name+".yaml"), out.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}
