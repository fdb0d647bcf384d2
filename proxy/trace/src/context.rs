//! The context of a trace in a request's headers. Pure.
//!
//! Three ways to write it: W3C `traceparent`, B3 in one header, B3 in several. The first that
//! is there and can be read counts, and is the one that is written again for the next hop;
//! others stay as they are.

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// Of the flags of `traceparent`.
const SAMPLED: u8 = 1;

/// How a context is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `traceparent`, with its flags.
    W3c(u8),
    /// `b3`, with its third part.
    B3Single(char),
    /// `x-b3-traceid` and others. The trace may have been written with 64 bits.
    B3Multi,
}

/// Where in which trace a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace; never 0.
    pub trace: u128,
    /// The span that sent the request; never 0.
    pub span: u64,
    /// Where this was read.
    pub format: Format,
}

impl Context {
    /// The context of a request whose spans are wanted.
    #[must_use]
    pub fn sampled(headers: &HeaderMap) -> Option<Self> {
        // One that says `not sampled` decides, whatever the others say.
        let found = [w3c, b3_single, b3_multi]
            .iter()
            .find_map(|read| read(headers));
        found?.ok()
    }

    /// Write down that what follows was sent by another span.
    pub fn write(&self, headers: &mut HeaderMap) {
        let Self { trace, span, .. } = self;
        match self.format {
            Format::W3c(flags) => {
                set(
                    headers,
                    TRACEPARENT,
                    &format!("00-{trace:032x}-{span:016x}-{flags:02x}"),
                );
            }
            Format::B3Single(sampled) => {
                set(headers, B3, &format!("{trace:032x}-{span:016x}-{sampled}"));
            }
            Format::B3Multi => {
                set(headers, B3_SPAN, &format!("{span:016x}"));
                headers.remove(B3_PARENT);
            }
        }
    }

    /// What other systems want to know of the trace; goes into the span as it is.
    #[must_use]
    pub fn state<'a>(&self, headers: &'a HeaderMap) -> &'a str {
        match self.format {
            Format::W3c(_) => text(headers, TRACESTATE).unwrap_or_default(),
            Format::B3Single(_) | Format::B3Multi => "",
        }
    }
}

/// There, and not to be sampled.
struct NotSampled;

type Read = Option<Result<Context, NotSampled>>;

/// Trace Context §3.2: later versions may have more parts, and version ff is none.
fn w3c(headers: &HeaderMap) -> Read {
    let mut parts = text(headers, TRACEPARENT)?.split('-');
    let version = byte(parts.next()?).filter(|version| *version != 0xff)?;
    let trace = number(parts.next()?, 32)?;
    let span = number(parts.next()?, 16)?;
    let flags = byte(parts.next()?)?;
    if version == 0 && parts.next().is_some() {
        return None;
    }
    read(trace, span, flags & SAMPLED != 0, Format::W3c(flags))
}

/// `TRACE-SPAN-SAMPLED[-PARENT]`. Without the third part nobody has decided, and deciding is
/// not for a proxy.
fn b3_single(headers: &HeaderMap) -> Read {
    let mut parts = text(headers, B3)?.split('-');
    let trace = b3_trace(parts.next()?)?;
    let span = number(parts.next()?, 16)?;
    let sampled = match parts.next() {
        Some("1") => Some('1'),
        Some("d") => Some('d'),
        _ => None,
    };
    let format = Format::B3Single(sampled.unwrap_or('0'));
    read(trace, span, sampled.is_some(), format)
}

fn b3_multi(headers: &HeaderMap) -> Read {
    let trace = b3_trace(text(headers, B3_TRACE)?)?;
    let span = number(text(headers, B3_SPAN)?, 16)?;
    // `true` is what old senders write.
    let sampled = matches!(text(headers, B3_SAMPLED), Some("1" | "true"))
        || text(headers, B3_FLAGS) == Some("1");
    read(trace, span, sampled, Format::B3Multi)
}

fn read(trace: u128, span: u128, sampled: bool, format: Format) -> Read {
    let span = u64::try_from(span).ok()?;
    if trace == 0 || span == 0 {
        return None;
    }
    let context = Context {
        trace,
        span,
        format,
    };
    Some(sampled.then_some(context).ok_or(NotSampled))
}

fn b3_trace(digits: &str) -> Option<u128> {
    number(digits, 32).or_else(|| number(digits, 16))
}

fn byte(digits: &str) -> Option<u8> {
    number(digits, 2)?.try_into().ok()
}

fn number(digits: &str, length: usize) -> Option<u128> {
    let hexadecimal =
        digits.len() == length && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hexadecimal.then(|| u128::from_str_radix(digits, 16).ok())?
}

/// A header that is there twice says nothing.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    only.to_str().ok()
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = fields.iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value).expect("ASCII");
            (HeaderName::from_static(name), value)
        });
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    fn written(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = headers(fields);
        let context = Context::sampled(&headers).expect("it is sampled");
        assert_eq!((context.trace, context.span), (TRACE, SPAN));
        Context {
            span: 0xabc,
            ..context
        }
        .write(&mut headers);
        headers
    }

    #[test]
    fn each_format_is_read_and_written_again_as_it_was() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
        let single = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-d-05e3ac9a4f6e3b90";
        let multi = [
            ("x-b3-traceid", "4bf92f3577b34da6a3ce929d0e0e4736"),
            ("x-b3-spanid", "00f067aa0ba902b7"),
            ("x-b3-sampled", "1"),
        ];

        assert_eq!(
            written(&[("traceparent", parent)]),
            headers(&[(
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000abc-03"
            )])
        );
        assert_eq!(
            written(&[("b3", single)]),
            headers(&[("b3", "4bf92f3577b34da6a3ce929d0e0e4736-0000000000000abc-d")])
        );
        assert_eq!(
            written(&[
                multi[0],
                multi[1],
                multi[2],
                ("x-b3-parentspanid", "05e3ac9a4f6e3b90")
            ]),
            headers(&[multi[0], ("x-b3-spanid", "0000000000000abc"), multi[2]])
        );
    }

    #[test]
    fn a_trace_of_64_bits_keeps_its_header_and_means_the_same() {
        let short = [
            ("x-b3-traceid", "a3ce929d0e0e4736"),
            ("x-b3-spanid", "00f067aa0ba902b7"),
            ("x-b3-flags", "1"),
        ];

        let context = Context::sampled(&headers(&short)).expect("debugging is sampled");

        assert_eq!(context.trace, 0xa3ce_929d_0e0e_4736);
    }

    #[test]
    fn what_is_not_sampled_or_cannot_be_read_is_no_context() {
        for field in [
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            ),
            (
                "traceparent",
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            ),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            ),
            (
                "traceparent",
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            ),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
            ),
            (
                "traceparent",
                "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
            ("b3", "0"),
            ("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"),
            ("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"),
        ] {
            assert_eq!(Context::sampled(&headers(&[field])), None, "{field:?}");
        }
    }

    #[test]
    fn a_decision_not_to_sample_is_not_overruled_by_another_format() {
        let fields = [
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            ),
            ("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"),
        ];

        assert_eq!(Context::sampled(&headers(&fields)), None);
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_read_without_a_panic(
            name in prop::sample::select(vec!["traceparent", "b3", "x-b3-traceid"]),
            value in "[0-9a-f-]{0,70}|\\PC{0,70}",
        ) {
            if let Ok(value) = HeaderValue::from_str(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(HeaderName::from_static(name), value);
                let _ = Context::sampled(&headers);
            }
        }

        #[test]
        fn what_is_written_is_read_as_the_same(trace in 1_u128.., span in 1_u64.., flags in any::<u8>()) {
            for format in [Format::W3c(flags | SAMPLED), Format::B3Single('1')] {
                let context = Context { trace, span, format };
                let mut headers = HeaderMap::new();
                context.write(&mut headers);

                prop_assert_eq!(Context::sampled(&headers), Some(context));
            }
        }
    }
}
