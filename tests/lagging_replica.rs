//! A replica that is behind, which no server can be made to be at a given moment: played here by a client that answers
//! batched direct gets in its place.

#![allow(clippy::unwrap_used)]

use async_nats::jetstream::{self, stream};
use cim_persistence::backend::Position;
use cim_persistence::backend::nats::Connection;
use cim_persistence::event_log::{EventLog, LogQuery, NatsLog};
use futures::TryStreamExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use test_server::TestServer;

#[path = "support/test_server.rs"]
mod test_server;

/// How many messages the stream has: more than the first answer brings.
const STORED: u64 = 200;

/// Replicas behind one subject. No client library publishes the status lines with which a server ends an answer, so this
/// speaks the protocol itself.
struct Replicas {
    connection: BufReader<TcpStream>,
    stream: String,
}

impl Replicas {
    async fn connect(url: &str, stream: &str) -> Self {
        let address: async_nats::ServerAddr = url.parse().unwrap();
        let connection = TcpStream::connect((address.host(), address.port())).await.unwrap();
        let (connection, stream) = (BufReader::new(connection), stream.to_owned());
        let mut replicas = Self { connection, stream };
        let login = serde_json::json!({
            "verbose": false, "headers": true, "user": address.username(), "pass": address.password(),
        });
        replicas.send(&format!("CONNECT {login}\r\n")).await;
        let requests = format!("$JS.API.DIRECT.GET.{}", replicas.stream);
        replicas.send(&format!("SUB {requests} 1\r\nPING\r\n")).await;
        while replicas.line().await != "PONG" {}
        replicas
    }

    async fn send(&mut self, text: &str) {
        self.connection.get_mut().write_all(text.as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.connection.read_line(&mut line).await.unwrap();
        assert!(read > 0, "the server has ended the connection");
        line.trim_end().to_owned()
    }

    /// Answers each request as a replica does that has so many messages: the next of these numbers, and the last for ever.
    async fn answer(mut self, mut known: &[u64]) {
        loop {
            let line = self.line().await;
            let words: Vec<&str> = line.split(' ').collect();
            let ["MSG", _, _, reply, length] = words[..] else {
                if line == "PING" {
                    self.send("PONG\r\n").await;
                }
                continue;
            };
            let mut request = vec![0; length.parse::<usize>().unwrap() + 2];
            self.connection.read_exact(&mut request).await.unwrap();
            let request: serde_json::Value = serde_json::from_slice(&request).unwrap();
            let (has, rest) = known.split_first().unwrap();
            known = if rest.is_empty() { known } else { rest };
            let first = request["seq"].as_u64().unwrap();
            let last = (first + request["batch"].as_u64().unwrap() - 1).min(*has);
            self.deliver(reply, first, last, *has).await;
        }
    }

    async fn deliver(&mut self, reply: &str, first: u64, last: u64, has: u64) {
        let stream = self.stream.clone();
        for sequence in first..=last {
            let before = if sequence == first { 0 } else { sequence - 1 };
            let headers = format!(
                "NATS/1.0\r\nNats-Stream: {stream}\r\nNats-Subject: books.{sequence}\r\nNats-Sequence: {sequence}\r\n\
                 Nats-Time-Stamp: 2026-01-01T00:00:00Z\r\nNats-Last-Sequence: {before}\r\n\r\n"
            );
            self.publish(reply, &headers).await;
        }
        let end = match last < first {
            true => "NATS/1.0 404 Message Not Found\r\n\r\n".to_owned(),
            false => format!(
                "NATS/1.0 204 EOB\r\nNats-Num-Pending: {}\r\nNats-Last-Sequence: {last}\r\n\r\n",
                has - last
            ),
        };
        self.publish(reply, &end).await;
    }

    async fn publish(&mut self, to: &str, headers: &str) {
        let length = headers.len();
        self.send(&format!("HPUB {to} {length} {length}\r\n{headers}\r\n")).await;
    }
}

#[tokio::test]
async fn a_read_does_not_end_where_another_replica_said_that_more_is_left() {
    let server = TestServer::start().await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let jetstream = jetstream::new(client.clone());
    let (name, books) = (server.name("BOOKS"), server.name("books"));
    let subjects = vec![format!("{books}.>")];
    let settings = stream::Config { name: name.clone(), subjects, ..Default::default() };
    jetstream.create_stream(settings).await.unwrap();
    for number in 1..=STORED {
        jetstream.publish(format!("{books}.{number}"), "".into()).await.unwrap().await.unwrap();
    }
    // The first one has everything, the next two have what the first answer brought and no more.
    let known = [STORED, 128, 128, STORED];
    let replicas = Replicas::connect(server.url(), &name).await;
    let playing = tokio::spawn(async move { replicas.answer(&known).await });
    let log = NatsLog::open(&Connection::from_client(client), &name).await.unwrap();
    let all = log.read(LogQuery { filter: None, after: Position::START });
    let positions: Vec<u64> =
        all.map_ok(|message| message.position.get()).try_collect().await.unwrap();
    assert_eq!(positions, (1..=STORED).collect::<Vec<_>>());
    playing.abort();
}
