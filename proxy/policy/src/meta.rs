use std::{fmt, sync::Arc};

use tulle_api::meta::{Metadata, Resource, metadata::Kind};

use crate::{
    Invalid,
    invalid::{At, required},
    wire,
};

/// The object that a server, route, authorization or backend comes from: metric labels, and a
/// part of what makes two backends equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Meta {
    /// The group; empty where no object stands behind it.
    pub group: Arc<str>,
    /// The kind; `default` where no object stands behind it.
    pub kind: Arc<str>,
    /// The name.
    pub name: Arc<str>,
    /// The namespace; empty in inbound messages and where no object stands behind it.
    pub namespace: Arc<str>,
    /// The part of the object, such as a rule's name; mostly empty.
    pub section: Arc<str>,
    /// The port of the object.
    pub port: Option<u16>,
}

impl Meta {
    /// Something that no object stands behind, such as a default route.
    #[must_use]
    pub fn default_named(name: &str) -> Self {
        Self {
            kind: "default".into(),
            name: name.into(),
            ..Self::default()
        }
    }

    /// Whether this is [`Self::default_named`] of that name.
    #[must_use]
    pub fn is_default_named(&self, name: &str) -> bool {
        self.group.is_empty() && &*self.kind == "default" && &*self.name == name
    }

    /// An inbound message's: whatever it says is a label.
    pub(crate) fn inbound(wire: Option<Metadata>) -> Result<Arc<Self>, Invalid> {
        Self::new(wire, Self::resource)
    }

    /// An outbound message's, where an object has to be named in full.
    pub(crate) fn outbound(wire: Option<Metadata>) -> Result<Arc<Self>, Invalid> {
        Self::new(wire, |resource| {
            for (part, name) in [
                (&resource.group, "group"),
                (&resource.kind, "kind"),
                (&resource.name, "name"),
                (&resource.namespace, "namespace"),
            ] {
                required(Some(part).filter(|part| !part.is_empty()), name).at("metadata")?;
            }
            Self::resource(resource)
        })
    }

    fn new(
        wire: Option<Metadata>,
        resource: impl FnOnce(Resource) -> Result<Self, Invalid>,
    ) -> Result<Arc<Self>, Invalid> {
        let kind = required(wire, "metadata")?.kind;
        Ok(Arc::new(
            match required(kind, "the kind of the metadata")? {
                Kind::Default(name) => Self::default_named(&name),
                Kind::Resource(wire) => resource(wire)?,
            },
        ))
    }

    fn resource(wire: Resource) -> Result<Self, Invalid> {
        let port = wire::port(wire.port).at("metadata")?;
        Ok(Self {
            group: wire.group.into(),
            kind: wire.kind.into(),
            name: wire.name.into(),
            namespace: wire.namespace.into(),
            section: wire.section.into(),
            port: (port != 0).then_some(port),
        })
    }
}

/// `group/kind/namespace/name`, as far as there are such parts.
impl fmt::Display for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.group, &self.kind, &self.namespace] {
            if !part.is_empty() {
                write!(f, "{part}/")?;
            }
        }
        f.write_str(&self.name)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        Ok(())
    }
}
