//! Patterns by their tokens, so that those a subject matches are found without looking at the others.

use std::collections::HashMap;

use crate::subject::Pattern;

/// Values by pattern; several values may have the same one.
///
/// The way to a value is its pattern's tokens. A subject goes down at most two ways at each token, the token's own and that
/// of `*`, and only as far as there are patterns. Neither insertion nor removal touches other patterns.
#[derive(Debug)]
pub(super) struct Trie<T> {
    literal: HashMap<Box<str>, Trie<T>>,
    /// Below `*`.
    any: Option<Box<Trie<T>>>,
    /// Of the pattern that ends here.
    here: Vec<T>,
    /// Of the pattern that ends here with `>`.
    tail: Vec<T>,
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { literal: HashMap::new(), any: None, here: Vec::new(), tail: Vec::new() }
    }
}

impl<T> Trie<T> {
    pub(super) fn insert(&mut self, pattern: &Pattern, value: T) {
        let mut node = self;
        for token in pattern.as_str().split('.') {
            node = match token {
                // It is the last token.
                ">" => return node.tail.push(value),
                "*" => node.any.get_or_insert_default(),
                token => node.literal.entry(token.into()).or_default(),
            };
        }
        node.here.push(value);
    }

    /// Removes the values of a pattern that are meant, and whatever led to them alone.
    pub(super) fn remove(&mut self, pattern: &Pattern, meant: impl Fn(&T) -> bool) {
        self.remove_below(Some(pattern.as_str()), &meant);
    }

    fn remove_below(&mut self, rest: Option<&str>, meant: &impl Fn(&T) -> bool) {
        let Some(rest) = rest else { return self.here.retain(|value| !meant(value)) };
        let (token, rest) = split(rest);
        match token {
            ">" => self.tail.retain(|value| !meant(value)),
            "*" => {
                if let Some(any) = &mut self.any {
                    any.remove_below(rest, meant);
                }
                self.any.take_if(|any| any.is_empty());
            }
            token => {
                if let Some(next) = self.literal.get_mut(token) {
                    next.remove_below(rest, meant);
                    if next.is_empty() {
                        self.literal.remove(token);
                    }
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.literal.is_empty()
            && self.any.is_none()
            && self.here.is_empty()
            && self.tail.is_empty()
    }

    /// Shows the values of all patterns that match a subject, in no particular order. A subject with an empty token matches
    /// none, as with [`Pattern::matches`].
    pub(super) fn find<'a>(&'a self, subject: &str, mut found: impl FnMut(&'a T)) {
        if !subject.split('.').any(str::is_empty) {
            self.find_below(Some(subject), &mut found);
        }
    }

    fn find_below<'a>(&'a self, rest: Option<&str>, found: &mut impl FnMut(&'a T)) {
        let Some(rest) = rest else { return self.here.iter().for_each(found) };
        self.tail.iter().for_each(&mut *found);
        let (token, rest) = split(rest);
        if let Some(next) = self.literal.get(token) {
            next.find_below(rest, found);
        }
        if let Some(any) = &self.any {
            any.find_below(rest, found);
        }
    }
}

fn split(rest: &str) -> (&str, Option<&str>) {
    match rest.split_once('.') {
        Some((token, rest)) => (token, Some(rest)),
        None => (rest, None),
    }
}
