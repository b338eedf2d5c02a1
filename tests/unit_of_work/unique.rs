//! Values that only one aggregate may have.

use cim_persistence::unit_of_work::{UniqueValues, UnitError};
use futures::future::join_all;

use crate::domain::{Bank, Booked};
use crate::test_server::TestServer;

async fn open(bank: &Bank, account: &str, iban: &str) -> Result<(), UnitError> {
    let mut unit = bank.begin();
    let id = account.to_owned();
    unit.claim("iban", iban, &bank.accounts, &id).await?;
    unit.record(&bank.accounts, &id, vec![Booked { transfer: 0, amount: 0 }]).await?;
    unit.commit().await.map(|_| ())
}

async fn owner(bank: &Bank, iban: &str) -> Option<String> {
    let owner = UniqueValues::of(&bank.context).owner("iban", iban).await.unwrap();
    owner.map(|owner| owner.to_string())
}

#[tokio::test]
async fn a_value_has_one_owner_until_it_is_given_back() {
    let bank = Bank::in_memory();
    let (a, b) = ("a".to_owned(), "b".to_owned());
    open(&bank, "a", "DE 1").await.unwrap();
    open(&bank, "a", "DE 1").await.unwrap();
    let error = open(&bank, "b", "DE 1").await.unwrap_err();
    assert_eq!(error.to_string(), "iban \"DE 1\" belongs to account a");
    assert!(matches!(error, UnitError::UniqueViolation { .. }) && !error.is_conflict());

    let mut unit = bank.begin();
    let error = unit.release("iban", "DE 1", &bank.accounts, &b).await.unwrap_err();
    assert_eq!(error.to_string(), "iban \"DE 1\" does not belong to account b, but to account a");
    let error = unit.release("iban", "DE 2", &bank.accounts, &b).await.unwrap_err();
    assert_eq!(error.to_string(), "iban \"DE 2\" does not belong to account b, nor to anybody");

    unit.move_claim("iban", "DE 1", "DE 2", &bank.accounts, &a).await.unwrap();
    unit.claim("iban", "DE 1", &bank.accounts, &b).await.unwrap();
    unit.commit().await.unwrap();
    assert_eq!(owner(&bank, "DE 1").await.as_deref(), Some("account b"));
    assert_eq!(owner(&bank, "DE 2").await.as_deref(), Some("account a"));
    assert_eq!(owner(&bank, "DE 3").await, None);

    let mut unit = bank.begin();
    unit.release("iban", "DE 1", &bank.accounts, &b).await.unwrap();
    unit.commit().await.unwrap();
    let all = UniqueValues::of(&bank.context).all("iban").await.unwrap();
    let all: Vec<_> =
        all.iter().map(|(value, owner)| (value.as_str(), owner.id.as_str())).collect();
    assert_eq!(all, [("DE 2", "a")]);
    open(&bank, "c", "DE 1").await.unwrap();
}

#[tokio::test]
async fn a_claim_that_fails_leaves_the_unit_as_it_was() {
    let bank = Bank::in_memory();
    open(&bank, "a", "1").await.unwrap();
    open(&bank, "b", "2").await.unwrap();
    let mut unit = bank.begin();
    let a = "a".to_owned();
    let taken = unit.move_claim("iban", "1", "2", &bank.accounts, &a).await.unwrap_err();
    assert!(matches!(taken, UnitError::UniqueViolation { .. }));
    assert_eq!(unit.commit().await.unwrap().messages, 0);
    assert_eq!(owner(&bank, "1").await.as_deref(), Some("account a"));
}

#[tokio::test]
async fn whoever_comes_too_late_learns_whose_it_is() {
    let bank = Bank::in_memory();
    let mut unit = bank.begin();
    unit.claim("iban", "1", &bank.accounts, &"late".to_owned()).await.unwrap();
    open(&bank, "first", "1").await.unwrap();
    let error = unit.commit().await.unwrap_err();
    assert_eq!(error.to_string(), "iban \"1\" belongs to account first");
    // It was claimed and given back meanwhile: it is free, but not as it was read.
    let mut unit = bank.begin();
    unit.claim("iban", "2", &bank.accounts, &"late".to_owned()).await.unwrap();
    open(&bank, "first", "2").await.unwrap();
    let mut other = bank.begin();
    other.release("iban", "2", &bank.accounts, &"first".to_owned()).await.unwrap();
    other.commit().await.unwrap();
    let error = unit.commit().await.unwrap_err();
    assert!(matches!(error, UnitError::Overtaken { .. }) && error.is_conflict(), "{error}");
}

#[tokio::test]
async fn an_owned_value_that_is_claimed_again_must_stay_owned() {
    let bank = Bank::in_memory();
    open(&bank, "a", "1").await.unwrap();
    let mut unit = bank.begin();
    let a = "a".to_owned();
    unit.claim("iban", "1", &bank.accounts, &a).await.unwrap();
    unit.record(&bank.accounts, &a, vec![Booked { transfer: 0, amount: 1 }]).await.unwrap();
    let mut other = bank.begin();
    other.release("iban", "1", &bank.accounts, &a).await.unwrap();
    other.commit().await.unwrap();
    assert!(unit.commit().await.unwrap_err().is_conflict());
}

#[tokio::test]
async fn names_and_values_are_checked() {
    let bank = Bank::in_memory();
    let mut unit = bank.begin();
    let a = "a".to_owned();
    for (constraint, value, text) in [
        ("i.ban", "1", "constraint name \"i.ban\""),
        ("iban", "", "id is empty"),
        ("iban", "a\nb", "id holds the control character"),
    ] {
        let error = unit.claim(constraint, value, &bank.accounts, &a).await.unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
    }
}

/// Two processes, half of the claimants in each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixty_four_claimants_one_wins_a_thousand_times() {
    const RACES: usize = 1000;
    const CLAIMANTS: usize = 64;
    let server = TestServer::start().await;
    let context = server.name("race");
    let connect = async || Bank::connect(&[server.url()], &context, 30_000).await;
    let banks = [connect().await, connect().await];
    for race in 0..RACES {
        let value = race.to_string();
        let claims = (0..CLAIMANTS).map(async |claimant| {
            let bank = &banks[claimant % 2];
            let mut unit = bank.begin();
            let id = format!("account-{claimant}");
            unit.claim("iban", &value, &bank.accounts, &id).await?;
            unit.commit().await?;
            Ok::<_, UnitError>(id)
        });
        let (mut winners, mut owners) = (Vec::new(), Vec::new());
        for outcome in join_all(claims).await {
            match outcome {
                Ok(winner) => winners.push(winner),
                Err(UnitError::UniqueViolation { owner, .. }) => owners.push(owner.id.to_string()),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((winners.len(), owners.len()), (1, CLAIMANTS - 1), "race {race}");
        assert!(owners.iter().all(|owner| *owner == winners[0]), "race {race}");
    }
}
