//! The transport header: what is said of a beginning holds for the whole, and a header that is understood is sent
//! on as one that means the same.

use tulle_transport::header::{self, Decoded, MAX_MESSAGE};

/// Beyond the message: the preface and the length.
const MAX_HEADER: usize = MAX_MESSAGE + 64;

/// The first two bytes say where the others are cut.
pub fn check(data: &[u8]) {
    let [high, low, bytes @ ..] = data else {
        return;
    };
    let cut = usize::from(u16::from_be_bytes([*high, *low])) % (bytes.len() + 1);
    let whole = header::decode(bytes);

    match header::decode(&bytes[..cut]) {
        Ok(Decoded::NeedMore(wanted)) => {
            assert!(wanted > cut, "wants {wanted} bytes and has {cut}");
            assert!(wanted <= MAX_HEADER, "would read {wanted} bytes");
        }
        Ok(early) => assert_eq!(Some(&early), whole.as_ref().ok(), "decided otherwise"),
        Err(_) => assert!(whole.is_err(), "refused, and accepted with more bytes"),
    }
    if let Ok(Decoded::Header(header, taken)) = whole {
        assert!(taken <= bytes.len(), "took more than there is");
        let again = header::encode(&header);
        let length = again.len();
        let decoded = header::decode(&again).expect("a header of ours");
        assert_eq!(decoded, Decoded::Header(header, length));
    }
}
