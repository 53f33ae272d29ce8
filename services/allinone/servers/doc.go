// Package servers is `devpilot servers`: what an operator sees of the deployer's servers, and does about one that
// died. It works on the stores, so that it needs no process of Devpilot but the workers that the apps go to.
//
// Depends on services/deployer and services/allinone.
package servers
