//! Follows a subject for as long as it is cached, past answers that say "asking is useless".
//!
//! Such an answer may be true only today: the Service may come tomorrow, or the control plane
//! may have answered before it knew. So the question is put again, at first soon, then rarely,
//! and not at all while nobody is interested.

use std::time::Duration;

use prost::Message;
use tokio::time;
use tonic::Status;

use crate::{Publisher, backoff::Pauses, follow::Follow};

/// The longest pause before a question that was useless is put again.
const LONGEST: Duration = Duration::from_mins(5);

/// What comes of asking.
pub(crate) enum Heard<M> {
    /// The control plane has something to say; `fresh` at the beginning of each stream.
    Message { message: M, fresh: bool },
    /// Asking is useless, for the `times`th time in a row.
    Refused { status: Status, times: u32 },
}

/// Never returns. `idle` is the shortest pause after a refusal.
pub(crate) async fn ask<Q, M, T>(
    follow: Follow<Q>,
    publisher: &Publisher<T>,
    idle: Duration,
    mut heard: impl FnMut(Heard<M>),
) where
    Q: Message + Clone + 'static,
    M: Message + Default + 'static,
{
    let mut pauses = Pauses::new(idle, LONGEST);
    let mut times = 0;
    loop {
        let status = follow
            .run(|message, fresh| {
                times = 0;
                heard(Heard::Message { message, fresh });
            })
            .await;
        if times == 0 {
            pauses.reset();
        }
        times += 1;
        heard(Heard::Refused { status, times });
        let used = async {
            time::sleep(idle).await;
            publisher.wanted().await;
        };
        let held = async {
            time::sleep(pauses.next(rand::random())).await;
            if !publisher.is_held() {
                publisher.wanted().await;
            }
        };
        tokio::select! {
            () = used => {}
            () = held => {}
        }
    }
}

/// The last message, in the form that takes the least room: compared with every new one, so
/// that nobody is woken by a repetition.
#[derive(Default)]
pub(crate) struct Last(Option<Box<[u8]>>);

impl Last {
    /// Whether this differs from the message before. Decoded for the comparison, since maps
    /// are encoded in any order.
    pub(crate) fn differs<M: Message + Default + PartialEq>(&mut self, message: &M) -> bool {
        let before = self.0.as_deref().and_then(|bytes| M::decode(bytes).ok());
        if before.as_ref() == Some(message) {
            return false;
        }
        self.0 = Some(message.encode_to_vec().into());
        true
    }

    /// Forget it; return whether there was one.
    pub(crate) fn forget(&mut self) -> bool {
        self.0.take().is_some()
    }
}
