//! Medians, and how sure one can be of them.

/// The median; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Resamples of the bootstrap.
const RESAMPLES: usize = 10_000;

/// The lower bound of the median by the percentile bootstrap (Efron 1979): below it lie `share` of the medians of
/// samples that are drawn from `values`, with replacement. The draws are the same in every run.
pub fn lower_bound(values: &[f64], share: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sample: Vec<f64> = values.iter().map(|_| values[draw.below(values.len())]).collect();
            median(&sample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let rank = (share * RESAMPLES as f64) as usize;
    medians[rank.min(RESAMPLES - 1)]
}

/// xorshift64* (Vigna 2016), which is random enough to draw samples with.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        // The high half of a product is below the factor.
        ((u128::from(word) * limit as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_bound_lies_between_the_least_and_the_median() {
        let values: Vec<f64> = (0..21).map(|i| 1.0 + f64::from(i) / 100.0).collect();
        let bound = lower_bound(&values, 0.025);
        assert!((1.0..=median(&values)).contains(&bound), "{bound}");
        assert!(bound > 1.02 && bound < 1.09, "{bound}");
    }

    #[test]
    fn equal_values_leave_no_doubt() {
        assert_eq!(lower_bound(&[2.0; 9], 0.025), 2.0);
    }
}
