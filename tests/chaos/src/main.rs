//! `chaos`: has things go wrong on a cluster, and says what it makes of its promises.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use chaos::{
    compose::{Compose, Options, Ways},
    fault, havoc,
    matrix::{self, NotRun, Row},
    nodes::Site,
    power::{self, Sort},
    soak::{self, Needs, Trend},
};
use clap::{Args, Parser, Subcommand};
use phalanx_tests::{
    dice::Dice,
    history::{self, History, Pace, Recording},
};

/// Faults on a cluster, and the checkers of what it promises meanwhile.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Records histories of concurrent clients on clusters while nodes are killed, paused and cut off from each
    /// other at random, and judges each
    Histories {
        /// How many histories
        #[arg(long, default_value_t = 10)]
        count: u64,
        /// Operations in each
        #[arg(long, default_value_t = 5_000)]
        operations: usize,
        /// The first one's seed; each one after has the next
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        cluster: Wanted,
        /// Where those that could not be are kept
        #[arg(long, default_value = "chaos-kept")]
        keep: PathBuf,
    },
    /// Has every node lose its power at once, again and again, with what its disk had not made durable, and judges what
    /// clients were told meanwhile
    Power {
        /// How many clusters
        #[arg(long, default_value_t = 5)]
        count: u64,
        /// How often each loses its power
        #[arg(long, default_value_t = 6)]
        losses: u64,
        /// Some of what was not synced is there, torn and out of its order
        #[arg(long)]
        disorder: bool,
        /// The first one's seed; each one after has the next
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        cluster: Wanted,
        /// Where the histories that could not be are kept
        #[arg(long, default_value = "chaos-kept")]
        keep: PathBuf,
    },
    /// Does everything that can be done to a cluster, each to clusters of its own, and prints a table of what came of it
    Matrix {
        /// Only faults in whose names this is; several may be given
        #[arg(long, value_name = "NAME")]
        fault: Vec<String>,
        /// How often each is done
        #[arg(long, default_value_t = 20)]
        runs: u64,
        #[command(flatten)]
        cluster: Wanted,
        /// The first run's seed; each one after has the next
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where logs, history and figures of runs that did not hold are kept
        #[arg(long, default_value = "chaos-kept")]
        keep: PathBuf,
    },
    /// Has a cluster run for a long time under traffic, changes and faults, and says whether what its nodes need grows
    Soak {
        /// For how long
        #[arg(long, default_value_t = 60)]
        minutes: usize,
        #[command(flatten)]
        cluster: Wanted,
        /// What happens comes from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Judges a history that was kept
    Judge {
        /// The file
        history: PathBuf,
    },
    /// Starts a cluster in containers, and keeps it until Ctrl-C
    Up {
        /// How many nodes
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=64))]
        nodes: u8,
        /// The image of the nodes [default: $PHALANX_IMAGE, or phalanx:dev]
        #[arg(long, value_name = "TAG")]
        image: Option<String>,
        /// Without relays between the nodes
        #[arg(long)]
        direct: bool,
    },
    /// Removes what clusters in containers left behind whose process is gone
    Sweep,
}

/// The clusters that things are done to.
#[derive(Args, Clone, Copy)]
struct Wanted {
    /// Nodes in the cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=64))]
    nodes: u8,
    /// In containers of $PHALANX_IMAGE, or phalanx:dev, instead of processes
    #[arg(long)]
    containers: bool,
    /// Without relays between the containers: cuts are made by iptables
    #[arg(long, requires = "containers")]
    direct: bool,
}

impl Wanted {
    fn site(self) -> Site {
        match (self.containers, self.direct) {
            (false, _) => Site::Processes,
            (true, false) => Site::Containers(Ways::Relayed),
            (true, true) => Site::Containers(Ways::Direct),
        }
    }
}

fn main() -> ExitCode {
    let held = match Cli::parse().command {
        Command::Histories { count, operations, seed, cluster, keep } => {
            each(seed, count, |seed| record(cluster, operations, seed, &keep))
        }
        Command::Power { count, losses, disorder, seed, cluster, keep } => {
            let sort = if disorder { Sort::Disorderly } else { Sort::Plain };
            each(seed, count, |seed| power(cluster, losses, seed, sort, &keep))
        }
        Command::Matrix { fault, runs, cluster, seed, keep } => matrix(&fault, cluster, runs, seed, &keep),
        Command::Soak { minutes, cluster, seed } => soak(cluster, minutes, seed),
        Command::Judge { history } => match History::read(&history) {
            Ok(history) => told(&history),
            Err(error) => {
                eprintln!("{error}");
                false
            }
        },
        Command::Up { nodes, image, direct } => up(nodes, image, direct),
        Command::Sweep => {
            Compose::sweep().iter().for_each(|project| println!("{project}: removed"));
            true
        }
    };
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs this for so many seeds; whether it held for all.
fn each(first: u64, count: u64, run: impl Fn(u64) -> bool) -> bool {
    let mut failed = Vec::new();
    for seed in first..first + count {
        // A condition that does not come about is a failure of this seed, and no reason to end.
        if !catch_unwind(AssertUnwindSafe(|| run(seed))).unwrap_or(false) {
            failed.push(seed);
        }
    }
    println!("{} of {count} held; seeds that did not: {failed:?}", count - failed.len() as u64);
    failed.is_empty()
}

/// Does each fault in whose name one of these is, or every fault, so many times; whether everything held.
fn matrix(names: &[String], cluster: Wanted, runs: u64, first: u64, keep: &Path) -> bool {
    let (mut rows, mut not_run): (Vec<Row>, Vec<NotRun>) = (Vec::new(), Vec::new());
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| name.contains(wanted.as_str()));
    for fault in fault::all().filter(|fault| wanted(fault.name)) {
        match fault.missing(cluster.site()) {
            Some(why) => not_run.push((fault, why)),
            None => rows.push(Row { fault, runs: Vec::new() }),
        }
    }
    // One round after the other, so that all have been done if it is ended early.
    for seed in first..first + runs {
        for row in &mut rows {
            let began = Instant::now();
            let run = matrix::run(row.fault, cluster.site(), cluster.nodes.into(), seed, keep);
            println!(
                "{}, seed {seed}: {:.0} s: {:?}",
                row.fault.name,
                began.elapsed().as_secs_f64(),
                run.figures.0
            );
            run.wrong.iter().take(5).for_each(|wrong| println!("  {wrong}"));
            row.runs.push(run);
        }
        println!("\n{}", matrix::table(&rows, &not_run));
    }
    rows.iter().flat_map(|row| &row.runs).all(|run| run.wrong.is_empty())
}

/// Has a cluster run for so long, and prints a table of what it needed; whether nothing grew or failed.
fn soak(cluster: Wanted, minutes: usize, seed: u64) -> bool {
    let soaked = soak::soak(cluster.site(), cluster.nodes.into(), minutes, seed);
    let mut held = soaked.failed == 0 && soaked.violations.is_empty();
    println!("\n| node | | floor of the first third | of the last | |\n|---|---|---|---|---|");
    for (number, needs) in (1..).zip(&soaked.needs) {
        for (name, need) in Needs::ALL {
            let values: Vec<u64> = needs.iter().map(need).collect();
            let Some(Trend { first, last, grows }) = soak::trend(&values) else { continue };
            let verdict = if grows { "**growing**" } else { "flat" };
            println!("| node{number} | {name} | {first} | {last} | {verdict} |");
            held &= !grows;
        }
    }
    println!("\n{minutes} minutes: {} requests failed; {} operations", soaked.failed, soaked.operations);
    soaked.violations.iter().for_each(|violation| println!("{violation}"));
    held
}

/// Has a cluster lose its power, and judges what clients were told.
fn power(cluster: Wanted, losses: u64, seed: u64, sort: Sort, keep: &Path) -> bool {
    let lost = match power::lose_all(cluster.site(), cluster.nodes.into(), losses, seed, sort) {
        Ok(lost) => lost,
        Err(error) => {
            eprintln!("{error}");
            return false;
        }
    };
    let longest = |times: &[Duration]| times.iter().max().copied().unwrap_or_default().as_secs_f64();
    println!(
        "seed {seed}: {losses} losses; at the longest {:.2} s until every node proxied, {:.2} s until writes",
        longest(&lost.proxying),
        longest(&lost.writing)
    );
    kept(&lost.history, seed, keep)
}

/// Prints what is wrong with a history; whether nothing is.
fn told(history: &History) -> bool {
    let violations = history::judge(history);
    violations.iter().for_each(|violation| println!("{violation}"));
    violations.is_empty()
}

/// Records one history and judges it.
fn record(cluster: Wanted, operations: usize, seed: u64, keep: &Path) -> bool {
    let began = Instant::now();
    let mut nodes = cluster.site().form(cluster.nodes.into(), None, seed);
    let recording = Recording::start(&nodes.members(), "r", seed, &Pace::BUSY);
    havoc::wreak(&mut *nodes, &recording, &mut Dice::new(seed, u64::MAX), operations);
    recording.goes_on(20);
    let history = recording.stop();
    println!("seed {seed}: recorded in {:.0} s", began.elapsed().as_secs_f64());
    kept(&history, seed, keep)
}

/// Judges a history, and keeps it if it could not be.
fn kept(history: &History, seed: u64, keep: &Path) -> bool {
    let open = history.operations.iter().filter(|operation| operation.is_open()).count();
    let held = told(history);
    let verdict = if held { "held" } else { "could not be" };
    println!("seed {seed}: {} operations, {open} of unknown outcome: {verdict}", history.operations.len());
    if !held {
        let path = keep.join(format!("{seed}.history"));
        match history.keep(&path) {
            Ok(()) => println!("kept as {}", path.display()),
            Err(error) => eprintln!("it is not kept: {}: {error}", path.display()),
        }
    }
    held
}

/// Starts a cluster in containers, and keeps it for as long as this process runs.
fn up(nodes: u8, image: Option<String>, direct: bool) -> ! {
    let mut options = Options::default();
    options.image = image.unwrap_or(options.image);
    if direct {
        options.ways = Ways::Direct;
    }
    let compose = Compose::up(nodes.into(), options);
    compose.route_to_origins();
    for (place, member) in compose.members().iter().enumerate() {
        let socket = compose.data(place).join("admin.sock");
        println!("{}  http://{}  gwctl --socket {}", member.name, member.proxy, socket.display());
    }
    println!("Ctrl-C ends it, and all of it is removed.");
    loop {
        std::thread::park();
    }
}
