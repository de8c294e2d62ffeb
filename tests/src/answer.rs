//! One request's treatment: the answer, delayed, spoilt or replaced as its behaviour says.

use std::io;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;

use crate::clock::Clock;
use crate::recorder::{InFlight, Outcome};
use crate::reply::Reply;
use crate::script::{Behavior, Script};
use crate::server::set_date;

/// What every response's body is.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An end of the connection in place of an answer.
#[derive(Debug)]
pub(crate) enum Broken {
    /// TCP RST.
    Reset,
    /// TCP FIN.
    Close,
    /// These bytes, then FIN.
    Raw(Vec<u8>),
}

/// Treats a request as `behavior` says; `answer` is asked at the moment the answer is due, and not at all where none is.
pub(crate) async fn perform(
    behavior: Behavior,
    answer: impl FnOnce() -> Reply,
    script: &Script,
    clock: &Clock,
    in_flight: InFlight,
) -> Result<Response<Body>, Broken> {
    let mut behavior = behavior;
    loop {
        behavior = match behavior {
            Behavior::Delay { time, then } => {
                tokio::time::sleep(time).await;
                *then
            }
            Behavior::Hold { gate, then } => {
                script.pass(&gate).await;
                *then
            }
            Behavior::Hang => std::future::pending().await,
            other => break finish(other, answer, clock, in_flight),
        }
    }
}

fn finish(
    behavior: Behavior,
    answer: impl FnOnce() -> Reply,
    clock: &Clock,
    in_flight: InFlight,
) -> Result<Response<Body>, Broken> {
    let mut date_offset = 0;
    let reply = match behavior {
        Behavior::Ok | Behavior::Delay { .. } | Behavior::Hold { .. } | Behavior::Hang => answer(),
        Behavior::Reset => return broken(&in_flight, Broken::Reset),
        Behavior::Close => return broken(&in_flight, Broken::Close),
        Behavior::Raw { text } => return broken(&in_flight, Broken::Raw(text.into_bytes())),
        Behavior::Truncate { bytes } => {
            let cut = Broken::Raw(cut(&answer(), bytes, clock));
            return broken(&in_flight, cut);
        }
        Behavior::Drip { bytes, every } => {
            let reply = answer();
            in_flight.ended(Outcome::Answered(reply.status.as_u16()));
            return Ok(drip(reply, bytes.max(1), every, clock, in_flight));
        }
        Behavior::Huge { bytes, declared } => {
            in_flight.ended(Outcome::Answered(200));
            return Ok(huge(bytes, declared, clock, in_flight));
        }
        Behavior::Status {
            status,
            body,
            content_type,
            retry_after,
        } => {
            let mut reply = Reply::status(status).with_body(body);
            if let Some(content_type) = content_type {
                reply = reply.with_header("content-type", &content_type);
            }
            if let Some(retry_after) = retry_after {
                reply = reply.with_header("retry-after", &retry_after);
            }
            reply
        }
        Behavior::WrongType { form } => answer().wrongly_typed(form),
        Behavior::Edit { set, remove } => answer().edited(set, &remove),
        Behavior::HugeHead { bytes } => answer().with_header("x-padding", &"a".repeat(bytes)),
        Behavior::Redirect { status, location } => {
            Reply::status(status).with_header("location", &location)
        }
        Behavior::SkewedDate { seconds } => {
            date_offset = seconds;
            answer()
        }
    };
    in_flight.ended(Outcome::Answered(reply.status.as_u16()));
    let mut response = Response::new(whole(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    set_date(&mut response, clock, date_offset);
    Ok(response)
}

fn broken(in_flight: &InFlight, how: Broken) -> Result<Response<Body>, Broken> {
    in_flight.ended(Outcome::Broken);
    Err(how)
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A response written out, its length the true one and its body cut. Written by hand, since a server that is worth
/// its name won't send such a thing.
fn cut(reply: &Reply, keep: usize, clock: &Clock) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {}\r\ndate: {}\r\ncontent-length: {}\r\n",
        reply.status,
        clock.http_date(0),
        reply.body.len()
    )
    .into_bytes();
    for (name, value) in &reply.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(reply.body.get(..keep).unwrap_or(&reply.body));
    bytes
}

fn drip(
    reply: Reply,
    piece: usize,
    every: std::time::Duration,
    clock: &Clock,
    in_flight: InFlight,
) -> Response<Body> {
    let length = reply.body.len();
    let pieces = stream::unfold(
        (reply.body, in_flight),
        move |(mut rest, in_flight)| async move {
            if rest.is_empty() {
                return None;
            }
            tokio::time::sleep(every).await;
            let now = rest.split_to(piece.min(rest.len()));
            Some((Ok(Frame::data(now)), (rest, in_flight)))
        },
    );
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(length));
    set_date(&mut response, clock, 0);
    response
}

fn huge(bytes: u64, declared: bool, clock: &Clock, in_flight: InFlight) -> Response<Body> {
    const PIECE: u64 = 64 * 1024;
    let head = Bytes::from_static(b"{\"access_token\":\"");
    let tail = Bytes::from_static(b"\",\"token_type\":\"Bearer\",\"expires_in\":\"3600\"}");
    let length = head.len() as u64 + bytes + tail.len() as u64;
    let middle = stream::unfold((bytes, in_flight), |(left, in_flight)| async move {
        let piece = left.min(PIECE);
        let filled = Bytes::from(vec![b'A'; usize::try_from(piece).ok()?]);
        (piece > 0).then_some((filled, (left - piece, in_flight)))
    });
    let frames = stream::iter([head])
        .chain(middle)
        .chain(stream::iter([tail]))
        .map(|bytes| Ok(Frame::data(bytes)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if declared {
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    set_date(&mut response, clock, 0);
    response
}
