//! Names of targets and the places that they stand for, as far as that is known: what a Plan is compiled with.
//!
//! A thread of its own asks DNS ([`lookup`]); workers never do. Whoever compiles an upstream follows its names, and compiles it anew once
//! one of them stands for something else.

mod lookup;
mod resolver;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire},
    },
};

use tokio::sync::{mpsc, watch};

pub(crate) use lookup::{Figures, start};

/// What is asked of DNS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// The addresses of a host.
    Host(Box<str>),
    /// The hosts and ports of a service (RFC 2782), and their addresses.
    Service(Box<str>),
}

impl Question {
    fn name(&self) -> &str {
        match self {
            Self::Host(name) | Self::Service(name) => name,
        }
    }
}

/// One place that a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Its address.
    pub(crate) ip: IpAddr,
    /// What only a service's record says.
    pub(crate) record: Option<Record>,
}

/// What a service's record says of one of its places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    /// The host.
    pub(crate) host: Box<str>,
    /// Its port.
    pub(crate) port: u16,
    /// Lower ones come first.
    pub(crate) priority: u16,
    /// Its share beside others of the same priority.
    pub(crate) weight: u16,
}

/// What is known of a name.
#[derive(Debug, Clone, Default)]
pub(crate) enum Answer {
    /// Nobody has answered yet.
    #[default]
    Awaited,
    /// It was asked for in vain.
    Failed,
    /// These places, of which there is one at least, in order.
    Places(Arc<[Place]>),
}

/// A name that some upstream has among its targets.
#[derive(Debug)]
pub(crate) struct Followed {
    question: Question,
    answer: Mutex<Answer>,
    /// Goes up with each other answer.
    edition: AtomicU64,
}

impl Followed {
    /// What is known now, and which edition of that it is.
    pub(crate) fn answer(&self) -> (Answer, u64) {
        let answer = lock(&self.answer);
        (answer.clone(), self.edition.load(Acquire))
    }

    /// Which edition of the answer is the newest.
    pub(crate) fn edition(&self) -> u64 {
        self.edition.load(Acquire)
    }

    /// Takes a new answer; says whether it is another one. A failure leaves the places that were known.
    fn take(&self, new: Answer) -> bool {
        let mut answer = lock(&self.answer);
        let is_other = match (&*answer, &new) {
            (Answer::Places(old), Answer::Places(new)) => old != new,
            (Answer::Places(_) | Answer::Failed, Answer::Failed) | (_, Answer::Awaited) => false,
            _ => true,
        };
        if is_other {
            *answer = new;
            self.edition.fetch_add(1, AcqRel);
        }
        is_other
    }
}

/// All names that are followed.
#[derive(Debug)]
pub(crate) struct Names {
    known: Mutex<HashMap<Question, Weak<Followed>>>,
    news: mpsc::UnboundedSender<Weak<Followed>>,
    changed: watch::Sender<()>,
}

impl Names {
    /// None yet, and where those come out that are to be looked up.
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Weak<Followed>>) {
        let (news, asked) = mpsc::unbounded_channel();
        (Arc::new(Self { known: Mutex::default(), news, changed: watch::Sender::new(()) }), asked)
    }

    /// Follows a name for as long as somebody holds it.
    pub(crate) fn follow(&self, question: Question) -> Arc<Followed> {
        let mut known = lock(&self.known);
        if let Some(followed) = known.get(&question).and_then(Weak::upgrade) {
            return followed;
        }
        let followed = Arc::new(Followed {
            question: question.clone(),
            answer: Mutex::default(),
            edition: AtomicU64::new(0),
        });
        known.insert(question, Arc::downgrade(&followed));
        // Without anyone who looks names up, this one is never answered.
        let _ = self.news.send(Arc::downgrade(&followed));
        followed
    }

    /// Told when a name stands for something else.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Takes what was found, or a failure to find anything.
    fn answer(&self, followed: &Followed, new: Answer) {
        if followed.take(new) {
            self.changed.send_replace(());
        }
    }

    /// Forgets the names that nobody follows any more.
    fn forget(&self) {
        lock(&self.known).retain(|_, followed| followed.strong_count() > 0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Answers a name as DNS would.
    pub(crate) fn answer(names: &Names, question: Question, places: &[Place]) {
        let followed = names.follow(question);
        names.answer(&followed, Answer::Places(places.into()));
    }

    /// Answers a name with a failure.
    pub(crate) fn fail(names: &Names, question: Question) {
        let followed = names.follow(question);
        names.answer(&followed, Answer::Failed);
    }

    fn place(ip: &str) -> Place {
        Place { ip: ip.parse().unwrap(), record: None }
    }

    #[test]
    fn a_name_is_followed_once_and_forgotten_with_its_last_user() {
        let (names, mut asked) = Names::new();
        let question = Question::Host("a".into());
        let (one, two) = (names.follow(question.clone()), names.follow(question.clone()));
        assert!(Arc::ptr_eq(&one, &two));
        let news = asked.try_recv().unwrap();
        assert!(asked.try_recv().is_err());
        drop((one, two));
        assert!(news.upgrade().is_none());
        let again = names.follow(question.clone());
        names.forget();
        assert!(Arc::ptr_eq(&again, &names.follow(question)), "one that is followed again stays");
        drop(again);
        names.forget();
        assert!(lock(&names.known).is_empty());
    }

    #[test]
    fn only_another_answer_is_a_change_and_a_failure_leaves_what_was_known() {
        let (names, _asked) = Names::new();
        let mut changes = names.changes();
        let followed = names.follow(Question::Host("a".into()));
        let mut changed = |answer: Answer| {
            let before = followed.edition();
            names.answer(&followed, answer);
            let (told, is_new) = (changes.has_changed().unwrap(), followed.edition() != before);
            changes.mark_unchanged();
            assert_eq!(told, is_new);
            told
        };
        assert!(changed(Answer::Failed));
        assert!(!changed(Answer::Failed));
        assert!(changed(Answer::Places([place("10.0.0.1")].into())));
        assert!(!changed(Answer::Places([place("10.0.0.1")].into())));
        assert!(!changed(Answer::Failed));
        assert!(changed(Answer::Places([place("10.0.0.1"), place("10.0.0.2")].into())));
        assert!(matches!(followed.answer(), (Answer::Places(places), 3) if places.len() == 2));
    }
}
