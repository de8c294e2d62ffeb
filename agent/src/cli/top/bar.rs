//! A bar of characters: how much of a token's life is left.

/// A bar of `width` characters, of which the share `left` of `whole` is filled; empty when `whole` is not known or over.
///
/// Something is always filled while anything is left, and something always empty once anything is gone.
pub(super) fn bar(left: i64, whole: i64, width: usize, unicode: bool) -> String {
    let (full, empty) = if unicode { ('█', '░') } else { ('#', '.') };
    let filled = filled(left, whole, width);
    let mut bar = String::new();
    bar.extend(std::iter::repeat_n(full, filled));
    bar.extend(std::iter::repeat_n(empty, width - filled));
    bar
}

fn filled(left: i64, whole: i64, width: usize) -> usize {
    if left <= 0 || whole <= 0 {
        return 0;
    }
    if left >= whole {
        return width;
    }
    let wide = i128::try_from(width).unwrap_or(0);
    let share = i128::from(left) * wide / i128::from(whole);
    usize::try_from(share).unwrap_or(0).max(1).min(width)
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn a_bar_says_how_much_is_left() {
        assert_eq!(bar(5, 10, 10, false), "#####.....");
        assert_eq!(bar(5, 10, 4, true), "██░░");
        assert_eq!(bar(1, 100_000, 4, false), "#...");
        assert_eq!(bar(99_999, 100_000, 4, false), "###.");
        assert_eq!(bar(20, 10, 4, false), "####");
        assert_eq!(bar(i64::MAX - 1, i64::MAX, 4, false), "###.");
        for (left, whole) in [(0, 10), (-1, 10), (5, 0), (5, -3), (i64::MIN, i64::MIN)] {
            assert_eq!(bar(left, whole, 3, false), "...");
        }
        assert_eq!(bar(1, 2, 0, false), "");
    }
}
