//! The Deployer: brings a Knative Service to a new image.

mod decision;
mod image;
mod progress;
mod rollout;
mod service;
mod traffic;

pub(crate) use decision::{Desired, TrafficMode, Wait};
pub(crate) use image::ImageError;
pub(crate) use rollout::{Journal, Rollout, RolloutError, ServiceClient, ServiceError};
pub(crate) use service::Service;

#[cfg(test)]
mod tests;
