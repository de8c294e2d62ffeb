//! Readers of single values: one for each type a key can have, the same for the file and for variables.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::error::Wrong;
use crate::principal::is_guid;

/// The longest list of any key.
const MAX_ITEMS: usize = 64;

/// A value as it was given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given<'a> {
    /// In a variable or a flag.
    Text(&'a str),
    /// In the file.
    Toml(&'a toml::Value),
}

type Read<T> = Result<T, Wrong>;

fn wrong<T>(value: &str, why: impl Into<String>) -> Read<T> {
    Err(Wrong::new(Some(value), why))
}

/// A value of the wrong type, without the value: it may be anything.
pub(super) fn wrong_type(value: &toml::Value) -> Wrong {
    let kind = match value {
        toml::Value::String(_) => "text",
        toml::Value::Integer(_) | toml::Value::Float(_) => "a number",
        toml::Value::Boolean(_) => "true or false",
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
    };
    Wrong::new(None, format!("it is {kind}, which it cannot be"))
}

pub(super) fn text(given: Given<'_>) -> Read<&str> {
    let text = match given {
        Given::Text(text) => text,
        Given::Toml(toml::Value::String(text)) => text,
        Given::Toml(other) => return Err(wrong_type(other)),
    };
    if text.is_empty() {
        return wrong(text, "it is empty");
    }
    if text.contains(char::is_control) {
        return wrong(text, "it has a control character in it");
    }
    Ok(text)
}

pub(super) fn boolean(given: Given<'_>) -> Read<bool> {
    match given {
        Given::Toml(toml::Value::Boolean(value)) => Ok(*value),
        Given::Toml(other) => Err(wrong_type(other)),
        Given::Text(text) => {
            parse_boolean(text).map_or_else(|| wrong(text, "it is neither true nor false"), Ok)
        }
    }
}

/// True or false, as a variable says it.
#[must_use]
pub fn parse_boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A port that needs no privilege.
pub(super) fn port(given: Given<'_>) -> Read<u16> {
    let number = whole_number(given)?;
    match u16::try_from(number) {
        Ok(port) if port >= 1024 => Ok(port),
        _ => wrong(&number.to_string(), "it is not a port from 1024 to 65535"),
    }
}

fn whole_number(given: Given<'_>) -> Read<i64> {
    match given {
        Given::Toml(toml::Value::Integer(number)) => Ok(*number),
        Given::Toml(other) => Err(wrong_type(other)),
        Given::Text(text) => text
            .parse()
            .or_else(|_| wrong(text, "it is not a whole number")),
    }
}

/// A uid or gid. The highest number means "unchanged" to the kernel and is nobody's.
pub(super) fn id_number(given: Given<'_>) -> Read<u32> {
    let number = whole_number(given)?;
    match u32::try_from(number) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => wrong(&number.to_string(), "it is out of range"),
    }
}

/// Whole seconds, or text with a unit: `90s`, `5m`, `1h`.
pub(super) fn duration(given: Given<'_>, least: Duration, most: Duration) -> Read<Duration> {
    let (shown, seconds) = match given {
        Given::Toml(toml::Value::Integer(number)) => {
            (number.to_string(), u64::try_from(*number).ok())
        }
        Given::Toml(toml::Value::String(text)) => (text.clone(), parse_seconds(text)),
        Given::Toml(other) => return Err(wrong_type(other)),
        Given::Text(text) => (text.to_owned(), parse_seconds(text)),
    };
    let Some(seconds) = seconds else {
        return wrong(&shown, "it is not a duration");
    };
    let duration = Duration::from_secs(seconds);
    if (least..=most).contains(&duration) {
        Ok(duration)
    } else {
        wrong(&shown, "it is out of range")
    }
}

fn parse_seconds(text: &str) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b's' => (text.strip_suffix('s')?, 1),
        b'm' => (text.strip_suffix('m')?, 60),
        b'h' => (text.strip_suffix('h')?, 60 * 60),
        _ => (text, 1),
    };
    // `u64::from_str` takes a sign; a duration has none.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// One of a few words.
pub(super) fn word<T: Copy>(given: Given<'_>, words: &[(&str, T)]) -> Read<T> {
    let text = text(given)?;
    words.iter().find(|(word, _)| *word == text).map_or_else(
        || wrong(text, "it is none of the known words"),
        |(_, value)| Ok(*value),
    )
}

pub(super) fn guid(given: Given<'_>) -> Read<String> {
    let text = text(given)?;
    if is_guid(text) {
        Ok(text.to_ascii_lowercase())
    } else {
        wrong(text, "it is not a GUID")
    }
}

/// A tenant where its domain name will do: it is only ever sent.
pub(super) fn tenant(given: Given<'_>) -> Read<String> {
    let text = text(given)?;
    let is_domain = text.contains('.')
        && text.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        });
    if is_guid(text) || is_domain {
        Ok(text.to_ascii_lowercase())
    } else {
        wrong(text, "it is neither a GUID nor a domain name")
    }
}

/// A GUID, or an Azure resource id.
pub(super) fn identity_id(given: Given<'_>) -> Read<String> {
    let text = text(given)?;
    single(text)?;
    let is_resource_id = text
        .get(.."/subscriptions/".len())
        .is_some_and(|front| front.eq_ignore_ascii_case("/subscriptions/"))
        && !text.contains(char::is_whitespace);
    if is_guid(text) {
        Ok(text.to_ascii_lowercase())
    } else if is_resource_id {
        Ok(text.to_owned())
    } else {
        wrong(text, "it is neither a GUID nor an Azure resource id")
    }
}

/// A resource or an audience, by the rules a request's has.
pub(super) fn resource(given: Given<'_>) -> Read<String> {
    let text = text(given)?;
    if text.contains(char::is_whitespace) {
        return wrong(
            text,
            "it has white space in it: give one resource at a time",
        );
    }
    single(text)?;
    if text.len() > jobcred_wire::MAX_TARGET_BYTES {
        return wrong(text, "it is too long");
    }
    Ok(text.to_owned())
}

/// An absolute path: the agent is started from other directories than the command.
pub(super) fn path(given: Given<'_>) -> Read<PathBuf> {
    let text = text(given)?;
    if text.starts_with('/') {
        Ok(PathBuf::from(text))
    } else {
        wrong(text, "it is not an absolute path")
    }
}

pub(super) fn socket_path(given: Given<'_>) -> Read<PathBuf> {
    let path = path(given)?;
    // One that is too long for a socket is said where the socket is made: no reason for COMMAND not to run.
    let shown = path.to_string_lossy();
    if shown.ends_with('/') {
        return wrong(&shown, "it is a directory");
    }
    Ok(path)
}

/// An https URL of a host, with nothing in it that could be a secret.
pub(super) fn https_url(given: Given<'_>) -> Read<Url> {
    let text = text(given)?;
    let Ok(url) = Url::parse(text) else {
        return wrong(text, "it is not a URL");
    };
    if url.scheme() != "https" || url.host_str().is_none() {
        return wrong(text, "it is not an https URL");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong(text, "it has a user name or password in it");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong(text, "it has a query or fragment in it");
    }
    Ok(url)
}

/// What the log's filter takes.
pub(super) fn log_filter(given: Given<'_>) -> Read<String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let text = text(given)?;
    // The filter's own reader takes any single word for the name of a module, and silence follows.
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_word && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text)) {
        return wrong(text, "it is not a level");
    }
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => wrong(text, "it is not a log filter"),
    }
}

/// Why a text is not a plain list of values: it has brackets or quotation marks, which would become part of a value.
pub(super) fn quoting(text: &str) -> Option<&'static str> {
    const MARKS: [char; 7] = [
        '"', '\'', '`', '\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}',
    ];
    if text.trim_start().starts_with(['[', '{']) {
        Some("it is written as JSON")
    } else if text.contains(MARKS) {
        Some("it has quotation marks in it")
    } else {
        None
    }
}

/// Whether a value is one value, and not several that another syntax separates.
fn single(text: &str) -> Read<()> {
    let several = || {
        text.contains([',', ';'])
            .then_some("it has a comma or a semicolon in it")
    };
    quoting(text)
        .or_else(several)
        .map_or(Ok(()), |why| wrong(text, why))
}

/// A list: of values in the file, separated by commas in a variable. All of its items are read, right or wrong.
pub(super) fn list<T>(
    given: Given<'_>,
    item: impl Fn(Given<'_>) -> Read<T>,
) -> Result<Vec<T>, Vec<Wrong>> {
    let read: Vec<Read<T>> = match given {
        Given::Toml(toml::Value::Array(items)) => {
            items.iter().map(|value| item(Given::Toml(value))).collect()
        }
        Given::Toml(other) => return Err(vec![wrong_type(other)]),
        Given::Text(text) => {
            let semicolon = || text.contains(';').then_some("it has a semicolon in it");
            if let Some(why) = quoting(text).or_else(semicolon) {
                return Err(vec![Wrong::new(Some(text), why)]);
            }
            text.split(',')
                .map(|part| item(Given::Text(part.trim())))
                .collect()
        }
    };
    if read.len() > MAX_ITEMS {
        let why = format!("it has {} entries, more than {MAX_ITEMS}", read.len());
        return Err(vec![Wrong::new(None, why)]);
    }
    let mut values = Vec::with_capacity(read.len());
    let mut wrongs = Vec::new();
    for item in read {
        match item {
            Ok(value) => values.push(value),
            Err(wrong) => wrongs.push(wrong),
        }
    }
    if wrongs.is_empty() {
        Ok(values)
    } else {
        Err(wrongs)
    }
}
