//! Which of two answers rules a destination: the outbound policy or the profile.
//!
//! Both must have been given, or refused, before anything is known. The policy rules where
//! there is one; of the profile only "opaque" counts then. Where the control plane has no
//! policy for the address (a pod's, or a control plane without policies), the profile stands
//! in, and without either the traffic goes where it was going.

use std::{net::SocketAddr, sync::Arc};

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

/// Both answers.
pub(crate) struct Destination {
    original: SocketAddr,
    policy: Answer<Arc<ClientPolicy>>,
    profile: Answer<DestinationProfile>,
}

impl Destination {
    /// Nothing is known yet; `asked` is whether there may be a profile.
    pub(crate) fn new(original: SocketAddr, asked: bool) -> Self {
        let profile = if asked {
            Answer::Pending
        } else {
            Answer::Nothing
        };
        Self {
            original,
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
        let first = matches!(self.profile, Answer::Pending);
        let was_opaque = self.is_opaque();
        self.profile = answer;
        let rules = first || was_opaque != self.is_opaque() || !self.has_policy();
        if rules { self.state() } else { None }
    }

    fn is_opaque(&self) -> bool {
        matches!(&self.profile, Answer::Known(profile) if profile.opaque_protocol)
    }

    fn state(&self) -> Option<OutboundState> {
        let policy = match (&self.policy, &self.profile) {
            (Answer::Pending, _) | (_, Answer::Pending) => return None,
            (Answer::Known(policy), _) if self.is_opaque() => {
                Arc::new(ClientPolicy::clone(policy).into_opaque())
            }
            (Answer::Known(policy), _) => Arc::clone(policy),
            (Answer::Refused(why), _) => {
                let message = format!(
                    "the control plane has no policy for {}: {why}",
                    self.original
                );
                return Some(OutboundState::Refused(Refusal::new(
                    Reason::PolicyInvalid,
                    message,
                )));
            }
            (Answer::Nothing, Answer::Known(profile)) => {
                Arc::new(ClientPolicy::from_profile(profile, self.original))
            }
            (Answer::Nothing, _) => Arc::new(ClientPolicy::fallback(self.original)),
        };
        Some(OutboundState::Known(policy))
    }
}
