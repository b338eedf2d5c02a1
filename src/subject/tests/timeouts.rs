//! Timeouts: their subjects lead back to them, whatever the instance is called.

use proptest::prelude::*;

use super::id_tokens;
use crate::subject::{AggregateId, ContextName, InvalidToken, TimeoutAddress, TimeoutSubjects};

fn subjects() -> TimeoutSubjects {
    TimeoutSubjects::of(&ContextName::new("sales").unwrap())
}

proptest! {
    #[test]
    fn a_subject_leads_back_to_its_timeout(
        tokens in id_tokens(4),
        (process, name) in ("[A-Za-z0-9_-]{1,64}", "[A-Za-z0-9_-]{1,64}"),
    ) {
        let instance = AggregateId::from_tokens(&tokens).unwrap();
        let address = TimeoutAddress::new(&process, &instance, &name).unwrap();
        let (scheduled, due) = (subjects().scheduled(&address), subjects().due(&address));
        prop_assert_eq!(subjects().parse_due(due.as_str()), Some(address.clone()));
        prop_assert_eq!(subjects().parse_scheduled(scheduled.as_str()), Some(address));
        prop_assert_eq!(subjects().parse_due(scheduled.as_str()), None);
        prop_assert!(subjects().all_due(&process).unwrap().matches(due.as_str()));
        prop_assert!(!subjects().all_due("another-one").unwrap().matches(due.as_str()));
    }
}

#[test]
fn subjects_are_as_they_are_documented() {
    let instance = AggregateId::from_tokens(["kim@home", "7"]).unwrap();
    let address = TimeoutAddress::new("shipping", &instance, "reminder").unwrap();
    let wanted = "cim.timeouts.sales.at.shipping.kim=40home.7.reminder";
    assert_eq!(subjects().scheduled(&address).as_str(), wanted);
    let wanted = "cim.timeouts.sales.due.shipping.kim=40home.7.reminder";
    assert_eq!(subjects().due(&address).as_str(), wanted);
    assert_eq!(subjects().all(), ["cim.timeouts.sales.at.>", "cim.timeouts.sales.due.>"]);
}

#[test]
fn what_is_no_name_is_refused() {
    let instance = AggregateId::new("1").unwrap();
    let refused = |process, name| TimeoutAddress::new(process, &instance, name).unwrap_err();
    assert_eq!(refused("", "x"), InvalidToken::Empty { what: "process name" });
    let dot = InvalidToken::Character { what: "timeout name", text: "a.b".to_owned(), found: '.' };
    assert_eq!(refused("x", "a.b"), dot);
    assert_eq!(subjects().parse_due("cim.timeouts.sales.due.shipping.reminder"), None);
    assert!(subjects().all_due("*").is_err());
}
