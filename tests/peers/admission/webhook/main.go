// Webhook is the tests' admission webhook for objects of Knative Serving, Knative Eventing and Tekton Pipelines. It
// uses the projects' own defaults and validation.
//
// It prints its listening address, and exits when its standard input is closed.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"

	pipelinev1 "github.com/tektoncd/pipeline/pkg/apis/pipeline/v1"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/eventing/pkg/apis/config"
	eventingv1 "knative.dev/eventing/pkg/apis/eventing/v1"
	"knative.dev/eventing/pkg/apis/feature"
	"knative.dev/pkg/apis"
	"knative.dev/pkg/apis/duck"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/yaml"
)

// resource is the interface that the types of all three projects implement.
type resource interface {
	apis.Defaultable
	apis.Validatable
}

var resources = map[metav1.GroupVersionKind]func() resource{
	{Group: "serving.knative.dev", Version: "v1", Kind: "Service"}:       func() resource { return &servingv1.Service{} },
	{Group: "serving.knative.dev", Version: "v1", Kind: "Configuration"}: func() resource { return &servingv1.Configuration{} },
	{Group: "serving.knative.dev", Version: "v1", Kind: "Revision"}:      func() resource { return &servingv1.Revision{} },
	{Group: "serving.knative.dev", Version: "v1", Kind: "Route"}:         func() resource { return &servingv1.Route{} },
	{Group: "eventing.knative.dev", Version: "v1", Kind: "Broker"}:       func() resource { return &eventingv1.Broker{} },
	{Group: "eventing.knative.dev", Version: "v1", Kind: "Trigger"}:      func() resource { return &eventingv1.Trigger{} },
	{Group: "tekton.dev", Version: "v1", Kind: "Pipeline"}:               func() resource { return &pipelinev1.Pipeline{} },
	{Group: "tekton.dev", Version: "v1", Kind: "PipelineRun"}:            func() resource { return &pipelinev1.PipelineRun{} },
	{Group: "tekton.dev", Version: "v1", Kind: "Task"}:                   func() resource { return &pipelinev1.Task{} },
	{Group: "tekton.dev", Version: "v1", Kind: "TaskRun"}:                func() resource { return &pipelinev1.TaskRun{} },
}

func main() {
	certificate := flag.String("cert", "", "PEM file with the server's certificate")
	key := flag.String("key", "", "PEM file with its private key")
	eventing := flag.String("eventing-config", "", "folder with Eventing's shipped ConfigMaps")
	flag.Parse()
	if err := readEventingConfig(*eventing); err != nil {
		log.Fatal(err)
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	http.HandleFunc("/default", answer(setDefaults))
	http.HandleFunc("/validate", answer(validate))
	log.Fatal(http.ServeTLS(listener, nil, *certificate, *key))
}

var (
	features feature.Flags
	defaults *config.Defaults
)

// readEventingConfig reads Eventing's shipped features and defaults, which apply to Brokers and Triggers.
func readEventingConfig(folder string) error {
	read := func(name string) (*corev1.ConfigMap, error) {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return nil, err
		}
		parsed := &corev1.ConfigMap{}
		return parsed, yaml.Unmarshal(text, parsed)
	}
	flags, err := read("features.yaml")
	if err != nil {
		return err
	}
	if features, err = feature.NewFlagsConfigFromConfigMap(flags); err != nil {
		return err
	}
	broker, err := read("default-broker.yaml")
	if err != nil {
		return err
	}
	defaults, err = config.NewDefaultsConfigFromConfigMap(broker)
	return err
}

// answer returns a handler that wraps the result of decide in an AdmissionReview: a JSON patch, or an error to deny.
func answer(decide func(*admissionv1.AdmissionRequest) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
			http.Error(w, "no AdmissionReview", http.StatusBadRequest)
			return
		}
		response := &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		patch, err := decide(review.Request)
		if err != nil {
			response.Allowed = false
			response.Result = &metav1.Status{Code: http.StatusBadRequest, Message: err.Error(), Reason: metav1.StatusReasonBadRequest}
		}
		if patch != nil {
			kind := admissionv1.PatchTypeJSONPatch
			response.Patch, response.PatchType = patch, &kind
		}
		review.Request, review.Response = nil, response
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}
}

// decode parses an object and rejects unknown fields, as the projects' own webhooks do.
func decode(kind metav1.GroupVersionKind, raw []byte) (resource, error) {
	create, known := resources[kind]
	if !known {
		return nil, fmt.Errorf("unhandled kind: %v", kind)
	}
	object := create()
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(object); err != nil {
		return nil, fmt.Errorf("cannot decode incoming object: %w", err)
	}
	return object, nil
}

// contextFor returns the context for defaults and validation: operation, user, old object and configuration.
func contextFor(request *admissionv1.AdmissionRequest) (context.Context, error) {
	ctx := apis.WithUserInfo(context.Background(), &request.UserInfo)
	ctx = feature.ToContext(ctx, features)
	ctx = config.ToContext(ctx, &config.Config{Defaults: defaults})
	if request.DryRun != nil && *request.DryRun {
		ctx = apis.WithDryRun(ctx)
	}
	switch request.Operation {
	case admissionv1.Create:
		return apis.WithinCreate(ctx), nil
	case admissionv1.Update:
		old, err := decode(request.Kind, request.OldObject.Raw)
		if err != nil {
			return nil, err
		}
		return apis.WithinUpdate(ctx, old), nil
	default:
		return nil, errors.New("neither create nor update")
	}
}

// read returns the object of a request, and the context for its defaults and validation.
func read(request *admissionv1.AdmissionRequest) (resource, context.Context, error) {
	object, err := decode(request.Kind, request.Object.Raw)
	if err != nil {
		return nil, nil, err
	}
	ctx, err := contextFor(request)
	return object, ctx, err
}

func setDefaults(request *admissionv1.AdmissionRequest) ([]byte, error) {
	object, ctx, err := read(request)
	if err != nil {
		return nil, err
	}
	object.SetDefaults(ctx)
	after, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	// The patch starts from the object as sent, so that it includes the fields that marshalling adds.
	return duck.CreateBytePatch(json.RawMessage(request.Object.Raw), json.RawMessage(after))
}

func validate(request *admissionv1.AdmissionRequest) ([]byte, error) {
	object, ctx, err := read(request)
	if err != nil {
		return nil, err
	}
	if found := object.Validate(ctx); found != nil {
		if problems := found.Filter(apis.ErrorLevel); problems != nil {
			return nil, fmt.Errorf("validation failed: %w", problems)
		}
	}
	return nil, nil
}
