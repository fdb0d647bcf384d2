//! Conditions on header fields and query parameters.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use regex::Regex;
use tulle_api::http_route;

use crate::{
    Invalid,
    invalid::{At, required},
    wire,
};

/// One of the header's values has to meet this.
#[derive(Clone, Debug)]
pub(crate) struct HeaderPattern {
    pub(crate) name: HeaderName,
    value: HeaderCondition,
}

#[derive(Clone, Debug)]
enum HeaderCondition {
    Exact(HeaderValue),
    Regex(Regex),
}

impl HeaderPattern {
    pub(crate) fn new(wire: http_route::HeaderMatch) -> Result<Self, Invalid> {
        use http_route::header_match::Value;
        let name = wire::header_name(&wire.name)?;
        let value = match required(wire.value, "the value").at(&name)? {
            Value::Exact(value) => HeaderCondition::Exact(wire::header_value(&value).at(&name)?),
            Value::Regex(pattern) => HeaderCondition::Regex(wire::regex(&pattern).at(&name)?),
        };
        Ok(Self { name, value })
    }

    pub(crate) fn matches(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(&self.name)
            .iter()
            .any(|value| match &self.value {
                HeaderCondition::Exact(exact) => value == exact,
                HeaderCondition::Regex(regex) => {
                    std::str::from_utf8(value.as_bytes()).is_ok_and(|value| regex.is_match(value))
                }
            })
    }
}

/// One of the parameter's values has to meet this.
#[derive(Clone, Debug)]
pub(crate) struct QueryPattern {
    pub(crate) name: Box<str>,
    value: QueryCondition,
}

#[derive(Clone, Debug)]
enum QueryCondition {
    Exact(Box<str>),
    Regex(Regex),
}

impl QueryPattern {
    pub(crate) fn new(wire: http_route::QueryParamMatch) -> Result<Self, Invalid> {
        use http_route::query_param_match::Value;
        let name = wire.name.into_boxed_str();
        let value = match required(wire.value, "the value").at(&name)? {
            Value::Exact(value) => QueryCondition::Exact(value.into()),
            Value::Regex(pattern) => QueryCondition::Regex(wire::regex(&pattern).at(&name)?),
        };
        Ok(Self { name, value })
    }

    pub(crate) fn matches(&self, query: &str) -> bool {
        query.split('&').any(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            *decoded(name) == *self.name.as_bytes()
                && match &self.value {
                    QueryCondition::Exact(exact) => *decoded(value) == *exact.as_bytes(),
                    QueryCondition::Regex(regex) => std::str::from_utf8(&decoded(value))
                        .is_ok_and(|value| regex.is_match(value)),
                }
        })
    }
}

/// A name or value of `application/x-www-form-urlencoded`: `+` is a space, `%41` an `A`; an
/// escape that is none stands for itself.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, tail @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = tail;
                }
                _ => bytes.push(b'%'),
            },
            (other, _) => bytes.push(*other),
        }
    }
    Cow::Owned(bytes)
}

fn digit(hexadecimal: u8) -> Option<u8> {
    char::from(hexadecimal)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parameters_are_compared_decoded() {
        for (text, bytes) in [
            ("plain", "plain"),
            ("a+b%20c", "a b c"),
            ("%C3%a4", "ä"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
        ] {
            assert_eq!(*decoded(text), *bytes.as_bytes(), "{text}");
        }
    }
}
