//! A piecewise linear function of run time: users, or iterations per second.

use crate::time::{RunTime, SECOND};
use serde::{Deserialize, Serialize};

/// One linear piece.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Where it starts, nanoseconds of run time.
    pub start: u64,
    /// How long it lasts, nanoseconds; never 0.
    pub length: u64,
    /// Value at its start.
    pub from: f64,
    /// Value at its end.
    pub to: f64,
    /// It ends so long after its start, before its length is over: the line stays the same, so that
    /// whatever is computed of the time before is the same to the last bit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<u64>,
}

impl Segment {
    /// How long it lasts, nanoseconds.
    pub fn lasts(&self) -> u64 {
        self.cut.unwrap_or(self.length)
    }

    /// The value where it ends.
    pub fn last(&self) -> f64 {
        if self.cut.is_some() { self.value(self.end()) } else { self.to }
    }

    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.lasts())
    }

    fn value(&self, t: u64) -> f64 {
        let part = (t - self.start) as f64 / self.length as f64;
        self.from + (self.to - self.from) * part
    }

    /// Area below the line over its first `length` nanoseconds, in value × seconds.
    fn area(&self, length: u64) -> f64 {
        let end = self.value(self.start + length);
        f64::midpoint(self.from, end) * (length as f64 / SECOND as f64)
    }
}

/// Segments one after another from run time 0, then `tail` for ever.
///
/// Values jump where one segment ends at another value than the next begins with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    segments: Vec<Segment>,
    tail: f64,
}

impl Profile {
    /// `value` for ever.
    pub fn constant(value: f64) -> Self {
        Self { segments: Vec::new(), tail: value }
    }

    /// Appends a piece of `seconds` from `from` to `to`; afterwards `to` holds.
    #[must_use]
    pub fn then(mut self, seconds: f64, from: f64, to: f64) -> Self {
        let length = RunTime::from_secs(seconds).0;
        if length > 0 {
            let start = self.length().0;
            self.segments.push(Segment { start, length, from, to, cut: None });
        }
        self.tail = to;
        self
    }

    /// What it is before `at`; from there on its value there holds.
    #[must_use]
    pub fn before(&self, at: RunTime) -> Self {
        let mut segments: Vec<Segment> = self.segments.iter().filter(|s| s.start < at.0).copied().collect();
        if let Some(last) = segments.last_mut().filter(|last| last.end() > at.0) {
            last.cut = Some(at.0 - last.start);
        }
        let (start, tail) = (self.length().0, self.tail);
        if start < at.0 {
            segments.push(Segment { start, length: at.0 - start, from: tail, to: tail, cut: None });
        }
        Self { segments, tail: self.at(at) }
    }

    /// What it is from `at` on, as a profile of its own.
    #[must_use]
    pub fn after(&self, at: RunTime) -> Self {
        let rest = |segment: &Segment| {
            let gone = at.0.saturating_sub(segment.start);
            let from = if gone == 0 { segment.from } else { segment.value(at.0) };
            let cut = segment.cut.map(|cut| cut - gone);
            Segment { start: segment.start.saturating_sub(at.0), length: segment.length - gone, from, cut, ..*segment }
        };
        let segments = self.segments.iter().filter(|segment| segment.end() > at.0).map(rest).collect();
        Self { segments, tail: self.tail }
    }

    /// This one before `at`, the other one from there on.
    #[must_use]
    pub fn followed_by(&self, at: RunTime, other: &Self) -> Self {
        let mut whole = self.before(at);
        // what would come after the end of time never comes
        let later = |s: &Segment| Some(Segment { start: s.start.checked_add(at.0)?, ..*s });
        whole.segments.extend(other.segments.iter().map_while(later));
        whole.tail = other.tail;
        whole
    }

    /// The pieces.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The value after the last piece.
    pub fn tail(&self) -> f64 {
        self.tail
    }

    /// Where the last piece ends.
    pub fn length(&self) -> RunTime {
        RunTime(self.segments.last().map_or(0, Segment::end))
    }

    /// The value at `t` (after a jump at `t`, if there is one).
    pub fn at(&self, t: RunTime) -> f64 {
        let index = self.segments.partition_point(|s| s.end() <= t.0);
        self.segments.get(index).map_or(self.tail, |s| s.value(t.0))
    }

    /// The greatest value before `end`.
    pub fn peak(&self, end: RunTime) -> f64 {
        let mut peak = if self.length() < end { self.tail } else { 0.0 };
        for segment in self.segments.iter().take_while(|s| s.start < end.0) {
            let last = segment.value(segment.end().min(end.0));
            peak = peak.max(segment.from).max(last);
        }
        peak
    }

    /// Integral from 0 to `t`, in value × seconds: Λ(t) of a rate.
    pub fn integral(&self, t: RunTime) -> f64 {
        let mut sum = 0.0;
        for segment in &self.segments {
            if t.0 <= segment.start {
                return sum;
            }
            sum += segment.area(segment.lasts().min(t.0 - segment.start));
        }
        let after = t.0.saturating_sub(self.length().0);
        sum + self.tail * (after as f64 / SECOND as f64)
    }

    /// The last instant up to which the integral is at most `area`: inf { t : Λ(t) > area }.
    /// `None` if the integral never exceeds it.
    pub fn invert(&self, area: f64) -> Option<RunTime> {
        let mut left = area;
        for segment in &self.segments {
            let whole = segment.area(segment.lasts());
            if left < whole {
                let seconds = segment.length as f64 / SECOND as f64;
                let slope = (segment.to - segment.from) / seconds;
                // from·x + slope/2·x² = left, the root in [0, length], in the form that stays
                // exact for small slopes
                let root = (segment.from * segment.from + 2.0 * slope * left).max(0.0).sqrt();
                let x = if segment.from + root > 0.0 { 2.0 * left / (segment.from + root) } else { 0.0 };
                let offset = (x * SECOND as f64).round() as u64;
                return Some(RunTime(segment.start + offset.min(segment.lasts())));
            }
            left -= whole;
        }
        if self.tail <= 0.0 {
            return None;
        }
        let offset = (left / self.tail * SECOND as f64).round() as u64;
        Some(RunTime(self.length().0 + offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_then_a_hold() {
        let p = Profile::default().then(10.0, 0.0, 100.0).then(5.0, 100.0, 100.0);
        assert!((p.at(RunTime::from_secs(5.0)) - 50.0).abs() < 1e-9);
        assert!((p.integral(RunTime::from_secs(10.0)) - 500.0).abs() < 1e-9);
        assert!((p.integral(RunTime::from_secs(20.0)) - 1500.0).abs() < 1e-9);
        assert_eq!(p.invert(500.0), Some(RunTime::from_secs(10.0)));
        assert!((p.peak(RunTime::from_secs(5.0)) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn inverting_skips_flat_pieces() {
        let p = Profile::default().then(1.0, 10.0, 10.0).then(3.0, 0.0, 0.0).then(1.0, 10.0, 10.0);
        // the tenth arrival (area 10) is the first of the last piece, not the last of the first
        assert_eq!(p.invert(10.0), Some(RunTime::from_secs(4.0)));
        assert_eq!(Profile::default().then(1.0, 5.0, 0.0).invert(9.0), None);
    }
}
