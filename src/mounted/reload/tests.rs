use std::fs;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};

use super::*;
use crate::mounted::tests::swap;
use crate::mounted::{Files, ReadError};
use crate::telemetry::metrics::Registry;

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
enum Invalid {
    Read(#[from] ReadError),
    Number(#[from] ParseIntError),
}

/// A number for each team: the sum of its files.
struct Numbers(Vec<PathBuf>);

impl Source for Numbers {
    type Value = u32;
    type Error = Invalid;
    type View = BTreeMap<Team, Loaded<u32>>;
    const KIND: ConfigKind = ConfigKind::Templates;

    fn paths(&self) -> &[PathBuf] {
        &self.0
    }

    fn read(&self) -> Result<Reading, ReadError> {
        let (fingerprint, tree) = super::super::read(&self.0[0], |_| true);
        Ok(Reading { tree: tree?, fingerprints: vec![fingerprint] })
    }

    fn load(&self, _team: &Team, files: Files, _settings: &Settings) -> Result<u32, Invalid> {
        let files = files.complete()?;
        let number = |file: &super::super::File| String::from_utf8_lossy(&file.content).trim().parse::<u32>();
        Ok(files.iter().map(number).sum::<Result<u32, _>>()?)
    }

    fn view(&self, teams: &BTreeMap<Team, Loaded<u32>>) -> Self::View {
        teams.clone()
    }
}

fn start(path: &Path) -> Result<Reloading<Numbers>, Faults> {
    Reloading::start(Numbers(vec![path.to_owned()]), &ReloadMetrics::register(&Registry::default()))
}

fn value(reloading: &Reloading<Numbers>, team: &Team) -> Option<u32> {
    reloading.current().get(team)?.value.as_deref().copied()
}

fn is_stale(reloading: &Reloading<Numbers>, team: &Team) -> bool {
    reloading.current().get(team).is_some_and(|loaded| loaded.error.is_some())
}

#[test]
fn loads_valid_swap_at_once_and_rejects_invalid_swap() {
    let folder = tempfile::tempdir().expect("a folder");
    swap(folder.path(), "1", &[("n", "1")]);
    let reloading = start(folder.path()).expect("a number");
    assert!(!reloading.refresh());
    swap(folder.path(), "2", &[("n", "2")]);
    assert!(reloading.refresh());
    assert_eq!(value(&reloading, &Team::TOP), Some(2));
    swap(folder.path(), "3", &[("n", "three")]);
    assert!(!reloading.refresh());
    assert!(is_stale(&reloading, &Team::TOP));
    assert_eq!(value(&reloading, &Team::TOP), Some(2));
    swap(folder.path(), "4", &[("n", "4")]);
    assert!(reloading.refresh());
    assert_eq!(value(&reloading, &Team::TOP), Some(4));
    assert!(!is_stale(&reloading, &Team::TOP));
}

#[test]
fn loads_file_edited_in_place_when_it_stops_changing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("n");
    fs::write(&file, "1").expect("a file");
    let reloading = start(&file).expect("a number");
    fs::write(&file, "22").expect("a file");
    assert!(!reloading.refresh(), "seen for the first time");
    fs::write(&file, "333").expect("a file");
    assert!(!reloading.refresh(), "changed again");
    assert!(reloading.refresh());
    assert_eq!(value(&reloading, &Team::TOP), Some(333));
}

#[test]
fn start_fails_without_valid_value() {
    assert!(start(Path::new("/no/such/file")).is_err());
    let folder = tempfile::tempdir().expect("a folder");
    for team in ["a", "b"] {
        fs::create_dir(folder.path().join(team)).expect("a folder");
        fs::write(folder.path().join(team).join("n"), "no number").expect("a file");
    }
    let error = start(folder.path()).map(drop).expect_err("no number").to_string();
    assert_eq!(error.lines().count(), 2, "{error}");
}

#[test]
fn each_team_keeps_its_own_last_good_value() {
    let (a, b, c) = (Team::of_folder("a"), Team::of_folder("b"), Team::of_folder("c"));
    let folder = tempfile::tempdir().expect("a folder");
    for (team, number) in [("a", "1"), ("b", "broken"), ("Not-A-Label", "5")] {
        fs::create_dir(folder.path().join(team)).expect("a folder");
        swap(&folder.path().join(team), "1", &[("n", number)]);
    }
    let reloading = start(folder.path()).expect("a number");
    assert_eq!((value(&reloading, &a), value(&reloading, &b)), (Some(1), None));
    assert!(is_stale(&reloading, &Team::of_folder("Not-A-Label")));
    assert!(!reloading.current().contains_key(&Team::TOP), "all files are of teams");

    swap(&folder.path().join("a"), "2", &[("n", "broken")]);
    swap(&folder.path().join("b"), "2", &[("n", "2")]);
    fs::create_dir(folder.path().join("c")).expect("a folder");
    swap(&folder.path().join("c"), "1", &[("n", "3")]);
    assert!(reloading.refresh(), "each team's files are exchanged at once");
    let values = [&a, &b, &c].map(|team| value(&reloading, team));
    assert_eq!(values, [Some(1), Some(2), Some(3)]);
    assert_eq!([&a, &b, &c].map(|team| is_stale(&reloading, team)), [true, false, false]);

    fs::remove_dir_all(folder.path().join("c")).expect("removed");
    assert!(reloading.refresh());
    assert_eq!(value(&reloading, &c), None);
    assert_eq!(value(&reloading, &a), Some(1), "still the last good one");
}

#[test]
fn keeps_the_value_of_a_team_whose_files_did_not_change() {
    let folder = tempfile::tempdir().expect("a folder");
    swap(folder.path(), "1", &[("a/n", "1"), ("b/n", "2")]);
    let reloading = start(folder.path()).expect("numbers");
    let team = Team::of_folder("a");
    let value = |team: &Team| reloading.current().get(team).and_then(|loaded| loaded.value.clone()).expect("a value");
    let before = value(&team);
    swap(folder.path(), "2", &[("a/n", "1"), ("b/n", "3")]);
    assert!(reloading.refresh());
    assert!(Arc::ptr_eq(&before, &value(&team)), "not loaded again");
    assert_eq!(*value(&Team::of_folder("b")), 3);
}
