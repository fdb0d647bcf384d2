//! Power of two choices: of two ready endpoints drawn at random, the cheaper one.
//!
//! Two random ones instead of the cheapest of all, since every client sees about the same
//! costs: they would all run to the same endpoint at once.

use std::{rc::Rc, sync::Arc};

use tokio::time::Instant;

/// Something that a request can be given to.
pub trait Candidate {
    /// Whether it may be picked now.
    fn ready(&self, now: Instant) -> bool;
    /// What a request would cost there; see [`crate::Load::cost`].
    fn cost(&self, now: Instant) -> f64;
}

/// The position of the candidate to use; none where none is ready.
///
/// `random` is one uniformly distributed number. All pairs of ready candidates are equally
/// likely, whichever others are unready: probing onward from an unready one would send its
/// share to its neighbour.
#[must_use]
pub fn pick<C: Candidate>(candidates: &[C], random: u64, now: Instant) -> Option<usize> {
    match candidates {
        [] => None,
        [only] => only.ready(now).then_some(0),
        _ => {
            let (one, other) = two_below(candidates.len(), random);
            if candidates[one].ready(now) && candidates[other].ready(now) {
                Some(cheaper(candidates, one, other, now))
            } else {
                pick_among_ready(candidates, scramble(random), now)
            }
        }
    }
}

/// The way for when the first draw met an unready candidate: looks at all of them.
#[cold]
fn pick_among_ready<C: Candidate>(candidates: &[C], random: u64, now: Instant) -> Option<usize> {
    let ready = || (0..candidates.len()).filter(|index| candidates[*index].ready(now));
    match ready().count() {
        0 => None,
        1 => ready().next(),
        count => {
            let (one, other) = two_below(count, random);
            Some(cheaper(
                candidates,
                ready().nth(one)?,
                ready().nth(other)?,
                now,
            ))
        }
    }
}

/// Of two that cost the same the first: which of a pair is first is as random as the pair.
fn cheaper<C: Candidate>(candidates: &[C], one: usize, other: usize, now: Instant) -> usize {
    if candidates[other].cost(now) < candidates[one].cost(now) {
        other
    } else {
        one
    }
}

/// Two different numbers below `count`, which is at least 2.
fn two_below(count: usize, random: u64) -> (usize, usize) {
    let one = below(count, random >> 32);
    let other = below(count - 1, random & u64::from(u32::MAX));
    (one, if other >= one { other + 1 } else { other })
}

/// Scale 32 random bits to `0..count`; multiplying is cheaper than a remainder and as fair.
const fn below(count: usize, bits: u64) -> usize {
    ((bits as u128 * count as u128) >> 32) as usize
}

/// Another number from the same one, so that the second draw does not depend on the first
/// (the finaliser of `SplitMix64`).
const fn scramble(random: u64) -> u64 {
    let mut bits = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

macro_rules! delegate {
    ($($pointer:ty),*) => {$(
        impl<C: Candidate + ?Sized> Candidate for $pointer {
            fn ready(&self, now: Instant) -> bool {
                (**self).ready(now)
            }

            fn cost(&self, now: Instant) -> f64 {
                (**self).cost(now)
            }
        }
    )*};
}

delegate!(&C, Rc<C>, Arc<C>);

#[cfg(test)]
mod tests {
    use std::{
        collections::BinaryHeap,
        {cmp::Reverse, time::Duration},
    };

    use proptest::prelude::*;

    use super::*;
    use crate::Load;

    struct Fixed {
        ready: bool,
        cost: f64,
    }

    impl Candidate for Fixed {
        fn ready(&self, _now: Instant) -> bool {
            self.ready
        }

        fn cost(&self, _now: Instant) -> f64 {
            self.cost
        }
    }

    /// A reproducible stream of random numbers.
    fn randoms(seed: u64) -> impl Iterator<Item = u64> {
        (0..).scan(seed, |state, _: u64| {
            *state = scramble(*state);
            Some(*state)
        })
    }

    fn shares(candidates: &[Fixed], draws: usize) -> Vec<usize> {
        let now = Instant::now();
        let mut shares = vec![0; candidates.len()];
        for random in randoms(7).take(draws) {
            shares[pick(candidates, random, now).expect("one is ready")] += 1;
        }
        shares
    }

    #[test]
    fn nothing_ready_is_nothing_picked() {
        let now = Instant::now();

        assert_eq!(pick::<Fixed>(&[], 1, now), None);
        assert_eq!(
            pick(
                &[Fixed {
                    ready: false,
                    cost: 1.0
                }],
                1,
                now
            ),
            None
        );
        let unready = [false; 5].map(|ready| Fixed { ready, cost: 1.0 });
        assert_eq!(pick(&unready, 1, now), None);
    }

    #[test]
    fn equals_get_equal_shares() {
        let candidates = [true; 10].map(|ready| Fixed { ready, cost: 1.0 });

        for share in shares(&candidates, 100_000) {
            assert!((9_500..10_500).contains(&share), "{share}");
        }
    }

    #[test]
    fn the_share_of_unready_candidates_is_spread_evenly() {
        let candidates = [true, false, false, false, false, true, true, true]
            .map(|ready| Fixed { ready, cost: 1.0 });

        for (share, candidate) in shares(&candidates, 100_000).into_iter().zip(&candidates) {
            if candidate.ready {
                assert!((24_000..26_000).contains(&share), "{share}");
            } else {
                assert_eq!(share, 0);
            }
        }
    }

    #[test]
    fn the_dearest_is_never_picked_and_the_cheapest_most_often() {
        let candidates = [3.0, 1.0, 2.0].map(|cost| Fixed { ready: true, cost });

        let shares = shares(&candidates, 30_000);

        assert_eq!(shares[0], 0);
        assert!(shares[1] > shares[2]);
    }

    struct Replica {
        load: Load,
        latency: Duration,
        served: usize,
    }

    impl Candidate for Replica {
        fn ready(&self, _now: Instant) -> bool {
            true
        }

        fn cost(&self, now: Instant) -> f64 {
            self.load.cost(now)
        }
    }

    #[test]
    fn a_slow_replica_gets_few_requests() {
        let start = Instant::now();
        let mut replicas: Vec<_> = (0..11)
            .map(|index| Replica {
                load: Load::new(Duration::from_millis(30), Duration::from_secs(10), start),
                latency: Duration::from_millis(if index == 0 { 1_000 } else { 2 }),
                served: 0,
            })
            .collect();
        let requests = 15_000;

        // 500 requests a second for 30 seconds.
        let mut open = BinaryHeap::new();
        for (number, random) in (0_u32..requests).zip(randoms(11)) {
            let now = start + Duration::from_millis(2) * number;
            while let Some(&Reverse((end, index))) = open.peek() {
                if end > now {
                    break;
                }
                let replica: &Replica = &replicas[index];
                replica.load.observe(replica.latency, end);
                replica.load.finish();
                open.pop();
            }
            let index = pick(&replicas, random, now).expect("all are ready");
            replicas[index].load.start();
            replicas[index].served += 1;
            open.push(Reverse((now + replicas[index].latency, index)));
        }

        assert!(
            replicas[0].served < 100,
            "{} of {requests}",
            replicas[0].served
        );
        for fast in &replicas[1..] {
            assert!((1_200..1_800).contains(&fast.served), "{}", fast.served);
        }
    }

    proptest! {
        #[test]
        fn only_a_ready_one_is_picked_and_one_whenever_there_is_one(
            candidates in prop::collection::vec(
                (any::<bool>(), 0.0..10.0_f64)
                    .prop_map(|(ready, cost)| Fixed { ready, cost }),
                0..40,
            ),
            random in any::<u64>(),
        ) {
            let picked = pick(&candidates, random, Instant::now());

            prop_assert_eq!(picked.is_some(), candidates.iter().any(|one| one.ready));
            if let Some(index) = picked {
                prop_assert!(candidates[index].ready);
            }
        }
    }

    impl std::fmt::Debug for Fixed {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "({}, {})", self.ready, self.cost)
        }
    }
}
