//! The daemon `gwnode`: one node of a cluster of gateways.

mod admin;
mod certificates;
mod counters;
mod demo;
mod findings;
mod gossip;
mod identity;
mod join;
mod lease;
mod local;
mod member;
mod node;
mod origin;
mod quotas;
mod renew;
mod restore;
mod settings;
mod tokens;

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::Parser;

/// mimalloc: some 7 % less CPU a request than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A node of a Phalanx cluster.
#[derive(Parser)]
#[command(name = "gwnode", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Run a node
    Run {
        /// File with settings, in TOML; flags and environment go over it
        #[arg(long, env = "PHALANX_SETTINGS", value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        given: Box<settings::Given>,
    },
    /// Run three nodes and two origins on this machine, to try things with
    Demo {
        /// Keep everything in this folder; without it, all is gone at the end
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Found a cluster again in an empty data folder, from a backup, or from what a member has after a majority was lost
    Restore {
        /// What `gwctl cluster backup` wrote, or the data folder of a member that does not run
        source: PathBuf,
        /// Say what is in it, and change nothing
        #[arg(long)]
        check: bool,
        /// File with settings, in TOML; flags and environment go over it
        #[arg(long, env = "PHALANX_SETTINGS", value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        given: Box<settings::Given>,
    },
    /// Say whether the node on this machine is ready: exit code 0 or 1
    Health {
        /// The node's data folder
        #[arg(long, env = "PHALANX_DATA", value_name = "DIR", default_value = "phalanx-data")]
        data: PathBuf,
    },
    /// Run an origin that answers who it is and what it was asked
    Origin {
        /// What it calls itself
        #[arg(long, default_value = "origin")]
        name: String,
        /// Where it listens
        #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7091")]
        listen: std::net::SocketAddr,
    },
}

/// The data is damaged or foreign (EX_CONFIG of sysexits.h): no restart will help.
const EXIT_STORAGE: u8 = 78;
/// The settings are wrong.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config, given } => match given.over_file(config).and_then(settings::Given::check) {
            Ok(settings) => {
                start_log(&settings);
                finish(node::run(settings))
            }
            Err(error) => {
                eprintln!("gwnode: {error:#}");
                ExitCode::from(EXIT_USAGE)
            }
        },
        Command::Restore { source, check: true, .. } => finish(restore::run(source, None)),
        Command::Restore { source, config, given, .. } => {
            match given.over_file(config).and_then(settings::Given::check) {
                Ok(settings) => finish(restore::run(source, Some(settings))),
                Err(error) => {
                    eprintln!("gwnode: {error:#}");
                    ExitCode::from(EXIT_USAGE)
                }
            }
        }
        Command::Demo { dir } => finish(demo::run(dir)),
        Command::Health { data } => finish(async move {
            let ready: serde_json::Value = local::ask(&data, http::Method::GET, "/readyz", &()).await?;
            println!("{}", ready["status"].as_str().unwrap_or_default());
            Ok(())
        }),
        Command::Origin { name, listen } => finish(async move {
            let listener = origin::bind(listen).await?;
            tokio::select! {
                () = origin::serve(name, listener) => {}
                () = node::signal() => {}
            }
            Ok(())
        }),
    }
}

/// Runs this to its end on the control plane's threads; the data plane has its own.
fn finish(running: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gwnode: start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(running);
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    let Err(error) = ended else { return ExitCode::SUCCESS };
    eprintln!("gwnode: {error:#}");
    let damaged = matches!(error.downcast_ref(), Some(raft::Error::Storage { .. }))
        || matches!(error.downcast_ref(), Some(identity::Error::Corrupt { .. }));
    if !damaged {
        return ExitCode::FAILURE;
    }
    eprintln!(
        "gwnode: this node's data can't be trusted, so it does not start. To rejoin as a new node:\n  \
         gwctl cluster remove ID      on a healthy node, with this node's id\n  \
         move the data folder away    on this node, and start it again\n  \
         gwctl cluster join HOST:PORT --token TOKEN"
    );
    ExitCode::from(EXIT_STORAGE)
}

fn start_log(settings: &settings::Settings) {
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.log)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if settings.log_json {
        log.json().init();
    } else {
        log.init();
    }
}
