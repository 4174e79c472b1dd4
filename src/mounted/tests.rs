use std::os::unix::fs::symlink;

use super::*;

/// Updates a mounted volume as the kubelet does.
pub(crate) fn swap(folder: &Path, version: &str, files: &[(&str, &str)]) {
    let new = format!("..{version}");
    fs::create_dir(folder.join(&new)).expect("a folder");
    for (name, content) in files {
        fs::write(folder.join(&new).join(name), content).expect("a file");
        let link = folder.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), &link).expect("a link");
        }
    }
    let old = fs::read_link(folder.join("..data")).ok();
    symlink(&new, folder.join("..data_tmp")).expect("a link");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("a rename");
    if let Some(old) = old {
        fs::remove_dir_all(folder.join(old)).expect("no old folder");
    }
}

fn contents(path: &Path) -> Vec<(String, String)> {
    let files = read(path, |name| name.ends_with(".yaml")).expect("files");
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
        if let Ok(files) = read(&path, |_| true) {
            assert_eq!(files.len(), 2);
            assert_eq!(files[0].content, files[1].content);
            seen += 1;
        }
    }
    writer.join().expect("swaps");
}

#[test]
fn read_errors_name_the_path() {
    let error = read(Path::new("/no/such/file"), |_| true).expect_err("no file").to_string();
    assert!(error.contains("/no/such/file"), "{error}");
    let folder = tempfile::tempdir().expect("a folder");
    let large = folder.path().join("large.yaml");
    fs::File::create(&large).and_then(|file| file.set_len(MAX_FILE_BYTES + 1)).expect("a file");
    assert!(matches!(read(&large, |_| true), Err(ReadError::TooLarge { .. })));
}

#[test]
fn names_what_is_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.yaml"), "a").expect("a file");
    fs::create_dir(folder.path().join("b.yaml")).expect("a folder");
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("c.yaml")).expect("a socket");
    let files = read_each(folder.path(), |_| true).expect("the folder");
    assert_eq!(files.len(), 2, "{files:?}");
    let error = files[1].as_ref().expect_err("a socket").to_string();
    assert!(error.contains("c.yaml") && error.contains("not a regular file"), "{error}");
}
