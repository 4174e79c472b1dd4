//! `send`: posts a saved delivery to the service, signed, as GitHub would.

use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::args::OutputArgs;
use super::process::{NOTHING_TO_DO, print, print_error, runtime};
use super::saved::SavedArgs;
use crate::delivery::Delivery;
use crate::github::Event;
use crate::sender::{Reply, SendError, Sender, webhook};

/// The flags of `send`.
#[derive(Debug, Args)]
pub(super) struct SendArgs {
    #[command(flatten)]
    saved: SavedArgs,
    /// Address of the service, for example <https://github-trigger.example.com>.
    #[arg(long)]
    url: String,
    /// File with the webhook secret to sign with, or a mounted folder of them. A CloudEvent may go without.
    #[arg(long, value_name = "FILE", required_unless_present = "cloudevent")]
    secret_file: Option<PathBuf>,
    /// File with the CA certificates to trust instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Send a CloudEvent as Knative's GitHubSource does, in this mode.
    #[arg(long, value_name = "MODE")]
    cloudevent: Option<CloudEventMode>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CloudEventMode {
    /// Attributes are headers, the payload is the body.
    Binary,
    /// Attributes and payload are one JSON object.
    Structured,
}

/// Sends, and prints status and answer. Exit code 0 for a success, 3 if the service ignores the event, else 1.
pub(super) fn run(args: &SendArgs) -> ExitCode {
    let outcome = args.saved.read().map_err(|error| error.to_string());
    match outcome.and_then(|delivery| send(args, delivery).map_err(|error| error.to_string())) {
        Ok((status, _)) if !status.is_success() => ExitCode::FAILURE,
        // An event is answered with a status alone.
        Ok((_, Value::Null)) if args.cloudevent.is_some() => ExitCode::SUCCESS,
        Ok((_, answer)) => match answer["outcome"].as_str() {
            Some("created" | "duplicate" | "pong") => ExitCode::SUCCESS,
            Some("ignored") => ExitCode::from(NOTHING_TO_DO),
            _ => {
                print_error(format_args!("github-trigger: {} is not the service: its answer has no outcome", args.url));
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            print_error(format_args!("github-trigger: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn send(args: &SendArgs, delivery: Delivery) -> Result<(StatusCode, Value), SendError> {
    let id = delivery.id.as_str().to_owned();
    let (headers, body) = match args.cloudevent {
        None => webhook(delivery),
        Some(mode) => cloud_event(delivery, mode),
    };
    let Reply { status, text, answer } = runtime().map_err(SendError::Start)?.block_on(async {
        let sender = Sender::new(&args.url, args.ca_file.as_deref(), args.secret_file.as_deref())?;
        sender.post(headers, body).await
    })?;
    if args.output.is_json() {
        let answer = if answer.is_null() { text.into() } else { answer.clone() };
        print(json!({"deliveryId": id, "status": status.as_u16(), "answer": answer}));
    } else {
        print(format_args!("{status}"));
        if !text.is_empty() {
            // Another server's answer must not control the terminal.
            print(text.trim_end().replace(|c: char| c.is_control() && c != '\n', " "));
        }
    }
    Ok((status, answer))
}

/// Headers and body of GitHubSource's event.
fn cloud_event(delivery: Delivery, mode: CloudEventMode) -> (HeaderMap, Bytes) {
    let (id, kind) = (delivery.id.as_str().to_owned(), format!("dev.knative.source.github.{}", delivery.kind));
    let payload = delivery.payload.clone();
    let repository = Event::parse(delivery).ok().and_then(|event| event.repository_name().map(str::to_owned));
    let source = format!("https://github.com/{}", repository.unwrap_or_default());
    let mut headers = HeaderMap::new();
    if mode == CloudEventMode::Structured {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/cloudevents+json"));
        let data: Value = serde_json::from_slice(&payload).unwrap_or_default();
        let event = json!({"specversion": "1.0", "id": id, "type": kind, "source": source,
            "datacontenttype": "application/json", "data": data});
        return (headers, event.to_string().into());
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in [("ce-specversion", "1.0"), ("ce-id", &id), ("ce-type", &kind), ("ce-source", &source)] {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
            headers.insert(name, value);
        }
    }
    (headers, payload)
}
