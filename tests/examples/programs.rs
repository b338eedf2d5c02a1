//! Running examples as programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use serde_json::Value;

/// Runs an example on this server.
pub(crate) fn run(name: &str, url: &str, args: &[&str]) -> Output {
    example(name, url).args(args).output().unwrap()
}

/// An example that cargo has built beside this test, on these servers and without what else the environment says of them.
pub(crate) fn example(example: &str, urls: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let program =
        target.join("examples").join(example).with_extension(std::env::consts::EXE_EXTENSION);
    let sources = [format!("examples/{example}"), format!("examples/{example}.rs"), "src".into()];
    let changed = sources.iter().filter_map(|source| changed(Path::new(source))).max();
    let built = std::fs::metadata(&program).and_then(|program| program.modified()).ok();
    assert!(
        built >= changed,
        "{} is missing or older than its source; `cargo build --examples` builds it, and so does \
         `cargo test` without a choice of targets",
        program.display()
    );
    let mut command = Command::new(program);
    let settings = |name: &str| name.starts_with("CIM_") || name.starts_with("NATS_");
    for (name, _) in std::env::vars().filter(|(name, _)| settings(name) && name != "NATS_SERVER") {
        command.env_remove(name);
    }
    command.env("NATS_URL", urls);
    command
}

/// When a file, or something in a folder, was last written; `None` when it is not there.
pub(crate) fn changed(path: &Path) -> Option<SystemTime> {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.filter_map(|entry| changed(&entry.unwrap().path())).max(),
        Err(_) => std::fs::metadata(path).and_then(|file| file.modified()).ok(),
    }
}

/// What an example sums up, and the most memory that it had, in bytes.
#[cfg(target_os = "linux")]
pub(crate) fn peak(example: &mut Command) -> (Value, u64) {
    use std::process::Stdio;
    use std::time::Duration;

    let mut running = example.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", running.id());
    let mut peak = 0;
    // It only grows, and its last value is gone with the process: so it is looked at until then.
    while running.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(&status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = kilobytes.map_or(peak, |kilobytes| 1024 * kilobytes);
        std::thread::sleep(Duration::from_millis(5));
    }
    (summary(&running.wait_with_output().unwrap()), peak)
}

pub(crate) fn summary(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), 1, "{text}");
    let mut summary: Value = serde_json::from_str(&text).unwrap();
    // How long a query took is different each time.
    let explain = summary.as_object_mut().unwrap().remove("explain").unwrap();
    let explain = explain.as_str().unwrap();
    for part in ["query     subject:board.JFK.*.* AND carrier = 'B6'", "strategy", "measured"] {
        assert!(explain.contains(part), "{explain}");
    }
    summary
}

pub(crate) fn write(folder: &Path, name: &str, lines: &[&str]) -> String {
    let path: PathBuf = folder.join(name);
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    path.to_string_lossy().into_owned()
}
