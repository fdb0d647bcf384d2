//! Whether a response says that its endpoint fails, for breakers and penalties.
//!
//! For requests the numbers know failures by the stock classification. Beyond it "come back
//! later" (429, gRPC's `RESOURCE_EXHAUSTED`) is a failure where the policy weighs throttling.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use tulle_telemetry::Ended;

/// gRPC's `RESOURCE_EXHAUSTED` and `UNAVAILABLE`.
const GRPC_THROTTLED: u16 = 8;
const GRPC_UNAVAILABLE: u16 = 14;

/// gRPC codes in a head for which an endpoint is penalised: the failures of a server, without
/// `PERMISSION_DENIED`, which is an answer to this client.
const GRPC_PENALISED: [u16; 6] = [2, 4, GRPC_THROTTLED, 13, GRPC_UNAVAILABLE, 15];

const GRPC_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Whether the endpoint said "come back later".
pub(crate) const fn throttled(ended: Ended) -> bool {
    match ended.grpc_status {
        Some(code) => code == GRPC_THROTTLED,
        None => ended.status == StatusCode::TOO_MANY_REQUESTS.as_u16(),
    }
}

/// Whether the head alone is a reason for a penalty.
pub(crate) fn penalised(status: u16, grpc_status: Option<u16>) -> bool {
    match grpc_status {
        Some(code) => GRPC_PENALISED.contains(&code),
        None => status >= 500 || status == StatusCode::TOO_MANY_REQUESTS.as_u16(),
    }
}

/// For how long the endpoint wants to be left alone: `retry-after` or gRPC's push-back, where
/// the status is one that they belong to.
pub(crate) fn retry_after(
    status: u16,
    grpc_status: Option<u16>,
    headers: &HeaderMap,
    now: SystemTime,
) -> Option<Duration> {
    let fits = match grpc_status {
        Some(code) => matches!(code, GRPC_THROTTLED | GRPC_UNAVAILABLE),
        None => matches!(status, 429 | 503),
    };
    if !fits {
        return None;
    }
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(millis) = text(GRPC_PUSHBACK) {
        return millis.parse().ok().map(Duration::from_millis);
    }
    let text = text(RETRY_AFTER.as_str())?;
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(now)
            .ok(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn hint(status: u16, grpc: Option<u16>, header: &'static str, value: &str) -> Option<Duration> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let mut headers = HeaderMap::new();
        headers.insert(header, HeaderValue::from_str(value).unwrap());
        retry_after(status, grpc, &headers, now)
    }

    #[test]
    fn the_hint_is_in_seconds_or_a_date_or_in_milliseconds_for_grpc() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));

        assert_eq!(hint(429, None, "retry-after", "7"), seconds(7));
        assert_eq!(hint(503, None, "retry-after", " 7 "), seconds(7));
        let date = "Sun, 06 Nov 1994 08:50:07 GMT";
        assert_eq!(hint(503, None, "retry-after", date), seconds(30));
        let past = "Sun, 06 Nov 1994 08:49:00 GMT";
        assert_eq!(hint(503, None, "retry-after", past), None);
        assert_eq!(
            hint(200, Some(8), GRPC_PUSHBACK, "1500"),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(hint(200, Some(14), GRPC_PUSHBACK, "-1"), None);
    }

    #[test]
    fn a_hint_of_another_status_is_none() {
        assert_eq!(hint(500, None, "retry-after", "7"), None);
        assert_eq!(hint(200, None, "retry-after", "7"), None);
        assert_eq!(hint(200, Some(13), GRPC_PUSHBACK, "7"), None);
    }

    proptest! {
        #[test]
        fn no_header_of_a_peer_is_too_much(value in "[ -~]{0,64}") {
            let hint = hint(429, None, "retry-after", &value);

            if let Ok(seconds) = value.trim().parse::<u64>() {
                prop_assert_eq!(hint, Some(Duration::from_secs(seconds)));
            }
        }
    }
}
