//! Follows the trust bundle, and reports what this proxy trusts and is certified by.

use std::time::Duration;

use tokio::{sync::watch, time};
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Status};
use tracing::{debug, warn};
use tulle_api::trust::{Report, State, trust_roots_client::TrustRootsClient};

use crate::certify::Channel;

const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Runs until the control plane says that it has no such service: a stock one, which
/// replaces roots by restarting proxies.
pub(crate) async fn follow<C: Channel>(
    channel: C,
    reports: watch::Receiver<Report>,
    wanted: watch::Sender<State>,
) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        match stream(channel.clone(), reports.clone(), &wanted, &mut pause).await {
            Ok(()) => debug!("stream of trust bundles ended"),
            Err(status) if status.code() == Code::Unimplemented => return,
            Err(status) => {
                debug!(code = ?status.code(), message = status.message(), "stream of trust bundles ended");
            }
        }
        time::sleep(pause.mul_f64(1.0 - rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn stream<C: Channel>(
    channel: C,
    reports: watch::Receiver<Report>,
    wanted: &watch::Sender<State>,
    pause: &mut Duration,
) -> Result<(), Status> {
    let mut client = TrustRootsClient::new(channel);
    let mut states = client.watch(WatchStream::new(reports)).await?.into_inner();
    while let Some(state) = states.message().await? {
        *pause = SHORTEST_PAUSE;
        if state.bundle_pem.is_empty() {
            warn!("the control plane sent an empty trust bundle; keeping the one in force");
            continue;
        }
        wanted.send_if_modified(|known| {
            let differs = *known != state;
            *known = state;
            differs
        });
    }
    Ok(())
}
