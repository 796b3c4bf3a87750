//! Whether what is needed grows.

/// What is left out at the beginning: one of so many parts.
const WARM_UP: usize = 4;
/// By how many hundredths of its mean a figure that is flat may rise over the time, along the line that fits it best.
const FLAT_PERCENT: f64 = 10.0;

/// How a figure went, after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// What it was on average.
    pub mean: f64,
    /// What it rose by an hour, along the line that fits best by least squares.
    pub per_hour: f64,
    /// Whether it rose by more than a tenth of the mean.
    pub grows: bool,
}

/// How a figure went that was taken each minute; none: of fewer than three values nothing can be said.
pub fn trend(values: &[u64]) -> Option<Trend> {
    let values: Vec<f64> = values[values.len() / WARM_UP..]
        .iter()
        .map(|value| u32::try_from(*value).map_or(f64::INFINITY, f64::from))
        .collect();
    let count = u32::try_from(values.len()).ok().filter(|count| *count >= 3)?;
    let (count, times) = (f64::from(count), (0..count).map(f64::from));
    let (middle, mean) = ((count - 1.0) / 2.0, values.iter().sum::<f64>() / count);
    let across: f64 = times.clone().zip(&values).map(|(at, value)| (at - middle) * (value - mean)).sum();
    let along: f64 = times.map(|at| (at - middle).powi(2)).sum();
    let per_minute = across / along;
    let grows = per_minute * (count - 1.0) > mean * FLAT_PERCENT / 100.0;
    Some(Trend { mean, per_hour: per_minute * 60.0, grows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rises_after_the_warm_up_grows_and_what_wavers_is_flat() {
        let rising: Vec<u64> = (0..20).map(|minute| 1_000 + minute * 20).collect();
        let found = trend(&rising).unwrap();
        assert!(found.grows && (found.per_hour - 1_200.0).abs() < 1e-6, "{found:?}");
        let wavering: Vec<u64> =
            (0..20).map(|minute| if minute < 5 { minute * 200 } else { 1_000 + minute % 2 }).collect();
        assert!(!trend(&wavering).unwrap().grows);
        assert_eq!(trend(&[1, 2]), None);
    }
}
