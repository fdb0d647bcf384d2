//! `tulle-load`: the generator and the origin that the bench puts around every proxy.
//!
//! One thread each, so that a core is enough for both. It measures from the moment at which a
//! request was due, not from when a connection was free for it: a server that stalls is not
//! spared the requests that it kept waiting.

#![forbid(unsafe_code)]

mod arguments;
mod client;
mod origin;
mod record;
mod run;
mod schedule;
mod timer;
mod watch;
mod wire;

use std::process::ExitCode;

use arguments::Command;

fn main() -> ExitCode {
    let command = match Command::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("tulle-load: {error:#}\n\n{}", arguments::HELP);
            return ExitCode::from(64);
        }
    };
    match serve(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tulle-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    match command {
        Command::Origin(listen) => runtime.block_on(origin::run(listen)),
        Command::Run(load) => runtime.block_on(run::run(load)),
        Command::Watch(watch) => runtime.block_on(watch::run(watch)),
    }
}
