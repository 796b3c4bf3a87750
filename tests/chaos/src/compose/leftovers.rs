//! What is left of a cluster whose process is gone, however it went, and its removal.

use std::{
    collections::BTreeSet,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use phalanx_tests::docker::docker;

/// What every project of ours is called, before the id of its process and a number.
const PREFIX: &str = "phalanx-chaos-";

/// Removes what belongs to the project `$1`, and its folder `$2`, once nobody holds the other end of stdin.
const REMOVE: &str = r#"
cat >/dev/null
of="label=com.docker.compose.project=$1"
docker ps -aq --filter "$of" | xargs -r docker rm -fv
docker network ls -q --filter "$of" | xargs -r docker network rm
docker volume ls -q --filter "$of" | xargs -r docker volume rm
rm -rf "$2"
"#;

/// A name that no project of this or another process has.
pub(super) fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The folder of the project of this name.
pub(super) fn dir(project: &str) -> PathBuf {
    std::env::temp_dir().join(project)
}

fn remove(project: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", REMOVE, "sh", project]).arg(dir(project)).stdout(Stdio::null());
    command
}

/// Removes everything of a project when it is dropped, or when this process ends, be it by SIGKILL.
pub(super) struct Guard {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Guard {
    pub(super) fn new(project: &str) -> Self {
        // Of a group of its own, it does not hear the Ctrl-C that is meant for this process.
        let child = remove(project).stdin(Stdio::piped()).process_group(0).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("run sh: {error}"));
        let stdin = child.stdin.take();
        Self { child, stdin }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let removed = self.child.wait();
        if !removed.as_ref().is_ok_and(|status| status.success()) {
            eprintln!("something of a cluster is left over: {removed:?}");
        }
    }
}

/// Removes the projects whose processes are gone; gives their names.
pub(super) fn sweep() -> BTreeSet<String> {
    let label = "label=com.docker.compose.project";
    let format = r#"{{.Label "com.docker.compose.project"}}"#;
    let lists = [&["ps", "-a"][..], &["network", "ls"], &["volume", "ls"]];
    let listed = lists.map(|list| docker(&[list, &["--filter", label, "--format", format]].concat()));
    let names = listed.iter().flat_map(|list| list.lines()).map(str::to_owned).chain(folders());
    let left: BTreeSet<String> = names.filter(|name| process(name).is_some_and(|pid| !runs(pid))).collect();
    for project in &left {
        // What its own guard is removing at this moment fails here.
        let _: io::Result<_> = remove(project).stdin(Stdio::null()).stderr(Stdio::null()).status();
    }
    left
}

/// The names of our projects that have folders.
fn folders() -> Vec<String> {
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The process whose project has this name, if it is one of ours.
fn process(name: &str) -> Option<u32> {
    let (pid, number) = name.strip_prefix(PREFIX)?.split_once('-')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_tells_its_process() {
        assert_eq!(process(&name()), Some(std::process::id()));
        assert!(runs(std::process::id()));
        for other in ["phalanx-test-1-1", "phalanx-chaos-", "phalanx-chaos-1", "phalanx-chaos-1-x"] {
            assert_eq!(process(other), None, "{other}");
        }
    }
}
