//! Builds Go programs for the tests, once, below `target/`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

/// Prints to stderr at once. cargo would show `eprintln!` output only if the test fails.
pub fn say(message: &str) {
    let _ = writeln!(io::stderr(), "tests: {message}");
}

/// cargo's target folder.
pub fn target_folder() -> PathBuf {
    // target/<profile>/github-trigger
    Path::new(super::service::PROGRAM).ancestors().nth(2).expect("a target folder").to_owned()
}

/// Locks a folder while the returned file is held, so that two test runs do not build into it at once.
pub fn lock(folder: &Path) -> Result<fs::File, String> {
    let lock = fs::File::create(folder.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    Ok(lock)
}

/// Builds a package of the Go module in `module` into the file `finished`, unless that exists.
///
/// # Errors
/// If `go` cannot be run or the build fails.
pub fn build(module: &Path, package: &str, finished: &Path) -> Result<(), String> {
    if finished.exists() {
        return Ok(());
    }
    let name = finished.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let started = Instant::now();
    say(&format!("building {name}; this is done once and takes some minutes"));
    let unfinished = finished.with_extension("part");
    let status = Command::new("go")
        .args(["build", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(&unfinished)
        .arg(package)
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("go: {error}"))?;
    if !status.success() {
        return Err(format!("go build {package} failed, see above"));
    }
    fs::rename(&unfinished, finished).map_err(|error| error.to_string())?;
    say(&format!("built {name} in {} s", started.elapsed().as_secs()));
    Ok(())
}

/// Downloads a Go module in the version that `requiring` pins, and returns its folder in the module cache.
///
/// # Errors
/// If `go` cannot be run or the download fails.
pub fn module_folder(requiring: &Path, module: &str) -> Result<PathBuf, String> {
    let output = Command::new("go")
        .args(["mod", "download", "-json", module])
        .current_dir(requiring)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("go: {error}"))?;
    let answer: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("go mod: {error}"))?;
    answer["Dir"].as_str().map(PathBuf::from).ok_or(format!("go mod download {module}: {answer}"))
}
