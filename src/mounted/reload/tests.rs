use std::fs;
use std::path::Path;

use super::*;
use crate::mounted::tests::swap;

fn metrics() -> ReloadMetrics {
    ReloadMetrics::register(&Registry::default())
}

fn number(path: &Path) -> Result<u32, std::num::ParseIntError> {
    fs::read_to_string(path).unwrap_or_default().trim().parse()
}

#[test]
fn loads_valid_swap_at_once_and_rejects_invalid_swap() {
    let folder = tempfile::tempdir().expect("a folder");
    swap(folder.path(), "1", &[("n", "1")]);
    let file = folder.path().join("n");
    let reloading =
        Reloading::start(ConfigKind::Templates, vec![folder.path().to_owned()], &metrics(), move || number(&file))
            .expect("a number");
    assert!(!reloading.refresh());
    swap(folder.path(), "2", &[("n", "2")]);
    assert!(reloading.refresh());
    assert_eq!(*reloading.current(), 2);
    swap(folder.path(), "3", &[("n", "three")]);
    assert!(!reloading.refresh());
    assert!(reloading.state().stale);
    assert_eq!(*reloading.current(), 2);
    swap(folder.path(), "4", &[("n", "4")]);
    assert!(reloading.refresh());
    assert_eq!(*reloading.current(), 4);
    assert!(!reloading.state().stale);
}

#[test]
fn loads_file_edited_in_place_when_it_stops_changing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("n");
    fs::write(&file, "1").expect("a file");
    let path = file.clone();
    let reloading = Reloading::start(ConfigKind::Templates, vec![file.clone()], &metrics(), move || number(&path))
        .expect("a number");
    fs::write(&file, "22").expect("a file");
    assert!(!reloading.refresh(), "seen for the first time");
    fs::write(&file, "333").expect("a file");
    assert!(!reloading.refresh(), "changed again");
    assert!(reloading.refresh());
    assert_eq!(*reloading.current(), 333);
}

#[test]
fn start_fails_without_valid_value() {
    let file = std::path::PathBuf::from("/no/such/file");
    let path = file.clone();
    assert!(Reloading::start(ConfigKind::Templates, vec![file], &metrics(), move || number(&path)).is_err());
}
