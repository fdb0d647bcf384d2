//! Who is let in.
//!
//! Authorizations only allow, and any one is enough: nobody is let in whom none names. What an
//! authorization asks for is a network that the client's address is in, and what the client
//! has proved. Only mesh TLS that ended here proves anything; TLS that passes through to the
//! application counts as none.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use tulle_api::inbound;
use tulle_core::{ClientTls, Id};

use crate::{
    Invalid, Meta,
    invalid::{At, each, required},
    trace::{Subject, Trace, Verdict},
    wire,
};

/// What let a client in: labels. One value per server, route and authorization, so that its
/// address tells two of them apart for as long as it is held.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    /// The server.
    pub server: Arc<Meta>,
    /// The route, where a request was asked about and not a connection.
    pub route: Option<Arc<Meta>>,
    /// The authorization.
    pub authz: Arc<Meta>,
}

/// Proof that a policy lets this connection or this request in.
///
/// Only the `authorize_` methods of [`crate::inbound::ServerPolicy`] make one, and it cannot
/// be copied: what leads to the application takes it and so cannot be called before them.
///
/// ```compile_fail
/// fn forge(grant: std::sync::Arc<tulle_policy::Grant>) -> tulle_policy::Permit {
///     tulle_policy::Permit(grant)
/// }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Permit(Arc<Grant>);

impl Permit {
    /// What let the client in.
    #[must_use]
    pub const fn grant(&self) -> &Arc<Grant> {
        &self.0
    }

    /// Whether it was let in only because the default policy `audit` lets everybody in; such a
    /// request is logged.
    #[must_use]
    pub fn audited(&self) -> bool {
        self.0.authz.is_default_named("audit")
    }
}

/// What an authorization asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authorization {
    pub(crate) meta: Arc<Meta>,
    pub(crate) networks: Box<[Network]>,
    pub(crate) authentication: Authentication,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    net: IpNet,
    except: Box<[IpNet]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Authentication {
    Unauthenticated,
    /// Mesh TLS, with or without a certificate of the client.
    Encrypted,
    /// Any proved identity but a URI: those are of other authorities, too, and have to be named.
    Authenticated,
    /// One of these.
    Identities {
        /// Sorted.
        exact: Box<[Id]>,
        /// Of DNS-like names, with the dot before them; an empty one is all of those names.
        suffixes: Box<[Box<str>]>,
    },
}

/// An authorization and what it grants where it is used.
#[derive(Clone, Debug)]
pub(crate) struct Clause {
    authorization: Arc<Authorization>,
    grant: Arc<Grant>,
}

/// All who are let in at one place, the first that matches first.
#[derive(Clone, Debug)]
pub(crate) struct Clauses(Box<[Clause]>);

impl Clauses {
    pub(crate) fn new<'a>(
        server: &Arc<Meta>,
        route: Option<&Arc<Meta>>,
        authorizations: impl IntoIterator<Item = &'a Arc<Authorization>>,
    ) -> Self {
        let clause = |authorization: &Arc<Authorization>| Clause {
            authorization: authorization.clone(),
            grant: Arc::new(Grant {
                server: server.clone(),
                route: route.cloned(),
                authz: authorization.meta.clone(),
            }),
        };
        Self(authorizations.into_iter().map(clause).collect())
    }

    pub(crate) fn permit(
        &self,
        client: IpAddr,
        tls: &ClientTls,
        trace: &mut impl Trace,
    ) -> Option<Permit> {
        // An IPv4 client of a socket that takes both kinds.
        let client = client.to_canonical();
        for Clause {
            authorization,
            grant,
        } in &self.0
        {
            let subject = || Subject::Authorization(authorization.meta.clone());
            match authorization.test(client, tls) {
                Ok(()) => {
                    let why = (client, &authorization.authentication);
                    trace.step(Verdict::Allowed, subject, Admitted(why));
                    return Some(Permit(grant.clone()));
                }
                Err(denial) => {
                    trace.step(
                        Verdict::Skipped,
                        subject,
                        NotAdmitted(authorization, denial),
                    );
                }
            }
        }
        trace.step(
            Verdict::Refused,
            || Subject::Authorizations,
            "none of them lets the client in",
        );
        None
    }
}

impl Authorization {
    pub(crate) fn new(wire: inbound::Authz) -> Result<Self, Invalid> {
        let meta = match wire.metadata {
            Some(metadata) => Meta::inbound(Some(metadata))?,
            None => labelled(&wire.labels, "serverauthorization").at("labels")?,
        };
        if wire.networks.is_empty() {
            return Err(Invalid::new("networks is empty"));
        }
        Ok(Self {
            meta,
            networks: each("networks", wire.networks, Network::new)?,
            authentication: Authentication::new(required(wire.authentication, "authentication")?)?,
        })
    }

    /// The application's own host may always: a proxy that shuts it out would break what works
    /// without a mesh, and protects nothing.
    pub(crate) fn localhost() -> Self {
        Self {
            meta: Arc::new(Meta::default_named("localhost")),
            networks: [
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ]
            .map(|address| Network {
                net: address.into(),
                except: Box::default(),
            })
            .into(),
            authentication: Authentication::Unauthenticated,
        }
    }

    pub(crate) fn of_default_policy(
        name: &str,
        networks: impl IntoIterator<Item = IpNet>,
        authentication: Authentication,
    ) -> Self {
        let network = |net| Network {
            net,
            except: Box::default(),
        };
        Self {
            meta: Arc::new(Meta::default_named(name)),
            networks: networks.into_iter().map(network).collect(),
            authentication,
        }
    }

    fn test(&self, client: IpAddr, tls: &ClientTls) -> Result<(), Denial> {
        let mut denial = Denial::Network;
        let inside = self
            .networks
            .iter()
            .any(|network| match network.test(client) {
                Ok(()) => true,
                Err(Denial::Excepted) => {
                    denial = Denial::Excepted;
                    false
                }
                Err(_) => false,
            });
        if !inside {
            return Err(denial);
        }
        self.authentication.test(tls)
    }
}

impl Network {
    fn new(wire: inbound::Network) -> Result<Self, Invalid> {
        Ok(Self {
            net: wire::network(required(wire.net, "net")?)?,
            except: each("except", wire.except, wire::network)?,
        })
    }

    fn test(&self, client: IpAddr) -> Result<(), Denial> {
        if !self.net.contains(&client) {
            Err(Denial::Network)
        } else if self.except.iter().any(|except| except.contains(&client)) {
            Err(Denial::Excepted)
        } else {
            Ok(())
        }
    }
}

impl Authentication {
    fn new(wire: inbound::Authn) -> Result<Self, Invalid> {
        use inbound::authn::{Permit, permit_mesh_tls::Clients};
        let clients = match required(wire.permit, "the kind of the authentication")? {
            Permit::Unauthenticated(_) => return Ok(Self::Unauthenticated),
            Permit::MeshTls(tls) => required(tls.clients, "the clients of the authentication")?,
        };
        let identities = match clients {
            Clients::Unauthenticated(_) => return Ok(Self::Encrypted),
            Clients::Identities(identities) => identities,
        };
        let mut exact = each("identities", identities.identities, |identity| {
            wire::identity(&identity.name)
        })?;
        exact.sort_unstable();
        let any = identities.suffixes.iter().any(|of| of.parts.is_empty());
        if any && !exact.iter().any(Id::is_uri) {
            return Ok(Self::Authenticated);
        }
        let suffixes = each("suffixes", identities.suffixes, |suffix| {
            suffix_of(&suffix.parts)
        })?;
        Ok(Self::Identities { exact, suffixes })
    }

    fn test(&self, tls: &ClientTls) -> Result<(), Denial> {
        if *self == Self::Unauthenticated {
            return Ok(());
        }
        let ClientTls::Established { client_id } = tls else {
            return Err(Denial::NoTls);
        };
        match (self, client_id) {
            (Self::Authenticated, Some(id)) if id.is_uri() => Err(Denial::OtherIdentity),
            (Self::Unauthenticated | Self::Encrypted, _) | (Self::Authenticated, Some(_)) => Ok(()),
            (Self::Identities { exact, suffixes }, Some(id)) => {
                let under = |suffix: &str| {
                    let name = id.as_str();
                    !id.is_uri() && name.len() > suffix.len() && name.ends_with(suffix)
                };
                let named = exact.binary_search(id).is_ok();
                if named || suffixes.iter().any(|suffix| under(suffix)) {
                    Ok(())
                } else {
                    Err(Denial::OtherIdentity)
                }
            }
            (Self::Authenticated | Self::Identities { .. }, None) => Err(Denial::NoIdentity),
        }
    }
}

/// Longer lists are cut for people.
const NAMES_SHOWN: usize = 5;

impl Authentication {
    fn names(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Identities { exact, suffixes } = self else {
            return Ok(());
        };
        let total = exact.len() + suffixes.len();
        let exact = exact.iter().map(|id| ("", id.as_str()));
        let all = exact.chain(suffixes.iter().map(|suffix| ("*", &**suffix)));
        for (index, (star, name)) in all.take(NAMES_SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator} {star}{name}")?;
        }
        if total > NAMES_SHOWN {
            write!(f, " and {} more", total - NAMES_SHOWN)?;
        }
        Ok(())
    }
}

/// Identities are stored in lower case, so suffixes are too.
fn suffix_of(parts: &[String]) -> Result<Box<str>, Invalid> {
    let mut suffix = String::new();
    for part in parts {
        if !wire::is_dns_label(part) {
            return Err(Invalid::new(format_args!(
                "{part:?} is no part of an identity"
            )));
        }
        suffix.push('.');
        suffix.push_str(&part.to_ascii_lowercase());
    }
    Ok(suffix.into())
}

/// What names a server or an authorization where there is no metadata.
pub(crate) fn labelled(
    labels: &std::collections::HashMap<String, String>,
    default_kind: &str,
) -> Result<Arc<Meta>, Invalid> {
    let name = required(labels.get("name").filter(|name| !name.is_empty()), "name")?;
    // The form of older control planes for what no object stands behind.
    if let Some(name) = name.strip_prefix("default:") {
        return Ok(Arc::new(Meta::default_named(name)));
    }
    let label = |key, default: &str| labels.get(key).map_or(default, String::as_str).into();
    Ok(Arc::new(Meta {
        group: label("group", "policy.linkerd.io"),
        kind: label("kind", default_kind),
        name: name.as_str().into(),
        ..Meta::default()
    }))
}

/// Why an authorization does not let a client in.
#[derive(Clone, Copy, Debug)]
enum Denial {
    Network,
    Excepted,
    NoTls,
    NoIdentity,
    OtherIdentity,
}

/// An authorization, and why it does not let a client in.
struct NotAdmitted<'a>(&'a Authorization, Denial);

impl fmt::Display for NotAdmitted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(authorization, denial) = self;
        match denial {
            Denial::Network => {
                f.write_str("the client's address is in none of its networks")?;
                for (index, network) in authorization.networks.iter().enumerate() {
                    let separator = if index == 0 { ":" } else { "," };
                    write!(f, "{separator} {}", network.net)?;
                }
                Ok(())
            }
            Denial::Excepted => f.write_str("the client's address is in a network that it excepts"),
            Denial::NoTls => f.write_str("it asks for mesh TLS"),
            Denial::NoIdentity => f.write_str("it asks for a client certificate"),
            Denial::OtherIdentity => {
                f.write_str("it lets in others than this client:")?;
                authorization.authentication.names(f)
            }
        }
    }
}

struct Admitted<'a>((IpAddr, &'a Authentication));

impl fmt::Display for Admitted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (client, authentication) = self.0;
        let who = match authentication {
            Authentication::Unauthenticated => "anybody",
            Authentication::Encrypted => "anybody with mesh TLS",
            Authentication::Authenticated => "any mesh identity",
            Authentication::Identities { .. } => "the client's identity",
        };
        write!(f, "it lets {who} in from {client}")
    }
}
