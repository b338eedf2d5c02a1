//! What storing flights must come to, told without any of the example's code.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

/// The flights of three days.
pub(crate) const SAMPLE: &str = "examples/data/flights-2013-01-01_03.csv";
pub(crate) const HEADER: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,\
                                 carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour";
pub(crate) const ROW: &str =
    "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z";

/// A year of flights: those of the three days of the sample, again and again, each time with the dates of the next days.
pub(crate) fn year(sample: &str) -> String {
    let days = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let dates = (1..).zip(days).flat_map(|(month, days)| (1..=days).map(move |day| (month, day)));
    let mut year = format!("{HEADER}\n");
    for ((month, day), of_sample) in dates.zip([1, 2, 3].into_iter().cycle()) {
        let prefix = format!("2013,1,{of_sample},");
        for flight in sample.lines().filter_map(|line| line.strip_prefix(&prefix)) {
            year.push_str(&format!("2013,{month},{day},{flight}\n"));
        }
    }
    year
}

/// What storing this text for the first time must come to, counted without any of the example's code.
pub(crate) fn count(text: &str) -> Value {
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
pub(crate) fn histories(text: &str) -> BTreeMap<String, Vec<(u64, Value)>> {
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

pub(crate) fn boards_of(text: &str, prefix: &str) -> usize {
    boards(text).keys().filter(|id| id.starts_with(prefix)).count()
}

/// The boards that these flights make, by id, counted without any of the example's code.
pub(crate) fn boards(text: &str) -> BTreeMap<String, Value> {
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
