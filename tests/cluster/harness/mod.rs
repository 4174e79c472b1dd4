//! A whole Kubernetes node on this machine, in namespaces of its own: etcd, API server, controllers, scheduler, kubelet,
//! containerd, kube-proxy, DNS, Envoy, an image registry and a git server, with Tekton, Knative Serving and Knative
//! Eventing from their own modules.
//!
//! [`sandbox`] makes the namespaces, [`assets`] builds what runs in them, and [`Cluster`] starts it.

#![allow(dead_code, missing_docs, clippy::expect_used, clippy::panic)]

pub mod assets;
pub mod cluster;
pub mod gateway;
pub mod git;
pub mod images;
pub mod ingress;
pub mod manifests;
pub mod names;
pub mod network;
pub mod node;
pub mod pki;
pub mod processes;
pub mod sandbox;

pub use cluster::Cluster;
