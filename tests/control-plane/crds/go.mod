module github-trigger.dev/tests/control-plane/crds

go 1.26.0

require (
	github.com/tektoncd/pipeline v1.12.0
	istio.io/api v1.31.1
	knative.dev/eventing v0.47.0
	knative.dev/serving v0.47.0
)
