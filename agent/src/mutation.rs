//! Near-valid input for property tests: what is right, changed in a few places. Bytes out of nowhere are refused at the first of them
//! and say nothing about what comes behind.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What is put in: what means something in any of the formats that are read.
const PIECES: &[&str] = &[
    "\0",
    "\n",
    "\r\n",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    ";",
    ".",
    "-",
    "=",
    "&",
    "&amp;",
    "%",
    "%2",
    "%00",
    "%ff",
    "+",
    " ",
    "@",
    "/",
    "?",
    "#",
    "<",
    ">",
    "</",
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "18446744073709551616",
    "9223372036854775807",
    "\u{feff}",
    "\u{e9}",
    "\u{202e}",
    "\u{1b}[2J",
    "\"\"\"",
    "''",
];

#[derive(Clone, Debug)]
enum Change {
    Remove(Index, usize),
    Repeat(Index, usize),
    Put(Index, u8),
    Insert(Index, &'static str),
    Cut(Index),
}

/// One of `seeds` with up to five changes.
pub(crate) fn near(seeds: Vec<String>) -> impl Strategy<Value = Vec<u8>> {
    let change = prop_oneof![
        1 => (any::<Index>(), 1..12_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        1 => (any::<Index>(), 1..40_usize).prop_map(|(at, count)| Change::Repeat(at, count)),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Put(at, byte)),
        4 => (any::<Index>(), select(PIECES)).prop_map(|(at, piece)| Change::Insert(at, piece)),
        1 => any::<Index>().prop_map(Change::Cut),
    ];
    (select(seeds), vec(change, 0..6)).prop_map(|(seed, changes)| {
        let mut bytes = seed.into_bytes();
        for change in changes {
            apply(&mut bytes, &change);
        }
        bytes
    })
}

/// The same as text, with a mark where it is none.
pub(crate) fn near_text(seeds: Vec<String>) -> impl Strategy<Value = String> {
    near(seeds).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let at = |index: &Index| index.index(bytes.len() + 1);
    let (start, end, new) = match change {
        Change::Remove(index, count) => (at(index), at(index) + count, Vec::new()),
        Change::Repeat(index, count) => {
            let start = at(index);
            let end = (start + count).min(bytes.len());
            (end, end, bytes[start..end].to_vec())
        }
        Change::Put(index, byte) => (at(index), at(index) + 1, vec![*byte]),
        Change::Insert(index, piece) => (at(index), at(index), piece.as_bytes().to_vec()),
        Change::Cut(index) => (at(index), bytes.len(), Vec::new()),
    };
    bytes.splice(start..end.min(bytes.len()), new);
}
