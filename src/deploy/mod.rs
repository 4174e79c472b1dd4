//! The Deployer: brings a Knative Service to a new image.

mod client;
mod decision;
mod image;
mod outcome;
mod progress;
mod rollout;
mod service;
mod stamp;
mod traffic;

pub(crate) use client::{ServiceClient, ServiceError};
pub(crate) use decision::{Desired, TrafficMode, Wait};
pub(crate) use image::{Image, ImageError};
pub(crate) use outcome::{Finished, Journal, Outcome, RolloutError};
pub(crate) use rollout::Rollout;
pub(crate) use service::Service;
pub(crate) use stamp::Stamp;

#[cfg(test)]
mod tests;
