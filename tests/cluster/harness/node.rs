//! The node and its control plane: configuration files and processes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::names::{
    self, CLUSTER_IMAGES, CRATES, CRATES_ADDRESSES, GIT, GIT_HOSTS, NODE, OWN_REGISTRY, PRIVATE_REGISTRY, REGISTRIES,
    REGISTRY,
};
use super::pki;
use super::processes::Process;
use super::sandbox::Folders;

/// Network of the Services.
const SERVICES: &str = "10.96.0.0/16";
/// Network of the pods.
const PODS: &str = "10.244.0.0/16";
const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";
const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// The image of each pod's first container, as containerd pulls it.
pub const PAUSE_IMAGE: (&str, &str) = ("pause", "3.10.1");
/// The line of the registry's password file: the password of [`names::REGISTRY_LOGIN`] as bcrypt.
const PASSWORD_LINE: &str = "USER:$2b$05$JiHEUBkcSs25tjDX6oSdh.yskPTQBt5Epf0mYJqeyjM5pDSUB1RVu\n";

/// Processes of the node by name.
pub struct Node {
    folders: Folders,
    pki: PathBuf,
    processes: BTreeMap<String, Process>,
}

impl Node {
    pub fn new(folders: &Folders) -> Self {
        for folder in ["logs", "etcd", "containerd", "cni", "kubelet", "registries", "envoy", "git", "pod-logs"] {
            fs::create_dir_all(folders.run.join(folder)).expect("a folder");
        }
        let node = Self { folders: folders.clone(), pki: folders.assets.pki.clone(), processes: BTreeMap::new() };
        pki::write_kubeconfigs(&node.pki, &folders.run, &format!("https://{NODE}:{}", names::API_PORT));
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folders.run.join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).expect("a folder");
        }
        fs::write(&path, content).expect("a file");
        path
    }

    /// A program of the node, with the others in its `PATH`.
    pub fn program(&self, name: &str) -> Command {
        let assets = &self.folders.assets;
        let folders = [&assets.programs, &assets.control_plane];
        let path = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists());
        let mut command = Command::new(path.unwrap_or_else(|| PathBuf::from(name)));
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", assets.programs.display()));
        command
    }

    pub fn start(&mut self, name: &str, command: &mut Command) {
        let process = Process::start(name, &self.path("logs"), command);
        self.processes.insert(name.to_owned(), process);
    }

    /// Ends a program that was started by this name.
    pub fn stop(&mut self, name: &str) {
        self.processes.remove(name);
    }

    /// Panics if a process has ended.
    pub fn check(&mut self) {
        self.processes.values_mut().for_each(Process::check);
    }

    /// Starts two registries: one for all public names, which keeps its images in `storage`, and one that asks for a
    /// password. Both are there a second time on loopback, without TLS and password, for [`super::images`].
    pub fn start_registries(&mut self, storage: &Path) {
        let own_storage = self.path("registries/own");
        let passwords = self.write("registries/passwords", PASSWORD_LINE);
        let tls = |name: &str| {
            let [certificate, key] = ["crt", "key"].map(|end| self.pki.join(format!("{name}.{end}")));
            json!({"certificate": certificate, "key": key})
        };
        let basic = json!({"htpasswd": {"realm": "tests", "path": passwords}});
        let own = PRIVATE_REGISTRY;
        for (name, folder, address, tls, auth) in [
            ("registry", storage, format!("{REGISTRY}:443"), Some(tls("registry")), None),
            ("registry-push", storage, names::REGISTRY_PUSH.to_string(), None, None),
            ("own-registry", &own_storage, format!("{own}:443"), Some(tls("own-registry")), Some(basic)),
            ("own-registry-push", &own_storage, names::PRIVATE_REGISTRY_PUSH.to_string(), None, None),
        ] {
            let mut http = json!({"addr": address, "secret": "tests"});
            if let Some(tls) = tls {
                http["tls"] = tls;
            }
            let mut config = json!({
                "version": "0.1", "log": {"level": "warn", "accesslog": {"disabled": true}}, "http": http,
                "storage": {"filesystem": {"rootdirectory": folder}, "delete": {"enabled": true}},
            });
            if let Some(auth) = auth {
                config["auth"] = auth;
            }
            // JSON is YAML.
            let file = self.write(&format!("registries/{name}.yaml"), &config.to_string());
            let mut command = self.program("docker-registry");
            self.start(name, command.arg("serve").arg(file));
        }
    }

    /// Ends the registries.
    pub fn stop_registries(&mut self) {
        self.processes.retain(|name, _| !name.contains("registry"));
    }

    /// Starts etcd and the API server.
    pub fn start_api_server(&mut self) {
        let mut etcd = self.program("etcd");
        etcd.arg(format!("--data-dir={}", self.path("etcd").display())).args([
            format!("--listen-client-urls={ETCD}"),
            format!("--advertise-client-urls={ETCD}"),
            format!("--listen-peer-urls={ETCD_PEERS}"),
            format!("--initial-advertise-peer-urls={ETCD_PEERS}"),
            format!("--initial-cluster=default={ETCD_PEERS}"),
            // Safe here: the data does not outlive this run.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=error".to_owned(),
        ]);
        self.start("etcd", &mut etcd);
        let pki = self.pki.clone();
        let file = |name: &str| pki.join(name).display().to_string();
        let mut server = self.program("kube-apiserver");
        server.args([
            format!("--etcd-servers={ETCD}"),
            format!("--secure-port={}", names::API_PORT),
            "--bind-address=0.0.0.0".to_owned(),
            format!("--advertise-address={NODE}"),
            "--endpoint-reconciler-type=master-count".to_owned(),
            format!("--tls-cert-file={}", file("api.crt")),
            format!("--tls-private-key-file={}", file("api.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", file("accounts.pub")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            format!("--service-cluster-ip-range={SERVICES}"),
            format!("--kubelet-client-certificate={}", file("kubelet-client.crt")),
            format!("--kubelet-client-key={}", file("kubelet-client.key")),
            format!("--kubelet-certificate-authority={}", file("ca.crt")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
        ]);
        self.start("kube-apiserver", &mut server);
    }

    /// Starts the controllers and the scheduler, which end if the API server is not ready.
    pub fn start_controllers(&mut self) {
        let (pki, run) = (self.pki.clone(), self.folders.run.clone());
        let file = |name: &str| pki.join(name).display().to_string();
        let kubeconfig = |name: &str| pki::kubeconfig(&run, name).display().to_string();
        let mut controllers = self.program("kube-controller-manager");
        let user = kubeconfig("controller-manager");
        controllers.args([
            format!("--kubeconfig={user}"),
            format!("--authentication-kubeconfig={user}"),
            format!("--authorization-kubeconfig={user}"),
            format!("--service-account-private-key-file={}", file("accounts.key")),
            format!("--root-ca-file={}", file("ca.crt")),
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
            // A machine that is busy for a while is not a lost node.
            "--node-monitor-grace-period=10m".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
        ]);
        let mut scheduler = self.program("kube-scheduler");
        let user = kubeconfig("scheduler");
        scheduler.args([
            format!("--kubeconfig={user}"),
            format!("--authentication-kubeconfig={user}"),
            format!("--authorization-kubeconfig={user}"),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
        ]);
        self.start("kube-controller-manager", &mut controllers);
        self.start("kube-scheduler", &mut scheduler);
    }

    /// Starts containerd and DNS.
    pub fn start_containerd_and_dns(&mut self) {
        self.start_containerd();
        self.start_dns();
    }

    /// Whether containerd can be reached. kubelet ends if it cannot.
    pub fn has_containerd(&self) -> bool {
        UnixStream::connect(CONTAINERD).is_ok()
    }

    /// Starts kubelet and kube-proxy.
    pub fn start_kubelet(&mut self) {
        let config = self.kubelet_config();
        let kubeconfig = pki::kubeconfig(&self.folders.run, "kubelet");
        let mut kubelet = self.program("kubelet");
        kubelet.args([
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--root-dir={}", self.path("kubelet").display()),
            "--hostname-override=node".to_owned(),
            format!("--node-ip={NODE}"),
        ]);
        self.start("kubelet", &mut kubelet);
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables",
            "clientConnection": {"kubeconfig": pki::kubeconfig(&self.folders.run, "proxy")},
            "hostnameOverride": "node", "clusterCIDR": PODS,
            // The limits of the machine's connection table cannot be set from a network namespace.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "nftables": {"minSyncPeriod": "100ms"},
            "healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
        });
        // kube-proxy ends when its file changes.
        let config = self.write("proxy.json", &config.to_string());
        let mut proxy = self.program("kube-proxy");
        self.start("kube-proxy", proxy.arg(format!("--config={}", config.display())));
    }

    fn start_containerd(&mut self) {
        let network = json!({
            "cniVersion": "1.0.0", "name": "pods", "plugins": [
                {"type": "bridge", "bridge": "pods0", "isGateway": true, "hairpinMode": true, "ipam": {
                    "type": "host-local", "dataDir": self.path("cni/data"),
                    "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            ]
        });
        self.write("cni/net.d/10-pods.conflist", &network.to_string());
        let ca = self.pki.join("ca.crt");
        // Credentials are for a host's name, so that the registry that asks for them keeps its own.
        let public = REGISTRY.to_string();
        let places = REGISTRIES.map(|host| (host, public.as_str())).into_iter().chain([(OWN_REGISTRY, OWN_REGISTRY)]);
        for (host, at) in places {
            let hosts = format!(
                "server = \"https://{at}\"\n[host.\"https://{at}\"]\ncapabilities = [\"pull\", \"resolve\"]\nca = {ca:?}\n"
            );
            self.write(&format!("certificates/{host}/hosts.toml"), &hosts);
        }
        let [root, certificates, networks] =
            ["containerd", "certificates", "cni/net.d"].map(|name| self.path(name).display().to_string());
        let pause = format!("{CLUSTER_IMAGES}/{}:{}", PAUSE_IMAGE.0, PAUSE_IMAGE.1);
        // Without CAP_SYS_RESOURCE, as in many containers, a negative oom_score_adj cannot be set.
        let config = format!(
            r#"version = 3
root = "{root}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
address = "{CONTAINERD}"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "{certificates}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "{networks}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "/usr/sbin/runc"
SystemdCgroup = false
"#
        );
        let config = self.write("containerd.toml", &config);
        let mut containerd = self.program("containerd");
        self.start("containerd", containerd.arg("--config").arg(config));
    }

    fn start_dns(&mut self) {
        let line = |address, hosts: &[&str]| format!("        {address} {}\n", hosts.join(" "));
        let mut hosts = line(REGISTRY, &REGISTRIES) + &line(PRIVATE_REGISTRY, &[OWN_REGISTRY]) + &line(GIT, &GIT_HOSTS);
        for (host, address) in CRATES.into_iter().zip(CRATES_ADDRESSES) {
            hosts += &line(address, &[host]);
        }
        let user = pki::kubeconfig(&self.folders.run, "dns");
        let config = format!(
            ".:53 {{
    bind {NODE}
    errors
    hosts {{
{hosts}        fallthrough
    }}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {} cluster
        pods insecure
        ttl 5
    }}
    cache 5
}}
",
            user.display()
        );
        let config = self.write("Corefile", &config);
        fs::write("/etc/resolv.conf", format!("nameserver {NODE}\n")).expect("the resolver's file");
        let mut dns = self.program("coredns");
        self.start("coredns", dns.arg("-conf").arg(config));
    }

    fn kubelet_config(&self) -> PathBuf {
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "failCgroupV1": false, "cgroupDriver": "cgroupfs", "cgroupsPerQOS": true, "enforceNodeAllocatable": ["pods"],
            "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
            "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.pki.join("ca.crt")}},
            "authorization": {"mode": "Webhook"},
            "clusterDNS": [NODE], "clusterDomain": "cluster.local",
            "tlsCertFile": self.pki.join("kubelet.crt"), "tlsPrivateKeyFile": self.pki.join("kubelet.key"),
            "failSwapOn": false, "maxPods": 250, "serializeImagePulls": false, "syncFrequency": "10s",
            "podLogsDir": self.path("pod-logs"), "resolvConf": "/etc/resolv.conf",
            "volumePluginDir": self.path("volume-plugins"),
            // The machine's own page cache counts as memory in use. A moment of pressure would evict pods, and keep new
            // ones away for five minutes.
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
                "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
            "imageGCHighThresholdPercent": 100,
        });
        self.write("kubelet.json", &config.to_string())
    }

    /// Starts Envoy with the configuration that [`super::ingress`] has written.
    pub fn start_envoy(&mut self) {
        let mut envoy = Command::new(&self.folders.assets.envoy);
        let config = self.path("envoy/bootstrap.json");
        self.start("envoy", envoy.arg("-c").arg(config).args(["--log-level", "warn", "--concurrency", "1"]));
    }
}
