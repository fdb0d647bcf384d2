use std::{fs, time::SystemTime};

use tracing_subscriber::{EnvFilter, Registry as LogRegistry, prelude::*, reload};
use tulle_config::{Config, LogFormat};
use tulle_metrics::{Kind, Labels, Registry};

/// Changes the log filter of the running process.
pub(crate) type Reload = reload::Handle<EnvFilter, LogRegistry>;

/// Start logging to standard error.
pub(crate) fn start_log(config: &Config) -> Reload {
    let filter = EnvFilter::try_new(&config.log).unwrap_or_else(|_| EnvFilter::new("warn"));
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

/// Register `process_*` and `proxy_build_info`.
pub(crate) fn register(registry: &Registry) {
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
    gauge("process_open_fds", "Open descriptors.", || {
        #[expect(
            clippy::cast_precision_loss,
            reason = "descriptors are counted in thousands"
        )]
        fs::read_dir("/proc/self/fd").map_or(0.0, |entries| entries.count() as f64)
    });
    registry.sampled(
        "process_cpu_seconds",
        "User and system time.",
        Kind::Counter,
        cpu_seconds,
    );
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
    registry
        .gauge("proxy_build_info", "What this binary is.", &labels)
        .set(1.0);
}

fn seconds_since_epoch() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |age| age.as_secs_f64())
}

/// proc(5): the second field of statm is the resident set in pages.
fn resident_bytes() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "page sizes are small")]
    let page = rustix::param::page_size() as f64;
    pages * page
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
