//! Ids: what is refused, and that the escape loses nothing and confuses nothing.

use std::fmt::Debug;

use proptest::prelude::*;
use uuid::Uuid;

use super::{id_tokens, text};
use crate::subject::{AggregateId, ContextName, Identity, InvalidToken, SubjectScheme};

const ID: &str = "id";

fn tokens_of(id: &AggregateId) -> Vec<String> {
    id.tokens().collect()
}

fn too_long(actual: usize) -> InvalidToken {
    InvalidToken::TooLong { what: ID, actual, max: 128 }
}

proptest! {
    #[test]
    fn the_escape_gives_every_id_back_and_writes_plain_characters_only(tokens in id_tokens(6)) {
        let id = AggregateId::from_tokens(&tokens).unwrap();
        prop_assert_eq!(&tokens_of(&id), &tokens);
        prop_assert_eq!(AggregateId::from_escaped(id.as_str()), Ok(id.clone()));
        prop_assert_eq!(id.to_string(), tokens.join("."));
        for token in id.as_str().split('.') {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_=-".contains(c);
            prop_assert!(!token.is_empty() && token.chars().all(plain), "{}", id.as_str());
        }
        let json = serde_json::to_string(&id).unwrap();
        prop_assert_eq!(serde_json::from_str::<AggregateId>(&json).unwrap(), id);
    }

    #[test]
    fn two_ids_never_share_a_subject(
        (one, two) in prop_oneof![
            (id_tokens(3), id_tokens(3)),
            // The same characters, cut differently.
            id_tokens(3).prop_map(|tokens| (vec![tokens.join(".")], tokens)),
            // One that looks like the escape of the other.
            id_tokens(1).prop_map(|tokens| {
                let escaped = AggregateId::from_tokens(&tokens).unwrap().to_string();
                (vec![escaped], tokens)
            }),
        ]
    ) {
        prop_assume!(one.iter().map(String::len).sum::<usize>() <= 128);
        let (a, b) = (AggregateId::from_tokens(&one).unwrap(), AggregateId::from_tokens(&two).unwrap());
        prop_assert_eq!(one == two, a.as_str() == b.as_str());
    }

    #[test]
    fn an_id_is_any_text_but_an_empty_a_long_or_an_unprintable_one(text in text()) {
        let expected = match text.chars().find(|c| c.is_control()) {
            _ if text.is_empty() => Some(InvalidToken::Empty { what: ID }),
            Some(found) => Some(InvalidToken::Control { what: ID, found }),
            None if text.len() > 128 => Some(too_long(text.len())),
            None => None,
        };
        prop_assert_eq!(AggregateId::new(&text).err(), expected);
    }

    #[test]
    fn what_is_read_as_an_escape_is_what_the_escape_writes(
        text in prop_oneof![text(), "[a-cA-C0-4=.]{0,20}", "(=[0-9A-Fa-f]{2}|[a-z.]){1,60}", "[.=A-F]{0,600}"]
    ) {
        if let Ok(id) = AggregateId::from_escaped(&text) {
            prop_assert_eq!(id.as_str(), text);
            prop_assert_eq!(AggregateId::from_tokens(tokens_of(&id)), Ok(id));
        }
    }

    #[test]
    fn a_number_is_read_back_only_from_what_it_was_written_as(text in "[+-]?0?[0-9]{1,4}(\\.[0-9])?") {
        let id = AggregateId::from_escaped(&text).or_else(|_| AggregateId::new(&text)).unwrap();
        if let Ok(number) = i64::from_aggregate_id(&id) {
            prop_assert_eq!(number.to_aggregate_id(), Ok(id));
        }
    }
}

#[test]
fn an_id_may_have_128_bytes_and_no_more() {
    for token in ["a", "ä", "€", "=", "\u{10FFFF}"] {
        let fits = token.repeat(128 / token.len());
        let id = AggregateId::new(&fits).unwrap();
        assert_eq!(AggregateId::from_escaped(id.as_str()), Ok(id));
        let over = format!("{fits}{}", "x".repeat(129 - fits.len()));
        assert_eq!(AggregateId::new(over), Err(too_long(129)));
    }
    assert_eq!(AggregateId::new("=".repeat(128)).unwrap().as_str().len(), 384);
    assert_eq!(AggregateId::from_escaped(&"a".repeat(129)), Err(too_long(129)));
    assert_eq!(AggregateId::from_escaped(&"=2E".repeat(129)), Err(too_long(129)));
}

#[test]
fn the_tokens_of_an_id_share_its_128_bytes_and_dots_are_free() {
    for token in ["a", "="] {
        let id = AggregateId::from_tokens([token; 128]).unwrap();
        assert_eq!(AggregateId::from_escaped(id.as_str()), Ok(id));
        assert_eq!(AggregateId::from_tokens([token; 129]), Err(too_long(129)));
    }
    assert_eq!(AggregateId::from_tokens(["a".repeat(100), "b".repeat(50)]), Err(too_long(150)));
}

#[test]
fn an_escape_that_no_id_can_have_is_refused_before_it_is_read() {
    let long = "=2E".repeat(1 << 20);
    let error = InvalidToken::TooLong { what: "escaped id", actual: long.len(), max: 511 };
    assert_eq!(AggregateId::from_escaped(&long), Err(error));
}

#[test]
fn ids_without_content_are_refused() {
    let empty = Err(InvalidToken::Empty { what: ID });
    assert_eq!(AggregateId::new(""), empty);
    assert_eq!(AggregateId::from_tokens([""; 0]), empty);
    assert_eq!(AggregateId::from_tokens(["a", ""]), empty);
    for text in ["", ".", "a.", ".a", "a..b"] {
        assert_eq!(AggregateId::from_escaped(text), empty, "{text:?}");
    }
}

#[test]
fn texts_that_the_escape_does_not_write_are_refused_with_the_reason() {
    for (text, reason) in [
        ("a=2", "it ends within an escape"),
        ("a=", "it ends within an escape"),
        ("a=2G", "an escape is not hexadecimal"),
        ("a=+1", "an escape is not hexadecimal"),
        ("a=2e", "the escape writes this id in another way"),
        ("=41", "the escape writes this id in another way"),
        ("a b", "it holds a character that the escape would have replaced"),
        ("*", "it holds a character that the escape would have replaced"),
        ("ä", "it holds a character that the escape would have replaced"),
        ("=FF", "it is not UTF-8"),
    ] {
        let error = InvalidToken::Escape { text: text.to_owned(), reason };
        assert_eq!(AggregateId::from_escaped(text), Err(error));
    }
    let control = Err(InvalidToken::Control { what: ID, found: '\n' });
    assert_eq!(AggregateId::from_escaped("a=0Ab"), control);
}

#[test]
fn a_type_reads_back_only_ids_that_it_wrote() {
    fn refused<I: Identity + Debug>(tokens: &[&str], wanted: &'static str) {
        let id = AggregateId::from_tokens(tokens).unwrap();
        let error = InvalidToken::WrongType { text: id.to_string(), wanted };
        assert_eq!(I::from_aggregate_id(&id).unwrap_err(), error);
    }
    refused::<u32>(&["+7"], "32-bit unsigned integer");
    refused::<u64>(&["007"], "64-bit unsigned integer");
    refused::<i32>(&["2147483648"], "32-bit integer");
    refused::<i64>(&["-0"], "64-bit integer");
    refused::<Uuid>(&["67E55044-10B1-426F-9247-BB680E5FE0C8"], "UUID");
    refused::<Uuid>(&["67e5504410b1426f9247bb680e5fe0c8"], "UUID");
    refused::<String>(&["eu", "42"], "text of one token");

    let uuid = Uuid::from_u128(7);
    assert_eq!(Uuid::from_aggregate_id(&uuid.to_aggregate_id().unwrap()), Ok(uuid));
    let text = "eu.42".to_owned();
    assert_eq!(String::from_aggregate_id(&text.to_aggregate_id().unwrap()), Ok(text));
    assert_eq!(i64::from_aggregate_id(&i64::MIN.to_aggregate_id().unwrap()), Ok(i64::MIN));
}

#[test]
fn names_are_plain_and_have_64_bytes_at_most() {
    let context = "context name";
    assert!(ContextName::new("a".repeat(64)).is_ok());
    let long = InvalidToken::TooLong { what: context, actual: 65, max: 64 };
    assert_eq!(ContextName::new("a".repeat(65)), Err(long));
    assert_eq!(ContextName::new(""), Err(InvalidToken::Empty { what: context }));
    for (text, found) in
        [("a.b", '.'), ("*", '*'), (">", '>'), ("a b", ' '), ("a=", '='), ("ä", 'ä'), ("a\n", '\n')]
    {
        let error = InvalidToken::Character { what: context, text: text.to_owned(), found };
        assert_eq!(ContextName::new(text), Err(error));
    }
}

#[test]
fn a_prefix_is_names_joined_by_dots_and_has_256_bytes_at_most() {
    let scheme = |prefix: &str| {
        SubjectScheme::new(ContextName::new("sales").unwrap(), prefix, "cim.aggregates")
    };
    let what = "event subject prefix";
    assert!(scheme("acme").is_ok());
    assert!(scheme(&vec!["a".repeat(63); 4].join(".")).is_ok());
    assert_eq!(scheme(&"a.".repeat(128)).unwrap_err(), InvalidToken::Empty { what });
    assert_eq!(
        scheme(&"a".repeat(257)).unwrap_err(),
        InvalidToken::TooLong { what, actual: 257, max: 256 }
    );
    assert_eq!(scheme("").unwrap_err(), InvalidToken::Empty { what });
    let error = InvalidToken::Character { what, text: "*".to_owned(), found: '*' };
    assert_eq!(scheme("cim.*").unwrap_err(), error);
}
