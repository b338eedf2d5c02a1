//! Messages posted to a web service.

use std::sync::{Arc, Mutex};

use cim_persistence::outbox::{
    InvalidWebhook, Outbox, OutboxMessage, Relay, RelayPhase, Topic, WebhookPublisher,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::domain::{Store, THREE, options, order, send, until, until_done};

/// A web service that answers each request with the next status, the last one again and again, and keeps what it got.
struct Service {
    url: String,
    got: Arc<Mutex<Vec<String>>>,
}

impl Service {
    async fn answering(statuses: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in?from=bank", listener.local_addr().unwrap());
        let got = Arc::<Mutex<Vec<String>>>::default();
        let keeps = Arc::clone(&got);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&keeps), statuses));
            }
        });
        Self { url, got }
    }

    fn got(&self) -> Vec<String> {
        self.got.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    got: Arc<Mutex<Vec<String>>>,
    statuses: &'static [&'static str],
) {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let whole = text.split_once("\r\n\r\n").and_then(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
            let length: usize = length.parse().ok()?;
            (body.len() >= length).then_some(head.len() + 4 + length)
        });
        let Some(length) = whole else {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
            continue;
        };
        bytes.drain(..length);
        let status = {
            let mut got = got.lock().unwrap();
            got.push(text[..length].to_owned());
            statuses[(got.len() - 1).min(statuses.len() - 1)]
        };
        let said = if status.starts_with('2') { "" } else { "sorry" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{said}", said.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_message_is_posted_as_the_binding_says() {
    let service = Service::answering(&["204 No Content"]).await;
    let store = Store::new();
    let context = store.healthy();
    let topic = Topic::new("orders").unwrap();
    let message = OutboxMessage::bytes(topic, "placed", "text/plain; charset=utf-8", "hello")
        .with_key("order 42")
        .with_subject("€");
    let last = send(&context, message).await;
    let publisher = WebhookPublisher::new(&service.url).unwrap();
    let publisher = publisher.with_header("Authorization", "Bearer s3cret").unwrap();
    assert!(!format!("{publisher:?}").contains("s3cret"));
    let mut relay = Relay::start(&Outbox::of(&context), publisher, options());
    until_done(&mut relay, last).await;
    let got = service.got();
    let (head, body) = got[0].split_once("\r\n\r\n").unwrap();
    let lines: Vec<&str> = head.lines().collect();
    assert_eq!((lines[0], body), ("POST /in?from=bank HTTP/1.1", "hello"));
    let expected = [
        "ce-specversion: 1.0",
        "ce-source: cim://bank",
        "ce-type: placed",
        "ce-subject: %E2%82%AC",
        "ce-partitionkey: order%2042",
        "content-type: text/plain; charset=utf-8",
        "authorization: Bearer s3cret",
    ];
    for line in expected {
        assert!(lines.contains(&line), "no {line:?} in {lines:?}");
    }
    let absent = |name: &str| !lines.iter().any(|line| line.starts_with(name));
    assert!(absent("ce-datacontenttype") && absent("nats-msg-id"), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("ce-id: ")).count(), 1);
}

#[tokio::test]
async fn each_status_means_what_is_said() {
    for (statuses, parked, tries) in [
        (&["404 Not Found"][..], Some("refused for good"), 1),
        (&["400 Bad Request"][..], Some("refused for good"), 1),
        (&["500 Oh"][..], Some("not published"), 3),
        (&["301 Moved"][..], Some("not published"), 3),
        (&["408 x", "425 x"][..], Some("not published"), 3),
        (&["408 x", "425 x", "200 OK"][..], None, 3),
        (&["429 x", "502 x", "503 x", "504 x", "201 Created"][..], None, 5),
    ] {
        let service = Service::answering(statuses).await;
        let store = Store::new();
        let context = store.healthy();
        let last = send(&context, order("k", 1)).await;
        let outbox = Outbox::of(&context).with_retry(THREE);
        let publisher = WebhookPublisher::new(&service.url).unwrap();
        let mut relay = Relay::start(&outbox, publisher, options());
        until(&mut relay, last).await;
        until_done(&mut relay, last).await;
        let found = outbox.list_parked().await.unwrap();
        assert_eq!(found.len(), usize::from(parked.is_some()), "{statuses:?}");
        if let Some(begin) = parked {
            let error = found[0].error.clone().unwrap();
            assert!(error.starts_with(begin) && error.ends_with(": sorry"), "{error}");
            assert!(error.contains(&service.url), "{error}");
        }
        assert_eq!(service.got().len(), tries, "{statuses:?}");
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let store = Store::new();
    let context = store.healthy();
    send(&context, order("k", 1)).await;
    let publisher = WebhookPublisher::new(&url).unwrap();
    let outbox = Outbox::of(&context).with_retry(THREE);
    let mut relay = Relay::start(&outbox, publisher, options());
    let down = |status: &cim_persistence::outbox::RelayStatus| {
        status.phase == RelayPhase::ReceiverUnavailable
    };
    let status = relay.wait_until(down).await.unwrap();
    assert_eq!((status.unpublished, status.parked), (1, 0));
}

#[test]
fn what_is_no_web_service_is_refused() {
    for text in ["", "billing", "/in", "ftp://a/b", "http://", "https:///x"] {
        match WebhookPublisher::new(text) {
            Err(InvalidWebhook::Url { text: named }) => assert_eq!(named, text),
            other => panic!("{text:?}: {other:?}"),
        }
    }
    for (name, value) in [("a b", "c"), ("ce-id", "1"), ("Content-Type", "x/y"), ("x", "a\r\nb")] {
        let publisher = WebhookPublisher::new("http://127.0.0.1/").unwrap();
        match publisher.with_header(name, value) {
            Err(InvalidWebhook::Header { name: named }) => assert_eq!(named, name),
            other => panic!("{name:?}: {other:?}"),
        }
    }
}
