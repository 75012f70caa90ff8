//! Names as labels and tags: they come from documents and targets, and may hold anything.

use ld_shared::snapshot::{PhaseSnapshot, Series};
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The longest label; longer ones are cut and told apart by a digest.
pub(super) const LONGEST: usize = 1_024;

/// Both labels of a series, as an exporter writes them.
pub(super) type Labels = [String; 2];

/// Series by their labels: request type and name, each as `written`. Those of several scenarios, and those that
/// read the same once they are written, are one: no end takes two points of one name at one time.
pub(super) fn by_label(phase: &PhaseSnapshot, written: impl Fn(&str) -> String) -> BTreeMap<Labels, Cow<'_, Series>> {
    let mut all: BTreeMap<Labels, Cow<'_, Series>> = BTreeMap::new();
    for (key, series) in &phase.series {
        let labels = [&key.request_type, &key.name].map(|text| written(text));
        match all.entry(labels) {
            std::collections::btree_map::Entry::Vacant(place) => drop(place.insert(Cow::Borrowed(series))),
            std::collections::btree_map::Entry::Occupied(place) => place.into_mut().to_mut().merge(series),
        }
    }
    all
}

/// At most `most` bytes of a text. What is cut keeps a digest, so that two names stay two.
pub(super) fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let digest = Sha256::digest(text);
    let tail = format!("…{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]);
    let end = text.floor_char_boundary(most.saturating_sub(tail.len()));
    Cow::Owned(format!("{}{tail}", text.get(..end).unwrap_or_default()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ld_shared::sample::SeriesKey;
    use proptest::prelude::*;

    /// Texts that break formats.
    pub(crate) fn hostile() -> impl Strategy<Value = String> {
        prop_oneof![
            ".{0,20}",
            "[\\\\\", =\n\r\t#|:@é\u{0}\u{7f}\u{2028}{}]{0,12}",
            "[a-z\\\\]{0,6}\\\\",
            "[aé]{900,2000}",
        ]
    }

    proptest! {
        #[test]
        fn a_cut_text_fits_and_stays_itself(a in hostile(), b in hostile(), most in 16usize..100) {
            prop_assert!(cut(&a, most).len() <= most);
            if a != b {
                prop_assert_ne!(cut(&a, most), cut(&b, most));
            }
        }
    }

    #[test]
    fn what_reads_the_same_is_one() {
        let mut phase = PhaseSnapshot::default();
        for (name, scenario) in [("a b", "one"), ("a_b", "one"), ("a b", "two"), ("c", "one")] {
            let key = SeriesKey { name: name.into(), request_type: "GET".into(), scenario: scenario.into() };
            phase.series_mut(&key).succeeded.record(5);
        }
        let all = by_label(&phase, |text| text.replace(' ', "_"));
        let counts: Vec<_> = all.iter().map(|([_, name], series)| (name.as_str(), series.succeeded.count())).collect();
        assert_eq!(counts, [("a_b", 3), ("c", 1)]);
    }
}
