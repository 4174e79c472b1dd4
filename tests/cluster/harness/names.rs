//! Addresses and names in the cluster. The public internet is not reachable from it, so the names of public hosts lead
//! to servers of the cluster, and manifests need no changes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 200, 0, last))
}

/// The node: API server, kubelet and DNS.
pub const NODE: IpAddr = address(1);
/// The image registry.
pub const REGISTRY: IpAddr = address(2);
/// The git server.
pub const GIT: IpAddr = address(3);
/// Envoy's listener for requests from outside the cluster.
pub const PUBLIC: IpAddr = address(4);
/// Envoy's listener for requests from the cluster.
pub const PRIVATE: IpAddr = address(5);
/// Addresses of [`CRATES`], in its order.
pub const CRATES_ADDRESSES: [IpAddr; 2] = [address(6), address(7)];
/// A registry that asks for a user name and a password.
pub const PRIVATE_REGISTRY: IpAddr = address(8);

/// All addresses of the node.
pub const ALL: [IpAddr; 8] =
    [NODE, REGISTRY, GIT, PUBLIC, PRIVATE, CRATES_ADDRESSES[0], CRATES_ADDRESSES[1], PRIVATE_REGISTRY];

/// Registries whose names lead to [`REGISTRY`].
pub const REGISTRIES: [&str; 6] = ["registry-1.docker.io", "docker.io", "quay.io", "ghcr.io", "gcr.io", CLUSTER_IMAGES];
/// The registry's name in the images of the cluster's own pods.
pub const CLUSTER_IMAGES: &str = "registry.k8s.io";
/// The registry of the project's pages, at [`PRIVATE_REGISTRY`].
pub const OWN_REGISTRY: &str = "registry.example.com";
/// User name and password of [`OWN_REGISTRY`].
pub const REGISTRY_LOGIN: (&str, &str) = ("USER", "TOKEN");
/// Names that lead to [`GIT`].
pub const GIT_HOSTS: [&str; 2] = ["github.com", "api.github.com"];
/// Hosts of crates.io, which the image builds need. They are forwarded to the real ones.
pub const CRATES: [&str; 2] = ["index.crates.io", "static.crates.io"];

/// The domain of the Knative Services. Browsers and curl resolve all names below `localhost` to the own machine.
pub const DOMAIN: &str = "apps.localhost";
/// The class of the Ingresses that [`super::ingress`] serves.
pub const INGRESS_CLASS: &str = "envoy.ingress.networking.knative.dev";

/// Port of the API server on [`NODE`].
pub const API_PORT: u16 = 6443;
/// Envoy's administration on loopback.
pub const ENVOY_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
/// The registry without TLS on loopback, through which the harness pushes.
pub const REGISTRY_PUSH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);
/// As [`REGISTRY_PUSH`], for [`OWN_REGISTRY`].
pub const PRIVATE_REGISTRY_PUSH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5001);
