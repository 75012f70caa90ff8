//! `bench`: one URL, as a document that is then run the normal way.

use super::session::{self, Source};
use super::{Global, Outputs, ReportFiles};
use crate::console::Console;
use clap::Args;
use ld_worker::cli::duration;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What is loaded, and how.
#[derive(Args, Debug)]
#[group(id = "load")]
pub(crate) struct Bench {
    /// URL to load
    url: String,
    /// Users, each sending its next request when the last was answered
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    users: u64,
    /// How long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Requests per second whatever the target does, instead of users
    #[arg(long, value_name = "R", conflicts_with = "users")]
    rate: Option<f64>,
    /// HTTP method
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// Body, sent as it is
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// Header; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// Version of HTTP; 2 with http:// is spoken without asking. Without it https:// targets choose
    #[arg(long, value_name = "VERSION", value_parser = ["1.1", "2", "3"])]
    http: Option<String>,
}

/// Runs it.
pub(super) fn run(global: &Global, console: Console, bench: &Bench, files: ReportFiles) -> u8 {
    let source = Source {
        name: "bench".into(),
        label: Some(format!("bench {}", bench.url)),
        content: bench.document().to_string().into_bytes(),
        shown: false,
    };
    session::run(global, console, vec![source], &Outputs { files, ..Outputs::default() })
}

impl Bench {
    fn document(&self) -> Value {
        let mut task = json!({"method": self.method.to_lowercase(), "request_url": self.url});
        if let Some(body) = &self.body {
            task["data"] = body.as_str().into();
        }
        if !self.headers.is_empty() {
            let headers: Map<String, Value> =
                self.headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            task["headers"] = headers.into();
        }
        let mut test = json!({
            "user_detail_dict": {"user": "fast_http_user"},
            "test_time": self.duration.as_secs_f64(),
            "tasks": [task],
        });
        if let Some(rate) = self.rate {
            test["arrival_rate"] = rate.into();
        } else {
            test["user_count"] = self.users.into();
            test["spawn_rate"] = self.users.into();
        }
        if let Some(version) = &self.http {
            test["http_version"] = version.as_str().into();
        }
        if let Some(host) = origin(&self.url) {
            test["host"] = host.into();
        }
        json!([["LD_start_test", test]])
    }
}

/// `http://host:port` of a URL.
fn origin(url: &str) -> Option<&str> {
    let authority = url.find("://")? + 3;
    let end = url.get(authority..)?.find(['/', '?', '#']).map_or(url.len(), |end| authority + end);
    url.get(..end)
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("`NAME: VALUE` is accepted")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        bench: Bench,
    }

    fn document(line: &[&str]) -> Value {
        Cli::try_parse_from([&["bench"], line].concat()).unwrap().bench.document()[0][1].clone()
    }

    #[test]
    fn a_line_is_a_document() {
        let test = document(&["http://h:1/x?y", "--users", "5", "--duration", "500ms"]);
        assert_eq!(test["user_count"], 5);
        assert_eq!(test["test_time"], 0.5);
        assert_eq!(test["host"], "http://h:1");
        assert_eq!(test["tasks"], json!([{"method": "get", "request_url": "http://h:1/x?y"}]));
        let test = document(&["http://h", "--rate", "9.5", "--method", "POST", "--body", "{}", "-H", "a: b:c"]);
        assert_eq!(test["arrival_rate"], 9.5);
        assert!(test.get("user_count").is_none());
        let test = document(&["https://h", "--http", "3"]);
        assert_eq!(test["http_version"], "3");
        let test = document(&["http://h", "--rate", "9.5", "--method", "POST", "--body", "{}", "-H", "a: b:c"]);
        assert!(test.get("http_version").is_none());
        let task = json!({"method": "post", "request_url": "http://h", "data": "{}", "headers": {"a": "b:c"}});
        assert_eq!(test["tasks"], json!([task]));
    }
}
