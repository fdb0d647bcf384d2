use std::{collections::HashMap, hash::BuildHasher, sync::Arc};

use tulle_api::destination::{self, WeightedAddr, protocol_hint, tls_identity::Strategy};
use tulle_core::{Endpoint, Hint, Labels, TlsTarget};

use crate::wire;

/// An endpoint as the control plane describes it; none where its address is none.
///
/// What else cannot be understood is left out, as the stock proxy does: an endpoint with an
/// identity that is none is connected to in plaintext, a transport port that is none or comes
/// without an identity is not used. Labels of the address stand over those of the set.
#[must_use]
pub fn endpoint_from_proto<S: BuildHasher>(
    addr: &WeightedAddr,
    set_labels: &HashMap<String, String, S>,
) -> Option<Endpoint> {
    let tls = addr.tls_identity.as_ref().and_then(tls_target);
    let hint = addr.protocol_hint.as_ref();
    let transport_port = hint
        .and_then(|hint| hint.opaque_transport.as_ref())
        .and_then(|transport| u16::try_from(transport.inbound_port).ok())
        .filter(|port| *port != 0 && tls.is_some());
    let authority = addr
        .authority_override
        .as_ref()
        .map(|wire| wire.authority_override.as_str());
    Some(Endpoint {
        addr: wire::address(addr.addr?).ok()?,
        tls,
        hint: match hint.and_then(|hint| hint.protocol.as_ref()) {
            None => Hint::Unknown,
            Some(protocol_hint::Protocol::H2(_)) => Hint::H2,
            Some(protocol_hint::Protocol::Opaque(_)) => Hint::Opaque,
        },
        transport_port,
        authority_override: authority
            .filter(|authority| authority.parse::<http::uri::Authority>().is_ok())
            .map(Into::into),
        labels: labels(set_labels, &addr.metric_labels),
    })
}

fn tls_target(wire: &destination::TlsIdentity) -> Option<TlsTarget> {
    let server_name = wire.server_name.as_ref().map(|name| name.name.as_str());
    let (id, server_name) = match wire.strategy.as_ref()? {
        Strategy::DnsLikeIdentity(dns) => (&dns.name, server_name.unwrap_or(&dns.name)),
        Strategy::UriLikeIdentity(uri) => (&uri.uri, server_name?),
    };
    wire::is_dns_name(server_name).then_some(TlsTarget {
        server_name: server_name.into(),
        id: wire::identity(id).ok()?,
    })
}

fn labels<S: BuildHasher>(
    set: &HashMap<String, String, S>,
    addr: &HashMap<String, String>,
) -> Labels {
    let of_set = set.iter().filter(|(key, _)| !addr.contains_key(*key));
    let mut labels: Vec<(Arc<str>, Arc<str>)> = of_set
        .chain(addr)
        .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
        .collect();
    labels.sort_unstable();
    labels.into()
}
