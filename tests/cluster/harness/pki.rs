//! Certificates and tokens of the cluster. They are made once and kept, because images of the cluster contain the CA.

use std::fs;
use std::net::IpAddr;
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

/// Writes everything into a folder.
///
/// # Errors
/// If a file cannot be written.
pub fn create(folder: &Path) -> Result<(), String> {
    let write = |name: &str, content: &str| fs::write(folder.join(name), content).map_err(|error| error.to_string());
    let ca_key = KeyPair::generate().map_err(|error| error.to_string())?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "cluster of the tests");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    write("ca.crt", &ca.self_signed(&ca_key).map_err(|error| error.to_string())?.pem())?;
    let issuer = Issuer::new(ca, ca_key);
    let address = |address: IpAddr| address.to_string();
    let api_names = ["", ".default", ".default.svc", ".default.svc.cluster.local"]
        .map(|end| format!("kubernetes{end}"))
        .into_iter()
        .chain(["localhost", "127.0.0.1", "10.96.0.1"].map(str::to_owned))
        .chain([address(names::NODE)]);
    let registries = names::REGISTRIES.map(str::to_owned).into_iter().chain([address(names::REGISTRY)]);
    let certificates: Vec<(&str, &str, &str, Vec<String>)> = vec![
        ("api", "kube-apiserver", "", api_names.collect()),
        ("registry", "registry", "", registries.collect()),
        ("own-registry", "registry", "", vec![names::OWN_REGISTRY.to_owned(), address(names::PRIVATE_REGISTRY)]),
        ("git", "git", "", names::GIT_HOSTS.map(str::to_owned).to_vec()),
        ("kubelet-client", "apiserver-kubelet-client", "system:masters", vec![]),
        ("kubelet", "node", "", vec!["node".to_owned(), address(names::NODE)]),
    ];
    for (name, common_name, organisation, subject_names) in certificates {
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
    let tokens: String =
        USERS.iter().map(|(name, user, groups)| format!("{},{user},{name},\"{groups}\"\n", token(name))).collect();
    write("tokens.csv", &tokens)
}

/// The token of a user. Nobody outside the network namespace can reach the API server with it.
pub fn token(name: &str) -> String {
    format!("{name}-of-the-tests")
}

/// Writes a kubeconfig for each user into `folder`, which connects to `server`.
pub fn write_kubeconfigs(pki: &Path, folder: &Path, server: &str) {
    for (name, ..) in USERS {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "cluster",
            "clusters": [{"name": "cluster", "cluster": {
                "server": server, "certificate-authority": pki.join("ca.crt"),
            }}],
            "users": [{"name": name, "user": {"token": token(name)}}],
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": name}}],
        });
        fs::write(kubeconfig(folder, name), config.to_string()).expect("a kubeconfig");
    }
}

/// Path of a user's kubeconfig.
pub fn kubeconfig(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.kubeconfig"))
}
