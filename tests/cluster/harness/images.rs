//! Container images of files and folders, pushed to a registry over its HTTP API, without a builder.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::assets::run;
use crate::support::http::HttpClient;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Content of a file in a layer.
pub enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
    Folder,
}

/// A layer that is being written.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Adds a file with its mode. Unpacking creates its parent folders.
    pub fn add(mut self, path: &str, mode: u32, content: Content) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        let added = match content {
            Content::File(file) => {
                let bytes = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                header.set_size(bytes.len() as u64);
                self.0.append_data(&mut header, path, bytes.as_slice())
            }
            Content::Bytes(bytes) => {
                header.set_size(bytes.len() as u64);
                self.0.append_data(&mut header, path, bytes.as_slice())
            }
            Content::Folder => {
                header.set_size(0);
                header.set_entry_type(tar::EntryType::Directory);
                self.0.append_data(&mut header, path, io::empty())
            }
        };
        added.expect("a file in a layer");
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("a layer")
    }
}

/// A folder as a layer, without the paths in `exclude`, which begin with `./`.
pub fn layer_of_folder(folder: &Path, exclude: &[&str], scratch: &Path) -> Vec<u8> {
    let file = scratch.join("layer.tar");
    let mut command = Command::new("tar");
    command.args(["--numeric-owner", "--owner=0", "--group=0", "-cf"]).arg(&file).arg("-C").arg(folder);
    run(command.args(exclude.iter().map(|path| format!("--exclude={path}"))).arg(".")).expect("a layer");
    let bytes = fs::read(&file).expect("a layer");
    fs::remove_file(&file).expect("the layer's file");
    bytes
}

/// What an image runs.
#[derive(Debug, Default)]
pub struct Runs<'a> {
    pub entrypoint: &'a [&'a str],
    pub command: &'a [&'a str],
    pub user: &'a str,
    pub path: &'a str,
}

/// A registry without TLS.
pub struct Registry {
    client: HttpClient,
    address: SocketAddr,
}

impl Registry {
    pub fn new(address: SocketAddr) -> Self {
        Self { client: HttpClient::new(), address }
    }

    /// Whether it answers.
    pub async fn is_up(&self) -> bool {
        self.client.send(Method::GET, self.address, "/v2/", &[], "").await.is_ok_and(|reply| reply.status == 200)
    }

    /// Pushes an image as `name:tag` and returns its digest.
    pub async fn push(&self, name: &str, tag: &str, layers: &[Blob], runs: &Runs<'_>) -> String {
        let path = match runs.path {
            "" => "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/ko-app",
            path => path,
        };
        let digests: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let mut config = json!({"Env": [format!("PATH={path}")]});
        for (field, value) in [("Entrypoint", runs.entrypoint), ("Cmd", runs.command)] {
            if !value.is_empty() {
                config[field] = json!(value);
            }
        }
        if !runs.user.is_empty() {
            config["User"] = json!(runs.user);
        }
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": digests},
            // Buildah wants one entry for each layer.
            "history": layers.iter().map(|_| json!({"created_by": "tests"})).collect::<Vec<Value>>(),
        });
        let config = Blob::new(config.to_string().into_bytes());
        for blob in layers.iter().chain([&config]) {
            self.push_blob(name, blob).await;
        }
        let described =
            |media: &str, blob: &Blob| json!({"mediaType": media, "digest": blob.digest, "size": blob.bytes.len()});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": described(CONFIG, &config),
            "layers": layers.iter().map(|layer| described(LAYER, layer)).collect::<Vec<Value>>(),
        });
        let headers = [("content-type".to_owned(), MANIFEST.to_owned())];
        let path = format!("/v2/{name}/manifests/{tag}");
        let reply = self.client.send(Method::PUT, self.address, &path, &headers, manifest.to_string()).await;
        let reply = reply.expect("an answer of the registry");
        assert_eq!(reply.status, StatusCode::CREATED, "{name}:{tag}: {}", reply.body);
        reply.headers["docker-content-digest"].to_str().expect("a digest").to_owned()
    }

    async fn push_blob(&self, name: &str, blob: &Blob) {
        let at = format!("/v2/{name}/blobs/{}", blob.digest);
        let there = self.client.send(Method::HEAD, self.address, &at, &[], "").await.expect("an answer");
        if there.status == StatusCode::OK {
            return;
        }
        let start = format!("/v2/{name}/blobs/uploads/");
        let started = self.client.send(Method::POST, self.address, &start, &[], "").await.expect("an answer");
        let location = started.headers["location"].to_str().expect("a location");
        let path = &location[location.find("/v2/").expect("a path")..];
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}digest={}", blob.digest);
        let headers = [("content-type".to_owned(), "application/octet-stream".to_owned())];
        let reply = self.client.send(Method::PUT, self.address, &path, &headers, blob.bytes.clone()).await;
        let reply = reply.expect("an answer of the registry");
        assert_eq!(reply.status, StatusCode::CREATED, "{name}: {}", reply.body);
    }

    /// The digest of an image; `None` if the registry does not have it.
    pub async fn digest(&self, name: &str, reference: &str) -> Option<String> {
        let path = format!("/v2/{name}/manifests/{reference}");
        let accept = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json";
        let headers = [("accept".to_owned(), format!("{MANIFEST}, {accept}"))];
        let reply = self.client.send(Method::HEAD, self.address, &path, &headers, "").await.expect("an answer");
        let digest = reply.headers.get("docker-content-digest")?.to_str().ok()?;
        (reply.status == StatusCode::OK).then(|| digest.to_owned())
    }
}

/// Bytes with their digest.
#[derive(Clone)]
pub struct Blob {
    digest: String,
    bytes: bytes::Bytes,
}

impl Blob {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { digest: format!("sha256:{}", hex::encode(Sha256::digest(&bytes))), bytes: bytes.into() }
    }
}
