//! Which of two answers rules a destination: the outbound policy or the profile.
//!
//! Both must have been given, or refused, before anything is known. The policy rules where
//! there is one, but for what the profile decides: whether bytes are looked at, and its own
//! routes and overrides, if it has some. Where the control plane has no
//! policy for the address (a pod's, or a control plane without policies), the profile stands
//! in, and without either the traffic goes where it was going.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tulle_api::destination::DestinationProfile;
use tulle_core::{Reason, Refusal};
use tulle_policy::outbound::ClientPolicy;

/// What is known of a destination.
#[derive(Clone, Debug)]
pub enum OutboundState {
    /// Nothing yet.
    Pending,
    /// Where its traffic goes.
    Known(Arc<ClientPolicy>),
    /// The control plane will not say, and the traffic may not go anywhere.
    Refused(Refusal),
}

/// What came of one of the two questions.
#[derive(Clone, Debug)]
pub(crate) enum Answer<T> {
    Pending,
    Known(T),
    /// The control plane knows nothing of it.
    Nothing,
    /// The question was a bad one.
    Refused(String),
}

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Where a connection was going.
    Addr(SocketAddr),
    /// What a request asks for: `name:port`. Where the control plane knows nothing of it there
    /// is nowhere to go.
    Name(Arc<str>),
}

impl Subject {
    fn port(&self) -> u16 {
        match self {
            Self::Addr(addr) => addr.port(),
            Self::Name(name) => {
                let port = name.rsplit_once(':').map(|(_, port)| port.parse());
                port.and_then(Result::ok).unwrap_or(80)
            }
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Both answers.
pub(crate) struct Destination {
    subject: Subject,
    policy: Answer<Arc<ClientPolicy>>,
    profile: Answer<DestinationProfile>,
}

impl Destination {
    /// Nothing is known yet; `asked` is whether there may be a profile.
    pub(crate) fn new(subject: Subject, asked: bool) -> Self {
        let profile = if asked {
            Answer::Pending
        } else {
            Answer::Nothing
        };
        Self {
            subject,
            policy: Answer::Pending,
            profile,
        }
    }

    pub(crate) fn has_policy(&self) -> bool {
        matches!(self.policy, Answer::Known(_))
    }

    pub(crate) fn has_profile(&self) -> bool {
        matches!(self.profile, Answer::Known(_))
    }

    /// Take the policy's answer in; return what to show from now on, if it is decided.
    pub(crate) fn policy(&mut self, answer: Answer<Arc<ClientPolicy>>) -> Option<OutboundState> {
        self.policy = answer;
        self.state()
    }

    /// Take the profile's answer in; return what to show from now on, if that changes.
    pub(crate) fn profile(&mut self, answer: Answer<DestinationProfile>) -> Option<OutboundState> {
        let rules = self.profile_rules() || matches!(self.profile, Answer::Pending);
        self.profile = answer;
        let rules = rules || self.profile_rules() || !self.has_policy();
        if rules { self.state() } else { None }
    }

    /// Whether the profile says anything beside the policy.
    fn profile_rules(&self) -> bool {
        matches!(&self.profile, Answer::Known(profile)
            if profile.opaque_protocol
                || !profile.routes.is_empty()
                || !profile.dst_overrides.is_empty())
    }

    fn state(&self) -> Option<OutboundState> {
        let policy = match (&self.policy, &self.profile) {
            // Who answers for profiles may be asked for ever about a name that does not exist.
            (Answer::Nothing | Answer::Refused(_), Answer::Pending) if self.is_name() => {
                return Some(self.nowhere());
            }
            (Answer::Pending, _) | (_, Answer::Pending) => return None,
            (Answer::Known(policy), Answer::Known(profile)) if self.profile_rules() => {
                let policy = ClientPolicy::clone(policy);
                Arc::new(policy.with_profile(profile, self.subject.port()))
            }
            (Answer::Known(policy), _) => Arc::clone(policy),
            (Answer::Refused(_), _) if self.is_name() => return Some(self.nowhere()),
            (Answer::Refused(why), _) => {
                let message = format!(
                    "the control plane has no policy for {}: {why}",
                    self.subject
                );
                return Some(OutboundState::Refused(Refusal::new(
                    Reason::PolicyInvalid,
                    message,
                )));
            }
            (Answer::Nothing, profile) => match (&self.subject, profile) {
                (Subject::Addr(original), Answer::Known(profile)) => {
                    Arc::new(ClientPolicy::from_profile(profile, *original))
                }
                (Subject::Addr(original), _) => Arc::new(ClientPolicy::fallback(*original)),
                (Subject::Name(_), Answer::Known(profile)) if says_where(profile) => {
                    let nowhere = (Ipv4Addr::UNSPECIFIED, self.subject.port()).into();
                    Arc::new(ClientPolicy::from_profile(profile, nowhere))
                }
                (Subject::Name(_), _) => return Some(self.nowhere()),
            },
        };
        Some(OutboundState::Known(policy))
    }

    const fn is_name(&self) -> bool {
        matches!(self.subject, Subject::Name(_))
    }

    fn nowhere(&self) -> OutboundState {
        let message = format!("the control plane knows no service {}", self.subject);
        OutboundState::Refused(Refusal::new(Reason::RouteNotFound, message))
    }
}

/// Whether a profile alone tells where traffic goes.
const fn says_where(profile: &DestinationProfile) -> bool {
    profile.endpoint.is_some() || !profile.fully_qualified_name.is_empty()
}
