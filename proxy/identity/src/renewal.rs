//! When a certificate is renewed, and what becomes of a new trust bundle.
//!
//! A certificate is renewed at 70 % of what remains of its life. A new bundle is put into
//! force at once where the certificate in hand verifies against it too, and a new certificate
//! is asked for in either case: during a rotation the bundle comes before the issuer.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};
use tracing::{info, warn};
use tulle_api::trust::{Report, State};
use tulle_metrics::Registry;
use tulle_tls::{Credentials, CredentialsError, Store};

use crate::{
    KeyError,
    certify::{Certificate, CertifyError, Channel, certify},
    key::Key,
    metrics::Metrics,
    trust,
};

/// The first pause after a failure as long as there is no certificate: the whole workload
/// waits for it. The pauses double up to the shortest refresh.
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// A sleep is cut into pieces of this length, after which the clock on the wall is asked:
/// a suspended machine's timers stand still, its certificate's life does not.
const CLOCK_CHECK: Duration = Duration::from_mins(1);

/// Why a proxy cannot even begin to get a certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The trust anchors of the environment cannot be used.
    #[error("trust anchors: {0}")]
    Anchors(CredentialsError),
}

/// This proxy's identity, from the environment to the [`Store`].
pub struct Identity {
    config: tulle_config::Identity,
    workload: String,
    key: Key,
    store: Store,
    metrics: Metrics,
    /// The bundle to verify with from now on.
    roots_pem: String,
    /// The epoch that the control plane is in.
    epoch: u64,
    in_force: Option<InForce>,
    /// The next pause after a failure.
    retry: Duration,
}

/// What the store's credentials were made of.
struct InForce {
    certificate: Certificate,
    bundle_sha256: Vec<u8>,
    /// In which epoch the certificate was asked for.
    epoch: u64,
}

impl Identity {
    /// Get the key ready. The certificate comes with [`Identity::run`].
    ///
    /// # Errors
    ///
    /// See [`IdentityError`].
    pub fn new(
        config: &tulle_config::Identity,
        workload: &str,
        store: &Store,
        registry: &Registry,
    ) -> Result<Self, IdentityError> {
        Credentials::anonymous(&config.trust_anchors_pem).map_err(IdentityError::Anchors)?;
        Ok(Self {
            key: Key::load_or_make(config.dir.as_deref(), &config.local_name)?,
            workload: workload.to_owned(),
            store: store.clone(),
            metrics: Metrics::new(registry),
            roots_pem: config.trust_anchors_pem.clone(),
            epoch: 0,
            in_force: None,
            retry: FIRST_RETRY.min(config.min_refresh),
            config: config.clone(),
        })
    }

    /// Keep the store's credentials current for ever, over the identity service's channel.
    pub async fn run<C: Channel>(mut self, channel: C) {
        let (reports, reported) = watch::channel(Report::default());
        let (wanted, mut states) = watch::channel(State::default());
        // Followed with a certificate only: a report from nobody would be worth nothing.
        let mut trust = Some(trust::follow(channel.clone(), reported, wanted));
        let mut tasks = JoinSet::new();
        loop {
            let pause = self.renew(&channel).await;
            self.report(&reports);
            if self.in_force.is_some() {
                trust.take().map(|trust| tasks.spawn(trust));
            }
            let due = wait(pause);
            tokio::pin!(due);
            loop {
                tokio::select! {
                    () = &mut due => break,
                    Ok(()) = states.changed() => {
                        let state = states.borrow_and_update().clone();
                        let renew = self.adopt(state);
                        self.report(&reports);
                        if renew {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Ask for a certificate and put it into force; return how long to wait before the next.
    async fn renew<C: Channel>(&mut self, channel: &C) -> Duration {
        match self.certify(channel).await {
            Ok(valid_until) => {
                let now = SystemTime::now();
                let remaining = valid_until.duration_since(now).unwrap_or_default();
                let refresh = refresh_after(remaining, &self.config);
                self.metrics.renewed(now, valid_until);
                self.retry = self.config.min_refresh;
                info!(name = %self.config.local_name, ?remaining, ?refresh, "certified");
                refresh
            }
            Err(error) => {
                self.metrics.failed();
                let pause = self.retry.mul_f64(1.0 + rand::random::<f64>() / 10.0);
                self.retry = (self.retry * 2).min(self.config.min_refresh);
                warn!(%error, retry = ?pause, "no new certificate");
                pause
            }
        }
    }

    async fn certify<C: Channel>(&mut self, channel: &C) -> Result<SystemTime, CertifyError> {
        let Self {
            config, key, epoch, ..
        } = &*self;
        let epoch = *epoch;
        let certificate =
            certify(channel.clone(), &config.local_name, &config.token_file, key).await?;
        let valid_until = certificate.valid_until;
        self.put_into_force(certificate, epoch)?;
        Ok(valid_until)
    }

    /// Publish the certificate with the bundle to verify with, if a peer would accept it.
    fn put_into_force(
        &mut self,
        certificate: Certificate,
        epoch: u64,
    ) -> Result<(), CredentialsError> {
        let chain = certificate.chain.clone();
        let name = &self.config.local_name;
        let credentials = Credentials::new(name, chain, self.key.private(), &self.roots_pem)?;
        self.store.set(credentials);
        let bundle_sha256 = sha256(self.roots_pem.as_bytes());
        self.in_force = Some(InForce {
            certificate,
            bundle_sha256,
            epoch,
        });
        Ok(())
    }

    /// Take in what the control plane wants; return whether that needs a new certificate.
    fn adopt(&mut self, state: State) -> bool {
        let grown = state.renew_epoch > self.epoch;
        self.epoch = state.renew_epoch;
        if state.bundle_pem == self.roots_pem {
            return grown;
        }
        if let Err(error) = Credentials::anonymous(&state.bundle_pem) {
            warn!(%error, "the control plane's trust bundle cannot be used; keeping the old one");
            return grown;
        }
        self.roots_pem = state.bundle_pem;
        if let Some(InForce {
            certificate, epoch, ..
        }) = &self.in_force
        {
            match self.put_into_force(certificate.clone(), *epoch) {
                Ok(()) => info!("new trust bundle in force"),
                Err(error) => info!(%error, "new trust bundle waits for a new certificate"),
            }
        }
        true
    }

    fn report(&self, reports: &watch::Sender<Report>) {
        let Some(InForce {
            certificate,
            bundle_sha256,
            epoch,
        }) = &self.in_force
        else {
            return;
        };
        let issuer = certificate.chain.get(1);
        let report = Report {
            workload: self.workload.clone(),
            bundle_sha256: bundle_sha256.clone(),
            issuer_sha256: issuer
                .map(|der: &CertificateDer<'_>| sha256(der))
                .unwrap_or_default(),
            leaf_valid_until: Some(certificate.valid_until.into()),
            renewed_epoch: *epoch,
        };
        reports.send_if_modified(|last| {
            let differs = *last != report;
            *last = report;
            differs
        });
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.config.local_name)
            .finish_non_exhaustive()
    }
}

fn refresh_after(remaining: Duration, config: &tulle_config::Identity) -> Duration {
    remaining
        .mul_f64(0.7)
        .clamp(config.min_refresh, config.max_refresh)
}

/// Complete when this much time has passed on either clock.
async fn wait(pause: Duration) {
    let due = Instant::now() + pause;
    let due_on_the_wall = SystemTime::now() + pause;
    while Instant::now() < due && SystemTime::now() < due_on_the_wall {
        time::sleep_until(due.min(Instant::now() + CLOCK_CHECK)).await;
    }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}
