use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use tulle_core::Id;

use crate::{ControlAddr, parse, reader::Reader};

/// Who may watch requests, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// The port for it.
    pub listen: SocketAddr,
    /// The only client that is let in.
    pub client: Id,
}

impl Tap {
    /// None where nobody is named who may.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let listen = reader.or(
            "CONTROL_LISTEN_ADDR",
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 4190)),
            parse::socket_addr,
        );
        let client = reader.text("TAP_SVC_NAME")?;
        Some(Self {
            listen,
            client: Id::new(client.trim()),
        })
    }
}

/// Where spans go, and what all of them say of this proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What is sent them.
    pub collector: ControlAddr,
    /// `service.name`, unless one of the others says otherwise.
    pub service: Option<String>,
    /// A file of attributes, one on a line; they stand over the service's name.
    pub attributes_path: Option<PathBuf>,
    /// Attributes that stand over those of the file; of two with one key the later counts.
    pub attributes: Vec<(String, String)>,
    /// The pod's name.
    pub hostname: Option<String>,
}

impl Trace {
    /// None where no collector is named.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.text("TRACE_COLLECTOR_SVC_ADDR")?;
        let collector = ControlAddr::read(reader, "TRACE_COLLECTOR");
        let of_chart = reader.text("TRACE_EXTRA_ATTRIBUTES").unwrap_or_default();
        // The specification separates them by commas; the stock proxy reads one on a line.
        let of_standard = reader.text("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let of_standard = of_standard.replace(',', "\n");
        Some(Self {
            collector: collector?,
            service: reader.text("TRACE_SERVICE_NAME"),
            attributes_path: reader.text("TRACE_ATTRIBUTES_PATH").map(PathBuf::from),
            attributes: [of_chart, of_standard]
                .iter()
                .flat_map(|text| attributes(text))
                .collect(),
            hostname: reader.text("HOSTNAME"),
        })
    }
}

/// `key=value` or `key="value"` on every line, as the downward API of Kubernetes writes labels.
/// Lines that are neither are left out.
#[must_use]
pub fn attributes(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(key, value)| {
            (
                key.trim().to_owned(),
                value.trim().trim_matches('"').to_owned(),
            )
        })
        .filter(|(key, _)| !key.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_the_downward_api_writes_them() {
        let text = "app=\"web\"\nk8s.pod.ip = 10.0.0.1\nempty=\nequals=\"a=b\"\nnothing\n=nameless";

        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            attributes(text),
            [
                pair("app", "web"),
                pair("k8s.pod.ip", "10.0.0.1"),
                pair("empty", ""),
                pair("equals", "a=b"),
            ]
        );
    }
}
