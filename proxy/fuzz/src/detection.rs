//! Whether first bytes are HTTP: a decision does not change when more bytes come, and there is one in the end.

use tulle_transport::{Detected, MAX_DETECT, detect_http};

/// The first two bytes say where the others are cut.
pub fn check(data: &[u8]) {
    let [high, low, bytes @ ..] = data else {
        return;
    };
    let cut = usize::from(u16::from_be_bytes([*high, *low])) % (bytes.len() + 1);
    let whole = detect_http(bytes);

    match detect_http(&bytes[..cut]) {
        Detected::NeedMore => assert!(cut < MAX_DETECT, "undecided after {cut} bytes"),
        early => assert_eq!(early, whole, "decided otherwise after {cut} bytes"),
    }
}
