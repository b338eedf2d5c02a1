//! Which subjects a consumer is asked for.
//!
//! A server refuses filters that overlap. Those are joined into a wider one, and what it lets pass too much is left out
//! here.

use crate::event::NonEmpty;
use crate::subject::Pattern;

/// The wanted patterns, and filters that a server takes, which let pass the same or more.
pub(super) struct Filters {
    wanted: NonEmpty<Pattern>,
    for_server: Vec<Pattern>,
    wider: bool,
}

impl Filters {
    pub(super) fn of(wanted: NonEmpty<Pattern>) -> Self {
        let mut for_server = Vec::with_capacity(wanted.len().get());
        let mut wider = false;
        for pattern in &wanted {
            wider |= add(&mut for_server, pattern.clone());
        }
        Self { wanted, for_server, wider }
    }

    pub(super) fn for_server(&self) -> &[Pattern] {
        &self.for_server
    }

    pub(super) fn matches(&self, subject: &str) -> bool {
        !self.wider || self.wanted.iter().any(|pattern| pattern.matches(subject))
    }
}

/// Adds a pattern to others that do not overlap, so that they still do not. Returns whether they let pass more than they
/// should.
fn add(patterns: &mut Vec<Pattern>, mut new: Pattern) -> bool {
    let mut wider = false;
    while let Some(index) = patterns.iter().position(|pattern| pattern.overlaps(&new)) {
        let other = patterns.swap_remove(index);
        if other.covers(&new) {
            new = other;
        } else if !new.covers(&other) {
            new = join(&new, &other);
            wider = true;
        }
    }
    patterns.push(new);
    wider
}

/// A pattern that covers two that overlap: a wildcard wherever they differ.
fn join(a: &Pattern, b: &Pattern) -> Pattern {
    let mut tokens = Vec::new();
    for (a, b) in a.as_str().split('.').zip(b.as_str().split('.')) {
        match (a, b) {
            (">", _) | (_, ">") => {
                tokens.push(">");
                break;
            }
            _ if a == b => tokens.push(a),
            _ => tokens.push("*"),
        }
    }
    Pattern::parse(&tokens.join(".")).expect("made of the tokens of a pattern, in their places")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(patterns: &[&str]) -> (Vec<String>, Filters) {
        let wanted = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        let filters = Filters::of(NonEmpty::from_vec(wanted).unwrap());
        let mut found: Vec<_> = filters.for_server().iter().map(ToString::to_string).collect();
        found.sort();
        (found, filters)
    }

    #[test]
    fn a_pattern_that_another_covers_is_left_out() {
        for patterns in [["a.*", "a.b"], ["a.b", "a.*"], ["a.*", "a.*"]] {
            let (found, filters) = filters(&patterns);
            assert_eq!(found, ["a.*"]);
            assert!(filters.matches("whatever the server lets pass"));
        }
        assert_eq!(filters(&["a.b", "c", "a.c", ">", "d.>"]).0, [">"]);
    }

    #[test]
    fn overlapping_patterns_are_joined_and_told_apart_here() {
        let (found, filters) = filters(&["a.*.c", "a.b.*", "x.y"]);
        assert_eq!(found, ["a.*.*", "x.y"]);
        for (subject, wanted) in [("a.z.c", true), ("a.b.z", true), ("a.z.z", false), ("x.y", true)]
        {
            assert_eq!(filters.matches(subject), wanted, "{subject}");
        }
        let (found, filters) = self::filters(&["a.*.c.>", "a.b.>"]);
        assert_eq!(found, ["a.*.>"]);
        assert!(!filters.matches("a.z.z"));
        // What two were joined to may overlap a third.
        assert_eq!(self::filters(&["p.*.c", "p.d.e", "p.b.*"]).0, ["p.*.*"]);
    }
}
