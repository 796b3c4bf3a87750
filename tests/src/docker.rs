//! docker and docker-compose, as commands.

use std::process::{Command, Output};

/// How a command of `gwctl` in a container ended.
#[derive(Debug)]
pub struct Told {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it complained about.
    pub err: String,
}

/// Runs it to its end.
fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"))
}

/// Runs what must succeed; gives what it printed.
pub fn must(command: &mut Command) -> String {
    tried(command).unwrap_or_else(|why| panic!("{why}"))
}

/// Runs it; gives what it printed, or why it failed.
pub fn tried(command: &mut Command) -> Result<String, String> {
    let output = run(command);
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{command:?}: {}\n{told}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A command of docker that must succeed; gives what it printed.
pub fn docker(words: &[&str]) -> String {
    must(Command::new("docker").args(words))
}

/// Asks the node in this container by the `gwctl` there.
pub fn gwctl(container: &str, words: &[&str]) -> Told {
    let mut command = Command::new("docker");
    command.args(["exec", container, "/gwctl", "--socket", "/data/admin.sock"]).args(words);
    let Output { status, stdout, stderr } = run(&mut command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Told { code: status.code().unwrap_or(-1), out: text(&stdout), err: text(&stderr) }
}

/// `$PHALANX_COMPOSE`, which is `docker compose` or `docker-compose`, on this project of
/// `docker-compose.cluster.yml` with these files over it.
pub fn compose(project: &str, over: &[&str]) -> Command {
    let compose = std::env::var("PHALANX_COMPOSE").unwrap_or_else(|_| "docker-compose".to_owned());
    let (program, plugin) = compose.split_once(' ').unwrap_or((&compose, ""));
    let mut command = Command::new(program);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.args(plugin.split_whitespace());
    for file in [&["docker-compose.cluster.yml"], over].concat() {
        command.args(["-f", file]);
    }
    command.args(["-p", project]);
    command
}
