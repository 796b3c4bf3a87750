//! The one task that turns edits into proposals on the leader: checked in order, committed together (docs/adr/0002).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use model::{Change, Config, Outcome, Revision};
use openraft::{
    Instant as _, Raft, async_runtime::WatchReceiver, errors::ClientWriteError, raft::ReadPolicy,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Admission, Command, Edit, Error, Link, Request, Response, blocking,
    consensus::{now_ms, random},
    forward::Forwarded,
    outcomes,
    state_machine::StateMachine,
    types::Types,
};

/// Edits that wait at a time.
const QUEUE_MAX: usize = 1_024;
/// Edits that are proposed together.
const BATCH_MAX: usize = 256;

enum Asked {
    Edit(Edit),
    Request(Box<Request>),
}

struct Job {
    asked: Asked,
    until: Instant,
    /// Set by whoever comes first: the worker that takes it up, or the asker that gives up. So an asker knows whether
    /// its edit may have been proposed.
    taken: Arc<AtomicBool>,
    answer: oneshot::Sender<Result<Response, Forwarded>>,
}

fn take(taken: &AtomicBool) -> bool {
    !taken.swap(true, Ordering::AcqRel)
}

/// A handle to the task.
pub(crate) struct Proposer {
    jobs: mpsc::Sender<Job>,
}

struct Worker {
    raft: Raft<Types, StateMachine>,
    state_machine: StateMachine,
    admission: Arc<dyn Admission>,
    lease: Duration,
}

impl Proposer {
    /// The handle and the task to run. `lease` is how old a majority's last answer may be for a leader to propose.
    pub(crate) fn new(
        raft: Raft<Types, StateMachine>,
        state_machine: StateMachine,
        admission: Arc<dyn Admission>,
        lease: Duration,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()>) {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let worker = Worker { raft, state_machine, admission, lease };
        (Self { jobs }, worker.run(queue, stop))
    }

    /// Checks, proposes and commits an edit, if this node leads.
    pub(crate) async fn change(&self, edit: Edit, timeout: Duration) -> Result<Response, Forwarded> {
        self.ask(Asked::Edit(edit), timeout).await
    }

    /// Proposes and commits a request as it is, if this node leads.
    pub(crate) async fn request(&self, request: Request, timeout: Duration) -> Result<Response, Forwarded> {
        self.ask(Asked::Request(Box::new(request)), timeout).await
    }

    async fn ask(&self, asked: Asked, timeout: Duration) -> Result<Response, Forwarded> {
        let until = Instant::now() + timeout;
        let (answer, answered) = oneshot::channel();
        let taken = Arc::new(AtomicBool::new(false));
        let job = Job { asked, until, taken: taken.clone(), answer };
        let sent = tokio::time::timeout_at(until, self.jobs.send(job)).await;
        match sent {
            Err(_) => return Err(Forwarded::NotReady),
            Ok(Err(_)) => return Err(Error::Fatal("this node is stopping".into()).into()),
            Ok(Ok(())) => {}
        }
        match tokio::time::timeout_at(until, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) if take(&taken) => Err(Forwarded::NotReady),
            Ok(Err(_)) | Err(_) => Err(Forwarded::Lost),
        }
    }
}

impl Worker {
    async fn run(self, mut queue: mpsc::Receiver<Job>, stop: CancellationToken) {
        let mut jobs = Vec::new();
        loop {
            // What conflicted because the leadership moved is tried again before what is new.
            if jobs.is_empty() {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    received = queue.recv_many(&mut jobs, BATCH_MAX) => if received == 0 { return },
                }
                jobs.retain(|job: &Job| take(&job.taken));
            }
            let proposing = self.propose(std::mem::take(&mut jobs));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                again = proposing => jobs = again,
            }
        }
    }

    /// Whether this node leads, has applied all that was committed before it led (Ongaro, "Consensus", 6.4: an entry
    /// of its own term), and heard a majority lately. Before that, a check against its config could be wrong.
    fn is_ready(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leads = metrics.current_leader == Some(metrics.id);
        let applied =
            metrics.last_applied.as_ref().is_some_and(|id| id.leader_id.term == metrics.current_term);
        let alone = metrics.membership_config.voter_ids().all(|id| id == metrics.id);
        let acked = metrics.last_quorum_acked.is_some_and(|at| at.elapsed() <= self.lease);
        leads && applied && (alone || acked)
    }

    /// Proposes these, and gives back those that must be checked again.
    async fn propose(&self, jobs: Vec<Job>) -> Vec<Job> {
        if !self.is_ready() {
            for job in jobs {
                drop(job.answer.send(Err(Forwarded::NotReady)));
            }
            return Vec::new();
        }
        let (state_machine, admission) = (self.state_machine.clone(), self.admission.clone());
        let checking = blocking::run(move || check(jobs, &state_machine, &*admission));
        let Ok(Checked { admitted, refused, revision }) = checking.await else { return Vec::new() };
        let (again, whole) = self.commit(admitted).await;
        if !refused.is_empty() {
            let sure = whole && self.is_at(revision).await;
            for (job, error) in refused {
                let answer = if sure { Forwarded::Failed(error) } else { Forwarded::NotReady };
                drop(job.answer.send(Err(answer)));
            }
        }
        again
    }

    /// Commits these. Gives back those that must be checked again, and whether all were applied as they were checked.
    async fn commit(&self, admitted: Vec<(Job, Request)>) -> (Vec<Job>, bool) {
        if admitted.is_empty() {
            return (Vec::new(), true);
        }
        let until = admitted.iter().map(|(job, _)| job.until).max().unwrap_or_else(Instant::now);
        let (jobs, requests): (Vec<_>, Vec<_>) = admitted.into_iter().unzip();
        let (all, mut jobs) = (jobs.len(), jobs.into_iter());
        let (mut again, mut applied) = (Vec::new(), 0);
        let committing = async {
            let Ok(mut results) = self.raft.client_write_many(requests).await else { return };
            while let Some(result) = results.next().await {
                let Some(job) = jobs.next() else { return };
                let answer = match result {
                    Ok(Ok(written)) => match written.response {
                        Response::Change(Outcome::Conflict(_)) if Instant::now() < job.until => {
                            again.push(job);
                            continue;
                        }
                        response => {
                            applied += 1;
                            Ok(response)
                        }
                    },
                    Ok(Err(ClientWriteError::ForwardToLeader(_))) => Err(Forwarded::NotReady),
                    Ok(Err(_)) | Err(_) => Err(Forwarded::Lost),
                };
                drop(job.answer.send(answer));
            }
        };
        // Whoever waits has its own deadline; those left are told by their dropped channel that the outcome is unknown.
        let _ = tokio::time::timeout_at(until, committing).await;
        (again, applied == all)
    }

    /// Whether everything that was committed before now leaves the config at this revision. If not, what was checked against
    /// it says nothing: this node may be deposed and not know it, or have applied less than others have shown.
    async fn is_at(&self, revision: Revision) -> bool {
        let asking = async {
            let (id, _) = self.raft.get_read_log_id(ReadPolicy::ReadIndex).await.ok()?;
            let mut applied = self.state_machine.applied();
            applied.wait_for(|applied| *applied >= Some(id.index())).await.ok()?;
            Some(self.state_machine.config().borrow().revision)
        };
        let at = tokio::time::timeout(self.lease, asking).await;
        at.is_ok_and(|at| at == Some(revision))
    }
}

/// What came of checking a batch.
struct Checked {
    admitted: Vec<(Job, Request)>,
    /// What is not to be, each checked against the config with those before it applied. They are told once those are
    /// committed: till then nobody knows that it will be so.
    refused: Vec<(Job, Error)>,
    /// The config's once all that are admitted are applied.
    revision: Revision,
}

/// Checks each against the config with those before it applied; answers those whose outcome is known.
fn check(jobs: Vec<Job>, state_machine: &StateMachine, admission: &dyn Admission) -> Checked {
    let (mut config, mut made_by) = state_machine.newest();
    let (mut admitted, mut refused) = (Vec::with_capacity(jobs.len()), Vec::new());
    for job in jobs {
        let (key, fingerprint) = match &job.asked {
            Asked::Request(request) => (&request.idempotency_key, outcomes::fingerprint(&request.command)),
            Asked::Edit(edit) => (&edit.idempotency_key, outcomes::fingerprint_of_ops(&edit.ops)),
        };
        if let Some(known) = key.as_deref().and_then(|key| state_machine.outcome(key, fingerprint)) {
            drop(job.answer.send(known.map_err(Forwarded::Failed)));
            continue;
        }
        let request = match &job.asked {
            Asked::Request(request) => Ok((**request).clone()),
            Asked::Edit(edit) => admit(edit, &mut config, &mut made_by, admission),
        };
        match request {
            Ok(request) => admitted.push((job, request)),
            Err(error) => refused.push((job, error)),
        }
    }
    Checked { admitted, refused, revision: config.revision }
}

fn admit(
    edit: &Edit,
    config: &mut Config,
    made_by: &mut u64,
    admission: &dyn Admission,
) -> Result<Request, Error> {
    let current = config.revision;
    let conflict = |what: String| Err(Error::Conflict { what, current });
    if let Some(base) = edit.base.filter(|base| *base != current) {
        return conflict(format!("the change was made for revision {base}"));
    }
    for expect in &edit.expect {
        let (kind, name) = (expect.kind, &expect.name);
        match (config.get(kind, name).map(|stored| stored.changed), expect.changed) {
            (Some(changed), None) => {
                return conflict(format!(
                    "{kind} {name} is there already, last changed in revision {changed}"
                ));
            }
            (None, Some(_)) => return conflict(format!("there is no {kind} {name}")),
            (Some(have), Some(want)) if have != want => {
                return conflict(format!("{kind} {name} was last changed in revision {have}, not {want}"));
            }
            _ => {}
        }
    }
    let change = Change { base: current, ops: edit.ops.clone() };
    let violations = admission.check(config, &change);
    if !violations.is_empty() {
        return Err(Error::Invalid(violations));
    }
    let link = Link { id: random(), after: *made_by };
    if let Outcome::Applied(_) = config.apply(&change) {
        *made_by = link.id;
    }
    Ok(Request {
        idempotency_key: edit.idempotency_key.clone(),
        author: edit.author.clone(),
        at_ms: now_ms(),
        link,
        command: Command::Change(change),
    })
}
