use std::os::unix::fs::symlink;

use super::*;
use crate::mounted::folder::is_atomic;

/// Updates a mounted volume as the kubelet does. A name may have a folder, as in a projected volume.
pub(crate) fn swap(folder: &Path, version: &str, files: &[(&str, &str)]) {
    let new = format!("..{version}");
    fs::create_dir(folder.join(&new)).expect("a folder");
    for (name, content) in files {
        let file = folder.join(&new).join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, content).expect("a file");
        // The kubelet links the first part of a path.
        let first = Path::new(name).components().next().expect("a name");
        let link = folder.join(first);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(first), &link).expect("a link");
        }
    }
    let old = fs::read_link(folder.join("..data")).ok();
    symlink(&new, folder.join("..data_tmp")).expect("a link");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("a rename");
    if let Some(old) = old {
        fs::remove_dir_all(folder.join(old)).expect("no old folder");
    }
}

fn files_of(path: &Path, team: &Team) -> Result<Vec<File>, ReadError> {
    read(path, |name| name.ends_with(".yaml")).1?.remove(team).unwrap_or_default().complete()
}

fn contents(path: &Path) -> Vec<(String, String)> {
    let files = files_of(path, &Team::TOP).expect("files");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    files.into_iter().map(|file| (file.path.display().to_string(), text(file.content))).collect()
}

#[test]
fn reads_a_mounted_folder_through_its_link() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    swap(path, "v1", &[("b.yaml", "b1"), ("a.yaml", "a1"), ("notes.txt", "no")]);
    let name = |name: &str| path.join(name).display().to_string();
    assert_eq!(contents(path), [(name("a.yaml"), "a1".into()), (name("b.yaml"), "b1".into())]);
    assert_eq!(contents(&path.join("b.yaml")), [(name("b.yaml"), "b1".into())]);
    assert!(is_atomic(path) && is_atomic(&path.join("b.yaml")));

    let before = (Fingerprint::from_path(path), Fingerprint::from_path(&path.join("b.yaml")));
    assert_eq!(before, (Fingerprint::from_path(path), Fingerprint::from_path(&path.join("b.yaml"))));
    assert_eq!(read(path, |_| true).0, before.0);
    swap(path, "v2", &[("b.yaml", "b2"), ("a.yaml", "a2")]);
    assert_ne!(before.0, Fingerprint::from_path(path));
    assert_ne!(before.1, Fingerprint::from_path(&path.join("b.yaml")));
    assert_eq!(contents(path), [(name("a.yaml"), "a2".into()), (name("b.yaml"), "b2".into())]);
}

#[test]
fn read_never_mixes_versions() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    swap(&path, "0", &[("a.yaml", "0"), ("b.yaml", "0")]);
    let writer = {
        let path = path.clone();
        std::thread::spawn(move || {
            for version in 1..300 {
                let text = version.to_string();
                swap(&path, &text, &[("a.yaml", &text), ("b.yaml", &text)]);
            }
        })
    };
    let mut seen = 0;
    while !writer.is_finished() || seen == 0 {
        // If the folder changes during each read, `read` fails instead of mixing versions.
        if let Ok(files) = files_of(&path, &Team::TOP) {
            assert_eq!(files.len(), 2);
            assert_eq!(files[0].content, files[1].content);
            seen += 1;
        }
    }
    writer.join().expect("swaps");
}

#[test]
fn read_errors_name_the_path() {
    let error = read(Path::new("/no/such/file"), |_| true).1.expect_err("no file").to_string();
    assert!(error.contains("/no/such/file"), "{error}");
    let folder = tempfile::tempdir().expect("a folder");
    let large = folder.path().join("large.yaml");
    fs::File::create(&large).and_then(|file| file.set_len(MAX_FILE_BYTES + 1)).expect("a file");
    assert!(matches!(files_of(&large, &Team::TOP), Err(ReadError::TooLarge { .. })));
}

#[test]
fn names_what_is_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.yaml"), "a").expect("a file");
    fs::create_dir(folder.path().join("b.yaml")).expect("a folder");
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("c.yaml")).expect("a socket");
    let tree = read(folder.path(), |_| true).1.expect("the folder");
    let files = &tree[&Team::TOP].entries;
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(tree.contains_key(&Team::of_folder("b.yaml")));
    let error = files[1].as_ref().expect_err("a socket").to_string();
    assert!(error.contains("c.yaml") && error.contains("not a regular file"), "{error}");
}

#[test]
fn reads_teams_of_a_projected_volume_and_of_volumes_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    swap(path, "v1", &[("a/x.yaml", "ax"), ("b/x.yaml", "bx"), ("top.yaml", "top")]);
    fs::create_dir(path.join("c")).expect("a folder");
    swap(&path.join("c"), "v1", &[("x.yaml", "cx"), ("notes", "no"), ("deep/x.yaml", "no")]);
    let tree = read(path, |name| name.ends_with(".yaml")).1.expect("files");
    let seen: Vec<(Option<&str>, usize)> =
        tree.iter().map(|(team, files)| (team.name(), files.entries.len())).collect();
    assert_eq!(seen, [(None, 1), (Some("a"), 1), (Some("b"), 1), (Some("c"), 1)]);
    let files = files_of(path, &Team::of_folder("a")).expect("files");
    assert_eq!((files[0].path.clone(), &files[0].content[..]), (path.join("a/x.yaml"), &b"ax"[..]));
    let others: Vec<&Path> = tree[&Team::of_folder("c")].others.iter().map(PathBuf::as_path).collect();
    assert_eq!(others, [path.join("c/deep"), path.join("c/notes")]);

    let before = Fingerprint::from_path(path);
    assert_eq!(before, Fingerprint::from_path(path));
    swap(&path.join("c"), "v2", &[("x.yaml", "cy")]);
    assert_ne!(before, Fingerprint::from_path(path));
}

#[test]
fn a_team_reads_nothing_outside_its_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let (outside, path) = (folder.path().join("outside"), folder.path().join("mount"));
    for name in ["outside", "mount", "mount/a", "mount/b"] {
        fs::create_dir(folder.path().join(name)).expect("a folder");
    }
    fs::write(outside.join("x.yaml"), "x").expect("a file");
    fs::write(path.join("a/own.yaml"), "own").expect("a file");
    symlink("own.yaml", path.join("a/same.yaml")).expect("a link");
    symlink(outside.join("x.yaml"), path.join("b/x.yaml")).expect("a link");
    symlink("../a/own.yaml", path.join("b/y.yaml")).expect("a link");
    symlink(&outside, path.join("c")).expect("a link");
    symlink("a", path.join("d")).expect("a link");
    symlink("/proc/self/environ", path.join("a/z.yaml")).expect("a link");
    let tree = read(&path, |name| name.ends_with(".yaml")).1.expect("files");
    let refused = |team: &str| {
        let entries = &tree[&Team::of_folder(team)].entries;
        entries.iter().filter(|entry| matches!(entry, Err(ReadError::Outside { .. }))).count()
    };
    assert_eq!(["a", "b", "c", "d"].map(refused), [1, 2, 1, 1], "{tree:?}");
    assert_eq!(tree[&Team::of_folder("a")].entries.len(), 3);
}
