//! The examples do what their texts promise: run as programs, on a server, as a reader would run them.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use cim_persistence::backend::Position;
use cim_persistence::server::{PrivateServer, ServerConfig};
use cim_persistence::store::{Context, NatsRepositoryConfig, Ports};
use futures::TryStreamExt;
use serde_json::{Value, json};

/// The part of the quickstart that can be wrong in a way which no file brings about.
#[allow(dead_code)]
#[path = "../examples/quickstart"]
mod quickstart {
    pub(crate) mod domain;
    pub(crate) mod verify;
}
use quickstart::domain;

const SAMPLE: &str = "examples/data/flights-2013-01-01_03.csv";
const HEADER: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,\
                      carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour";
const ROW: &str =
    "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z";

#[tokio::test]
async fn quickstart_stores_each_flight_once_however_often_it_runs() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let counted = count(&std::fs::read_to_string(SAMPLE).unwrap());

    let first = summary(&run("quickstart", server.url(), &["--json"]));
    assert_eq!(first, counted);
    let messages = messages(&server).await;
    assert_eq!(Some(messages), counted["events"].as_u64());

    assert_eq!(stored_boards(&server).await, boards(&std::fs::read_to_string(SAMPLE).unwrap()));

    let again = summary(&run("quickstart", server.url(), &["--json", SAMPLE]));
    let mut nothing = counted;
    for key in ["commits", "departed", "arrived", "diverted", "cancelled", "events"] {
        nothing[key] = json!(0);
    }
    assert_eq!(again, nothing);
    assert_eq!(self::messages(&server).await, messages);
}

#[tokio::test]
async fn quickstart_stores_the_flights_of_an_aircraft_in_the_order_of_its_rows() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    summary(&run("quickstart", server.url(), &["--json"]));
    let context = Context::connect(server.url(), "flights").await.unwrap();
    let mut stored: BTreeMap<String, Vec<(u64, Value)>> = BTreeMap::new();
    let mut events = context.stream_after(Position::START);
    while let Some(event) = events.try_next().await.unwrap() {
        let Value::Object(data) = event.data().unwrap() else { panic!("an event has a name") };
        let (name, data) = data.into_iter().next().unwrap();
        let of_it = stored.entry(event.aggregate_id().to_string()).or_default();
        of_it.push((event.version(), json!([name, data["flight"]])));
    }
    let expected = histories(&std::fs::read_to_string(SAMPLE).unwrap());
    assert!(expected.values().any(|history| history.len() > 10), "some aircraft have many rows");
    for (tailnum, history) in &expected {
        assert_eq!(stored.get(tailnum), Some(history), "{tailnum}");
    }
    assert_eq!(stored.len(), expected.len());
}

/// The long one has the same flights again and again, of which nothing is stored but the first time: so the aircraft do not
/// grow either.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn quickstart_reads_a_long_file_in_the_memory_of_a_short_one() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let sample = std::fs::read_to_string(SAMPLE).unwrap();
    let (header, rows) = sample.split_once('\n').unwrap();
    let folder = tempfile::tempdir().unwrap();
    let long = write(folder.path(), "long.csv", &[header, &rows.repeat(40)]);
    let (once, of_once) = peak(example("quickstart", server.url()).args(["--json", SAMPLE]));
    let (often, of_often) = peak(example("quickstart", server.url()).args(["--json", &long]));
    assert_eq!(often["rows"].as_u64(), once["rows"].as_u64().map(|rows| 40 * rows));
    let file = std::fs::metadata(&long).unwrap().len();
    assert!(of_often < of_once + file / 4, "{of_once} bytes became {of_often} with {file} more");
}

#[tokio::test]
async fn quickstart_verifies_no_aircraft_of_which_nothing_is_stored() {
    let config = NatsRepositoryConfig::for_context("flights");
    let context = Context::on(Ports::in_memory(), &config).unwrap();
    let tailnum = "N14228".to_owned();
    let error = quickstart::verify::verify_chains(&context, [&tailnum].into_iter()).await;
    assert_eq!(error.unwrap_err().to_string(), "no event of N14228 is stored");
}

#[tokio::test]
async fn quickstart_recognises_a_flight_by_what_it_is_and_not_by_its_row() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let later = ROW.replace("2013,1,1,", "2013,1,2,");
    let earlier = ROW.replace("517,515", "417,415");
    let first = write(folder.path(), "first.csv", &[HEADER, ROW, &later]);
    let second = write(folder.path(), "second.csv", &[HEADER, &earlier, &later, &later, ROW]);

    assert_eq!(summary(&run("quickstart", server.url(), &["--json", &first]))["commits"], 2);
    let stored = summary(&run("quickstart", server.url(), &["--json", &second]));
    assert_eq!((&stored["commits"], &stored["events"]), (&json!(1), &json!(2)));
    assert_eq!(messages(&server).await, 6);

    let shown = run("quickstart", server.url(), &[&second]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("N14228 has the most flights in the file, 4; 3 are recorded"), "{text}");
    assert!(text.contains("known           4"), "{text}");
}

#[tokio::test]
async fn quickstart_says_what_is_wrong_with_a_file() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, lines: &[&str]| write(folder.path(), name, lines);
    let missing = folder.path().join("none.csv").to_string_lossy().into_owned();
    let no_column = file("column.csv", &[&HEADER.replace("tailnum", "tail"), ROW]);
    let bad_value = file("value.csv", &[HEADER, ROW, &ROW.replace("1545", "many")]);
    let bad_time = file("time.csv", &[HEADER, &ROW.replace("517,", "561,")]);
    let bad_day = file("day.csv", &[HEADER, &ROW.replace("2013,1,1", "2013,13,1")]);
    let bad_code = file("code.csv", &[HEADER, &ROW.replace("IAH", "Iowa")]);
    let short = file("short.csv", &[HEADER, ROW, "2013,1,1"]);

    let wrong = |path: &str, expected: &str| {
        let output = run("quickstart", server.url(), &["--json", path]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(output.stdout.is_empty());
        assert_eq!(text.trim_end(), format!("quickstart: {path}{expected}"));
    };
    let reason = std::fs::File::open(&missing).unwrap_err();
    wrong(&missing, &format!(" cannot be opened: {reason}"));
    wrong(
        &no_column,
        " has no column \"tailnum\"; its first line must name the columns of nycflights13",
    );
    wrong(
        &bad_value,
        " row 2 (line 3), column \"flight\": \"many\": invalid digit found in string",
    );
    wrong(&bad_time, " row 1 (line 2), column \"dep_time\": \"561\": not a time of day (hhmm)");
    wrong(&bad_day, " row 1 (line 2), column \"day\": \"1\": 2013-13-1 is not a day");
    wrong(
        &bad_code,
        " row 1 (line 2), column \"dest\": \"Iowa\": not a code of 3 capital letters or digits",
    );
    wrong(
        &short,
        " cannot be read: CSV error: record 2 (line: 3, byte: 246): \
          found record with 3 fields, but the previous record has 19 fields",
    );
}

#[tokio::test]
async fn quickstart_says_how_it_is_called() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    for (args, expected) in
        [(&["--yaml"][..], "unknown option --yaml"), (&["a.csv", "b.csv"], "one file at a time")]
    {
        let output = run("quickstart", server.url(), args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text.contains(expected) && text.contains("usage:"), "{text}");
    }
}

#[tokio::test]
async fn persistence_example_runs_as_often_as_one_likes() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    for _ in 0..2 {
        let output = run("persistence_example", server.url(), &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        assert!(text.contains("loaded    1000 cents at version 1"), "{text}");
        assert!(text.contains("withdrawn nothing, rejected: not enough money"), "{text}");
        assert!(text.contains("expected version 1, but the aggregate has version 2"), "{text}");
        assert!(text.contains("history   2 -300 cents"), "{text}");
    }
}

#[tokio::test]
async fn persistence_example_uses_the_same_streams_each_time() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..2 {
        assert!(run("persistence_example", server.url(), &[]).status.success());
        streams.push(stream_names(&server).await);
    }
    assert_eq!(streams[0], streams[1]);
    assert!(streams[0].iter().all(|name| name.ends_with("-persistence-example")), "{streams:?}");
}

#[tokio::test]
async fn examples_take_servers_and_credentials_from_the_environment() {
    let server = PrivateServer::start_with_config(
        "jetstream { store_dir: $CIM_STORE_DIR }\n\
         authorization { users: [{ user: kim, password: secret }] }",
    )
    .await
    .unwrap();
    // Nobody listens at the first.
    let urls = format!("nats://127.0.0.1:1, {}", server.url());
    for name in ["persistence_example", "quickstart", "schema_evolution"] {
        for (password, fits) in [("secret", true), ("wrong", false)] {
            let mut example = example(name, &urls);
            let output = example.env("NATS_USER", "kim").env("NATS_PASSWORD", password).output();
            let output = output.unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), fits, "{name} with {password}: {errors}");
        }
    }
}

/// It starts a server of its own, because it kills it.
#[test]
fn bank_transfer_conserves_money_while_the_server_is_killed() {
    let output = run("bank_transfer", "", &["64", "3"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("refused     number \"DE-7\" belongs to account account-7"), "{text}");
    assert_eq!(text.matches("the server was killed and is back").count(), 3, "{text}");
    assert!(text.contains("money       200000 cents of 200000 in 20 accounts"), "{text}");
    assert!(text.contains("reminders   0 still waiting"), "{text}");
    let number = |line: &str| {
        let rest = text.split_once(line).unwrap().1.trim_start();
        rest.split_once(' ').unwrap().0.parse::<u64>().unwrap()
    };
    assert!(number("transfers ") > 0);
    assert_eq!(number("transfers "), number("messages "), "each stored transfer is told once");
}

#[test]
fn persistence_example_is_short() {
    let source = std::fs::read_to_string("examples/persistence_example.rs").unwrap();
    assert!(source.lines().count() < 80);
}

#[tokio::test]
async fn schema_evolution_reads_as_today_what_was_written_long_ago() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    for _ in 0..2 {
        let output = run("schema_evolution", server.url(), &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}{errors}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("written   version 3 of cim.aggregates.shop-"), "{text}");
        assert_eq!(
            lines[1..],
            [
                "refused   event placed version 1 has no path to version 3; add an upcaster from it",
                "loaded    1200 EUR in Ulm at version 3",
                r#"today     Placed { total: Money { cents: 1200, currency: "EUR" } }, stored as 1"#,
                r#"today     StreetChanged { street: "Hauptstr. 1" }, stored as 3"#,
                r#"today     CityChanged { city: "Ulm" }, stored as 3"#,
                "stored    1 Placed { total: 12 }",
                "stored    2 Pinged",
                r#"stored    3 Relocated { street: "Hauptstr. 1", city: "Ulm" }"#,
                "dry run   1 board would change",
                r#"migrated  {"cents":1200}"#,
                r#"back      {"euros":12}"#,
                "verified  version 3, no event that is stored has changed",
            ],
            "{text}"
        );
    }
}

/// Runs an example on this server.
fn run(name: &str, url: &str, args: &[&str]) -> Output {
    example(name, url).args(args).output().unwrap()
}

/// An example that cargo has built beside this test, on these servers and without what else the environment says of them.
fn example(example: &str, urls: &str) -> Command {
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
fn changed(path: &Path) -> Option<SystemTime> {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.filter_map(|entry| changed(&entry.unwrap().path())).max(),
        Err(_) => std::fs::metadata(path).and_then(|file| file.modified()).ok(),
    }
}

/// What an example sums up, and the most memory that it had, in bytes.
#[cfg(target_os = "linux")]
fn peak(example: &mut Command) -> (Value, u64) {
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

fn summary(output: &Output) -> Value {
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

/// What storing this text for the first time must come to, counted without any of the example's code.
fn count(text: &str) -> Value {
    let (mut rows, mut skipped, mut aircraft) = (0, 0, HashSet::new());
    let (mut departed, mut arrived, mut diverted, mut cancelled) = (0, 0, 0, 0);
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let (dep_time, arr_time, tailnum) = (cells[3], cells[6], cells[11]);
        rows += 1;
        if tailnum == "NA" {
            skipped += 1;
            continue;
        }
        aircraft.insert(tailnum);
        match (dep_time, arr_time) {
            ("NA", _) => cancelled += 1,
            (_, "NA") => (departed, diverted) = (departed + 1, diverted + 1),
            _ => (departed, arrived) = (departed + 1, arrived + 1),
        }
    }
    json!({
        "rows": rows, "skipped": skipped, "aircraft": aircraft.len(), "commits": rows - skipped,
        "departed": departed, "arrived": arrived, "diverted": diverted, "cancelled": cancelled,
        "events": departed + arrived + diverted + cancelled, "chains_verified": aircraft.len(),
        "boards": boards(text).len(), "boards_jfk": boards_of(text, "JFK."),
        "boards_jfk_b6": boards_of(text, "JFK.B6."),
    })
}

/// What must be stored of each aircraft in which version, told without any of the example's code.
fn histories(text: &str) -> BTreeMap<String, Vec<(u64, Value)>> {
    let mut histories: BTreeMap<String, Vec<(u64, Value)>> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let [dep_time, arr_time, carrier, tailnum, origin] =
            [cells[3], cells[6], cells[9], cells[11], cells[12]];
        if tailnum == "NA" {
            continue;
        }
        let number = |cell: usize| cells[cell].parse::<u32>().unwrap();
        let day = number(0) * 10_000 + number(1) * 100 + number(2);
        let flight = json!([day, number(4), carrier, number(10), origin]);
        let names: &[&str] = match (dep_time, arr_time) {
            ("NA", _) => &["Cancelled"],
            (_, "NA") => &["Departed", "Diverted"],
            _ => &["Departed", "Arrived"],
        };
        let history = histories.entry(tailnum.to_owned()).or_default();
        for name in names {
            history.push((history.len() as u64 + 1, json!([name, flight])));
        }
    }
    histories
}

fn boards_of(text: &str, prefix: &str) -> usize {
    boards(text).keys().filter(|id| id.starts_with(prefix)).count()
}

/// The boards that these flights make, by id, counted without any of the example's code.
fn boards(text: &str) -> BTreeMap<String, Value> {
    let mut boards: BTreeMap<String, Value> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let [dep_time, scheduled, delay] = [cells[3], cells[4], cells[5]];
        let [arr_time, carrier, flight, tailnum, origin] =
            [cells[6], cells[9], cells[10], cells[11], cells[12]];
        if tailnum == "NA" {
            continue;
        }
        let number = |text: &str| text.parse::<u32>().unwrap();
        let (hour, minute) = (number(scheduled) / 100, number(scheduled) % 100);
        let [year, month, day] = [0, 1, 2].map(|cell| number(cells[cell]));
        let departure = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}");
        let status = match (dep_time, arr_time) {
            ("NA", _) => "cancelled",
            (_, "NA") => "diverted",
            _ => "arrived",
        };
        let id = format!("{origin}.{carrier}.{flight}");
        let before = boards.get(&id);
        let flights = before.map_or(0, |board| board["flights"].as_u64().unwrap()) + 1;
        let at =
            |board: &Value| [&board["last_departure"], &board["tailnum"]].map(Value::to_string);
        let board = json!({
            "origin": origin, "carrier": carrier, "flight": number(flight), "last_departure": departure,
            "delay": delay.parse::<i64>().ok(), "status": status, "flights": flights, "tailnum": tailnum,
        });
        match before {
            Some(before) if at(before) > at(&board) => {
                boards.get_mut(&id).unwrap()["flights"] = json!(flights)
            }
            _ => drop(boards.insert(id, board)),
        }
    }
    boards
}

/// The boards as any client of NATS finds them.
async fn stored_boards(server: &PrivateServer) -> BTreeMap<String, Value> {
    let client = async_nats::connect(server.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let bucket = jetstream.get_key_value("cim-readmodels-flights").await.unwrap();
    let keys: Vec<String> = bucket.keys().await.unwrap().try_collect().await.unwrap();
    let mut boards = BTreeMap::new();
    for key in keys {
        if let Some(id) = key.strip_prefix("board.") {
            let value = bucket.get(&key).await.unwrap().unwrap();
            boards.insert(id.to_owned(), serde_json::from_slice(&value).unwrap());
        }
    }
    boards
}

async fn messages(server: &PrivateServer) -> u64 {
    let client = async_nats::connect(server.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let mut stream = jetstream.get_stream("CIM-EVENTS-flights").await.unwrap();
    stream.info().await.unwrap().state.messages
}

async fn stream_names(server: &PrivateServer) -> BTreeSet<String> {
    let client = async_nats::connect(server.url()).await.unwrap();
    async_nats::jetstream::new(client).stream_names().try_collect().await.unwrap()
}

fn write(folder: &Path, name: &str, lines: &[&str]) -> String {
    let path: PathBuf = folder.join(name);
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    path.to_string_lossy().into_owned()
}
