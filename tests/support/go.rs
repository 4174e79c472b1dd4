//! Builds Go programs for the tests, once, below `target/`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Prints to stderr at once. cargo would show `eprintln!` output only if the test fails.
pub fn say(message: &str) {
    let _ = writeln!(io::stderr(), "tests: {message}");
}

/// cargo's target folder, in which this program is.
pub fn target_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let program = std::env::current_exe().expect("this program");
        let folder = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
        folder.expect("a target folder").to_owned()
    })
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
    build_with(module, package, finished, &[])
}

/// As [`build`], and sets string variables of packages: `package.variable=value`.
///
/// # Errors
/// As [`build`].
pub fn build_with(module: &Path, package: &str, finished: &Path, variables: &[&str]) -> Result<(), String> {
    if finished.exists() {
        return Ok(());
    }
    let name = finished.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let started = Instant::now();
    say(&format!("building {name}; this is done once and takes some minutes"));
    let unfinished = finished.with_extension("part");
    let variables: String = variables.iter().map(|variable| format!(" -X {variable}")).collect();
    let flags = format!("-ldflags=-s -w{variables}");
    let status = Command::new("go")
        .args(["build", "-trimpath", &flags, "-o"])
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

/// Adds the names and contents of all files in a folder and below it to a hash, wherever the folder is.
///
/// # Errors
/// If a file cannot be read.
pub fn hash_folder(folder: &Path, hash: &mut Sha256) -> io::Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort();
    for entry in entries {
        hash.update(entry.file_name().unwrap_or_default().as_encoded_bytes());
        if entry.is_dir() {
            hash_folder(&entry, hash)?;
        } else {
            hash.update(fs::read(&entry)?);
        }
    }
    Ok(())
}
