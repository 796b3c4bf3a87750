//! Promise 8: joining and leaving again gives what it gave before.

use super::Observed;

/// Something that was asked twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retried {
    /// What was asked.
    pub what: String,
    /// The status of the first answer, and the id in it if it is about one.
    pub first: (u16, Option<u64>),
    /// Those of the second.
    pub second: (u16, Option<u64>),
}

/// What was told twice in two ways.
pub(super) fn check(observed: &Observed) -> Vec<String> {
    let differs = |retried: &&Retried| retried.first != retried.second;
    let told = |retried: &Retried| {
        format!("{}: {:?}, and {:?} when asked again", retried.what, retried.first, retried.second)
    };
    observed.retried.iter().filter(differs).map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::samples::observed, *};

    #[test]
    fn a_second_answer_that_differs_is_found() {
        let mut observed = observed();
        let join = |id| Retried { what: "join".into(), first: (201, Some(4)), second: (201, Some(id)) };
        observed.retried = vec![join(4)];
        assert_eq!(check(&observed), Vec::<String>::new());
        observed.retried = vec![join(5)];
        assert_eq!(check(&observed).len(), 1);
    }
}
