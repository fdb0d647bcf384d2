use pyo3::{pyclass, pymethods};
use tulle_policy::{Meta, Subject};

/// The object that something comes from.
#[pyclass(frozen, get_all, eq, hash)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Resource {
    group: String,
    kind: String,
    namespace: String,
    name: String,
    port: Option<u16>,
}

impl Resource {
    pub(crate) fn of(meta: &Meta) -> Self {
        Self {
            group: meta.group.to_string(),
            kind: meta.kind.to_string(),
            namespace: meta.namespace.to_string(),
            name: meta.name.to_string(),
            port: meta.port,
        }
    }
}

#[pymethods]
impl Resource {
    fn __repr__(&self) -> String {
        format!("{self:?}")
    }
}

/// One step of a decision.
#[pyclass(frozen, get_all)]
#[derive(Clone, Debug)]
pub(crate) struct Step {
    subject: &'static str,
    resource: Option<Resource>,
    rule: Option<usize>,
    verdict: &'static str,
    why: String,
}

impl Step {
    pub(crate) fn all(steps: Vec<tulle_policy::Step>) -> Vec<Self> {
        steps.into_iter().map(Self::of).collect()
    }

    fn of(step: tulle_policy::Step) -> Self {
        Self {
            subject: match step.subject {
                Subject::Route(_) => "route",
                Subject::Rule(..) => "rule",
                Subject::Authorization(_) => "authorization",
                Subject::Routes => "routes",
                Subject::Authorizations => "authorizations",
                Subject::Policy => "policy",
            },
            resource: step.subject.meta().map(|meta| Resource::of(meta)),
            rule: match step.subject {
                Subject::Rule(_, index) => Some(index),
                _ => None,
            },
            verdict: step.verdict.label(),
            why: step.why,
        }
    }
}

#[pymethods]
impl Step {
    fn __repr__(&self) -> String {
        format!("{self:?}")
    }
}
