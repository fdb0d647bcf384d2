#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| { let _ = tulle_transport::detect_http(data); let _ = tulle_transport::header::decode(data); });
