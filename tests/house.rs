//! The house itself: order and direction of the modules, files, documents, and what the crate shows to the outside.
//!
//! Everything here reads the source as text, apart from `house/permissions.rs`, which tries the README's lists of
//! permissions on a server. What is stored byte for byte is tested elsewhere.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "house/permissions.rs"]
mod permissions;

/// All modules there may be, from the lowest to the highest. A new one is given its place here.
const RANKS: [&str; 29] = [
    "panics",
    "clock",
    "subject",
    "specification",
    "event",
    "lifecycle",
    "ipld",
    "evolution",
    "backend",
    "event_log",
    "state",
    "timeouts",
    "lease",
    "content_store",
    "store",
    "outbox",
    "subscription",
    "repository",
    "unit_of_work",
    "read_model",
    "projection",
    "process",
    "query",
    "routing",
    "migration",
    "blocking",
    "prelude",
    "server",
    "testing",
];

/// The folders that hold code.
const CODE: [&str; 5] = ["src", "derive", "tests", "benches", "examples"];

const MOST_LINES: usize = 500;

/// Files that are over the limit, and how long they may be until they are divided.
const STILL_TOO_LONG: [(&str, usize); 0] = [];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Rust file below a folder, as paths from the root, sorted.
fn rust_files(folder: &str) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    let mut files: Vec<String> = found
        .iter()
        .map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/"))
        .collect();
    files.sort();
    files
}

/// The lines of a file that are not comments.
fn code(path: &str) -> Vec<String> {
    let text = read(path);
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(str::to_owned).collect()
}

/// The modules as `src/lib.rs` declares them.
fn modules() -> Vec<String> {
    let lines = code("src/lib.rs");
    let declared = lines.iter().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    declared.map(str::to_owned).collect()
}

fn rank(module: &str) -> usize {
    RANKS
        .iter()
        .position(|known| *known == module)
        .unwrap_or_else(|| panic!("module {module} has no rank; give it one in RANKS"))
}

fn assert_none(broken: Vec<String>, rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn modules_are_declared_from_the_lowest_to_the_highest() {
    let modules = modules();
    assert!(modules.len() >= 10, "only {modules:?} were found in src/lib.rs");
    let ranks: Vec<usize> = modules.iter().map(|module| rank(module)).collect();
    assert!(ranks.is_sorted(), "src/lib.rs declares {modules:?}");
}

#[test]
fn no_module_uses_a_higher_one() {
    let mut broken = Vec::new();
    for file in rust_files("src") {
        let own = file["src/".len()..].split(['/', '.']).next().unwrap().to_owned();
        if own == "lib" {
            continue;
        }
        for line in code(&file) {
            for used in line.split("crate::").skip(1) {
                let name: String =
                    used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                // A name that is no module is an item of the root, and the root is above all.
                let fits = RANKS.contains(&name.as_str()) && rank(&name) <= rank(&own);
                if !fits {
                    broken.push(format!("{file}: {}", line.trim()));
                }
            }
        }
    }
    assert_none(broken, "a module uses those below it only, each by a path of its own");
}

/// `server` is a tool that starts servers for tests and asks them whether they are ready; it is no layer.
#[test]
fn only_the_adapters_know_the_nats_client() {
    let mut broken = Vec::new();
    for file in rust_files("src") {
        let adapter = file.ends_with("/nats.rs") || file.contains("/nats/");
        if adapter || file.starts_with("src/server/") {
            continue;
        }
        let names = code(&file).into_iter().filter(|line| line.contains("async_nats"));
        broken.extend(names.map(|line| format!("{file}: {}", line.trim())));
    }
    assert_none(broken, "async_nats is for files called nats.rs or in a folder nats/");
}

#[test]
fn the_pure_modules_neither_wait_nor_do_io() {
    let forbidden = ["async ", ".await", "tokio::", "std::net", "std::fs"];
    let mut broken = Vec::new();
    for module in [
        "clock",
        "subject",
        "specification",
        "event",
        "lifecycle",
        "ipld",
        "evolution",
        "backend/topology",
    ] {
        let (file, folder) = (format!("src/{module}.rs"), format!("src/{module}/"));
        let own = |path: &String| *path == file || path.starts_with(&folder);
        for file in rust_files("src").into_iter().filter(own) {
            let lines = code(&file).into_iter();
            let found = lines.filter(|line| forbidden.iter().any(|word| line.contains(word)));
            broken.extend(found.map(|line| format!("{file}: {}", line.trim())));
        }
    }
    assert_none(broken, "time, subjects, specifications, events, blocks and topologies are pure");
}

#[test]
fn every_file_says_what_lives_in_it() {
    let files = CODE.into_iter().flat_map(rust_files);
    let broken = files.filter(|file| !read(file).starts_with("//!")).collect();
    assert_none(broken, "a file opens with //!");
}

#[test]
fn no_file_is_too_long() {
    let mut broken = Vec::new();
    for file in CODE.into_iter().flat_map(rust_files) {
        let lines = read(&file).lines().count();
        let exception = STILL_TOO_LONG.iter().find(|(name, _)| *name == file);
        if lines > exception.map_or(MOST_LINES, |(_, lines)| *lines) {
            broken.push(format!("{file}: {lines}"));
        }
    }
    assert_none(broken, "a file holds one idea; divide these");
}

#[test]
fn the_paths_in_the_documents_exist() {
    let folders =
        ["src/", "derive/", "tests/", "benches/", "examples/", "nats-config/", "docs/", ".ci/"];
    let mut broken = Vec::new();
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = read(document);
        let quoted = text.split('`').skip(1).step_by(2);
        let linked = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let files = linked.filter(|link| !link.is_empty() && !link.contains("://"));
        let paths = quoted.filter(|name| folders.iter().any(|folder| name.starts_with(folder)));
        let missing = files.chain(paths).filter(|path| !root().join(path).exists());
        broken.extend(missing.map(|path| format!("{document}: {path}")));
    }
    assert_none(broken, "a document names what is not there");
}

#[test]
fn the_architecture_names_every_module() {
    let text = read("ARCHITECTURE.md");
    let modules = modules();
    let missing = modules.iter().filter(|module| !text.contains(&format!("\n### `{module}`")));
    assert_none(missing.cloned().collect(), "ARCHITECTURE.md has a paragraph for each module");
}

#[test]
fn the_readme_has_the_two_commands_and_a_short_first_program() {
    let text = read("README.md");
    for command in ["cargo run --example quickstart\n", "cargo test\n"] {
        assert!(text.contains(command), "README.md does not name {command:?}");
    }
    let program = text.split("```rust,no_run\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(program.contains("fn main()"), "the first program is not whole:\n{program}");
    let lines = program.lines().count();
    assert!(lines <= 35, "the first program has {lines} lines");
}

#[test]
fn the_readme_names_every_metric_and_no_other() {
    let metrics = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        let names = words.filter(|word| word.starts_with("cim_") && *word != "cim_persistence");
        names.map(str::to_owned).collect()
    };
    let lines = rust_files("src").iter().flat_map(|file| code(file)).collect::<Vec<_>>();
    let table: Vec<String> = read("README.md")
        .lines()
        .filter(|line| line.starts_with("| `cim_"))
        .map(Into::into)
        .collect();
    let quoted = lines.iter().flat_map(|line| line.split('"').skip(1).step_by(2));
    assert_eq!(metrics(&table.join("\n")), metrics(&quoted.collect::<Vec<_>>().join(" ")));
}

#[test]
fn each_server_configuration_says_who_should_use_it() {
    let files: Vec<PathBuf> = fs::read_dir(root().join("nats-config"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let text = read(&file);
        assert!(text.starts_with("# For "), "{} does not begin with '# For …'", file.display());
    }
}

/// The names a user can reach: the root, and what each public module shows. Not their signatures.
///
/// With `ACCEPT_API=1` the list is written anew; what changed is then for a reader of the diff to judge, and for
/// `CHANGELOG.md` to tell.
#[test]
fn the_public_names_are_those_that_were_accepted() {
    let mut names = BTreeSet::new();
    for module in modules() {
        let file = format!("src/{module}/mod.rs");
        let file = if root().join(&file).exists() { file } else { format!("src/{module}.rs") };
        names.insert(format!("mod {module}"));
        names.extend(public_names(&file).into_iter().map(|name| format!("{module}::{name}")));
    }
    names.extend(public_names("src/lib.rs"));
    let found: String = names.iter().map(|name| format!("{name}\n")).collect();
    if std::env::var("ACCEPT_API").is_ok_and(|value| value == "1") {
        fs::write(root().join("tests/api.txt"), &found).unwrap();
    }
    let accepted = read("tests/api.txt");
    let accepted: BTreeSet<&str> = accepted.lines().collect();
    let found: BTreeSet<&str> = found.lines().collect();
    let more: Vec<_> = found.difference(&accepted).collect();
    let less: Vec<_> = accepted.difference(&found).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "public names came {more:?} or went {less:?}; ACCEPT_API=1 cargo test --test house accepts them"
    );
}

/// What one file declares or shows again with `pub`, apart from modules that are told of elsewhere.
fn public_names(file: &str) -> Vec<String> {
    let text = code(file).join("\n");
    let mut names = Vec::new();
    for shown in text.split("\npub use ").skip(1) {
        let shown = shown.split(';').next().unwrap();
        let list = shown.rsplit_once('{').map_or(shown, |(_, list)| list);
        let list = list.split(['}', ',']).map(|name| name.rsplit("::").next().unwrap().trim());
        names.extend(list.filter(|name| !name.is_empty()).map(str::to_owned));
    }
    for kind in ["struct", "enum", "trait", "type", "fn", "async fn", "const", "const fn"] {
        for declared in text.split(&format!("\npub {kind} ")).skip(1) {
            let end = |c: char| !(c.is_alphanumeric() || c == '_');
            names.push(declared.split(end).next().unwrap().to_owned());
        }
    }
    // `const fn` was read as a constant called fn as well; `Readme` is there for the doc tests only.
    names.retain(|name| name != "fn" && name != "Readme");
    names
}
