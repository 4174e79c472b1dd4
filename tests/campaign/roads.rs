//! The paths of a delivery, and the answer that its sender gets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::plan::{Delivery, Form, Kind, Mode, Road, Subject};
use crate::support::cloud_event::{PULL_REQUEST, binary, structured};
use crate::support::http::{HttpClient, Reply};
use crate::support::webhook::{self, merged};

/// GitHub's timeout for a delivery.
const GITHUB: Duration = Duration::from_secs(10);
/// Timeout of a Broker, which answers after its retries.
const BROKER: Duration = Duration::from_secs(40);
/// The secret of GitHubSource, which is not rotated: its adapter reads it only at its start.
pub const SOURCE_SECRET: &str = "the source's secret";

/// The answer that a sender got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Told {
    /// 2xx: the sender does not send it again.
    Acknowledged,
    /// Any other status: the sender may send it again.
    Refused(u16),
    /// No answer, or an incomplete one.
    Nothing,
}

/// The secrets that senders know.
#[derive(Debug, Clone)]
pub struct Secrets {
    pub current: String,
    /// No longer mounted.
    pub retired: String,
}

/// Addresses and secrets of the delivery paths.
#[derive(Clone)]
pub struct Roads {
    pub public: SocketAddr,
    pub source: SocketAddr,
    pub broker: SocketAddr,
    pub secrets: Arc<Mutex<Secrets>>,
    pub client: HttpClient,
}

impl Roads {
    /// Sends one delivery and waits for its answer.
    pub async fn send(&self, delivery: &Delivery) -> Told {
        let (subject, road) = (delivery.subject, delivery.road);
        let payload = payload(subject);
        let id = format!("d{}", subject.number);
        let secret = match (road, subject.kind) {
            (Road::Source, Kind::Forged) => "not the source's secret".to_owned(),
            (Road::Source, _) => SOURCE_SECRET.to_owned(),
            (_, Kind::Forged) => self.secrets.lock().expect("the secrets").retired.clone(),
            _ => self.secrets.lock().expect("the secrets").current.clone(),
        };
        match road {
            Road::Webhook(form) => {
                let (headers, body) = webhook_request(form, &id, &payload, &secret);
                told(self.post(self.public, &headers, body, GITHUB).await)
            }
            Road::SignedEvent(mode) => {
                let (mut headers, body) = event(mode, &id, &payload);
                headers.push(("x-hub-signature-256".to_owned(), webhook::sha256(&secret, &body)));
                told(self.post(self.public, &headers, body, GITHUB).await)
            }
            Road::Source => {
                let (headers, body) = webhook_request(Form::JsonSha1, &id, &payload, &secret);
                told(self.post(self.source, &headers, body, GITHUB).await)
            }
            Road::Broker(mode) => {
                let (headers, body) = event(mode, &id, &payload);
                let reply = self.post(self.broker, &headers, body, BROKER).await;
                // The Broker answers with the status of its last try.
                let code = reply.and_then(|reply| u16::try_from(reply.json()["code"].as_u64()?).ok());
                code.filter(|code| *code > 0).map_or(Told::Nothing, of_status)
            }
        }
    }

    async fn post(
        &self,
        address: SocketAddr,
        headers: &[(String, String)],
        body: Vec<u8>,
        patience: Duration,
    ) -> Option<Reply> {
        timeout(patience, self.client.send(Method::POST, address, "/", headers, body)).await.ok()?.ok()
    }
}

fn told(reply: Option<Reply>) -> Told {
    reply.map_or(Told::Nothing, |reply| of_status(reply.status.as_u16()))
}

fn of_status(status: u16) -> Told {
    if (200..300).contains(&status) { Told::Acknowledged } else { Told::Refused(status) }
}

fn payload(subject: Subject) -> Value {
    let mut payload = merged(&subject.repository(), subject.number, &subject.commit());
    if subject.kind == Kind::Unmerged {
        payload["pull_request"]["merged"] = json!(false);
        payload["pull_request"]["merged_at"] = Value::Null;
    }
    payload
}

type Request = (Vec<(String, String)>, Vec<u8>);

fn webhook_request(form: Form, id: &str, payload: &Value, secret: &str) -> Request {
    let json = payload.to_string();
    let (content_type, body) = match form {
        Form::Urlencoded => {
            let mut encoded = form_urlencoded::Serializer::new(String::new());
            encoded.append_pair("payload", &json);
            ("application/x-www-form-urlencoded", encoded.finish())
        }
        Form::Json | Form::JsonSha1 => ("application/json", json),
    };
    let (name, signature) = match form {
        Form::JsonSha1 => ("x-hub-signature", webhook::sha1(secret, body.as_bytes())),
        _ => ("x-hub-signature-256", webhook::sha256(secret, body.as_bytes())),
    };
    let headers = [
        ("content-type", content_type),
        ("x-github-event", "pull_request"),
        ("x-github-delivery", id),
        (name, signature.as_str()),
    ];
    (headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(), body.into_bytes())
}

fn event(mode: Mode, id: &str, payload: &Value) -> Request {
    match mode {
        Mode::Binary => (binary(PULL_REQUEST, id), payload.to_string().into_bytes()),
        Mode::Structured => {
            // The Trigger filters by this attribute.
            let (headers, body) = structured(PULL_REQUEST, id, payload);
            let mut event: Value = serde_json::from_slice(&body).expect("JSON");
            event["action"] = json!("closed");
            (headers, event.to_string().into_bytes())
        }
    }
}
