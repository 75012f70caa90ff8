//! Who makes which part of a plan: lanes by cores, within what each worker can open. Pure.

use super::handover::{Part, targets};
use ld_shared::lanes::{LANES, LaneSet, deal};
use ld_shared::load::Load;
use ld_shared::plan::{Connections, Plan, ScenarioPlan};
use ld_shared::throttle::{ThrottleShare, split};
use ld_shared::time::RunTime;

/// What a worker brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strength {
    /// Load cores.
    pub cores: u32,
    /// Open files that load may use.
    pub capacity: u64,
}

/// One worker's part of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its lanes.
    pub lanes: LaneSet,
    /// Its share of the cap on open iterations, one entry a scenario.
    pub max_in_flight: Vec<u64>,
    /// Its share of every limit on the rate of requests.
    pub throttles: Vec<ThrottleShare>,
    /// What that cap would be, if the worker could open more files.
    pub wanted_in_flight: u64,
}

/// Why a plan cannot be dealt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// More connections than all workers can open.
    #[error("the plan needs {needed} connections at once, the workers can open {sum}")]
    Capacity {
        /// Connections at once.
        needed: u64,
        /// Sum over workers.
        capacity: u64,
        /// That sum spelled out.
        sum: String,
    },
    /// Fewer shared connections than cores.
    #[error("scenario {scenario} shares {shared} connections over {cores} cores: at least shared:{cores} is needed")]
    Shared {
        /// The scenario.
        scenario: String,
        /// Its connections.
        shared: u64,
        /// Load cores of all workers.
        cores: u64,
    },
}

/// Deals a plan over workers: lanes by cores or, if that is more than one of them can open, by
/// what each can open. Caps of open scenarios are lowered to what is left.
pub fn assign(plan: &Plan, workers: &[Strength]) -> Result<Vec<Share>, AssignError> {
    let cores: u64 = workers.iter().map(|w| u64::from(w.cores)).sum();
    for scenario in &plan.scenarios {
        if let Connections::Shared(shared) = scenario.connections
            && shared < cores
        {
            let scenario = scenario.name.to_string();
            return Err(AssignError::Shared { scenario, shared, cores });
        }
    }
    let fits = |lanes: &[LaneSet]| lanes.iter().zip(workers).all(|(l, w)| fixed_need(plan, l) <= w.capacity);
    let mut lanes = deal(&workers.iter().map(|w| w.cores).collect::<Vec<_>>());
    if !fits(&lanes) {
        let cores: Vec<u32> = workers.iter().map(|w| w.cores).collect();
        let (all, spared) = (fixed_need(plan, &LaneSet::full()), uneven(plan));
        let limits: Vec<usize> = workers.iter().map(|w| lanes_for(w.capacity.saturating_sub(spared), all)).collect();
        let weights = targets(LANES, &cores, &limits);
        lanes = deal(&weights.into_iter().map(|lanes| lanes as u32).collect::<Vec<_>>());
    }
    if !fits(&lanes) {
        let most = workers.iter().map(|w| w.capacity).max().unwrap_or(1).max(1);
        // thousandths keep the weights small whatever the limits are
        let weight = |w: &Strength| (u128::from(w.capacity) * 1_000 / u128::from(most)) as u32;
        lanes = deal(&workers.iter().map(weight).collect::<Vec<_>>());
    }
    if !fits(&lanes) {
        let capacity = workers.iter().map(|w| w.capacity).sum();
        let each = workers.iter().map(|w| w.capacity.to_string()).collect::<Vec<_>>();
        let sum = if each.len() > 1 { format!("{} = {capacity}", each.join(" + ")) } else { each.concat() };
        return Err(AssignError::Capacity { needed: fixed_need(plan, &LaneSet::full()), capacity, sum });
    }
    let mut before = 0;
    let share = |(lanes, worker): (LaneSet, &Strength)| {
        let until = before + lanes.len() as u64;
        let share = caps(plan, before, until, worker.capacity - fixed_need(plan, &lanes));
        before = until;
        Share { lanes, max_in_flight: share.0, throttles: Vec::new(), wanted_in_flight: share.1 }
    };
    let mut shares: Vec<Share> = lanes.into_iter().zip(workers).map(share).collect();
    throttles(plan, &mut shares);
    Ok(shares)
}

/// How many lanes need so many connections, if `all` of them are needed for all lanes.
pub(super) fn lanes_for(connections: u64, all: u64) -> usize {
    let lanes = u128::from(connections) * LANES as u128 / u128::from(all.max(1));
    if all == 0 { LANES } else { lanes.min(LANES as u128) as usize }
}

/// Users on these lanes, at most.
pub(super) fn users(plan: &Plan, lanes: &LaneSet) -> u64 {
    let users = |scenario: &ScenarioPlan| match &scenario.load {
        Load::Closed(load) => own(lanes, scenario, load.peak(plan.end())),
        Load::Open(_) => 0,
    };
    plan.scenarios.iter().map(users).sum()
}

/// How many connections more than their part lanes may have: numbers are not spread over lanes to the last one.
pub(super) fn uneven(plan: &Plan) -> u64 {
    plan.scenarios.iter().filter(|scenario| fixed(plan, scenario) > 0).count() as u64
}

/// Deals every limit on the rate of requests by the users that fall under it.
fn throttles(plan: &Plan, shares: &mut [Share]) {
    let limits = plan.limits();
    for (index, limit) in limits.iter().enumerate() {
        let covered: Vec<&ScenarioPlan> = plan
            .scenarios
            .iter()
            .enumerate()
            .filter(|(i, scenario)| scenario.all_tasks().any(|t| plan.limits_on(&limits, *i, t).contains(&index)))
            .map(|(_, scenario)| scenario)
            .collect();
        let weight = |share: &Share| -> u64 {
            let users = covered.iter().map(|scenario| match &scenario.load {
                Load::Closed(load) => own(&share.lanes, scenario, load.peak(plan.end())) * LANES as u64,
                // arrivals are even over lanes
                Load::Open(load) => load.max_in_flight.saturating_mul(share.lanes.len() as u64),
            });
            users.fold(0, u64::saturating_add)
        };
        let weights: Vec<u64> = shares.iter().map(weight).collect();
        for (share, part) in shares.iter_mut().zip(split(limit, &weights)) {
            share.throttles.push(part);
        }
    }
}

/// Connections at once that users on these lanes hold whatever the target does.
pub(super) fn fixed_need(plan: &Plan, lanes: &LaneSet) -> u64 {
    plan.scenarios.iter().map(|scenario| own(lanes, scenario, fixed(plan, scenario))).sum()
}

/// Files that the owner of a part may have open at once.
pub(super) fn files(plan: &Plan, part: &Part) -> u64 {
    fixed_need(plan, &part.lanes) + own_caps(plan, &part.caps)
}

/// Open iterations that have a connection of their own, at most.
pub(super) fn own_caps(plan: &Plan, caps: &[u64]) -> u64 {
    plan.scenarios.iter().zip(caps).filter(|(scenario, _)| !is_pooled(scenario)).map(|(_, cap)| *cap).sum()
}

/// Lowers caps to so many connections in all, each by the same share.
pub(super) fn lower_caps(plan: &Plan, caps: &mut [u64], most: u64) {
    let open = own_caps(plan, caps);
    if open > most {
        for (scenario, cap) in plan.scenarios.iter().zip(caps) {
            if !is_pooled(scenario) {
                *cap = (u128::from(*cap) * u128::from(most) / u128::from(open)) as u64;
            }
        }
    }
}

fn is_pooled(scenario: &ScenarioPlan) -> bool {
    matches!(scenario.connections, Connections::Shared(_))
}

fn fixed(plan: &Plan, scenario: &ScenarioPlan) -> u64 {
    match (&scenario.load, scenario.connections) {
        (_, Connections::Shared(n)) => n,
        (Load::Closed(load), _) => load.peak(plan.end()),
        (Load::Open(_), _) => 0,
    }
}

/// How many of the scenario's first `n` numbers fall on these lanes.
fn own(lanes: &LaneSet, scenario: &ScenarioPlan, n: u64) -> u64 {
    lanes.count_between(scenario.first_number, scenario.first_number + n)
}

/// Caps of a worker whose lanes are the `before`-th to the `until`-th, and what they were before
/// they were lowered to `budget` connections.
fn caps(plan: &Plan, before: u64, until: u64, budget: u64) -> (Vec<u64>, u64) {
    let part = |cap: u64, lanes: u64| (u128::from(cap) * u128::from(lanes) / LANES as u128) as u64;
    let cap = |scenario: &ScenarioPlan| match &scenario.load {
        Load::Closed(_) => 0,
        Load::Open(load) => part(load.max_in_flight, until) - part(load.max_in_flight, before),
    };
    let mut caps: Vec<u64> = plan.scenarios.iter().map(cap).collect();
    let wanted = caps.iter().sum();
    lower_caps(plan, &mut caps, budget);
    (caps, wanted)
}

/// How many arrivals of a scenario on these lanes are due in `[from, to)`; 0 for closed ones.
pub fn own_due(plan: &Plan, scenario: &ScenarioPlan, lanes: &LaneSet, from: RunTime, to: RunTime) -> u64 {
    use ld_shared::load::{ArrivalCursor, Arrivals};
    let Load::Open(load) = &scenario.load else { return 0 };
    let to = to.min(plan.end());
    if from >= to {
        return 0;
    }
    match load.arrivals {
        Arrivals::Constant => {
            let most = plan.most_arrivals(scenario).unwrap_or(u64::MAX);
            let number = |t| scenario.first_number.saturating_add(load.first_at(t).min(most));
            lanes.count_between(number(from), number(to))
        }
        Arrivals::Poisson => {
            let lanes: Vec<u16> = lanes.iter().collect();
            let load = std::sync::Arc::new(load.clone());
            let seed = scenario.arrival_seed(plan);
            let cursor = ArrivalCursor::new(load, seed, scenario.first_number, lanes.into(), from, to);
            let mut cursor = cursor.limited(plan.most_arrivals(scenario));
            std::iter::from_fn(|| cursor.take()).count() as u64
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ld_shared::load::{Arrivals, Closed, Open, Profile};
    use ld_shared::plan::{HttpVersion, Mode, StatusCheck, ThrottlePlan, TlsPlan};
    use ld_shared::record::RecordPolicy;
    use proptest::prelude::*;

    pub(crate) fn plan(loads: Vec<Load>) -> Plan {
        let scenario = |(index, load)| ScenarioPlan {
            name: format!("s{index}").into(),
            user: "fast_http_user".into(),
            load,
            first_number: 17 * index as u64,
            mode: Mode::Sequence,
            tasks: Vec::new(),
            on_start: Vec::new(),
            on_stop: Vec::new(),
            wait_time: None,
            host: None,
            connections: Connections::PerUser,
            connect_timeout: 60.0,
            request_timeout: 60.0,
            tls: TlsPlan::default(),
            http_version: HttpVersion::Auto,
            options: serde_json::Map::new(),
            status_check: StatusCheck::Always,
        };
        Plan {
            seed: 7,
            scenarios: loads.into_iter().enumerate().map(scenario).collect(),
            variables: serde_json::Map::new(),
            env: std::collections::BTreeMap::new(),
            sources: Vec::new(),
            test_time: Some(RunTime::from_secs(10.0)),
            warmup: RunTime(0),
            graceful_stop: RunTime::from_secs(5.0),
            iterations: None,
            records: RecordPolicy::default(),
            throttles: Vec::new(),
            stage: None,
            setup: Vec::new(),
            teardown: Vec::new(),
            collect: false,
            details: Vec::new(),
            on_worker_loss: ld_shared::plan::WorkerLoss::default(),
            on_master_loss: ld_shared::plan::MasterLoss::default(),
            allow_targets: Vec::new(),
            secrets: None,
        }
    }

    pub(crate) fn closed(users: f64) -> Load {
        Load::Closed(Closed { users: Profile::constant(users) })
    }

    pub(crate) fn open(rate: f64, arrivals: Arrivals, max_in_flight: u64) -> Load {
        Load::Open(Open { rate: Profile::constant(rate), arrivals, max_in_flight })
    }

    proptest! {
        #[test]
        fn shares_partition_the_plan(
            strengths in prop::collection::vec((1u32..64, 1_000u64..5_000), 1..12),
            cap in 0u64..900,
        ) {
            let workers: Vec<Strength> =
                strengths.iter().map(|(cores, capacity)| Strength { cores: *cores, capacity: *capacity }).collect();
            let shares = assign(&plan(vec![open(100.0, Arrivals::Constant, cap), closed(50.0)]), &workers).unwrap();
            let mut union = LaneSet::empty();
            for share in &shares {
                prop_assert!(union.is_disjoint(&share.lanes));
                union.extend(&share.lanes);
            }
            prop_assert_eq!(union, LaneSet::full());
            prop_assert_eq!(shares.iter().map(|s| s.max_in_flight[0]).sum::<u64>(), cap);
        }

        #[test]
        fn due_arrivals_of_shares_add_up(workers in 1usize..5, poisson: bool, from in 0u32..9, length in 1u32..9) {
            let arrivals = if poisson { Arrivals::Poisson } else { Arrivals::Constant };
            let plan = plan(vec![open(300.0, arrivals, 1)]);
            let (from, to) = (RunTime::from_secs(f64::from(from)), RunTime::from_secs(f64::from(from + length)));
            let count = |lanes: &LaneSet| own_due(&plan, &plan.scenarios[0], lanes, from, to);
            let parts: u64 = deal(&vec![1; workers]).iter().map(count).sum();
            prop_assert_eq!(parts, count(&LaneSet::full()));
        }
    }

    #[test]
    fn limits_go_where_their_users_are() {
        let workers = [Strength { cores: 1, capacity: 1_000 }; 3];
        let mut plan = plan(vec![closed(2.0)]);
        plan.scenarios[0].tasks = vec![task()];
        plan.throttles =
            vec![ThrottlePlan { key: "k".into(), rate: 10.0, burst: 10, covers: ld_shared::plan::Covers::Test }];
        let parts = |plan: &Plan| -> Vec<(u32, u64)> {
            assign(plan, &workers).unwrap().iter().map(|s| (s.throttles[0].parts, s.throttles[0].burst)).collect()
        };
        assert_eq!(parts(&plan), [(500_000, 5), (500_000, 5), (0, 0)]);
        plan.scenarios[0].load = open(5.0, Arrivals::Constant, 50);
        assert_eq!(parts(&plan).iter().map(|(parts, _)| parts).sum::<u32>(), 1_000_000);
        assert!(
            parts(&plan).iter().all(|(parts, burst)| (333_000..334_000).contains(parts) && (3..=4).contains(burst))
        );
    }

    pub(crate) fn task() -> ld_shared::plan::TaskPlan {
        let task = serde_json::json!({
            "name": null, "user": null, "weight": 1, "run_if": null, "skip_if": null, "assertions": [], "extract": [],
            "think_time": null, "status_check": null, "throttle": null, "retry": null, "fields": {},
        });
        serde_json::from_value(task).unwrap()
    }

    #[test]
    fn a_plan_beyond_all_limits_is_refused_with_the_sum() {
        let workers = [Strength { cores: 1, capacity: 100 }, Strength { cores: 1, capacity: 300 }];
        // 350 users: 175 each is too much for the first, 1 to 3 fits
        assert!(assign(&plan(vec![closed(350.0)]), &workers).is_ok());
        let error = assign(&plan(vec![closed(500.0)]), &workers).unwrap_err();
        assert_eq!(error.to_string(), "the plan needs 500 connections at once, the workers can open 100 + 300 = 400");
        let mut shared = plan(vec![closed(5.0)]);
        shared.scenarios[0].connections = Connections::Shared(1);
        assert!(assign(&shared, &workers).unwrap_err().to_string().contains("at least shared:2"));
    }

    #[test]
    fn caps_are_lowered_to_the_file_budget() {
        let workers = [Strength { cores: 1, capacity: 100 }];
        let shares = assign(&plan(vec![open(50.0, Arrivals::Constant, 500), closed(40.0)]), &workers).unwrap();
        assert_eq!((shares[0].max_in_flight[0], shares[0].wanted_in_flight), (60, 500));
    }
}
