//! `lint` of 1,000 templates.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::load::many_templates;
use crate::{median, program, row};

const TEMPLATES: usize = 1000;
const RUNS: usize = 7;

/// Time of the whole command; each template contains an expression.
pub fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("templates.yaml");
    let expression = "slug(target_branch) + '-' + ShortCommitid";
    fs::write(&file, many_templates(TEMPLATES).replace("target_branch", expression)).expect("a file");
    let mut seconds = Vec::new();
    for _ in 0..RUNS {
        let started = Instant::now();
        let lint = Command::new(program()).args(["lint", "--trigger-config"]).arg(&file).stderr(Stdio::null()).status();
        assert!(lint.expect("the program").success());
        seconds.push(started.elapsed().as_secs_f64());
    }
    row("lint of 1,000 templates", &format!("{:.0} ms", median(&mut seconds) * 1e3), "", None, "< 1 s");
}
