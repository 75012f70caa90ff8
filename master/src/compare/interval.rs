//! Confidence intervals: of a percentile, a count, a share, and of how two of them differ.

use super::noise::Spread;
use ld_shared::latency::Latency;

/// A value and what encloses it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    /// The estimate.
    pub at: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end; infinite where there are too few samples to say.
    pub high: f64,
}

/// How sure one test must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Level {
    /// Quantile of the normal law: deviations beyond it, to either side, have the test's share of
    /// the error.
    pub z: f64,
}

impl Level {
    /// That of each of `tests`, which may err with probability `alpha` together.
    pub(super) fn of(alpha: f64, tests: usize) -> Self {
        Self { z: normal_quantile(1.0 - alpha.clamp(1e-12, 0.5) / (2.0 * tests.max(1) as f64)) }
    }

    /// The same quantile of Student's law: the variance itself was estimated, from `degrees + 1`
    /// values. Expansion of Fisher and Cornish; Abramowitz and Stegun 26.7.5.
    pub(super) fn t(self, degrees: usize) -> f64 {
        let (z, n) = (self.z, degrees.max(1) as f64);
        let z2 = z * z;
        let g1 = z * (z2 + 1.0) / 4.0;
        let g2 = z * ((5.0 * z2 + 16.0) * z2 + 3.0) / 96.0;
        let g3 = z * (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / 384.0;
        z + g1 / n + g2 / (n * n) + g3 / (n * n * n)
    }

    /// Half the width of an interval: chance by the law `floor`, what exceeds it by the estimate.
    fn half_width(self, floor: f64, spread: &Spread) -> f64 {
        let excess = (spread.variance - floor).max(0.0);
        (self.z.powi(2) * floor + self.t(spread.degrees).powi(2) * excess).sqrt()
    }

    /// Half the width of an interval around an estimate of this spread alone.
    pub(super) fn width(self, spread: &Spread) -> f64 {
        self.half_width(0.0, spread)
    }
}

impl Bounds {
    /// The same times a factor.
    pub(super) fn scaled(self, factor: f64) -> Self {
        Self { at: self.at * factor, low: self.low * factor, high: self.high * factor }
    }

    /// With a further, independent error of the logarithm.
    pub(super) fn widened(self, by: f64) -> Self {
        let below = (self.at / self.low).ln().hypot(by);
        let above = (self.high / self.at).ln().hypot(by);
        Self { at: self.at, low: self.at * (-below).exp(), high: self.at * above.exp() }
    }
}

/// Of the percentile `q` (0..1); `None` without samples.
pub(super) fn of_percentile(response: &Latency, q: f64, spread: &Spread, level: Level) -> Option<Bounds> {
    let count = response.count() as f64;
    if count == 0.0 {
        return None;
    }
    let half = level.half_width(q * (1.0 - q) / count, spread) + 0.5 / count;
    let value = |share: f64| response.percentile(share * 100.0).max(1) as f64;
    let low = if q - half > 0.0 { value(q - half) } else { 0.0 };
    let high = if q + half < 1.0 { value(q + half) } else { f64::INFINITY };
    Some(Bounds { at: value(q), low, high })
}

/// Of a count; `None` of nothing. `spread` is relative.
pub(super) fn of_count(count: u64, spread: &Spread, level: Level) -> Option<Bounds> {
    let at = count as f64;
    if count == 0 {
        return None;
    }
    let half = level.half_width(1.0 / at, spread);
    Some(Bounds { at, low: at * (-half).exp(), high: at * half.exp() })
}

/// Of a share, by Wilson. Without samples: anything from 0 to 1.
pub(super) fn of_share(part: u64, whole: u64, spread: &Spread, level: Level) -> Bounds {
    if whole == 0 {
        return Bounds { at: 0.0, low: 0.0, high: 1.0 };
    }
    let p = part as f64 / whole as f64;
    let law = p * (1.0 - p) / whole as f64;
    // samples that fail together say less: so many independent ones say as much
    let inflation =
        if law > 0.0 { (level.half_width(law, spread) / level.half_width(law, &Spread::NONE)).powi(2) } else { 1.0 };
    let n = whole as f64 / inflation.max(1.0);
    let z2 = level.z.powi(2);
    let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = level.z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    Bounds { at: p, low: (middle - half).max(0.0).min(p), high: (middle + half).min(1.0).max(p) }
}

/// `b / a − 1`: both intervals combined on the logarithm.
pub(super) fn ratio(a: Bounds, b: Bounds) -> Bounds {
    let at = (b.at / a.at).ln();
    let below = (b.at / b.low).ln().hypot((a.high / a.at).ln());
    let above = (b.high / b.at).ln().hypot((a.at / a.low).ln());
    Bounds { at: at.exp_m1(), low: (at - below).exp_m1(), high: (at + above).exp_m1() }
}

/// `b − a`.
pub(super) fn difference(a: Bounds, b: Bounds) -> Bounds {
    let at = b.at - a.at;
    Bounds { at, low: at - (b.at - b.low).hypot(a.high - a.at), high: at + (b.high - b.at).hypot(a.at - a.low) }
}

/// Quantile of the normal law, to 1e-9; `p` in 0..1.
///
/// Source: P. J. Acklam's rational approximation.
fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416];
    let horner = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    if p < 0.5 {
        return -normal_quantile(1.0 - p);
    }
    if p <= 0.975_75 {
        let q = p - 0.5;
        let r = q * q;
        return horner(&A, r) * q / (horner(&B, r) * r + 1.0);
    }
    let q = (-2.0 * (1.0 - p).ln()).sqrt();
    -horner(&C, q) / (horner(&D, q) * q + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_tables() {
        let close = |a: f64, b: f64, error: f64| assert!((a - b).abs() < error, "{a} is not {b}");
        for (p, z) in [(0.5, 0.0), (0.8, 0.841_621), (0.975, 1.959_964), (0.999, 3.090_232), (0.999_975, 4.055_627)] {
            close(normal_quantile(p), z, 1e-5);
            close(normal_quantile(1.0 - p), -z, 1e-5);
        }
        let level = Level::of(0.001, 1);
        close(level.z, 3.290_527, 1e-5);
        for (degrees, t) in [(15, 4.072_8), (30, 3.646_0)] {
            close(level.t(degrees), t, 0.02);
        }
    }

    #[test]
    fn intervals_enclose_and_open_where_samples_are_few() {
        let mut response = Latency::default();
        (1..=1_000).for_each(|v| response.record(v * 100));
        let level = Level::of(0.001, 1);
        let p50 = of_percentile(&response, 0.5, &Spread::NONE, level).unwrap();
        assert!(p50.low < 50_000.0 && p50.at >= 50_000.0 && p50.high < 56_000.0, "{p50:?}");
        let p99 = of_percentile(&response, 0.99, &Spread::NONE, level).unwrap();
        assert!(p99.high.is_infinite() && p99.low > 96_000.0, "{p99:?}");
        assert!(of_percentile(&Latency::default(), 0.5, &Spread::NONE, level).is_none());
    }

    #[test]
    fn few_failures_are_no_finding_and_many_are() {
        let level = Level::of(0.001, 5);
        let change = |a: u64, b: u64| {
            let of = |failed| of_share(failed, 10_000, &Spread::NONE, level);
            difference(of(a), of(b))
        };
        assert!(change(0, 8).low < 0.0);
        assert!(change(0, 60).low > 0.0);
        assert!(change(60, 0).high < 0.0);
        assert!(change(500, 520).low < 0.0);
        let bursts = Spread { variance: 1e-3, degrees: 10 };
        let wide = of_share(60, 10_000, &bursts, level);
        assert!(wide.high - wide.low > 0.1, "{wide:?}");
    }
}
