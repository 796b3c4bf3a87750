//! Every fault, so many times, and the table of what came of it.

mod table;

use std::{
    any::Any,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

pub use self::table::{NotRun, table};
use crate::{
    fault::Fault,
    figures::Figures,
    nodes::Site,
    stage::{Ended, Stage},
};

/// The runs of one fault.
pub struct Row {
    /// What was done.
    pub fault: &'static Fault,
    /// What came of each run.
    pub runs: Vec<Run>,
}

/// What came of one run.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// What was measured.
    pub figures: Figures,
    /// What is wrong with it; nothing: it held.
    pub wrong: Vec<String>,
}

/// Does this to a cluster of so many nodes, its own, once, and says what came of it; what did not hold is kept in a folder of `keep`.
pub fn run(fault: &'static Fault, site: Site, nodes: usize, seed: u64, keep: &Path) -> Run {
    let mut stage = match catch_unwind(|| Stage::set(site, nodes, fault.needs_disks(), seed)) {
        Ok(Ok(stage)) => stage,
        Ok(Err(error)) => return Run { wrong: vec![format!("no cluster: {error}")], ..Run::default() },
        Err(panic) => return Run { wrong: vec![format!("no cluster: {}", said(&*panic))], ..Run::default() },
    };
    let struck = catch_unwind(AssertUnwindSafe(|| {
        (fault.strike)(&mut stage);
        stage.goes_on();
    }));
    let mut wrong: Vec<String> = struck.err().map(|panic| said(&*panic)).into_iter().collect();
    let ended = match catch_unwind(AssertUnwindSafe(|| stage.end())) {
        Ok(ended) => ended,
        Err(panic) => {
            wrong.push(said(&*panic));
            return Run { wrong, ..Run::default() };
        }
    };
    wrong.extend(ended.violations.iter().map(ToString::to_string));
    let value = |figure| {
        ended.figures.0.get(&figure).map_or("not measured".to_owned(), |value| format!("{value:.2}"))
    };
    let missed = ended.figures.missed(fault.bars);
    wrong.extend(missed.map(|(figure, bar)| format!("{}: {} of {bar}", figure.name(), value(*figure))));
    if !wrong.is_empty() {
        let name: String =
            fault.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let folder = keep.join(format!("{name}-{seed}"));
        match keep_run(&ended, &wrong, &folder) {
            Ok(()) => println!("kept in {}", folder.display()),
            Err(error) => eprintln!("it is not kept: {}: {error}", folder.display()),
        }
    }
    Run { figures: ended.figures, wrong }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn keep_run(ended: &Ended, wrong: &[String], folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (node, log) in &ended.logs {
        fs::write(folder.join(format!("{node}.log")), log)?;
    }
    fs::write(folder.join("wrong"), wrong.join("\n"))?;
    fs::write(folder.join("failures"), format!("{:#?}", ended.observed.failures))?;
    fs::write(folder.join("spells"), format!("{:#?}", ended.observed.spells))?;
    let samples: Vec<String> =
        ended.observed.seen.samples.iter().map(|sample| format!("{sample:?}")).collect();
    fs::write(folder.join("samples"), samples.join("\n"))?;
    ended.observed.history.keep(&folder.join("history"))
}
