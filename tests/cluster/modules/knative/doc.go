// Package knative pins Tekton, Knative Serving and Knative Eventing: go.mod lists their programs as tools, and their
// manifests come from the same modules.
package knative
