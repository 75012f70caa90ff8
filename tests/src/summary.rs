//! Reads `--summary`, and checks what every summary must hold.

use base64::Engine as _;
use hdrhistogram::Histogram;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// One `loaddensity.run/1` object.
#[derive(Clone, Debug)]
pub struct Summary(pub Value);

impl Summary {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display()))?;
        if value["schema"] == "loaddensity.run/1" {
            Ok(Self(value))
        } else {
            Err(format!("schema is {}", value["schema"]))
        }
    }

    /// A whole number by JSON pointer.
    #[track_caller]
    pub fn count(&self, pointer: &str) -> u64 {
        let value = self.0.pointer(pointer).unwrap_or(&Value::Null);
        value.as_u64().unwrap_or_else(|| panic!("no count at {pointer}: {value} in {:#}", self.0["conservation"]))
    }

    /// A number by JSON pointer.
    #[track_caller]
    pub fn number(&self, pointer: &str) -> f64 {
        let value = self.0.pointer(pointer).unwrap_or(&Value::Null);
        value.as_f64().unwrap_or_else(|| panic!("no number at {pointer}: {value}"))
    }

    /// The elements of a list by JSON pointer.
    #[track_caller]
    pub fn list(&self, pointer: &str) -> &[Value] {
        self.0.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("no list at {pointer}"))
    }

    /// The promise for every run: what the target saw lies between what is known and what may have been.
    #[track_caller]
    pub fn check_bounds(&self, seen: u64) {
        self.check_conservation();
        let known = self.ended();
        let most = known + self.count("/conservation/in_flight") + self.count("/conservation/lost");
        assert!((known..=most).contains(&seen), "{seen} arrived: {}", self.0["conservation"]);
    }

    /// Checks both ledgers and what follows from them; every run, whatever befell it, must pass.
    #[track_caller]
    pub fn check_conservation(&self) {
        let c = |key: &str| self.count(&format!("/conservation/{key}"));
        let all = &self.0["conservation"];
        assert_eq!(c("due"), c("started") + c("dropped"), "iterations: {all}");
        assert_eq!(c("requests_started"), c("succeeded") + c("failed") + c("in_flight") + c("lost"), "requests: {all}");
        assert_eq!(all["ok"], true, "{all}");
        assert_eq!(self.count("/totals/requests"), c("succeeded") + c("failed"), "totals: {}", self.0["totals"]);
        assert_eq!(self.count("/totals/successes"), c("succeeded"));
        assert_eq!(self.count("/latency_overall/count"), c("succeeded") + c("failed"));
        let names: u64 = self.names().iter().map(|(_, v)| v["count"].as_u64().unwrap_or(0)).sum();
        assert_eq!(names, c("succeeded") + c("failed"), "names don't add up");
    }

    /// Names with their numbers.
    pub fn names(&self) -> Vec<(String, &Value)> {
        let map = self.0["per_name"].as_object().expect("per_name is an object");
        map.iter().map(|(k, v)| (k.clone(), v)).collect()
    }

    /// Requests whose end is known, of the main phase.
    pub fn ended(&self) -> u64 {
        self.count("/conservation/succeeded") + self.count("/conservation/failed")
    }

    /// The histogram of a name, µs.
    pub fn histogram(&self, name: &str) -> Histogram<u64> {
        decode_hdr(self.0["per_name"][name]["hdr"].as_str().unwrap_or_else(|| panic!("no hdr for {name}")))
    }

    /// A timeline column, by second.
    pub fn timeline(&self, column: &str) -> Vec<f64> {
        let rows = self.list("/timeline");
        let last = rows.iter().filter_map(|r| r["second"].as_u64()).max().unwrap_or(0) as usize;
        let mut all = vec![0.0; last + 1];
        for row in rows {
            if let (Some(second), Some(value)) = (row["second"].as_u64(), row[column].as_f64()) {
                all[second as usize] += value;
            }
        }
        all
    }
}

/// Decodes base64 of a V2+deflate histogram.
pub fn decode_hdr(text: &str) -> Histogram<u64> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).expect("hdr is base64");
    hdrhistogram::serialization::Deserializer::new().deserialize(&mut bytes.as_slice()).expect("hdr is a histogram")
}

/// Samples above `millis`.
pub fn count_above(histogram: &Histogram<u64>, millis: u64) -> u64 {
    histogram.iter_recorded().filter(|v| v.value_iterated_to() > millis * 1000).map(|v| v.count_at_value()).sum()
}
