//! One route as porcupine sees it: a register that is written under conditions, and read.

use porcupine_rs::{Model, Operation as Event};

use super::{Asked, Condition, Operation, Told, Value};

/// A register that holds nothing at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Register;

/// What happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// It was written; only if it held what is here, if anything is.
    Wrote(Value, Option<Value>),
    /// The same, if it happened at all.
    MayHaveWritten(Value, Option<Value>),
    /// It held this.
    Held(Value),
    /// It did not hold this.
    HeldNot(Value),
}

impl Model for Register {
    type State = Value;
    type Op = Step;
    type Metadata = ();

    fn init() -> Value {
        None
    }

    fn step(state: &Value, step: &Step) -> (bool, Value) {
        match step {
            Step::Wrote(value, only_if) => (only_if.is_none_or(|held| held == *state), *value),
            Step::MayHaveWritten(value, only_if) => {
                (true, if only_if.is_none_or(|held| held == *state) { *value } else { *state })
            }
            Step::Held(value) => (value == state, *state),
            Step::HeldNot(value) => (value != state, *state),
        }
    }
}

/// What this operation says of this route.
fn step(operation: &Operation, route: &str) -> Option<Step> {
    let condition = match &operation.asked {
        Asked::Write { only_if: Condition::Is(value), .. } => Some(*value),
        _ => None,
    };
    match (operation.writes(route), &operation.told) {
        (Some(value), Told::Made(_)) => Some(Step::Wrote(value, condition)),
        (Some(value), Told::Unknown(_)) => Some(Step::MayHaveWritten(value, condition)),
        (Some(_), Told::Unmet) => condition.map(Step::HeldNot),
        (Some(_), Told::Absent) => Some(Step::Held(None)),
        (None, Told::Saw(values, _)) => match &operation.asked {
            Asked::Read(read) if read != route => None,
            _ => Some(Step::Held(values.get(route).copied().flatten())),
        },
        _ => None,
    }
}

/// What happened to this route, as far as it was told by `until_us`: a read that had not ended then says nothing, and a
/// write may have happened.
pub(super) fn events(operations: &[Operation], route: &str, until_us: u64) -> Vec<Event<Register>> {
    let event = |operation: &Operation| {
        let (mut step, mut returned_us) = (step(operation, route)?, operation.returned_us);
        if returned_us > until_us {
            step = match step {
                Step::Wrote(value, condition) if operation.called_us <= until_us => {
                    Step::MayHaveWritten(value, condition)
                }
                Step::MayHaveWritten(..) if operation.called_us <= until_us => step,
                _ => return None,
            };
        }
        if matches!(step, Step::MayHaveWritten(..)) {
            // It may yet happen after everything else.
            returned_us = u64::MAX;
        }
        Some(Event {
            client_id: Some(operation.client),
            call_time: i64::try_from(operation.called_us).unwrap_or(i64::MAX),
            return_time: i64::try_from(returned_us).unwrap_or(i64::MAX),
            op: step,
            metadata: None,
        })
    };
    operations.iter().filter_map(event).collect()
}
