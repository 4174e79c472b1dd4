//! The environment of a campaign: two services in one namespace, a real control plane, Knative's components and the
//! networks between them; and the faults that it injects there.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::plan::{Fault, Place};
use crate::roads::{Roads, SOURCE_SECRET, Secrets};
use crate::support::control_plane::{ControlPlane, own};
use crate::support::http::HttpClient;
use crate::support::mount::Mount;
use crate::support::peers::Peer;
use crate::support::proxy::{Proxy, Weather};
use crate::support::service::{Lines, Service, Setup, TEMPLATE};

const NAMESPACE: &str = "campaign";
const ACCOUNT: &str = "campaign:github-trigger";
/// The shipped Trigger; [`Stage::build`] reduces its retries.
const TRIGGER: &str = include_str!("../../config/github-source/trigger.yaml");
/// Duration of a fault that does not end by itself.
const A_WHILE: Duration = Duration::from_millis(1500);

/// One service and the network in front of it.
struct Instance {
    service: Service,
    proxy: Proxy,
    templates: Mount,
    secrets: Mount,
}

/// All processes of a campaign.
pub struct Stage {
    plane: ControlPlane,
    api: Proxy,
    public: Instance,
    private: Instance,
    source: Peer,
    broker: Peer,
    secrets: Arc<Mutex<Secrets>>,
    generation: u64,
    logs: Vec<Lines>,
    _folder: TempDir,
}

impl Stage {
    /// Starts all of it. Returns `None` if there is no control plane, after printing why.
    pub async fn build(seed: u64) -> Option<Self> {
        let plane = own()?;
        plane.namespace(NAMESPACE);
        let kubeconfig = plane.trigger_account(NAMESPACE);
        let api = Proxy::start(SocketAddr::from(([127, 0, 0, 1], plane.port())), seed).await;
        let text = fs::read_to_string(&kubeconfig).expect("a kubeconfig");
        let through_proxy = text.replace(&plane.port().to_string(), &api.address.port().to_string());
        fs::write(&kubeconfig, through_proxy).expect("a kubeconfig");

        let secrets = Secrets { current: "secret 0".to_owned(), retired: "never mounted".to_owned() };
        let instance = async |seed: u64, args: &[&str]| {
            let mut setup = Setup::cluster(&kubeconfig).arg("--deadline=4");
            for arg in args {
                setup = setup.arg(arg);
            }
            let templates = Mount::over(&setup.templates(), &[("template.yaml", &template(0))]);
            let mount = Mount::over(&setup.secrets(), &[("current", &secrets.current)]);
            let service = setup.start();
            let proxy = Proxy::start(service.address, seed).await;
            Instance { service, proxy, templates, secrets: mount }
        };
        let public = instance(seed + 1, &[]).await;
        let private = instance(seed + 2, &["--cloudevents-auth=none"]).await;

        let folder = tempfile::tempdir().expect("a folder");
        let trigger = folder.path().join("trigger.yaml");
        fs::write(&trigger, TRIGGER.replace("retry: 10", "retry: 2")).expect("a file");
        let sink = format!("http://{}/", private.proxy.address);
        let args = ["-sink", &sink, "-secret", SOURCE_SECRET, "-owner-and-repository", "acme/web"];
        let source = Peer::receive_adapter(&args)?;
        let trigger = trigger.display().to_string();
        // Dead letters are discarded: nothing listens on this port.
        let args = ["-trigger", &trigger, "-subscriber", &sink, "-dead-letter-sink", "http://127.0.0.1:9/"];
        let broker = Peer::broker(&args)?;
        let secrets = Arc::new(Mutex::new(secrets));
        let logs = vec![public.service.log.clone(), private.service.log.clone()];
        Some(Self { plane, api, public, private, source, broker, secrets, generation: 0, logs, _folder: folder })
    }

    /// Addresses and secrets for the senders.
    pub fn roads(&self) -> Roads {
        Roads {
            public: self.public.proxy.address,
            source: self.source.address,
            broker: self.broker.address,
            secrets: Arc::clone(&self.secrets),
            client: HttpClient::new(),
        }
    }

    /// All PipelineRuns of the campaign's namespace.
    pub fn runs(&self) -> Vec<Value> {
        block_in_place(|| self.plane.runs(NAMESPACE))
    }

    /// All log lines of both services, including those before a restart.
    pub fn logs(&self) -> Vec<String> {
        self.logs.iter().flat_map(Lines::all).collect()
    }

    /// Peak memory of either service since its last start, in KiB.
    pub fn memory(&self) -> u64 {
        self.public.service.memory("VmHWM").max(self.private.service.memory("VmHWM"))
    }

    fn instance(&mut self, place: Place) -> &mut Instance {
        match place {
            Place::Public => &mut self.public,
            Place::Private => &mut self.private,
        }
    }

    /// Injects a fault, and repairs it.
    pub async fn play(&mut self, fault: Fault, place: Place) {
        sleep(Duration::from_millis(200)).await;
        match fault {
            Fault::ServiceKilled => self.restart(place),
            Fault::ServiceStopped => {
                let instance = self.instance(place);
                instance.service.signal("TERM");
                let ended = block_in_place(|| instance.service.wait(Duration::from_secs(20)));
                assert!(ended.is_some_and(|status| status.success()), "no exit 0 within 20 s of SIGTERM: {ended:?}");
                self.restart(place);
            }
            Fault::ServiceFrozen => {
                let instance = self.instance(place);
                instance.service.signal("STOP");
                sleep(A_WHILE).await;
                instance.service.signal("CONT");
            }
            Fault::ApiServerKilled => {
                block_in_place(|| self.plane.kill_api_server());
                sleep(A_WHILE).await;
                self.plane.start_api_server();
                block_in_place(|| self.plane.wait_until_ready());
            }
            Fault::EtcdKilled => {
                block_in_place(|| self.plane.kill_etcd());
                sleep(A_WHILE).await;
                self.plane.start_etcd();
                block_in_place(|| self.plane.wait_until_ready());
            }
            Fault::SendersReset => self.senders(Weather::Resets(4)).await,
            Fault::SendersSlow => self.senders(Weather::Slow(400)).await,
            Fault::AnswersSwallowed => self.senders(Weather::Swallows(2)).await,
            Fault::ApiReset => self.api_network(Weather::Resets(6)).await,
            Fault::ApiSlow => self.api_network(Weather::Slow(700)).await,
            Fault::ApiAnswersSwallowed => self.api_network(Weather::Swallows(3)).await,
            Fault::TemplatesChanged => {
                self.generation += 1;
                self.mount_templates(&template(self.generation));
            }
            Fault::TemplatesBroken => {
                self.mount_templates("apiVersion: tekton.dev/v1\nkind: PipelineRum\n");
                sleep(A_WHILE).await;
                self.mount_templates(&template(self.generation));
            }
            Fault::SecretRotated => self.rotate().await,
            Fault::SecretsBroken => {
                self.mount_secrets(&[("current", " \n")]);
                sleep(A_WHILE).await;
                let current = self.secrets.lock().expect("the secrets").current.clone();
                self.mount_secrets(&[("current", &current)]);
            }
        }
    }

    fn restart(&mut self, place: Place) {
        let instance = self.instance(place);
        block_in_place(|| instance.service.restart());
        instance.proxy.lead_to(instance.service.address);
        let log = instance.service.log.clone();
        self.logs.push(log);
    }

    async fn senders(&mut self, weather: Weather) {
        self.public.proxy.set(weather);
        self.private.proxy.set(weather);
        sleep(A_WHILE).await;
        self.public.proxy.set(Weather::Fair);
        self.private.proxy.set(Weather::Fair);
    }

    async fn api_network(&mut self, weather: Weather) {
        self.api.set(weather);
        sleep(A_WHILE).await;
        self.api.set(Weather::Fair);
    }

    fn mount_templates(&mut self, content: &str) {
        self.public.templates.replace(&[("template.yaml", content)]);
        self.private.templates.replace(&[("template.yaml", content)]);
    }

    fn mount_secrets(&mut self, files: &[(&str, &str)]) {
        self.public.secrets.replace(files);
        self.private.secrets.replace(files);
    }

    /// As in the README: mount the new secret in addition, change it in GitHub, then remove the old one.
    async fn rotate(&mut self) {
        self.generation += 1;
        let new = format!("secret {}", self.generation);
        let old = self.secrets.lock().expect("the secrets").current.clone();
        self.mount_secrets(&[("current", &old), ("next", &new)]);
        sleep(Duration::from_millis(300)).await;
        self.secrets.lock().expect("the secrets").current.clone_from(&new);
        sleep(Duration::from_millis(300)).await;
        self.mount_secrets(&[("current", &new)]);
        // Both services have reloaded by then.
        sleep(Duration::from_millis(2500)).await;
        self.secrets.lock().expect("the secrets").retired = old;
    }

    /// Waits until the API server is ready and the services may create runs.
    pub fn recover(&mut self) {
        block_in_place(|| {
            self.plane.wait_until_ready();
            self.plane.wait_until_allowed(ACCOUNT, NAMESPACE);
        });
    }
}

/// A version of the template. The template's name stays, so that the names of its runs do.
fn template(generation: u64) -> String {
    TEMPLATE.replace("target_branch }}\"", &format!("target_branch }}}}-{generation}\""))
}
