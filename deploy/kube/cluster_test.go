package kube

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"helm.sh/helm/v3/pkg/chartutil"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// cluster is a kube-apiserver with its etcd, on this machine alone, and nothing else of Kubernetes.
type cluster struct {
	client       dynamic.Interface
	discovery    discovery.CachedDiscoveryInterface
	mapper       *restmapper.DeferredDiscoveryRESTMapper
	capabilities *chartutil.Capabilities
	warnings     *warnings
}

// startCluster starts the programs that ETCD and KUBE_APISERVER name. Admission is that of a server without settings:
// Pod Security, quotas, limits and service accounts are in it.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	dir := t.TempDir()
	clients, peers, address := freeAddress(t), freeAddress(t), freeAddress(t)
	etcdEnded := run(t, "ETCD", "--name", "only", "--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", "http://"+clients, "--advertise-client-urls", "http://"+clients,
		"--listen-peer-urls", "http://"+peers, "--initial-advertise-peer-urls", "http://"+peers, "--initial-cluster", "only=http://"+peers)

	token := rand.Text()
	tokens, key := filepath.Join(dir, "tokens.csv"), filepath.Join(dir, "accounts.pem")
	must(t, os.WriteFile(tokens, []byte(token+",admin,admin,system:masters\n"), 0o600))
	must(t, os.WriteFile(key, privateKey(t), 0o600))
	host, port, err := net.SplitHostPort(address)
	must(t, err)
	ended := run(t, "KUBE_APISERVER", "--etcd-servers", "http://"+clients, "--cert-dir", dir, "--bind-address", host, "--advertise-address", host, "--secure-port", port,
		"--service-cluster-ip-range", "10.0.0.0/24", "--endpoint-reconciler-type", "none", "--allow-privileged",
		"--authorization-mode", "RBAC", "--token-auth-file", tokens,
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-signing-key-file", key, "--service-account-key-file", key)

	c := &cluster{warnings: &warnings{}}
	config := &rest.Config{
		Host: "https://" + address, BearerToken: token, QPS: -1, WarningHandlerWithContext: c.warnings,
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(dir, "apiserver.crt")}, // which the server makes
	}
	eventually(t, func() string {
		select {
		case err := <-ended:
			t.Fatalf("kube-apiserver ended: %v", err)
		case err := <-etcdEnded:
			t.Fatalf("etcd ended: %v", err)
		default:
		}
		if err := ready(t.Context(), config); err != nil {
			return err.Error()
		}
		return ""
	})
	c.client, err = dynamic.NewForConfig(config)
	must(t, err)
	asked, err := discovery.NewDiscoveryClientForConfig(config)
	must(t, err)
	c.discovery = memory.NewMemCacheClient(asked)
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(c.discovery)
	is, err := c.discovery.ServerVersion()
	must(t, err)
	version, err := chartutil.ParseKubeVersion(is.GitVersion)
	must(t, err)
	c.capabilities = chartutil.DefaultCapabilities.Copy()
	c.capabilities.KubeVersion = *version
	return c
}

// ready asks the server whether all of it has started.
func ready(ctx context.Context, config *rest.Config) error {
	asked, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	return asked.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// privateKey is what tokens of service accounts are signed by.
func privateKey(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// warnings keeps what the server warns of. It is safe for concurrent use.
type warnings struct {
	mu   sync.Mutex
	text []string
}

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (w *warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, text)
}

// take returns the warnings since it was last called.
func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := w.text
	w.text = nil
	return text
}

// of is where objects of a kind are, in a namespace unless the kind has none.
func (c *cluster) of(namespace string, o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := o.GroupVersionKind()
	found, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	if found.Scope.Name() == meta.RESTScopeNameRoot {
		return c.client.Resource(found.Resource), nil
	}
	return c.client.Resource(found.Resource).Namespace(namespace), nil
}

// create makes all objects that the server takes, and tells of all that it refuses.
func (c *cluster) create(ctx context.Context, namespace string, objects ...*unstructured.Unstructured) error {
	var refused error
	for _, o := range objects {
		to, err := c.of(namespace, o)
		if err == nil {
			_, err = to.Create(ctx, o, metav1.CreateOptions{FieldManager: "helm", FieldValidation: metav1.FieldValidationStrict})
		}
		if err != nil {
			refused = errors.Join(refused, fmt.Errorf("%s: %w", id(o), err))
		}
	}
	return refused
}

// apply makes or changes all objects that the server takes, and tells of all that it refuses. What is applied twice is
// as it was.
func (c *cluster) apply(ctx context.Context, namespace string, objects ...*unstructured.Unstructured) (is map[string]*unstructured.Unstructured, refused error) {
	var err error
	is = map[string]*unstructured.Unstructured{}
	for _, o := range objects {
		if is[id(o)], err = c.applyOne(ctx, namespace, o); err != nil {
			refused = errors.Join(refused, fmt.Errorf("%s: %w", id(o), err))
		}
	}
	return is, refused
}

func (c *cluster) applyOne(ctx context.Context, namespace string, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	to, err := c.of(namespace, o)
	if err != nil {
		return nil, err
	}
	text, err := o.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return to.Patch(ctx, o.GetName(), types.ApplyPatchType, text, metav1.PatchOptions{FieldManager: "helm", FieldValidation: metav1.FieldValidationStrict})
}

func id(o *unstructured.Unstructured) string { return o.GetKind() + "/" + o.GetName() }

// parse reads what a test has written out.
func parse(t *testing.T, text string, args ...any) *unstructured.Unstructured {
	t.Helper()
	o, err := Parse(fmt.Appendf(nil, text, args...))
	must(t, err)
	return o
}
