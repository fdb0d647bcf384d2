//! How the binary is linked. All of it that a start touches counts as the process's memory, so:
//!
//! - It is position-independent, and the loader reads its relocations. Packed (`DT_RELR`, glibc
//!   2.36: Debian 12, Ubuntu 24.04) they are 20 KiB instead of 700.
//! - The same code for different types is there once. Only LLD can do that, which is Rust's own
//!   linker on this architecture.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |key: &str, value: &str| std::env::var(key).as_deref() == Ok(value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        if is("CARGO_CFG_TARGET_ARCH", "x86_64") {
            println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        }
    }
}
