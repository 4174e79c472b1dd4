//! The service's peers on a cluster, built from the projects' own code (`tests/peers/`): GitHubSource's receive
//! adapter, a Broker's data plane, and the admission of Serving, Eventing and Tekton.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::control_plane::assets;
use super::go;

const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers");

/// A running peer, killed when dropped.
pub struct Peer {
    child: Child,
    pub address: SocketAddr,
}

impl Peer {
    /// Starts GitHubSource's receive adapter. Returns `None` if it cannot be built, see [`program`].
    pub fn receive_adapter(args: &[&str]) -> Option<Self> {
        Self::start("eventing", "receive-adapter", args)
    }

    /// Starts a Broker with one Trigger.
    pub fn broker(args: &[&str]) -> Option<Self> {
        Self::start("eventing", "broker", args)
    }

    /// Starts an admission webhook with the defaults and the validation of Serving, Eventing and Tekton.
    pub fn admission(args: &[&str]) -> Option<Self> {
        Self::start("admission", "webhook", args)
    }

    fn start(module: &str, name: &str, args: &[&str]) -> Option<Self> {
        let program = program(module, name)?;
        let mut child =
            Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the peer");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let address = line.trim().parse().unwrap_or_else(|_| panic!("{name} printed no address: {line:?}"));
        Some(Self { child, address })
    }

    /// `http://<address>/`.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds a peer's program once, and returns its path. Returns `None` if there is no control plane either, after
/// printing why.
pub fn program(module: &str, name: &str) -> Option<PathBuf> {
    static BUILDING: OnceLock<std::sync::Mutex<()>> = OnceLock::new();
    assets()?;
    let _one = BUILDING.get_or_init(Default::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let source = Path::new(MODULES).join(module);
    let mut hash = Sha256::new();
    go::hash_folder(&source, &mut hash).expect("the module");
    let folder = go::target_folder().join("peers").join(&hex::encode(hash.finalize())[..12]);
    fs::create_dir_all(&folder).expect("a folder");
    let _lock = go::lock(&folder).expect("a lock");
    let finished = folder.join(name);
    go::build(&source, &format!("./{name}"), &finished).expect("a build");
    Some(finished)
}
