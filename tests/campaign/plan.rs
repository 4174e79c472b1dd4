//! The plan of a campaign, which depends only on the seed and the number of merges.

use std::time::Duration;

use fastrand::Rng;
use sha2::{Digest, Sha256};

/// One fault, and the deliveries that are sent meanwhile.
#[derive(Debug)]
pub struct Round {
    pub fault: Fault,
    /// The service that the fault affects, if it affects only one.
    pub place: Place,
    pub sends: Vec<Delivery>,
}

/// One request, and its sender's pause before it.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub subject: Subject,
    pub road: Road,
    pub pause: Duration,
}

/// A pull request, as its sender describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    pub number: u64,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Must have one run.
    Merge,
    /// Closed without a merge: no run.
    Unmerged,
    /// A merge with an invalid signature: no run.
    Forged,
}

/// The path of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    /// GitHub's request to the public service.
    Webhook(Form),
    /// A signed CloudEvent to the public service.
    SignedEvent(Mode),
    /// GitHub's request to GitHubSource's adapter, which sends an event to the private service.
    Source,
    /// An event through a Broker to the private service.
    Broker(Mode),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    JsonSha1,
    Urlencoded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Binary,
    Structured,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Public,
    Private,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL, then a restart.
    ServiceKilled,
    /// SIGTERM, then a restart once it has exited.
    ServiceStopped,
    /// SIGSTOP for a while, like a frozen pod.
    ServiceFrozen,
    ApiServerKilled,
    EtcdKilled,
    /// This and the next two: between senders and services.
    SendersReset,
    SendersSlow,
    AnswersSwallowed,
    /// This and the next two: between services and API server.
    ApiReset,
    ApiSlow,
    ApiAnswersSwallowed,
    TemplatesChanged,
    TemplatesBroken,
    SecretRotated,
    SecretsBroken,
}

impl Fault {
    pub const ALL: [Self; 15] = [
        Self::ServiceKilled,
        Self::ServiceStopped,
        Self::ServiceFrozen,
        Self::ApiServerKilled,
        Self::EtcdKilled,
        Self::SendersReset,
        Self::SendersSlow,
        Self::AnswersSwallowed,
        Self::ApiReset,
        Self::ApiSlow,
        Self::ApiAnswersSwallowed,
        Self::TemplatesChanged,
        Self::TemplatesBroken,
        Self::SecretRotated,
        Self::SecretsBroken,
    ];
}

/// Pull requests per round.
const BATCH: u64 = 25;

/// The rounds for `merges` pull requests. Every fault occurs once before one is repeated.
pub fn rounds(seed: u64, merges: u64) -> Vec<Round> {
    let mut random = Rng::with_seed(seed);
    let count = merges.div_ceil(BATCH).max(Fault::ALL.len() as u64);
    let mut faults = Vec::new();
    let mut rounds: Vec<Round> = (0..count)
        .map(|_| {
            if faults.is_empty() {
                faults = Fault::ALL.to_vec();
                random.shuffle(&mut faults);
            }
            let fault = faults.pop().unwrap_or(Fault::ServiceKilled);
            let place = if random.bool() { Place::Public } else { Place::Private };
            Round { fault, place, sends: Vec::new() }
        })
        .collect();
    for number in 1..=merges {
        let kind = kind_of(number);
        let subject = Subject { number, kind };
        let first = usize::try_from((number - 1) * count / merges).unwrap_or_default();
        // One to three times, in this round or in the next one.
        for _ in 0..random.usize(1..=3) {
            let round = (first + random.usize(0..=1)).min(rounds.len() - 1);
            let road = road(&mut random, kind);
            rounds[round].sends.push(Delivery { subject, road, pause: random_pause(&mut random) });
        }
    }
    for round in &mut rounds {
        random.shuffle(&mut round.sends);
    }
    rounds
}

/// The kind of a pull request, by its number: one in eight is not merged, one in eight is forged.
pub fn kind_of(number: u64) -> Kind {
    match number % 8 {
        0 => Kind::Unmerged,
        1 => Kind::Forged,
        _ => Kind::Merge,
    }
}

/// Long enough for a round's deliveries to last as long as its fault.
fn random_pause(random: &mut Rng) -> Duration {
    Duration::from_millis(random.u64(0..900))
}

/// A random path. A Broker does not authenticate its senders, so that it gets no forged deliveries.
fn road(random: &mut Rng, kind: Kind) -> Road {
    let mode = if random.bool() { Mode::Binary } else { Mode::Structured };
    match random.u8(0..if kind == Kind::Forged { 5 } else { 7 }) {
        0 => Road::Webhook(Form::Json),
        1 => Road::Webhook(Form::JsonSha1),
        2 => Road::Webhook(Form::Urlencoded),
        3 => Road::SignedEvent(mode),
        4 => Road::Source,
        _ => Road::Broker(mode),
    }
}

impl Subject {
    /// Merge commit: 40 hex digits, derived from the number.
    pub fn commit(self) -> String {
        hex::encode(Sha256::digest(format!("commit {}", self.number)))[..40].to_owned()
    }

    /// `owner/name`; one of five, by the number.
    pub fn repository(self) -> String {
        format!("acme/web-{}", self.number % 5)
    }
}
