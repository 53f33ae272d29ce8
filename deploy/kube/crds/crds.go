// Package crds requires the modules that publish the definitions of the chart's custom resources. Of each it imports the
// smallest package, so that go.mod keeps them; what is read is their files.
package crds

import (
	_ "github.com/cert-manager/cert-manager/pkg/apis/certmanager"
	_ "github.com/kedacore/keda/v2/version"
	_ "github.com/prometheus-operator/prometheus-operator/pkg/versionutil"
	_ "sigs.k8s.io/gateway-api/pkg/consts"
)
