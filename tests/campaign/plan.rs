//! What happens in a campaign: all of it follows from the seed.

use std::time::Duration;

use fastrand::Rng;
use sha2::{Digest, Sha256};

/// Sends go on while the faults of a round happen.
#[derive(Debug)]
pub struct Round {
    pub fault: Fault,
    /// Which of the two services it meets, where it meets one.
    pub place: Place,
    pub sends: Vec<Delivery>,
}

/// One request, and how long its sender waits before it.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub subject: Subject,
    pub road: Road,
    pub pause: Duration,
}

/// A pull request, as its sender tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    pub number: u64,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A run is due.
    Merge,
    /// Closed without a merge.
    Unmerged,
    /// A merge that nobody proves.
    Forged,
}

/// How a delivery comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    /// GitHub's request to the public service.
    Webhook(Form),
    /// A signed CloudEvent to the public service.
    SignedEvent(Mode),
    /// GitHub's request to GitHubSource's adapter, and its event to the private service.
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
    /// SIGKILL, and a start.
    ServiceKilled,
    /// SIGTERM, and a start once it has ended.
    ServiceStopped,
    /// SIGSTOP for two seconds, as a frozen pod.
    ServiceFrozen,
    ApiServerKilled,
    EtcdKilled,
    /// Between senders and services.
    SendersReset,
    SendersSlow,
    AnswersSwallowed,
    /// Between services and API server.
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

/// Merges in a round.
const BATCH: u64 = 25;

/// The rounds for so many merges: every fault once before any comes again.
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
        // Once, or sent again by whoever thinks so, now or in the next round.
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

/// What a pull request is, by its number: one in eight is not merged, one in eight is forged.
pub fn kind_of(number: u64) -> Kind {
    match number % 8 {
        0 => Kind::Unmerged,
        1 => Kind::Forged,
        _ => Kind::Merge,
    }
}

/// Long enough for the sends of a round to last as long as its fault.
fn random_pause(random: &mut Rng) -> Duration {
    Duration::from_millis(random.u64(0..900))
}

/// A Broker asks nobody for a proof, so that what is forged cannot come by it.
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
    /// Its merge commit.
    pub fn commit(self) -> String {
        hex::encode(Sha256::digest(format!("commit {}", self.number)))[..40].to_owned()
    }

    /// The repository that it belongs to.
    pub fn repository(self) -> String {
        format!("acme/web-{}", self.number % 5)
    }
}
