// Broker is the data plane of a Knative Broker with one Trigger, in one process: the dispatcher with the Trigger's retry
// policy and dead letter sink in front of the Broker's own filter handler, which sends to the subscriber.
//
// It prints its listening address, answers an event when its dispatch has ended, and exits when its standard input is
// closed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	eventingbroker "knative.dev/eventing/pkg/broker"
	"knative.dev/eventing/pkg/broker/filter"

	eventingv1 "knative.dev/eventing/pkg/apis/eventing/v1"
	"knative.dev/eventing/pkg/auth"
	"knative.dev/eventing/pkg/client/clientset/versioned/fake"
	"knative.dev/eventing/pkg/client/informers/externalversions"
	"knative.dev/eventing/pkg/eventingtls"
	"knative.dev/eventing/pkg/kncloudevents"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	kubeclient "knative.dev/pkg/client/injection/kube/client"
	"sigs.k8s.io/yaml"
)

type broker struct {
	trigger    *eventingv1.Trigger
	dispatcher *kncloudevents.Dispatcher
	retry      kncloudevents.RetryConfig
	filter     duckv1.Addressable
	dead       *duckv1.Addressable
	reply      *duckv1.Addressable
}

func main() {
	manifest := flag.String("trigger", "", "YAML file with the Trigger")
	subscriber := flag.String("subscriber", "", "URL of the Trigger's subscriber")
	audience := flag.String("audience", "", "OIDC audience of the subscriber; no token is sent without it")
	account := flag.String("service-account", "", "service account of the Trigger, for OIDC")
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig of the API server that issues the tokens")
	deadLetters := flag.String("dead-letter-sink", "", "URL for undeliverable events")
	replies := flag.String("reply", "", "URL for reply events")
	flag.Parse()

	trigger := &eventingv1.Trigger{}
	text, err := os.ReadFile(*manifest)
	must(err)
	must(yaml.UnmarshalStrict(text, trigger))
	trigger.UID = "7d5f0bb6-1b1e-4d9c-9a5e-0d6c3d0c4b7a"
	if trigger.Namespace == "" {
		trigger.Namespace = "default"
	}
	trigger.Status.SubscriberURI = url(*subscriber)
	ctx := context.Background()
	if *audience != "" {
		trigger.Status.SubscriberAudience = audience
		trigger.Status.Auth = &duckv1.AuthStatus{ServiceAccountName: account}
		config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
		must(err)
		ctx = context.WithValue(ctx, kubeclient.Key{}, kubernetes.Interface(kubernetes.NewForConfigOrDie(config)))
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	filterListener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	b := newBroker(ctx, trigger, filterListener)
	b.dead = addressable(*deadLetters)
	b.reply = addressable(*replies)
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log.Fatal(http.Serve(listener, b))
}

func newBroker(ctx context.Context, trigger *eventingv1.Trigger, listener net.Listener) *broker {
	var tokens *auth.OIDCTokenProvider
	if trigger.Status.Auth != nil {
		tokens = auth.NewOIDCTokenProvider(ctx)
	}
	informers := externalversions.NewSharedInformerFactory(fake.NewSimpleClientset(trigger), time.Hour)
	handler, err := filter.NewHandler(
		zap.NewNop(), nil, tokens,
		informers.Eventing().V1().Triggers(), informers.Eventing().V1().Brokers(), informers.Messaging().V1().Subscriptions(),
		nil, func(ctx context.Context) context.Context { return ctx },
		metricnoop.NewMeterProvider(), tracenoop.NewTracerProvider(),
	)
	must(err)
	informers.Start(ctx.Done())
	informers.WaitForCacheSync(ctx.Done())
	go func() { log.Fatal(http.Serve(listener, handler)) }()

	retry := kncloudevents.NoRetries()
	if trigger.Spec.Delivery != nil {
		retry, err = kncloudevents.RetryConfigFromDeliverySpec(*trigger.Spec.Delivery)
		must(err)
	}
	path := fmt.Sprintf("http://%s/triggers/%s/%s/%s", listener.Addr(), trigger.Namespace, trigger.Name, trigger.UID)
	return &broker{
		trigger:    trigger,
		dispatcher: kncloudevents.NewDispatcher(eventingtls.ClientConfig{}, nil),
		retry:      retry,
		filter:     duckv1.Addressable{URL: url(path)},
	}
}

// ServeHTTP dispatches an event and answers with the result: code, body and error.
func (b *broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	event, err := cehttp.NewEventFromHTTPRequest(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	must(eventingbroker.SetTTL(event.Context, 255))
	options := []kncloudevents.SendOption{kncloudevents.WithRetryConfig(&b.retry)}
	if b.dead != nil {
		options = append(options, kncloudevents.WithDeadLetterSink(b.dead))
	}
	if b.reply != nil {
		options = append(options, kncloudevents.WithReply(b.reply))
	}
	info, err := b.dispatcher.SendEvent(r.Context(), *event, b.filter, options...)
	answer := map[string]any{"code": info.ResponseCode, "body": string(info.ResponseBody)}
	if err != nil {
		answer["error"] = err.Error()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func addressable(text string) *duckv1.Addressable {
	if text == "" {
		return nil
	}
	return &duckv1.Addressable{URL: url(text)}
}

func url(text string) *apis.URL {
	url, err := apis.ParseURL(text)
	must(err)
	return url
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
