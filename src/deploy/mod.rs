//! The Deployer: brings a Knative Service to a new image.

mod decision;
mod image;
mod progress;
mod rollout;
mod service;
mod stamp;
mod traffic;

pub(crate) use decision::{Desired, TrafficMode, Wait};
pub(crate) use image::{Image, ImageError};
pub(crate) use rollout::{Finished, Journal, Outcome, Rollout, RolloutError, ServiceClient, ServiceError};
pub(crate) use service::Service;
pub(crate) use stamp::Stamp;

#[cfg(test)]
mod tests;
