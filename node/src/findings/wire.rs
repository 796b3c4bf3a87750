//! Findings as the bytes of a datagram.
//!
//! A byte, 1, says what they are. Then follow findings of 9 bytes each: the target's digest, big-endian, and 1 if it is well or 0 if it is
//! not. None at all says that the sender is there, and checks.

use gateway::Finding;

/// Findings that a datagram has at the most: with what sealing and UDP add it fits into 1,280 bytes, which every IPv6 path carries
/// whole (RFC 8200, section 5).
pub(super) const FINDINGS_MAX: usize = 120;
const FINDINGS: u8 = 1;
const FINDING_BYTES: usize = 9;

/// These findings as bytes; what is more than [`FINDINGS_MAX`] is left out.
pub(super) fn encode(findings: &[Finding]) -> Vec<u8> {
    let findings = &findings[..findings.len().min(FINDINGS_MAX)];
    let mut bytes = Vec::with_capacity(1 + findings.len() * FINDING_BYTES);
    bytes.push(FINDINGS);
    for finding in findings {
        bytes.extend(finding.target.to_be_bytes());
        bytes.push(finding.is_well.into());
    }
    bytes
}

/// The findings that these bytes are; none if they are no findings, and then nothing of them is to be heeded.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Finding>> {
    let (&FINDINGS, rest) = bytes.split_first()? else { return None };
    let (findings, left) = rest.as_chunks::<FINDING_BYTES>();
    if !left.is_empty() || findings.len() > FINDINGS_MAX {
        return None;
    }
    findings.iter().map(finding).collect()
}

fn finding(bytes: &[u8; FINDING_BYTES]) -> Option<Finding> {
    let [t0, t1, t2, t3, t4, t5, t6, t7, is_well] = *bytes;
    let target = u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
    match is_well {
        0 | 1 => Some(Finding { target, is_well: is_well == 1 }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn findings_are_read_as_they_were_written(all in prop::collection::vec(any::<(u64, bool)>(), 0..=FINDINGS_MAX)) {
            let findings: Vec<Finding> =
                all.into_iter().map(|(target, is_well)| Finding { target, is_well }).collect();
            prop_assert_eq!(decode(&encode(&findings)), Some(findings));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..1_300)) {
            if let Some(findings) = decode(&bytes) {
                prop_assert_eq!(encode(&findings), bytes);
            }
        }
    }

    #[test]
    fn what_is_cut_too_long_or_of_another_kind_is_refused() {
        let one = encode(&[Finding { target: 7, is_well: true }]);
        assert_eq!(decode(&one[..9]), None);
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[2]), None);
        assert_eq!(decode(&[&one[..9], &[2]].concat()), None);
        assert_eq!(decode(&[&[1][..], &[0; 121 * 9]].concat()), None);
        assert_eq!(encode(&[Finding { target: 7, is_well: true }; 200]).len(), 1 + FINDINGS_MAX * 9);
    }
}
