// Package transport encrypts what goes over the network: a certificate for each service, by which the services know
// each other (TLS 1.3, both sides), and one for HTTP.
//
//	Files:       the PEM files; Open reads and checks them, Run reads them again when they change
//	Certificate: Server and Client for gRPC, HTTP for web servers
//	Authority:   makes certificates, for `devpilot certificates` and for tests
//
// The certificate of a service has the DNS name <service>.devpilot.internal, whatever its addresses are. No public
// authority can give out such a name.
package transport
