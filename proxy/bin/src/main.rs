//! `tulle-proxy`: the data plane's process, and `tulle-proxy init`, its packet rules.

#![forbid(unsafe_code)]

mod init;

use std::process::ExitCode;

use tulle_config::{Config, Workers};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const HELP: &str = "\
The proxy beside an application: configured by LINKERD2_PROXY_* and TULLE_PROXY_* variables.

Usage: tulle-proxy [--workers N]
       tulle-proxy init [OPTIONS]     redirect a pod's connections to its proxy
       tulle-proxy --version
";

/// What the stock proxy ends with when its environment is wrong.
const EXIT_CONFIG: u8 = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let first = arguments.first().map(String::as_str);
    match first {
        Some("init") => done(init::run(&arguments[1..])),
        Some("--version" | "-V") => {
            println!("tulle-proxy {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some("--help" | "-h") => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        None => serve(None),
        Some("--workers") => match arguments.get(1).map(|count| count.parse()) {
            Some(Ok(workers)) if workers > 0 && arguments.len() == 2 => serve(Some(workers)),
            _ => misuse("--workers needs a number of at least 1"),
        },
        Some(other) => misuse(&format!(
            "unknown argument {other:?}; see tulle-proxy --help"
        )),
    }
}

fn serve(workers: Option<usize>) -> ExitCode {
    let mut config = match Config::from_env(|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(errors) => return misuse(&errors.to_string()),
    };
    if let Some(workers) = workers {
        config.workers = Workers::exactly(workers);
    }
    done(tulle_app::run(config).map_err(Into::into))
}

fn misuse(message: &str) -> ExitCode {
    eprintln!("tulle-proxy: {message}");
    ExitCode::from(EXIT_CONFIG)
}

fn done(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tulle-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}
