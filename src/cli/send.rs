//! `send`: posts a saved delivery to the service, signed, as GitHub would.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use serde_json::{Value, json};

use super::saved::SavedArgs;
use super::{NOTHING_TO_DO, OutputArgs, print, print_error};
use crate::delivery::{Delivery, Key};
use crate::github::Event;
use crate::remote::{RemoteError, Server};

/// The flags of `send`.
#[derive(Debug, Args)]
pub(super) struct SendArgs {
    #[command(flatten)]
    saved: SavedArgs,
    /// Address of the service, for example <https://github-trigger.example.com>.
    #[arg(long)]
    url: String,
    /// File with the webhook secret to sign with. A CloudEvent may go without.
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

/// Why nothing was sent, or no answer came.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("cannot read the secret {}: {source}", path.display())]
    Secret { path: PathBuf, source: io::Error },
    #[error("the secret in {} is empty; write the webhook's secret there", .0.display())]
    EmptySecret(PathBuf),
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("cannot start: {0}")]
    Start(io::Error),
    #[error("the delivery cannot be sent: {0}")]
    Request(#[from] http::Error),
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
    let secret = args.secret_file.as_ref().map(|path| {
        let content = fs::read(path).map_err(|source| SendError::Secret { path: path.clone(), source })?;
        let secret = content.strip_suffix(b"\n").map_or(&*content, |line| line.strip_suffix(b"\r").unwrap_or(line));
        if secret.trim_ascii().is_empty() {
            return Err(SendError::EmptySecret(path.clone()));
        }
        Ok(Key::new(secret))
    });
    let key = secret.transpose()?;
    let id = delivery.id.as_str().to_owned();
    let (mut headers, body) = match args.cloudevent {
        None => webhook(delivery),
        Some(mode) => cloud_event(delivery, mode),
    };
    if let Some(key) = key {
        headers.extend(key.sign(&body));
    }
    let mut request = Request::post("/").body(body)?;
    *request.headers_mut() = headers;
    let runtime = super::runtime().map_err(SendError::Start)?;
    let response = runtime.block_on(async { Server::new(&args.url, args.ca_file.as_deref())?.post(request).await })?;
    let (status, text) = (response.status(), String::from_utf8_lossy(response.body()).into_owned());
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    if args.output.is_json() {
        let answer = if answer.is_null() { text.into() } else { answer.clone() };
        print(json!({"delivery": id, "status": status.as_u16(), "answer": answer}));
    } else {
        print(format_args!("{status}"));
        if !text.is_empty() {
            // Another server's answer must not control the terminal.
            print(text.trim_end().replace(|c: char| c.is_control() && c != '\n', " "));
        }
    }
    Ok((status, answer))
}

/// Headers and body as GitHub sends them.
fn webhook(delivery: Delivery) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static("GitHub-Hookshot/github-trigger"));
    // Of a saved delivery, GitHub's own headers go along; its old signature is replaced.
    let own = delivery.headers.iter().filter(|(name, _)| name.starts_with("x-github-"));
    for (name, value) in own {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
            headers.insert(name, value);
        }
    }
    for (name, value) in [("x-github-event", delivery.kind.as_str()), ("x-github-delivery", delivery.id.as_str())] {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
    (headers, delivery.payload)
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
