//! The shipped rules, alerts and dashboard, in a real Prometheus and Alertmanager that monitor the running service.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::fake_api::{FakeApi, Fault};
use crate::support::go;
use crate::support::process::{Guarded, free_ports};
use crate::support::prometheus::Prometheus;
use crate::support::receiver::Receiver;
use crate::support::service::{LOGGED, Service, Setup};
use crate::support::webhook::{SHA, merged};

const RULES: &str = "config/observability/prometheus-rules.yaml";
/// Prometheus has started, scraped and evaluated by then.
const SEEN: Duration = Duration::from_secs(40);

/// Path of a program on `PATH`. Returns `None` if it is not installed, after printing what to install; panics then if
/// `REQUIRE_CONTROL_PLANE` is set.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.exists());
    if found.is_none() {
        let message = format!("skipped: tests that need {name}; apt-get install prometheus prometheus-alertmanager");
        assert!(std::env::var_os("REQUIRE_CONTROL_PLANE").is_none(), "{message}");
        go::say(&message);
    }
    found
}

/// Prometheus and Alertmanager for one service, with the shipped rules and intervals of a second instead of a minute.
struct Watch {
    prometheus: Prometheus,
    alerts: Receiver,
    _processes: [Guarded; 2],
    _folder: TempDir,
}

impl Watch {
    async fn start(service: &Service) -> Option<Self> {
        let (prometheus, alertmanager) = (program("prometheus")?, program("prometheus-alertmanager")?);
        let line = service.log.wait_for("serving metrics", LOGGED);
        let target = line.rsplit_once("address=").expect("an address").1;
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let [prometheus_port, alertmanager_port] = free_ports();
        let alerts = Receiver::start().await;

        let routes = fs::read_to_string("config/observability/alertmanager.yaml").expect("the routes");
        let routes =
            routes.replace("http://alerts.example.com/hook", &alerts.url()).replace("10s", "1s").replace("1m", "1s");
        fs::write(path("alertmanager.yaml"), routes).expect("a file");
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [fs::canonicalize(RULES).expect("the rules")],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [format!("127.0.0.1:{alertmanager_port}")]}]}]},
            "scrape_configs": [{"job_name": "github-trigger", "static_configs": [{"targets": [target]}]}],
        });
        fs::write(path("prometheus.yaml"), config.to_string()).expect("a file");
        let command = |program: &Path, flags: &[String]| [&[program.display().to_string()][..], flags].concat();
        let alertmanager = command(
            &alertmanager,
            &[
                format!("--config.file={}", path("alertmanager.yaml")),
                format!("--storage.path={}", path("alertmanager")),
                format!("--web.listen-address=127.0.0.1:{alertmanager_port}"),
                "--cluster.listen-address=".to_owned(),
            ],
        );
        let prometheus = command(
            &prometheus,
            &[
                format!("--config.file={}", path("prometheus.yaml")),
                format!("--storage.tsdb.path={}", path("prometheus")),
                format!("--web.listen-address=127.0.0.1:{prometheus_port}"),
                // An alert that Alertmanager was not there for is sent again after a minute, else.
                "--rules.alert.resend-delay=1s".to_owned(),
            ],
        );
        let processes = [
            Guarded::spawn(&alertmanager, &folder.path().join("alertmanager.log")),
            Guarded::spawn(&prometheus, &folder.path().join("prometheus.log")),
        ];
        let address = SocketAddr::from(([127, 0, 0, 1], prometheus_port));
        let prometheus = Prometheus { address, log: folder.path().join("prometheus.log") };
        Some(Self { prometheus, alerts, _processes: processes, _folder: folder })
    }

    /// Whether Alertmanager has sent an alert with this name.
    fn has_arrived(&self, alert: &str) -> bool {
        let needle = format!("\"alertname\":\"{alert}\"");
        self.alerts.received().iter().any(|request| String::from_utf8_lossy(&request.body).contains(&needle))
    }
}

async fn fail(service: &Service, number: u64) {
    let reply = service.merge(&format!("d{number}"), &merged("acme/web", number, SHA)).await;
    assert_eq!(reply.outcome(), "unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_on_more_than_three_errors_in_a_minute() {
    let api = FakeApi::start().await;
    let setup = Setup::cluster(&api.kubeconfig()).arg("--metrics-addr=127.0.0.1:0").arg("--deadline=1");
    let service = setup.start();
    let Some(watch) = Watch::start(&service).await else { return };
    watch.prometheus.wait_for("github_trigger:log_errors:delta1m", 0.0, SEEN).await;
    service.merge("d1", &merged("acme/web", 1, SHA)).await;
    service.merge("d2", &merged("acme/web", 1, SHA)).await;

    api.fail_always(Some(Fault::Status(403, "Forbidden")));
    let mut number = 1;
    let fail = async || {
        number += 1;
        assert!(number > 5 || !watch.has_arrived("GithubTriggerErrors"), "it came before the fourth error");
        fail(&service, number).await;
    };
    let firing = "{alertname=\"GithubTriggerErrors\",alertstate=\"firing\"}";
    watch.prometheus.assert_fires_at_the_fourth("github_trigger:log_errors:delta1m", firing, fail).await;
    let end = Instant::now() + Duration::from_secs(30);
    for alert in ["GithubTriggerErrors", "GithubTriggerCreatesFail"] {
        while !watch.has_arrived(alert) {
            assert!(Instant::now() < end, "Alertmanager did not send {alert} within 30 s");
            sleep(Duration::from_millis(100)).await;
        }
    }

    // Every query of the dashboard returns at least one finite number.
    let dashboard = fs::read_to_string("config/observability/grafana-dashboard.json").expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() >= 10);
    for panel in panels {
        for target in panel["targets"].as_array().expect("targets") {
            let expression = target["expr"].as_str().expect("a query").replace("$__rate_interval", "1m");
            let answer = watch.prometheus.query(&expression).await;
            let numbers = answer.iter().filter_map(|sample| sample["value"][1].as_str()?.parse::<f64>().ok());
            assert!(
                numbers.filter(|number| number.is_finite()).count() > 0,
                "{}: {expression}: {answer:?}",
                panel["title"]
            );
        }
    }
}

#[test]
fn shipped_rules_and_routes_pass_promtool_and_amtool() {
    let (Some(promtool), Some(_)) = (program("promtool"), program("prometheus-alertmanager")) else { return };
    let run = |program: &Path, args: &[&str]| {
        let output = Command::new(program).args(args).output().expect("the program");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said));
    };
    run(&promtool, &["check", "rules", RULES]);
    run(&promtool, &["test", "rules", "tests/data/prometheus/rules-test.yaml"]);
    // Debian's Prometheus is built without Kubernetes service discovery: check the rest with a static target.
    let config = fs::read_to_string("config/observability/prometheus.yaml").expect("the configuration");
    let mut config: Value = serde_saphyr::from_str(&config).expect("YAML");
    for job in config["scrape_configs"].as_array_mut().expect("jobs") {
        let job = job.as_object_mut().expect("a job");
        job.remove("kubernetes_sd_configs").expect("the discovery");
        job.insert("static_configs".to_owned(), json!([{"targets": ["127.0.0.1:9464"]}]));
    }
    config["rule_files"] = json!([fs::canonicalize(RULES).expect("the rules")]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("prometheus.yaml");
    fs::write(&file, config.to_string()).expect("a file");
    run(&promtool, &["check", "config", &file.display().to_string()]);
    if let Some(amtool) = program("amtool") {
        run(&amtool, &["check-config", "config/observability/alertmanager.yaml"]);
    }
}
