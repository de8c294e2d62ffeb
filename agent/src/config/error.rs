//! The report of everything that is wrong with a configuration.

use std::fmt;

/// How many mistakes the report spells out; the rest is counted.
const MAX_SHOWN: usize = 50;
/// The longest value the report repeats, in characters.
const MAX_VALUE_CHARS: usize = 80;

/// All mistakes of one configuration. Never empty. Exit status 2 goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Mistake>);

/// One mistake: where, what, why, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it was given: the file's name, a variable's name, a flag.
    pub origin: String,
    /// The key, in the file's spelling; empty when it is about the file as a whole.
    pub key: String,
    /// The value as far as it may be shown.
    pub value: Option<String>,
    /// What is wrong with it.
    pub why: String,
    /// What is allowed.
    pub allowed: String,
}

/// Why a value is none: what a reader of values gives back.
#[derive(Debug)]
pub(super) struct Wrong {
    /// The part of the key below its name: a registry's host and setting.
    pub(super) below: Option<String>,
    pub(super) value: Option<String>,
    pub(super) why: String,
    /// What is allowed there, when it is not what the key's entry says.
    pub(super) allowed: Option<String>,
}

impl Wrong {
    /// `value` is shown, so it is never passed for a key nobody knows: it may be a secret.
    pub(super) fn new(value: Option<&str>, why: impl Into<String>) -> Self {
        Self {
            below: None,
            value: value.map(show),
            why: why.into(),
            allowed: None,
        }
    }
}

impl ConfigErrors {
    /// `None` when nothing is wrong.
    pub(super) fn from_mistakes(mistakes: Vec<Mistake>) -> Option<Self> {
        (!mistakes.is_empty()).then_some(Self(mistakes))
    }

    /// The mistakes, file first, then variables, then flags.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        write!(f, "{count} {noun} in the configuration:")?;
        for mistake in self.0.iter().take(MAX_SHOWN) {
            write!(f, "\n  {mistake}")?;
        }
        if count > MAX_SHOWN {
            write!(f, "\n  and {} more", count - MAX_SHOWN)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() && self.key != self.origin {
            f.write_str(&self.key)?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.why)?;
        if !self.allowed.is_empty() {
            write!(f, "; allowed: {}", self.allowed)?;
        }
        Ok(())
    }
}

/// A value fit for a terminal and a log: on one line, not too long, and without what may be a secret in the wrong place.
fn show(value: &str) -> String {
    // A JWT, or a URL with a password in it.
    if value.contains("eyJ") || value.contains('@') {
        return "(not shown)".to_owned();
    }
    let mut shown: String = value
        .chars()
        .take(MAX_VALUE_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    if value.chars().nth(MAX_VALUE_CHARS).is_some() {
        shown.push_str("...");
    }
    format!("\"{shown}\"")
}
