//! The known name that a misspelt one probably means.

/// The one of `known` that `name` is the beginning of.
pub(super) fn completion<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    known
        .iter()
        .find(|candidate| name.len() >= 3 && candidate.starts_with(&name))
        .copied()
}

/// The closest of `known` that is close enough to be meant.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // A name this long is no slip, and the table of distances would be as long.
    if name.len() > 64 {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let is_near = |distance: usize, length: usize| {
        let most = if length <= 5 { 1 } else { 2.max(length / 4) };
        distance <= most
    };
    known
        .iter()
        .map(|candidate| (distance(&name, &candidate.to_ascii_lowercase()), *candidate))
        .filter(|(distance, candidate)| is_near(*distance, candidate.len()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, from) in left.chars().enumerate() {
        let mut diagonal = at;
        let mut before = at + 1;
        for (to, cell) in right.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            let kept = diagonal + usize::from(from != *to);
            *cell = kept.min(above + 1).min(before + 1);
            diagonal = above;
            before = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{completion, distance, nearest};

    #[test]
    fn distances() {
        for (left, right, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("abc", "abc", 0),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }

    #[test]
    fn finds_what_is_meant_and_nothing_far_off() {
        let known = ["strategy", "socket", "log", "log_format"];
        assert_eq!(nearest("stratgy", &known), Some("strategy"));
        assert_eq!(nearest("LOG", &known), Some("log"));
        assert_eq!(nearest("lag", &known), Some("log"));
        assert_eq!(nearest("leg_", &known), None);
        assert_eq!(nearest("str", &known), None);
        assert_eq!(completion("str", &known), Some("strategy"));
        assert_eq!(completion("s", &known), None);
        assert_eq!(nearest("password", &known), None);
    }
}
