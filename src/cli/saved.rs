//! The flags of a saved delivery, for `render`, `send` and `why`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::delivery::saved::{self, Defaults, NIL_ID, SavedError};
use crate::delivery::{Delivery, DeliveryId, EventKind};

/// A saved delivery, and what it lacks.
#[derive(Debug, Args)]
pub(super) struct SavedArgs {
    /// A saved delivery: GitHub's JSON, with or without the headers of the delivery page, a delivery or a pull request of
    /// GitHub's API, or a CloudEvent.
    #[arg(long, value_name = "FILE")]
    payload: PathBuf,
    /// Name of the event (X-GitHub-Event), if the file has none.
    #[arg(long, default_value = "pull_request", value_parser = parse_kind)]
    event: EventKind,
    /// Id of the delivery (X-GitHub-Delivery), if the file has none.
    #[arg(long, default_value = NIL_ID, value_name = "ID", value_parser = parse_id)]
    delivery: DeliveryId,
}

/// Why a file is no delivery.
#[derive(Debug, thiserror::Error)]
pub(super) enum PayloadError {
    #[error("cannot read the payload {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the payload file is not UTF-8 text")]
    Text,
    #[error(transparent)]
    Saved(#[from] SavedError),
}

impl SavedArgs {
    /// Reads the file. Fails when it cannot be read, or is not a delivery.
    pub(super) fn read(&self) -> Result<Delivery, PayloadError> {
        read_payload(&self.payload, Defaults { kind: self.event.clone(), id: self.delivery.clone() })
    }
}

/// Reads a file; `defaults` fill in what it lacks. Fails when it cannot be read, or is not a delivery.
pub(super) fn read_payload(path: &Path, defaults: Defaults) -> Result<Delivery, PayloadError> {
    let content = fs::read(path).map_err(|source| PayloadError::Read { path: path.to_owned(), source })?;
    let text = String::from_utf8(content).map_err(|_| PayloadError::Text)?;
    Ok(saved::read(&text, defaults)?)
}

fn parse_kind(text: &str) -> Result<EventKind, &'static str> {
    EventKind::parse(text).ok_or("an event's name is lower case letters, digits and _, for example pull_request")
}

fn parse_id(text: &str) -> Result<DeliveryId, &'static str> {
    DeliveryId::parse(text).ok_or("a delivery's id is printable ASCII without spaces, at most 128 characters")
}
