//! Certificates and tokens of the cluster. They are made once and kept, because images of the cluster contain the CA.

use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use super::names;

/// Users of the API server: name of the kubeconfig, user, groups.
const USERS: &[(&str, &str, &str)] = &[
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kubelet", "system:node:node", "system:nodes"),
    ("proxy", "system:kube-proxy", ""),
    ("dns", "dns", "system:masters"),
];

/// The CAs of this machine, which the images trust, too.
const MACHINE_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A certificate to make: its file name, common name, organisation, and the names and addresses that it is for.
type Certificate = (&'static str, &'static str, &'static str, Vec<String>);

fn certificates() -> Vec<Certificate> {
    let address = |address: IpAddr| address.to_string();
    let api_names = ["", ".default", ".default.svc", ".default.svc.cluster.local"]
        .map(|end| format!("kubernetes{end}"))
        .into_iter()
        .chain(["localhost", "127.0.0.1", "10.96.0.1"].map(str::to_owned))
        .chain([address(names::NODE)]);
    let registries = names::REGISTRIES.map(str::to_owned).into_iter().chain([address(names::REGISTRY)]);
    vec![
        ("api", "kube-apiserver", "", api_names.collect()),
        ("registry", "registry", "", registries.collect()),
        ("own-registry", "registry", "", vec![names::OWN_REGISTRY.to_owned(), address(names::PRIVATE_REGISTRY)]),
        ("git", "git", "", names::GIT_HOSTS.map(str::to_owned).to_vec()),
        ("kubelet-client", "apiserver-kubelet-client", "system:masters", vec![]),
        ("kubelet", "node", "", vec!["node".to_owned(), address(names::NODE)]),
    ]
}

/// A text that changes with everything that [`create`] depends on.
///
/// # Errors
/// If the CAs of this machine cannot be read.
pub fn made_of() -> Result<String, String> {
    let machine = fs::read_to_string(MACHINE_CAS).map_err(|error| format!("{MACHINE_CAS}: {error}"))?;
    Ok(format!("{:?} {USERS:?} {machine}", certificates()))
}

/// Writes everything into a folder, which only its owner can read: `<name>.crt` and `.key`, `ca.crt`, `bundle.crt` with the
/// CAs of this machine as well, and the users' tokens.
///
/// # Errors
/// If a file cannot be written.
pub fn create(folder: &Path) -> Result<(), String> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(|error| error.to_string())?;
    let write = |name: &str, content: &str| fs::write(folder.join(name), content).map_err(|error| error.to_string());
    let ca_key = KeyPair::generate().map_err(|error| error.to_string())?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "cluster of the tests");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let own = ca.self_signed(&ca_key).map_err(|error| error.to_string())?.pem();
    write("ca.crt", &own)?;
    write("bundle.crt", &(fs::read_to_string(MACHINE_CAS).map_err(|error| error.to_string())? + &own))?;
    let issuer = Issuer::new(ca, ca_key);
    for (name, common_name, organisation, subject_names) in certificates() {
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        let mut certificate = CertificateParams::new(subject_names).map_err(|error| error.to_string())?;
        certificate.distinguished_name.push(DnType::CommonName, common_name);
        if !organisation.is_empty() {
            certificate.distinguished_name.push(DnType::OrganizationName, organisation);
        }
        certificate.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signed = certificate.signed_by(&key, &issuer).map_err(|error| error.to_string())?;
        write(&format!("{name}.crt"), &signed.pem())?;
        write(&format!("{name}.key"), &key.serialize_pem())?;
    }
    let account_key = KeyPair::generate().map_err(|error| error.to_string())?;
    write("accounts.key", &account_key.serialize_pem())?;
    write("accounts.pub", &account_key.public_key_pem())?;
    let mut random = fs::File::open("/dev/urandom").map_err(|error| error.to_string())?;
    let mut tokens = String::new();
    for (name, user, groups) in USERS {
        let mut token = [0; 32];
        random.read_exact(&mut token).map_err(|error| error.to_string())?;
        let token = hex::encode(token);
        write(&format!("{name}.token"), &token)?;
        tokens += &format!("{token},{user},{name},\"{groups}\"\n");
    }
    write("tokens.csv", &tokens)
}

/// Writes a kubeconfig for each user into `folder`, which connects to `server`. The tokens stay in `pki`.
pub fn write_kubeconfigs(pki: &Path, folder: &Path, server: &str) {
    for (name, ..) in USERS {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "cluster",
            "clusters": [{"name": "cluster", "cluster": {
                "server": server, "certificate-authority": pki.join("ca.crt"),
            }}],
            "users": [{"name": name, "user": {"tokenFile": pki.join(format!("{name}.token"))}}],
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": name}}],
        });
        fs::write(kubeconfig(folder, name), config.to_string()).expect("a kubeconfig");
    }
}

/// Path of a user's kubeconfig.
pub fn kubeconfig(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.kubeconfig"))
}
