// Receive-adapter handles webhooks like the receive adapter of Knative's GitHubSource, with the same libraries:
// webhooks.v5 verifies and parses a webhook, and the CloudEvents SDK sends the payload, marshalled again, to the sink.
//
// It prints its listening address, and exits when its standard input is closed.
package main

import (
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
	"strconv"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"gopkg.in/go-playground/webhooks.v5/github"
)

type adapter struct {
	hook   *github.Webhook
	client cloudevents.Client
	source string
}

func main() {
	sink := flag.String("sink", "", "URL for events")
	secret := flag.String("secret", "", "webhook secret")
	repository := flag.String("owner-and-repository", "", "ownerAndRepository of the GitHubSource")
	flag.Parse()

	hook, err := github.New(github.Options.Secret(*secret))
	if err != nil {
		log.Fatal(err)
	}
	client, err := cloudevents.NewClientHTTP(cehttp.WithTarget(*sink), cehttp.WithHeader("Kn-Namespace", "default"))
	if err != nil {
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
	handler := &adapter{hook: hook, client: client, source: "https://github.com/" + *repository}
	log.Fatal(http.Serve(listener, handler))
}

// ServeHTTP answers like the real adapter: 202 if the sink accepted the event, else 400 with the sink's answer.
func (a *adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	payload, err := a.hook.Parse(r, github.PullRequestEvent, github.PingEvent, github.PushEvent)
	switch {
	case errors.Is(err, github.ErrEventNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := a.send(r.Context(), payload, r.Header); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, "accepted")
}

func (a *adapter) send(ctx context.Context, payload any, header http.Header) error {
	event := cloudevents.NewEvent()
	event.SetID(header.Get("X-GitHub-Delivery"))
	event.SetType("dev.knative.source.github." + header.Get("X-GitHub-Event"))
	event.SetSource(a.source)
	event.SetTime(time.Now())
	if pr, ok := payload.(github.PullRequestPayload); ok {
		event.SetSubject(strconv.FormatInt(pr.Number, 10))
		extend(&event, pr)
	}
	data, err := json.Marshal(payload)
	if err != nil {
		return err
	}
	if err := event.SetData(cloudevents.ApplicationJSON, data); err != nil {
		return err
	}
	result := a.client.Send(ctx, event)
	if cloudevents.IsACK(result) {
		return nil
	}
	var answer *cehttp.Result
	if cloudevents.ResultAs(result, &answer) {
		return fmt.Errorf("%d: %w", answer.StatusCode, result)
	}
	return result
}

func extend(event *cloudevents.Event, pr github.PullRequestPayload) {
	event.SetExtension("action", pr.Action)
	event.SetExtension("number", int32(pr.Number))
	event.SetExtension("installation", int32(pr.Installation.ID))
	event.SetExtension("owner", pr.Repository.Owner.Login)
	event.SetExtension("repository", pr.Repository.Name)
	event.SetExtension("sender", pr.Sender.Login)
	event.SetExtension("label", pr.Label.Name)
	if pr.Assignee != nil {
		event.SetExtension("assignee", pr.Assignee.Login)
	}
}
