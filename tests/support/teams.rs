//! Folders of teams below the program's templates and secrets.

use std::fs;

use serde_json::Value;

use super::http::Reply;
use super::service::{Service, Setup, TEMPLATE};
use super::webhook;

/// A team's secret in these tests.
pub fn secret(team: &str) -> String {
    format!("the secret of {team}, told to nobody")
}

/// [`TEMPLATE`] for the repositories of `owner` only.
pub fn template(owner: &str) -> String {
    TEMPLATE.replace("\"*/*\"", &format!("\"{owner}/*\""))
}

/// A dry run without files at the top.
pub fn dry_run() -> Setup {
    let setup = Setup::dry_run();
    fs::remove_file(setup.templates().join("template.yaml")).expect("removed");
    fs::remove_file(setup.secrets().join("github")).expect("removed");
    setup
}

impl Setup {
    /// Adds a team with its own secret, and with a template for repositories of the owner of the same name.
    pub fn team(self, team: &str) -> Self {
        self.team_file(team, "template.yaml", &template(team)).team_secret(team, "github", &secret(team))
    }

    /// Adds a file to a team's folder of templates.
    pub fn team_file(self, team: &str, name: &str, content: &str) -> Self {
        write(&self.templates().join(team), name, content);
        self
    }

    /// Adds a file to a team's folder of secrets.
    pub fn team_secret(self, team: &str, name: &str, content: &str) -> Self {
        write(&self.secrets().join(team), name, content);
        self
    }
}

fn write(folder: &std::path::Path, name: &str, content: &str) {
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join(name), content).expect("a file");
}

impl Service {
    /// Sends a merge that is signed with a team's secret.
    pub async fn merge_of(&self, team: &str, delivery: &str, payload: &Value) -> Reply {
        let body = payload.to_string().into_bytes();
        let headers = webhook::headers_signed_with(&secret(team), "pull_request", delivery, &body);
        self.send(http::Method::POST, "/", &headers, &body).await
    }
}
