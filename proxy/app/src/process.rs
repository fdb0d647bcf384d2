use std::{fs, time::SystemTime};

use tracing_subscriber::{
    Registry as LogRegistry,
    filter::{LevelFilter, Targets},
    prelude::*,
    reload,
};
use tulle_config::{Config, LogFormat};
use tulle_metrics::{Gauge, Kind, Labels, Registry};

/// Changes the log filter of the running process.
pub(crate) type Reload = reload::Handle<Targets, LogRegistry>;

/// Start logging to standard error.
pub(crate) fn start_log(config: &Config) -> Reload {
    let filter = config.log.parse().unwrap_or_else(|_| warnings());
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    match config.log_format {
        LogFormat::Plain => registry.with(layer).init(),
        LogFormat::Json => registry.with(layer.json()).init(),
    }
    handle
}

fn warnings() -> Targets {
    Targets::new().with_default(LevelFilter::WARN)
}

/// Register `process_*`, and what stays the same for as long as the gauges are held.
#[must_use]
pub(crate) fn register(registry: &Registry) -> [Gauge; 2] {
    let started = seconds_since_epoch();
    let gauge = |name, help, read: fn() -> f64| registry.sampled(name, help, Kind::Gauge, read);
    registry.sampled(
        "process_start_time_seconds",
        "When the process started, Unix time.",
        Kind::Gauge,
        move || started,
    );
    gauge(
        "process_clock_time_seconds",
        "Unix time.",
        seconds_since_epoch,
    );
    gauge(
        "process_resident_memory_bytes",
        "Resident memory.",
        resident_bytes,
    );
    gauge(
        "process_virtual_memory_bytes",
        "Address space in use.",
        virtual_bytes,
    );
    gauge("process_open_fds", "Open descriptors.", || {
        entries("/proc/self/fd")
    });
    gauge("process_threads", "Threads.", || entries("/proc/self/task"));
    gauge(
        "process_max_fds",
        "Descriptors that may be open.",
        max_descriptors,
    );
    let counter = |name, help, read: fn() -> f64| registry.sampled(name, help, Kind::Counter, read);
    counter(
        "process_network_receive_bytes",
        "Bytes that all interfaces have received.",
        || interfaces(0),
    );
    counter(
        "process_network_transmit_bytes",
        "Bytes that all interfaces have sent.",
        || interfaces(8),
    );
    registry.sampled(
        "process_uptime_seconds",
        "Time since the process started.",
        Kind::Counter,
        move || seconds_since_epoch() - started,
    );
    counter("process_cpu_seconds", "User and system time.", cpu_seconds);
    let labels = Labels::none()
        .with("vendor", "tulle")
        .with("version", env!("CARGO_PKG_VERSION"))
        .with(
            "profile",
            if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
        );
    let build = registry.gauge("proxy_build_info", "What this binary is.", &labels);
    let tls = registry.gauge(
        "rustls_info",
        "How connections of the mesh are secured.",
        &Labels::none().with_all(tulle_tls::facts()),
    );
    build.set(1.0);
    tls.set(1.0);
    [build, tls]
}

fn seconds_since_epoch() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |age| age.as_secs_f64())
}

fn entries(directory: &str) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counted in thousands")]
    fs::read_dir(directory).map_or(0.0, |entries| entries.count() as f64)
}

fn resident_bytes() -> f64 {
    statm(1)
}

fn virtual_bytes() -> f64 {
    statm(0)
}

/// proc(5): the fields of statm are sizes in pages, the address space first.
fn statm(field: usize) -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm
        .split(' ')
        .nth(field)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "page sizes are small")]
    let page = rustix::param::page_size() as f64;
    pages * page
}

/// Without a limit there is no number either.
fn max_descriptors() -> f64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(f64::INFINITY)
}

/// proc(5): behind the name of an interface come eight numbers of what was received, then
/// eight of what was sent; bytes are the first of either.
fn interfaces(field: usize) -> f64 {
    let devices = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let bytes = |line: &str| -> Option<f64> {
        let (_, numbers) = line.split_once(':')?;
        numbers.split_whitespace().nth(field)?.parse().ok()
    };
    devices.lines().filter_map(bytes).sum()
}

/// `USER_HZ`, which the kernel's interface fixes at 100 wherever Linux runs.
const TICKS_PER_SECOND: f64 = 100.0;

/// proc(5): fields 14 and 15 of stat are user and system time in clock ticks; the name in
/// field 2 may hold spaces, so counting begins behind its closing parenthesis.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / TICKS_PER_SECOND
}
