use std::{fmt, path::PathBuf, time::Duration};

use tulle_core::Id;

use crate::{ControlAddr, parse, reader::Reader};

/// How this proxy proves who it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// May hold `key.p8` and `csr.der`; without them a key is made in memory.
    pub dir: Option<PathBuf>,
    /// Read anew for every certificate.
    pub token_file: PathBuf,
    /// The roots to trust until the control plane sends others.
    pub trust_anchors_pem: String,
    /// The name to be certified.
    pub local_name: Id,
    /// Who certifies.
    pub server: ControlAddr,
    /// Also the pause after a failure.
    pub min_refresh: Duration,
    /// A certificate is never kept longer than this.
    pub max_refresh: Duration,
}

impl Identity {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        refuse_what_is_not_supported(reader);
        let server = ControlAddr::read(reader, "IDENTITY");
        let dir = reader.text("IDENTITY_DIR").map(PathBuf::from);
        let token_file = reader.required("IDENTITY_TOKEN_FILE", |text| Ok(PathBuf::from(text)));
        let anchors = reader.required("IDENTITY_TRUST_ANCHORS", certificates);
        let local_name = local_name(reader);
        let min_refresh = reader.or(
            "IDENTITY_MIN_REFRESH",
            Duration::from_secs(10),
            parse::duration,
        );
        let max_refresh = reader.or(
            "IDENTITY_MAX_REFRESH",
            Duration::from_hours(24),
            parse::duration,
        );
        if min_refresh > max_refresh {
            reader.mistake(
                "IDENTITY_MIN_REFRESH",
                "must not be longer than IDENTITY_MAX_REFRESH",
            );
        }
        Some(Self {
            dir,
            token_file: token_file?,
            trust_anchors_pem: anchors?,
            local_name: local_name?,
            server: server?,
            min_refresh,
            max_refresh,
        })
    }
}

/// The anchors are long and say nothing to a reader of a log.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let anchors = self
            .trust_anchors_pem
            .matches("-----BEGIN CERTIFICATE-----")
            .count();
        f.debug_struct("Identity")
            .field("dir", &self.dir)
            .field("token_file", &self.token_file)
            .field("trust_anchors", &anchors)
            .field("local_name", &self.local_name)
            .field("server", &self.server)
            .field("min_refresh", &self.min_refresh)
            .field("max_refresh", &self.max_refresh)
            .finish()
    }
}

fn refuse_what_is_not_supported(reader: &mut Reader<'_>) {
    if reader.text("IDENTITY_DISABLED").is_some() {
        reader.mistake(
            "IDENTITY_DISABLED",
            "the proxy always has an identity; unset it",
        );
    }
    for name in [
        "IDENTITY_SPIRE_WORKLOAD_API_ADDRESS",
        "IDENTITY_SPIRE_SOCKET",
    ] {
        if reader.text(name).is_some() {
            reader.mistake(name, "SPIRE is not supported; use the identity service");
        }
    }
}

/// The name to be certified: one variable, or two that must agree.
fn local_name(reader: &mut Reader<'_>) -> Option<Id> {
    if let Some(name) = reader.optional("IDENTITY_LOCAL_NAME", dns_name) {
        return Some(name);
    }
    let id = reader.optional("IDENTITY_SERVER_ID", dns_name);
    let name = reader.optional("IDENTITY_SERVER_NAME", dns_name);
    match (id, name) {
        (Some(id), Some(name)) if id == name => Some(id),
        (Some(_), Some(_)) => {
            reader.mistake(
                "IDENTITY_SERVER_ID",
                "must be equal to IDENTITY_SERVER_NAME",
            );
            None
        }
        _ => {
            reader.mistake("IDENTITY_LOCAL_NAME", "is required and not set");
            None
        }
    }
}

fn dns_name(text: &str) -> Result<Id, String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.len() <= 253 && text.bytes().all(legal) && !text.split('.').any(str::is_empty) {
        Ok(Id::new(text))
    } else {
        Err(format!("{text:?} is not a DNS name"))
    }
}

fn certificates(text: &str) -> Result<String, String> {
    if text.contains("-----BEGIN CERTIFICATE-----") {
        Ok(text.to_owned())
    } else {
        Err("holds no PEM certificate (the text itself is expected, not a path)".to_owned())
    }
}
