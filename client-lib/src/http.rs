//! The few bytes of HTTP/1.1 that the agent's API needs, without I/O: one request out, one answer in.
//!
//! An answer has a `Content-Length`, or ends with the connection. Chunked answers are refused: the agent never sends one.

use std::mem;

use jobcred_wire::{HOST, MAX_ANSWER_BYTES, MAX_HEADER_BYTES, REQUEST_HEADER};
use zeroize::Zeroizing;

use crate::Error;

/// The verbs of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Delete,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// May hold a token, so it is wiped on drop.
    pub(crate) body: Zeroizing<Vec<u8>>,
    /// Seconds, from `Retry-After`.
    pub(crate) retry_after: Option<u64>,
    /// Whether the connection can carry another request.
    pub(crate) keep: bool,
}

/// Reads one answer from bytes as they come.
#[derive(Default)]
pub(crate) struct AnswerReader {
    head: Zeroizing<Vec<u8>>,
    body: Option<(Head, Zeroizing<Vec<u8>>)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: Option<usize>,
    retry_after: Option<u64>,
    keep: bool,
}

/// The bytes of a request for `path_and_query`.
///
/// Refuses anything that would not be one request line: the path comes from callers.
pub(crate) fn encode_request(method: Method, path_and_query: &str) -> Result<Vec<u8>, Error> {
    let is_plain = path_and_query.starts_with('/')
        && path_and_query.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain {
        return Err(Error::invalid(
            "a path starts with a slash and has no white space, control or non-ASCII characters",
        ));
    }
    let method = match method {
        Method::Get => "GET",
        Method::Delete => "DELETE",
    };
    Ok(
        format!(
            "{method} {path_and_query} HTTP/1.1\r\nHost: {HOST}\r\n{REQUEST_HEADER}: 1\r\n\r\n"
        )
        .into_bytes(),
    )
}

impl AnswerReader {
    /// Takes the next bytes; the answer once it is complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Option<Answer>, Error> {
        if let Some((_, body)) = &mut self.body {
            body.extend_from_slice(bytes);
        } else {
            self.head.extend_from_slice(bytes);
            let Some(end) = find_head_end(&self.head) else {
                if self.head.len() > MAX_HEADER_BYTES {
                    return Err(Error::protocol("the answer's header is too long"));
                }
                return Ok(None);
            };
            if end > MAX_HEADER_BYTES {
                return Err(Error::protocol("the answer's header is too long"));
            }
            let head = parse_head(&self.head[..end])?;
            let rest = &self.head[end..];
            // One allocation for the whole body: a growing one would leave pieces of a token behind.
            let mut body =
                Zeroizing::new(Vec::with_capacity(head.length.unwrap_or(0).max(rest.len())));
            body.extend_from_slice(rest);
            self.body = Some((head, body));
        }
        self.take_complete()
    }

    /// The connection has ended: the answer, if its end was to be told that way.
    pub(crate) fn end(&mut self) -> Result<Answer, Error> {
        match self.body.take() {
            Some((head, body)) if head.length.is_none() => Ok(Answer {
                status: head.status,
                body,
                retry_after: head.retry_after,
                keep: false,
            }),
            _ => Err(Error::protocol("the answer ends too early")),
        }
    }

    /// Whether any byte of an answer has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.body.is_some() || !self.head.is_empty()
    }

    fn take_complete(&mut self) -> Result<Option<Answer>, Error> {
        let Some((head, body)) = &mut self.body else {
            return Ok(None);
        };
        if body.len() > MAX_ANSWER_BYTES {
            return Err(Error::protocol("the answer is too long"));
        }
        let Some(length) = head.length.filter(|length| body.len() >= *length) else {
            return Ok(None);
        };
        // Bytes beyond the answer belong to nothing that was asked: the connection is out of step.
        let keep = head.keep && body.len() == length;
        body.truncate(length);
        Ok(Some(Answer {
            status: head.status,
            body: mem::take(body),
            retry_after: head.retry_after,
            keep,
        }))
    }
}

fn find_head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

fn parse_head(bytes: &[u8]) -> Result<Head, Error> {
    let bad = || Error::protocol("what listens there does not speak HTTP");
    let text = std::str::from_utf8(bytes).map_err(|_| bad())?;
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let (version, status) = parse_status_line(lines.next().unwrap_or_default()).ok_or_else(bad)?;
    let mut head = Head {
        status,
        length: None,
        retry_after: None,
        keep: version == 1,
    };
    for (count, line) in lines.enumerate() {
        let (name, value) = line.split_once(':').ok_or_else(bad)?;
        let value = value.trim();
        if count >= MAX_HEADERS || name.is_empty() || name.contains([' ', '\t']) {
            return Err(bad());
        }
        if name.eq_ignore_ascii_case("content-length") {
            let length = parse_digits(value).ok_or_else(bad)?;
            if head.length.is_some_and(|earlier| earlier != length) {
                return Err(bad());
            }
            if length > MAX_ANSWER_BYTES {
                return Err(Error::protocol("the answer is too long"));
            }
            head.length = Some(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Error::protocol("the answer is chunked"));
        } else if name.eq_ignore_ascii_case("connection") {
            let is_close = value
                .split(',')
                .any(|token| token.trim().eq_ignore_ascii_case("close"));
            head.keep &= !is_close;
        } else if name.eq_ignore_ascii_case("retry-after") {
            // The agent sends seconds; a date from anybody else is no help worth an error.
            head.retry_after = parse_digits(value).and_then(|seconds| u64::try_from(seconds).ok());
        }
    }
    if head.status == 204 {
        head.length = Some(0);
    }
    Ok(head)
}

/// `HTTP/1.x NNN reason`: the minor version and the status. Interim answers (1xx) were not asked for.
fn parse_status_line(line: &str) -> Option<(u8, u16)> {
    let rest = line.strip_prefix("HTTP/1.")?;
    let (version, rest) = rest.split_once(' ')?;
    let version = match version {
        "0" => 0,
        "1" => 1,
        _ => return None,
    };
    let status = rest.split(' ').next()?;
    let status: u16 = if status.len() == 3 {
        u16::try_from(parse_digits(status)?).ok()?
    } else {
        return None;
    };
    (200..600).contains(&status).then_some((version, status))
}

/// Digits alone: `usize::from_str` would take a sign.
fn parse_digits(text: &str) -> Option<usize> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// As many as the agent reads of a request.
const MAX_HEADERS: usize = 100;

#[cfg(test)]
mod tests {
    use jobcred_wire::{MAX_ANSWER_BYTES, MAX_HEADER_BYTES};
    use proptest::prelude::*;

    use super::{Answer, AnswerReader, Method, encode_request};
    use crate::Error;

    fn read(bytes: &[u8]) -> Result<Option<Answer>, Error> {
        AnswerReader::default().feed(bytes)
    }

    #[test]
    fn a_request_is_one_line_a_host_and_the_agents_header() {
        let bytes = encode_request(Method::Delete, "/v1/registry?server=x").unwrap();
        assert_eq!(
            bytes,
            b"DELETE /v1/registry?server=x HTTP/1.1\r\nHost: jobcred\r\njobcred: 1\r\n\r\n"
        );
        for path in ["", "x", "/a b", "/a\r\nX: y", "/\u{e9}", "http://x/", "/\0"] {
            assert!(encode_request(Method::Get, path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn answers_in_any_number_of_pieces_are_the_same() {
        let bytes =
            b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\nContent-Length: 5\r\n\r\nhello";
        for size in 1..bytes.len() {
            let mut reader = AnswerReader::default();
            let mut answers: Vec<Answer> = Vec::new();
            for piece in bytes.chunks(size) {
                answers.extend(reader.feed(piece).unwrap());
            }
            let [answer] = answers.as_slice() else {
                panic!("{} answers", answers.len());
            };
            assert_eq!((answer.status, answer.retry_after), (503, Some(7)));
            assert_eq!(answer.body.as_slice(), b"hello");
            assert!(answer.keep);
        }
    }

    #[test]
    fn when_a_connection_can_be_kept() {
        for (head, keep) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n",
                false,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore", false),
        ] {
            assert_eq!(
                read(head.as_bytes()).unwrap().unwrap().keep,
                keep,
                "{head:?}"
            );
        }
    }

    #[test]
    fn an_answer_without_a_length_ends_with_the_connection() {
        let mut reader = AnswerReader::default();
        assert!(
            reader
                .feed(b"HTTP/1.1 431 Too Large\r\n\r\nab")
                .unwrap()
                .is_none()
        );
        let answer = reader.end().unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (431, &b"ab"[..]));
        assert!(!answer.keep);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(MAX_HEADER_BYTES));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(101));
        let huge = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            MAX_ANSWER_BYTES + 1
        );
        for bytes in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 +20 OK\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 999 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            &long,
            &many,
            &huge,
        ] {
            assert!(read(bytes.as_bytes()).is_err(), "{bytes:.80?}");
        }
        let mut reader = AnswerReader::default();
        assert!(
            reader
                .feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")
                .unwrap()
                .is_none()
        );
        assert!(reader.end().is_err());
        let mut reader = AnswerReader::default();
        reader.feed(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        assert!(reader.feed(&vec![0; MAX_ANSWER_BYTES + 1]).is_err());
    }

    proptest! {
        /// However the bytes arrive, the same is read of them.
        #[test]
        fn pieces_change_nothing(
            length in proptest::option::of(0..9_usize),
            other in proptest::sample::select(vec!["", "Connection: close\r\n", "Retry-After: 7\r\n", "Content-Length: 3\r\n", "X\r\n"]),
            status in proptest::sample::select(vec!["200 OK", "204", "503 x", "100 Continue", "2000"]),
            body in "[a-z\r\n]{0,12}",
            cuts in proptest::collection::vec(1..60_usize, 0..6),
        ) {
            let length = length.map_or_else(String::new, |length| format!("Content-Length: {length}\r\n"));
            let text = format!("HTTP/1.1 {status}\r\n{length}{other}\r\n{body}");
            let whole = {
                let mut reader = AnswerReader::default();
                match reader.feed(text.as_bytes()) {
                    Ok(None) => reader.end(),
                    Ok(Some(answer)) => Ok(answer),
                    Err(error) => Err(error),
                }
            };
            let mut reader = AnswerReader::default();
            let mut rest = text.as_bytes();
            let mut read = Ok(None);
            for cut in cuts.into_iter().chain([text.len()]) {
                let (piece, left) = rest.split_at(cut.min(rest.len()));
                rest = left;
                read = reader.feed(piece);
                // Whoever has an answer asks no further; whether more than it has come by then is chance.
                if !matches!(read, Ok(None)) {
                    break;
                }
            }
            let read = match read {
                Ok(None) => reader.end(),
                Ok(Some(answer)) => Ok(answer),
                Err(error) => Err(error),
            };
            match (whole, read) {
                (Ok(whole), Ok(read)) => {
                    prop_assert_eq!((whole.status, whole.retry_after), (read.status, read.retry_after));
                    prop_assert_eq!(&*whole.body, &*read.body);
                    prop_assert!(read.keep || !whole.keep);
                }
                (Err(_), Err(_)) => {}
                (whole, read) => prop_assert!(false, "{:?} {:?}", whole, read),
            }
        }

        #[test]
        fn no_bytes_panic(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..5)) {
            let mut reader = AnswerReader::default();
            for piece in pieces {
                let _ = reader.feed(&piece);
            }
            let _ = reader.end();
        }

        #[test]
        fn nothing_like_an_answer_panics(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("HTTP/1.1 200 OK"), Just("\r\n"), Just("\r\n\r\n"), Just("Content-Length: "), Just("5"),
                    Just("Connection: close"), Just(":"), Just(" "), Just("hello"), Just("\u{e9}"), Just("\n"),
                ],
                0..20,
            ),
            cut in 1usize..9,
        ) {
            let text = parts.concat();
            let mut reader = AnswerReader::default();
            for piece in text.as_bytes().chunks(cut) {
                let _ = reader.feed(piece);
            }
            let _ = reader.end();
        }
    }
}
