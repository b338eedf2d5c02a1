//! Names of event types: the default one, and which may be stored. The crate itself checks them again when it writes.

const MAX_BYTES: usize = 64;

/// `OrderPlaced` as `order_placed`, and `HTTPCalled` as `http_called`.
///
/// A capital begins a word after a small letter or a digit, and before a small letter.
pub(crate) fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| letters[before]);
        let small_follows = letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        let begins = match before {
            Some(before) if letter.is_uppercase() => {
                before.is_lowercase()
                    || before.is_numeric()
                    || (before.is_uppercase() && small_follows)
            }
            _ => false,
        };
        if begins {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// Why a name cannot be stored, if it cannot.
pub(crate) fn objection(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("an event type needs a name of at least one character".to_owned());
    }
    if name.len() > MAX_BYTES {
        let bytes = name.len();
        return Some(format!(
            "an event type's name has at most {MAX_BYTES} bytes, this one has {bytes}"
        ));
    }
    if name.starts_with("cim-") {
        return Some("names that begin with `cim-` are reserved; choose another one".to_owned());
    }
    let other = name.chars().find(|c| !(c.is_ascii_alphanumeric() || *c == '_' || *c == '-'))?;
    Some(format!("an event type's name holds A-Z a-z 0-9 _ and - only, {name:?} holds {other:?}"))
}

#[cfg(test)]
mod tests {
    use super::{objection, snake_case};

    #[test]
    fn words_are_told_apart_by_their_capitals() {
        for (name, snake) in [
            ("Placed", "placed"),
            ("OrderPlaced", "order_placed"),
            ("HTTPCalled", "http_called"),
            ("CalledByHTTP", "called_by_http"),
            ("V2Placed", "v2_placed"),
            ("Placed2", "placed2"),
            ("A", "a"),
            ("AB", "ab"),
            ("ABc", "a_bc"),
            ("order_placed", "order_placed"),
            ("Order_Placed", "order_placed"),
        ] {
            assert_eq!(snake_case(name), snake, "{name}");
        }
    }

    #[test]
    fn sixty_four_bytes_are_allowed_and_no_more() {
        assert_eq!(objection(&"a".repeat(64)), None);
        let objection = objection(&"a".repeat(65));
        let wanted = "an event type's name has at most 64 bytes, this one has 65";
        assert_eq!(objection.as_deref(), Some(wanted));
    }

    #[test]
    fn only_the_beginning_is_reserved() {
        assert!(objection("cim-tombstone").is_some());
        assert_eq!(objection("cim_tombstone"), None);
        assert_eq!(objection("decim-al"), None);
    }
}
