//! What two texts differ in, line by line, for people who read a failed test.

/// The most pairs of lines that are compared; longer texts are shown one after the other.
const MOST_PAIRS: usize = 4_000_000;

/// Both texts in one: `-` before a line that only the expected one has, `+` before one that only the found one has.
pub(super) fn difference(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let start = expected.iter().zip(&found).take_while(same).count();
    let rest = expected.len().min(found.len()) - start;
    let end = expected.iter().rev().zip(found.iter().rev()).take(rest).take_while(same).count();
    let (until, to) = (expected.len() - end, found.len() - end);

    let mut lines = Vec::new();
    lines.extend(expected[..start].iter().map(|line| format!("  {line}")));
    between(&expected[start..until], &found[start..to], &mut lines);
    lines.extend(expected[until..].iter().map(|line| format!("  {line}")));
    lines.join("\n")
}

/// The shortest way from one list of lines to the other, along their longest common part.
fn between(expected: &[&str], found: &[&str], lines: &mut Vec<String>) {
    let common = match expected.len().saturating_mul(found.len()) <= MOST_PAIRS {
        true => longest_common(expected, found),
        false => vec![vec![0; found.len() + 1]; 1],
    };
    let (mut e, mut f) = (0, 0);
    while e < expected.len() || f < found.len() {
        let known = common.len() > 1;
        if known && e < expected.len() && f < found.len() && expected[e] == found[f] {
            lines.push(format!("  {}", expected[e]));
            (e, f) = (e + 1, f + 1);
        } else if e < expected.len()
            && (f == found.len() || !known || common[e + 1][f] >= common[e][f + 1])
        {
            lines.push(format!("- {}", expected[e]));
            e += 1;
        } else {
            lines.push(format!("+ {}", found[f]));
            f += 1;
        }
    }
}

/// How many lines are common to what follows line `e` of the one and line `f` of the other, at `[e][f]`.
fn longest_common(expected: &[&str], found: &[&str]) -> Vec<Vec<u32>> {
    let mut common = vec![vec![0; found.len() + 1]; expected.len() + 1];
    for e in (0..expected.len()).rev() {
        for f in (0..found.len()).rev() {
            common[e][f] = match expected[e] == found[f] {
                true => common[e + 1][f + 1] + 1,
                false => common[e + 1][f].max(common[e][f + 1]),
            };
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn what_is_common_is_shown_once() {
        let expected = "{\n  a\n  b\n  c\n}";
        assert_eq!(
            difference(expected, "{\n  a\n  x\n  c\n}"),
            "  {\n    a\n-   b\n+   x\n    c\n  }"
        );
        assert_eq!(difference(expected, expected), "  {\n    a\n    b\n    c\n  }");
    }

    #[test]
    fn a_line_that_moved_keeps_its_neighbours() {
        assert_eq!(difference("a\nb\nc\nd", "b\nc\na\nd"), "- a\n  b\n  c\n+ a\n  d");
    }

    #[test]
    fn nothing_on_one_side_shows_the_other() {
        assert_eq!(difference("", "a\nb"), "+ a\n+ b");
        assert_eq!(difference("a\nb", ""), "- a\n- b");
        assert_eq!(difference("a\na", "a"), "  a\n- a");
        assert_eq!(difference("", ""), "");
    }

    #[test]
    fn texts_too_long_to_compare_are_shown_whole() {
        let long = |mark: &str| vec![mark; 2001].join("\n");
        let shown = difference(&long("a"), &long("b"));
        assert_eq!(shown.lines().filter(|line| *line == "- a").count(), 2001);
        assert_eq!(shown.lines().filter(|line| *line == "+ b").count(), 2001);
        assert!(shown.starts_with("- a") && shown.ends_with("+ b"));
    }
}
