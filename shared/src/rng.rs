//! Random numbers that depend on what they are for, never on who draws them.
//!
//! A stream is keyed by (seed, a, b): (user, iteration) in the closed model, (arrival, 0) in the
//! open one. The same plan with the same seed therefore makes the same requests on any split.
//!
//! Source: `SplitMix64` (Steele, Lea, Flood 2014).

/// A keyed stream of 64-bit random numbers. Cheap to make: no state is shared.
#[derive(Clone, Debug)]
pub struct KeyedRng {
    state: u64,
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl KeyedRng {
    /// The stream of (`seed`, `a`, `b`).
    pub fn new(seed: u64, a: u64, b: u64) -> Self {
        let state = mix(mix(mix(seed.wrapping_add(GOLDEN)) ^ a.wrapping_mul(GOLDEN)) ^ b.rotate_left(32));
        Self { state }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [0, `bound`); 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in [`low`, `high`], both ends included.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.next_f64() * (high - low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of `cluster.proto`: workers in other languages are held to them.
    #[test]
    fn the_contract_s_test_vectors_hold() {
        let first = |seed, a, b| {
            let mut rng = KeyedRng::new(seed, a, b);
            [rng.next_u64(), rng.next_u64()]
        };
        assert_eq!(first(0, 0, 0), [0x2ce8_09ae_01ca_b7d7, 0x7924_ac0f_ed68_cb52]);
        assert_eq!(first(7, 1, 2), [0xa0c4_b4dd_f326_1c56, 0x4ecb_f2d2_b671_21ce]);
        assert_eq!(first(u64::MAX, 3, 0x706f_6973_736f_6e21), [0x1530_9e79_b320_c9b9, 0x8a4e_a1a2_f95f_10f2]);
    }
}
