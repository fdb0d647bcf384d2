//! What the outside can send, sent at random: one program with a target per parser.
//!
//! libFuzzer feeds it inputs, learns from the instrumented code which of them lead somewhere new, and mutates those.
//! A target checks what has to hold whatever is sent: nothing panics (a panic of any task ends the program, and the
//! input is kept), memory stays bounded (a limit of `tools/fuzz`), and the sentences in the header of each module.
//! `TULLE_FUZZ_TARGET` names the target, so that everything is linked once.

#![no_main]

mod client_hello;
mod detection;
mod http1;
mod policy;
mod transport_header;

use std::sync::LazyLock;

type Target = fn(&[u8]);

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("TULLE_FUZZ_TARGET").unwrap_or_default();
    match name.as_str() {
        "client_hello" => client_hello::check,
        "detection" => detection::check,
        "http1_request" => http1::check_requests,
        "http1_response" => http1::check_responses,
        "policy" => policy::check,
        "transport_header" => transport_header::check,
        _ => panic!("TULLE_FUZZ_TARGET={name:?} is no target"),
    }
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
