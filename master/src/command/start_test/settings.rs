//! Settings of connections, TLS, statuses and records.

use crate::record_file::ENDINGS;
use crate::script::reader::Reader;
use crate::script::{Fault, units};
use ld_shared::plan::{Connections, HttpVersion, StatusCheck};
use ld_shared::record::{Bodies, RecordPolicy};
use ld_shared::targets::TargetList;

/// Files of certificates, as named in the document.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsFiles {
    /// PEM of trusted authorities.
    pub(super) ca: Option<String>,
    /// PEM of the client certificate chain; may hold its key as well.
    pub(super) cert: Option<String>,
    /// PEM of its key.
    pub(super) key: Option<String>,
}

/// Connect and request time-out, seconds.
pub(super) fn timeouts(reader: &mut Reader<'_>) -> (f64, f64) {
    const DEFAULT: f64 = 60.0;
    let Some(mut timeouts) = reader.object("timeouts") else { return (DEFAULT, DEFAULT) };
    timeouts.only(&["connect", "request"], &[]);
    let connect = timeouts.duration("connect", false, "").unwrap_or(DEFAULT);
    (connect, timeouts.duration("request", false, "").unwrap_or(DEFAULT))
}

/// Whether certificates are checked, and which files there are.
pub(super) fn tls(reader: &mut Reader<'_>) -> (bool, TlsFiles) {
    let Some(mut tls) = reader.object("tls") else { return (true, TlsFiles::default()) };
    tls.only(&["ca", "cert", "key", "verify"], &[]);
    let mut file = |key| tls.text(key).map(str::to_owned);
    let files = TlsFiles { ca: file("ca"), cert: file("cert"), key: file("key") };
    if files.key.is_some() && files.cert.is_none() {
        let fault = Fault::new(tls.at("key"), "`key` without `cert`");
        tls.fault(fault.help("add `cert`, the PEM file of the client certificate"));
    }
    (tls.boolean("verify").unwrap_or(true), files)
}

/// Which targets may be loaded; `None`: any.
pub(super) fn allow_targets(reader: &mut Reader<'_>) -> Option<TargetList> {
    let rules = reader.list("allow_targets")?;
    let mut list = TargetList::default();
    for (i, rule) in rules.iter().enumerate() {
        let parsed = rule.as_str().ok_or_else(|| format!("a text was expected, found {rule}")).and_then(str::parse);
        match parsed {
            Ok(rule) => list.0.push(rule),
            Err(why) => {
                let pointer = format!("{}/{i}", reader.at("allow_targets"));
                reader.fault(Fault::new(pointer, format!("{rule} is no target: {why}")));
            }
        }
    }
    Some(list)
}

/// The version of HTTP.
pub(super) fn http_version(reader: &mut Reader<'_>) -> HttpVersion {
    match reader.choice("http_version", &["auto", "1.1", "2", "3"]) {
        Some("1.1") => HttpVersion::H1,
        Some("2") => HttpVersion::H2,
        Some("3") => HttpVersion::H3,
        _ => HttpVersion::Auto,
    }
}

/// Whether an answer's status counts.
pub(super) fn status_check(reader: &mut Reader<'_>) -> Option<StatusCheck> {
    Some(match reader.choice("status_check", &["always", "assertions"])? {
        "assertions" => StatusCheck::Assertions,
        _ => StatusCheck::Always,
    })
}

/// `per_user`, `shared:N`, `per_iteration` or `per_request`.
pub(super) fn connections(reader: &mut Reader<'_>) -> Connections {
    let Some(text) = reader.text("connections") else { return Connections::PerUser };
    let shared = text.strip_prefix("shared:").and_then(|n| n.trim().parse().ok()).filter(|n| *n > 0);
    match (text, shared) {
        ("per_user", _) => Connections::PerUser,
        ("per_iteration", _) => Connections::PerIteration,
        ("per_request", _) => Connections::PerRequest,
        (_, Some(n)) => Connections::Shared(n),
        _ => {
            reader.refuse(
                "connections",
                "per_user, shared:N, per_iteration or per_request",
                "N counts over the cluster, as in \"shared:100\"",
            );
            Connections::PerUser
        }
    }
}

/// Most bytes of a body that a record keeps: a message between worker and master holds several.
const MOST_BODY: u64 = 4 * 1024 * 1024;

/// Which requests are listed one by one.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    pub(super) policy: RecordPolicy,
    /// The file to which all of them go.
    pub(super) file: Option<String>,
}

/// Which requests are kept, and the file to which all of them go.
pub(super) fn records(reader: &mut Reader<'_>) -> Records {
    let mut policy = RecordPolicy::default();
    if reader.value("records").is_some_and(serde_json::Value::is_string) {
        reader.choice("records", &["none"]);
        return Records { policy: RecordPolicy { keep: 0, bodies: Bodies::None, all: false }, file: None };
    }
    let Some(mut records) = reader.object("records") else { return Records::default() };
    records.only(&["keep", "bodies", "all"], &[]);
    if let Some(keep) = records.whole("keep", 0, "\"records\": \"none\" keeps nothing") {
        policy.keep = keep;
    }
    if let Some(text) = records.text("bodies") {
        match bodies(text) {
            Some(bodies) => policy.bodies = bodies,
            None => records.refuse("bodies", "none, failed[:SIZE] or all[:SIZE]", "for example \"failed:1KiB\""),
        }
        if let Bodies::Failed(size) | Bodies::All(size) = policy.bodies
            && size > MOST_BODY
        {
            records.refuse("bodies", "a size of at most 4 MiB", "");
        }
    }
    let file = records.text("all").map(str::to_owned);
    if let Some(name) = &file
        && !ENDINGS.iter().any(|ending| name.len() > ending.len() && name.ends_with(ending))
    {
        let endings = ENDINGS.join(", ");
        records.refuse("all", &format!("the name of a file that ends in {endings}"), "for example \"all.csv.zst\"");
    }
    policy.all = file.is_some();
    Records { policy, file }
}

/// `none`, `failed[:SIZE]`, `all[:SIZE]`.
fn bodies(text: &str) -> Option<Bodies> {
    const DEFAULT: u64 = 1024;
    let (who, size) = match text.split_once(':') {
        Some((who, size)) => (who, units::bytes(size)?),
        None => (text, DEFAULT),
    };
    match who.trim() {
        "none" if who == text => Some(Bodies::None),
        "failed" => Some(Bodies::Failed(size)),
        "all" => Some(Bodies::All(size)),
        _ => None,
    }
}
