//! The quickstart.

use std::collections::BTreeMap;

use cim_persistence::backend::Position;
use cim_persistence::server::{PrivateServer, ServerConfig};
use cim_persistence::store::{Context, NatsRepositoryConfig, Ports};
use futures::TryStreamExt;
use serde_json::{Value, json};

use crate::code::verify::verify_chains;
use crate::flights::{HEADER, ROW, SAMPLE, boards, count, histories, year};
use crate::programs::{example, peak, run, summary, write};

#[tokio::test]
async fn stores_each_flight_once_however_often_it_runs() {
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
async fn stores_the_flights_of_an_aircraft_in_the_order_of_its_rows() {
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
async fn reads_a_long_file_in_the_memory_of_a_short_one() {
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

/// With memory for what the aircraft remember, and not for the file. It takes minutes.
#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "takes minutes; `cargo test --test examples -- --ignored` runs it"]
async fn stores_a_whole_year_of_flights() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let text = year(&std::fs::read_to_string(SAMPLE).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "year.csv", &[text.trim_end()]);
    let (stored, most) = peak(example("quickstart", server.url()).args(["--json", &file]));
    assert_eq!(stored, count(&text));
    assert_eq!(Some(messages(&server).await), stored["events"].as_u64());
    let per_event = most / stored["events"].as_u64().unwrap();
    // 95 were measured, in a debug build.
    assert!(per_event < 150, "{most} bytes in all, of which an event has {per_event}");
}

#[tokio::test]
async fn verifies_no_aircraft_of_which_nothing_is_stored() {
    let config = NatsRepositoryConfig::for_context("flights");
    let context = Context::on(Ports::in_memory(), &config).unwrap();
    let tailnum = "N14228".to_owned();
    let error = verify_chains(&context, [&tailnum].into_iter()).await;
    assert_eq!(error.unwrap_err().to_string(), "no event of N14228 is stored");
}

#[tokio::test]
async fn recognises_a_flight_by_what_it_is_and_not_by_its_row() {
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
async fn says_what_is_wrong_with_a_file() {
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
async fn says_how_it_is_called() {
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
