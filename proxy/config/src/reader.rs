use std::time::Duration;

use crate::{ConfigErrors, Mistake, parse};

/// Silence before a peer of the mesh is asked whether it is still there.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(10);

/// How long a peer of the mesh may leave data unacknowledged: a peer whose link is cut is
/// left as soon as one that is silent.
pub(crate) const USER_TIMEOUT: Duration = Duration::from_secs(13);

/// The prefix of the stock proxy's variables; names in this crate leave it out.
const STOCK: &str = "LINKERD2_PROXY_";

/// Variables that have one name in every program.
const COMMON: [&str; 2] = ["HOSTNAME", "OTEL_RESOURCE_ATTRIBUTES"];

/// Looks variables up and remembers every mistake, so that one start reports them all.
pub(crate) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            mistakes: Vec::new(),
        }
    }

    /// The variable's text. Charts render unset values as empty ones, so empty is unset.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(&full_name(name)).filter(|value| !value.trim().is_empty())
    }

    pub(crate) fn optional<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.text(name)?;
        match parse(value.trim()) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.mistake(name, problem);
                None
            }
        }
    }

    pub(crate) fn or<T>(
        &mut self,
        name: &str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        self.optional(name, parse).unwrap_or(default)
    }

    /// A duration that is on unless it is set to 0.
    pub(crate) fn or_off(&mut self, name: &str, default: Duration) -> Option<Duration> {
        Some(self.or(name, default, parse::duration)).filter(|value| !value.is_zero())
    }

    /// A variable without which the proxy cannot start.
    pub(crate) fn required<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.text(name).is_none() {
            self.mistake(name, "is required and not set");
        }
        self.optional(name, parse)
    }

    pub(crate) fn mistake(&mut self, name: &str, problem: impl Into<String>) {
        self.mistakes.push(Mistake {
            variable: full_name(name),
            problem: problem.into(),
        });
    }

    /// The value, if everything it was made of could be read.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, ConfigErrors> {
        match value {
            Some(value) if self.mistakes.is_empty() => Ok(value),
            _ => Err(ConfigErrors(self.mistakes)),
        }
    }
}

fn full_name(name: &str) -> String {
    if name.starts_with("TULLE_PROXY_") || COMMON.contains(&name) {
        name.to_owned()
    } else {
        format!("{STOCK}{name}")
    }
}
