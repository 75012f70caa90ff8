//! What the target makes a request wait for: a latency law, stalls on top of it. Pure.

use ld_shared::rng::KeyedRng;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Distribution of the delay between a request's arrival and its answer.
///
/// Text: `0`, `fixed:5ms`, `uniform:1ms..9ms`, `exp:5ms` (mean), `lognormal:5ms,0.5` (median, σ of
/// the logarithm). The delay of the arrival with id *i* is the same for the same seed.
///
/// Tolerance: answers leave on a timer of 1 ms grain, 0 to 1.1 ms after the delay drawn, more on a
/// busy machine. What was really imposed is measured: [`crate::target::Counts::held`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Law {
    /// At once.
    #[default]
    Zero,
    /// Always the same.
    Fixed(Duration),
    /// Evenly between two bounds.
    Uniform(Duration, Duration),
    /// Exponential with this mean.
    Exponential(Duration),
    /// Log-normal with this median and σ.
    LogNormal(Duration, f64),
}

/// A span in which nothing is answered, relative to the first request.
///
/// Text: `AT,LENGTH`, or `AT,LENGTH,every=PERIOD` to repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Begin, after the first request.
    pub at: Duration,
    /// Length.
    pub length: Duration,
    /// From begin to begin, if it repeats.
    pub every: Option<Duration>,
}

/// Why a text is no law, stall or duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{text}` is not understood, accepted: {accepted}")]
pub struct ParseError {
    what: &'static str,
    text: String,
    accepted: &'static str,
}

fn refuse(what: &'static str, text: &str, accepted: &'static str) -> ParseError {
    ParseError { what, text: text.to_owned(), accepted }
}

/// Reads `5ms`, `1.5s`, `200us`, `2m` or `0`.
pub fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    let fail = || refuse("duration", text, "a number with us, ms, s or m, or 0");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.find(|c: char| c.is_alphabetic()).ok_or_else(fail)?;
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(fail()),
    };
    let number: f64 = number.parse().map_err(|_| fail())?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| fail())
}

const LAWS: &str = "0, fixed:5ms, uniform:1ms..9ms, exp:5ms, lognormal:5ms,0.5";

impl FromStr for Law {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fail = || refuse("latency law", text, LAWS);
        if text == "0" {
            return Ok(Self::Zero);
        }
        let (kind, rest) = text.split_once(':').ok_or_else(fail)?;
        match kind {
            "fixed" => Ok(Self::Fixed(parse_duration(rest)?)),
            "exp" => Ok(Self::Exponential(parse_duration(rest)?)),
            "uniform" => {
                let (low, high) = rest.split_once("..").ok_or_else(fail)?;
                let (low, high) = (parse_duration(low)?, parse_duration(high)?);
                if low <= high { Ok(Self::Uniform(low, high)) } else { Err(fail()) }
            }
            "lognormal" => {
                let (median, sigma) = rest.split_once(',').ok_or_else(fail)?;
                let sigma: f64 = sigma.parse().map_err(|_| fail())?;
                if !(0.0..=5.0).contains(&sigma) {
                    return Err(fail());
                }
                Ok(Self::LogNormal(parse_duration(median)?, sigma))
            }
            _ => Err(fail()),
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("0"),
            Self::Fixed(d) => write!(f, "fixed:{d:?}"),
            Self::Uniform(low, high) => write!(f, "uniform:{low:?}..{high:?}"),
            Self::Exponential(mean) => write!(f, "exp:{mean:?}"),
            Self::LogNormal(median, sigma) => write!(f, "lognormal:{median:?},{sigma}"),
        }
    }
}

impl Law {
    /// The next delay. At most an hour.
    pub fn draw(self, rng: &mut KeyedRng) -> Duration {
        const HOUR: f64 = 3600.0;
        match self {
            Self::Zero => Duration::ZERO,
            Self::Fixed(d) => d,
            Self::Uniform(low, high) => Duration::from_secs_f64(rng.between(low.as_secs_f64(), high.as_secs_f64())),
            Self::Exponential(mean) => {
                Duration::from_secs_f64((-(1.0 - rng.next_f64()).ln() * mean.as_secs_f64()).min(HOUR))
            }
            Self::LogNormal(median, sigma) => {
                // Box and Muller (1958)
                let radius = (-2.0 * (1.0 - rng.next_f64()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * rng.next_f64()).cos();
                Duration::from_secs_f64((median.as_secs_f64() * (sigma * normal).exp()).min(HOUR))
            }
        }
    }
}

impl FromStr for Stall {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fail = || refuse("stall", text, "AT,LENGTH or AT,LENGTH,every=PERIOD, as in 5s,1s");
        let mut parts = text.split(',');
        let at = parse_duration(parts.next().ok_or_else(fail)?)?;
        let length = parse_duration(parts.next().ok_or_else(fail)?)?;
        let every = match parts.next() {
            None => None,
            Some(part) => Some(parse_duration(part.strip_prefix("every=").ok_or_else(fail)?)?),
        };
        if parts.next().is_some() || every.is_some_and(|e| e <= length) {
            return Err(fail());
        }
        Ok(Self { at, length, every })
    }
}

impl Stall {
    /// End of the stall that holds `t`, if one does. Both are times since the first request.
    pub fn end_at(self, t: Duration) -> Option<Duration> {
        let since = t.checked_sub(self.at)?;
        let begin = match self.every {
            None => self.at,
            Some(every) => {
                self.at + Duration::from_nanos((since.as_nanos() / every.as_nanos() * every.as_nanos()) as u64)
            }
        };
        let end = begin + self.length;
        (t < end).then_some(end)
    }
}

/// When a request that arrived at `arrival` and takes `delay` is answered: an answer that would be
/// given during a stall is given at its end.
pub(super) fn release(arrival: Duration, delay: Duration, stalls: &[Stall]) -> Duration {
    let mut at = arrival + delay;
    // stalls may follow one another without a gap; the bound is for those that repeat and leave none
    for _ in 0..1000 {
        let Some(end) = stalls.iter().filter_map(|s| s.end_at(at)).max() else { break };
        at = end;
    }
    // an arrival in a stall is not even looked at before its end
    stalls.iter().filter_map(|s| s.end_at(arrival)).fold(at, Duration::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn texts_become_laws() {
        for (text, law) in [
            ("0", Law::Zero),
            ("fixed:5ms", Law::Fixed(ms(5))),
            ("fixed:200us", Law::Fixed(Duration::from_micros(200))),
            ("uniform:1ms..9ms", Law::Uniform(ms(1), ms(9))),
            ("exp:1.5s", Law::Exponential(ms(1500))),
            ("lognormal:5ms,0.5", Law::LogNormal(ms(5), 0.5)),
        ] {
            assert_eq!(text.parse(), Ok(law));
            assert_eq!(law.to_string().parse(), Ok(law));
        }
        for text in ["", "5ms", "fixed:", "fixed:5", "fixed:-1ms", "uniform:9ms..1ms", "lognormal:5ms", "gauss:1ms"] {
            assert!(text.parse::<Law>().is_err(), "{text}");
        }
    }

    #[test]
    fn texts_become_stalls() {
        assert_eq!("5s,1s".parse(), Ok(Stall { at: ms(5000), length: ms(1000), every: None }));
        assert_eq!("5s,1s,every=10s".parse(), Ok(Stall { at: ms(5000), length: ms(1000), every: Some(ms(10_000)) }));
        for text in ["", "5s", "5s,1s,10s", "5s,1s,every=1s", "5s,1s,every=3s,x"] {
            assert!(text.parse::<Stall>().is_err(), "{text}");
        }
    }

    #[test]
    fn laws_have_the_distributions_they_state() {
        let draws = |law: Law| -> Vec<f64> {
            let mut all: Vec<f64> =
                (0..20_000).map(|i| law.draw(&mut KeyedRng::new(7, i, 0)).as_secs_f64() * 1e3).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        // (law, quantile, exact value in ms)
        for (law, p, exact) in [
            ("fixed:5ms", 0.5, 5.0),
            ("uniform:1ms..9ms", 0.25, 3.0),
            ("uniform:1ms..9ms", 0.99, 8.92),
            ("exp:5ms", 0.5, 5.0 * std::f64::consts::LN_2),
            ("exp:5ms", 0.99, 5.0 * 100_f64.ln()),
            ("lognormal:5ms,0.5", 0.5, 5.0),
            ("lognormal:5ms,0.5", 0.977_25, 5.0 * std::f64::consts::E),
        ] {
            let all = draws(law.parse().unwrap());
            let got = all[(p * all.len() as f64) as usize];
            assert!((got - exact).abs() < 0.06 * exact, "{law} at {p}: {got} ms for {exact} ms");
        }
    }

    #[test]
    fn a_stall_holds_what_arrives_and_what_would_be_answered_in_it() {
        let once = [Stall { at: ms(1000), length: ms(500), every: None }];
        for (arrival, delay, answered) in
            [(900, 50, 950), (900, 200, 1500), (1000, 0, 1500), (1400, 300, 1700), (1499, 0, 1500), (1500, 0, 1500)]
        {
            assert_eq!(release(ms(arrival), ms(delay), &once), ms(answered), "{arrival} + {delay}");
        }
        let again = [Stall { at: ms(1000), length: ms(500), every: Some(ms(2000)) }];
        assert_eq!(release(ms(3100), ms(0), &again), ms(3500));
        assert_eq!(release(ms(2900), ms(0), &again), ms(2900));
        let chained = [once[0], Stall { at: ms(1500), length: ms(100), every: None }];
        assert_eq!(release(ms(1200), ms(0), &chained), ms(1600));
    }
}
