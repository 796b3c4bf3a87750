//! Seeds that must hold: a few with every test run, and as many as there is time for with `raft/simulate`.

use super::{
    disk::Liar,
    fuse::Counts,
    run::{Plant, Ran, simulate},
};

fn must_hold(number: u64) -> Ran {
    let ran = simulate(number, Plant::Nothing);
    assert!(
        ran.violations.is_empty(),
        "seed {number} (raft/simulate --seed {number}):\n{}\n--- what happened\n{}",
        ran.violations.join("\n"),
        ran.trace.join("\n"),
    );
    assert!(ran.acknowledged > 0, "seed {number}: nothing was acknowledged");
    ran
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn some_seeds_hold() {
    (0..4).for_each(|number| drop(must_hold(number)));
}

#[test]
#[cfg_attr(not(tokio_unstable), ignore = "tokio's own order of waking can't be seeded without that flag")]
fn a_seed_gives_the_same_run_twice() {
    let (first, second) = (simulate(3, Plant::Nothing), simulate(3, Plant::Nothing));
    let differs = first.trace.iter().zip(&second.trace).find(|(first, second)| first != second);
    assert_eq!(first.digest, second.digest, "{differs:?}");
}

#[test]
fn planted_faults_are_found() {
    let disks =
        [Liar::Sync, Liar::Step("log sync"), Liar::Step("log folder sync"), Liar::Step("snapshot sync")];
    let plants = disks.map(Plant::Disk).into_iter().chain([Plant::StaleRead, Plant::LostAcknowledgement]);
    for plant in plants {
        let found = (0..40).any(|number| !simulate(number, plant).violations.is_empty());
        assert!(found, "{plant:?} was not found");
    }
}

/// One run, told in full: `PHALANX_SEED` says which.
#[test]
#[ignore = "run by raft/simulate --seed N"]
fn one_seed() {
    // With RUST_LOG, what openraft says too.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    let ran = must_hold(number("PHALANX_SEED").unwrap_or_default());
    println!("{}\n{} acknowledged; crashes {:?}", ran.trace.join("\n"), ran.acknowledged, ran.blown);
}

/// Many runs on every core: `PHALANX_SEEDS` says how many, `PHALANX_FIRST_SEED` from where.
#[test]
#[ignore = "run by raft/simulate for as many seeds as there is time"]
fn many_seeds() {
    let (first, count) =
        (number("PHALANX_FIRST_SEED").unwrap_or_default(), number("PHALANX_SEEDS").unwrap_or(100));
    let next = std::sync::atomic::AtomicU64::new(first);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let blown = std::sync::Mutex::new(Counts::new());
    let acknowledged = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if number >= first + count {
                        return;
                    }
                    let ran = must_hold(number);
                    acknowledged.fetch_add(ran.acknowledged, std::sync::atomic::Ordering::Relaxed);
                    let mut blown = blown.lock().unwrap();
                    for (step, times) in ran.blown {
                        *blown.entry(step).or_default() += times;
                    }
                }
            });
        }
    });
    println!(
        "{count} seeds from {first} on: {} answers, crashes {:?}",
        acknowledged.into_inner(),
        blown.into_inner()
    );
}
