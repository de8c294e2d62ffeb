//! What a double says by itself, before a behaviour turns it into something worse.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;

use crate::script::WrongForm;

/// A request, read to its end.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// How many requests were being answered on its arrival, itself included.
    pub(crate) in_flight: usize,
}

impl Received {
    /// The first query parameter of that name. An empty value is a value.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Header names are compared in any case; `None` when absent or not text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as a form: decoded pairs in their order.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body)
            .into_owned()
            .collect()
    }
}

/// A response of known length.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// An empty response. A status out of range is a 500.
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::status(status)
            .with_header("content-type", "application/json; charset=utf-8")
            .with_body(body.to_string())
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::status(status)
            .with_header("content-type", "text/plain; charset=utf-8")
            .with_body(body.to_owned())
    }

    pub(crate) fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a header; one that HTTP can't carry is left out.
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            self.headers.insert(name, value);
        }
        self
    }

    /// The same response in a wrong form.
    pub(crate) fn wrongly_typed(self, form: WrongForm) -> Self {
        let json = |value: &Value| Self::json(200, value);
        match form {
            WrongForm::JsonArray => json(&Value::Array(vec![self.object()])),
            WrongForm::JsonString => json(&Value::String(self.object().to_string())),
            WrongForm::JsonNull => json(&Value::Null),
            WrongForm::NumbersAsStrings => json(&map_fields(self.object(), |value| {
                value
                    .as_i64()
                    .map(|number| Value::String(number.to_string()))
            })),
            WrongForm::StringsAsNumbers => json(&map_fields(self.object(), |value| {
                value.as_str()?.parse::<i64>().ok().map(Value::from)
            })),
            WrongForm::Floats => self.with_floats(),
            WrongForm::Html => Self::status(200)
                .with_header("content-type", "text/html; charset=utf-8")
                .with_body("<!doctype html><title>Sign in</title><p>Sign in to your network."),
            WrongForm::PlainText => self.with_header("content-type", "text/plain; charset=utf-8"),
            WrongForm::Words => Self::text(200, "the service is not in the mood"),
            WrongForm::Empty => Self::status(200),
            WrongForm::Bytes => Self::status(200)
                .with_header("content-type", "application/json")
                .with_body(vec![0xff_u8, 0xfe, 0x00, 0x80, b'{', 0xc3]),
            WrongForm::DeepNesting => Self::status(200)
                .with_header("content-type", "application/json")
                .with_body("[".repeat(100_000)),
        }
    }

    /// Numbers with a fraction of zero: `1697818980.0`. Written as text, since the value is wanted exactly.
    fn with_floats(self) -> Self {
        let Value::Object(fields) = self.object() else {
            return self;
        };
        let written: Vec<String> = fields
            .iter()
            .map(|(name, value)| {
                let number = value
                    .as_i64()
                    .or_else(|| value.as_str().and_then(|text| text.parse().ok()));
                let value =
                    number.map_or_else(|| value.to_string(), |number| format!("{number}.0"));
                format!("{}:{value}", Value::from(name.as_str()))
            })
            .collect();
        self.with_body(format!("{{{}}}", written.join(",")))
    }

    /// The same response with fields of its JSON object put or taken away; one that isn't an object stays as it is.
    pub(crate) fn edited(self, set: serde_json::Map<String, Value>, remove: &[String]) -> Self {
        let mut object = self.object();
        let Value::Object(fields) = &mut object else {
            return self;
        };
        for name in remove {
            fields.remove(name);
        }
        fields.extend(set);
        self.with_body(object.to_string())
    }

    fn object(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

fn map_fields(object: Value, change: impl Fn(&Value) -> Option<Value>) -> Value {
    match object {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| {
                let value = change(&value).unwrap_or(value);
                (name, value)
            })
            .collect(),
        other => other,
    }
}
