//! HTTP users against scripted peers: bytes exactly as given.

use super::Http;
use crate::probe::Probe;
use crate::protocol::{CoreContext, Protocol, Want};
use bytes::Bytes;
use ld_shared::id::Digest;
use ld_shared::plan::{Plan, TaskPlan};
use ld_shared::reply::Reply;
use ld_shared::sample::{Failure, FailureKind};
use ld_shared::scope::{Bindings, Scope};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// One user and its peer.
struct Rig {
    http: Http,
    session: super::Session,
    bindings: Rc<Bindings>,
}

fn plan(scenario: &Value) -> Plan {
    let mut whole = json!({
        "name": "s", "user": "fast_http_user", "load": {"closed": {"users": {"segments": [], "tail": 1.0}}},
        "first_number": 0, "mode": "sequence", "tasks": [], "wait_time": null, "host": null,
        "connections": "per_user", "connect_timeout": 5.0, "request_timeout": 5.0,
        "tls": {"verify": true, "ca": null, "certificate": null, "key": null}, "status_check": "always"
    });
    for (key, value) in scenario.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({
        "seed": 0, "scenarios": [whole], "env": {"E": "e"},
        "variables": {"path": "a b/ü", "quote": "\"&", "evil": "x\r\nInjected: 1"}, "sources": [], "test_time": null, "warmup": 0,
        "graceful_stop": 0, "iterations": null, "records": {"keep": 0, "bodies": "none"}
    }))
    .unwrap()
}

fn task_plan(fields: &Value) -> TaskPlan {
    serde_json::from_value(json!({
        "name": null, "user": null, "weight": 1, "run_if": null, "skip_if": null, "assertions": [], "extract": [],
        "think_time": null, "status_check": null, "fields": fields
    }))
    .unwrap()
}

impl Rig {
    fn new(scenario: &Value, blobs: BTreeMap<Digest, Bytes>) -> Self {
        let plan = plan(scenario);
        let bindings = Rc::new(Bindings::new(&plan, vec![]));
        let core = Rc::new(CoreContext {
            messages: crate::messages::Messages::default(),
            plan: Arc::new(plan.clone()),
            bindings: bindings.clone(),
            blobs: Arc::new(blobs),
            scratch: RefCell::new(vec![0; 4096]),
            lanes: RefCell::new(Arc::from([0, 1])),
        });
        let http = Http::new(core, &plan.scenarios[0]).unwrap();
        let session = http.session();
        Self { http, session, bindings }
    }

    async fn send(&mut self, fields: &Value) -> Result<Reply, Failure> {
        let task = self.http.compile(&task_plan(fields)).unwrap();
        let (mut scope, mut probe) = (Scope::new(&self.bindings), Probe::default());
        let want = Want { headers: true, body: 1 << 20, failed_body: 1 << 20 };
        self.http.begin(&task, &mut self.session, &mut scope, &mut probe, want)?.await
    }

    async fn get(&mut self, url: &str) -> Result<(u16, String), String> {
        let reply = self.send(&json!({"method": "get", "request_url": url})).await.map_err(|f| f.reason.to_string())?;
        Ok((reply.status.unwrap(), String::from_utf8_lossy(&reply.body).into_owned()))
    }
}

type Log = Rc<RefCell<Vec<String>>>;

/// Plays one list of answers per connection, then closes it. An empty answer closes at once.
async fn peer(connections: Vec<Vec<String>>, pieces: usize) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let log = Log::default();
    let seen = log.clone();
    tokio::task::spawn_local(async move {
        for answers in connections {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            play(stream, answers, pieces, &seen).await;
        }
    });
    (base, log)
}

async fn play(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers: Vec<String>, pieces: usize, log: &Log) {
    for answer in answers {
        let Some(request) = request(&mut stream).await else { return };
        log.borrow_mut().push(request);
        for piece in answer.as_bytes().chunks(pieces) {
            if stream.write_all(piece).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if answer.is_empty() {
            return;
        }
    }
    // A failure here means that the client closed first.
    drop(stream.shutdown().await);
}

async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap_or("0");
            if body.len() >= length.parse().unwrap() {
                return Some(text);
            }
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap()
        .block_on(test);
}

/// Lets the peer's side and the event queue catch up.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn texts(answers: &[&str]) -> Vec<String> {
    answers.iter().map(ToString::to_string).collect()
}

#[test]
fn a_request_is_written_as_expected() {
    run(async {
        let (base, log) = peer(vec![texts(&[OK, OK, OK])], usize::MAX).await;
        let mut rig = Rig::new(&json!({"host": base}), BTreeMap::new());
        assert_eq!(rig.get("/a?x=1#f").await, Ok((200, "ok".into())));
        let fields = json!({
            "method": "Post", "url": "/b", "params": {"p": [1, "a b", null], "t": true}, "headers": {"X-A": "b", "accept": null},
            "cookies": {"c": "d"}, "json": {"k": [1]}, "auth": {"type": "basic", "username": "u", "password": "p"}
        });
        rig.send(&fields).await.unwrap();
        let fields =
            json!({"method": "put", "url": "/c", "data": {"k": ["1", "ä&"]}, "auth": {"type": "bearer", "token": "T"}});
        rig.send(&fields).await.unwrap();
        let host = base.strip_prefix("http://").unwrap();
        let agent = concat!("User-Agent: LoadDensity/", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            *log.borrow(),
            [
                format!("GET /a?x=1 HTTP/1.1\r\nHost: {host}\r\n{agent}\r\nAccept: */*\r\n\r\n"),
                format!(
                    "POST /b?p=1&p=a+b&t=True HTTP/1.1\r\nHost: {host}\r\n{agent}\r\nX-A: b\r\nAuthorization: Basic dTpw\r\n\
                 Content-Type: application/json\r\nCookie: c=d\r\nContent-Length: 9\r\n\r\n{{\"k\":[1]}}"
                ),
                format!(
                    "PUT /c HTTP/1.1\r\nHost: {host}\r\n{agent}\r\nAccept: */*\r\nAuthorization: Bearer T\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 15\r\n\r\nk=1&k=%C3%A4%26"
                ),
            ]
        );
    });
}

#[test]
fn placeholders_are_filled_in_and_cannot_split_a_request() {
    run(async {
        let (base, log) = peer(vec![texts(&[OK, OK])], usize::MAX).await;
        let mut rig = Rig::new(&json!({"host": base}), BTreeMap::new());
        let fields = json!({
            "method": "post", "url": "/${var.path}?r=${randint(7, 7)}", "params": {"q": "${var.quote}"},
            "headers": {"X-E": "${env.E}-${randint(3,3)}"}, "json": {"k": "${var.quote}", "n": "${randint(5,5)}"},
            "auth": {"type": "basic", "username": "${randint(1,1)}", "password": "p"}
        });
        rig.send(&fields).await.unwrap();
        {
            let log = log.borrow();
            assert!(log[0].starts_with("POST /a%20b/%C3%BC?r=7&q=%22%26 HTTP/1.1\r\n"), "{}", log[0]);
            assert!(log[0].contains("\r\nX-E: e-3\r\nAuthorization: Basic MTpw\r\n"), "{}", log[0]);
            let body = log[0].split_once("\r\n\r\n").unwrap().1;
            assert_eq!(serde_json::from_str::<Value>(body).unwrap()["k"], "\"&");
        }
        let evil = format!("{base}/?x=${{var.evil}}${{randint(1,1)}}");
        let failure = rig.send(&json!({"method": "get", "url": evil})).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Request);
        let evil = json!({"method": "get", "url": "/", "headers": {"A": "${var.evil}"}});
        assert!(rig.http.compile(&task_plan(&evil)).is_err());
        assert_eq!(log.borrow().len(), 1);
    });
}

#[test]
fn files_make_a_multipart_body() {
    run(async {
        let (base, log) = peer(vec![texts(&[OK])], usize::MAX).await;
        let mut rig = Rig::new(&json!({"host": base}), BTreeMap::new());
        rig.send(&json!({"method": "post", "url": "/", "files": {"f": "text"}, "data": {"a": "b"}})).await.unwrap();
        let seen = log.borrow()[0].clone();
        assert!(seen.contains("Content-Type: multipart/form-data; boundary=LoadDensity-"));
        assert!(seen.contains("name=\"a\"\r\n\r\nb\r\n--LoadDensity-"));
        assert!(seen.contains("name=\"f\"; filename=\"f\"\r\n\r\ntext\r\n--LoadDensity-"));
    });
}

#[test]
fn answers_in_single_bytes() {
    run(async {
        let chunked =
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let (base, log) = peer(vec![texts(&[OK, chunked, OK])], 1).await;
        let mut rig = Rig::new(&json!({"host": base}), BTreeMap::new());
        assert_eq!(rig.get("/").await, Ok((200, "ok".into())));
        assert_eq!(rig.get("/").await, Ok((201, "abc".into())));
        assert_eq!(rig.get("/").await, Ok((200, "ok".into())));
        assert_eq!(log.borrow().len(), 3);
    });
}

#[test]
fn large_bodies_pass_both_ways() {
    run(async {
        let body = "x".repeat(1 << 20);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (base, _) = peer(vec![vec![answer]], usize::MAX).await;
        let mut rig = Rig::new(&json!({"host": base}), BTreeMap::new());
        let reply = rig.send(&json!({"method": "post", "url": "/", "data": body})).await.unwrap();
        assert_eq!((reply.body.len(), reply.body_bytes), (1 << 20, 1 << 20));
    });
}

#[test]
fn a_connection_closed_while_idle_is_opened_anew() {
    run(async {
        let (base, log) = peer(vec![texts(&[OK]), texts(&[OK])], usize::MAX).await;
        let mut rig = Rig::new(&json!({"host": base}), BTreeMap::new());
        assert!(rig.get("/1").await.is_ok());
        settle().await;
        assert!(rig.get("/2").await.is_ok());
        assert_eq!(log.borrow().len(), 2);
    });
}

#[test]
fn closings_are_failures_and_nothing_is_sent_twice() {
    run(async {
        let (base, log) = peer(
            vec![texts(&[OK, ""]), texts(&[""]), texts(&["HTTP/1.1 200 OK\r\nContent-Le"]), texts(&[OK])],
            usize::MAX,
        )
        .await;
        let mut rig = Rig::new(&json!({"host": base}), BTreeMap::new());
        assert!(rig.get("/").await.is_ok());
        assert_eq!(rig.get("/").await.unwrap_err(), "connection closed before the answer (reused connection)");
        assert_eq!(rig.get("/").await.unwrap_err(), "connection closed before the answer");
        assert_eq!(rig.get("/").await.unwrap_err(), "connection closed in mid-answer");
        assert!(rig.get("/").await.is_ok());
        assert_eq!(log.borrow().len(), 5);
    });
}

#[test]
fn dialling_fails_in_words() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut rig = Rig::new(&json!({}), BTreeMap::new());
        assert_eq!(rig.get(&format!("http://127.0.0.1:{port}/")).await.unwrap_err(), "connection refused");
        let failure = rig.send(&json!({"method": "get", "url": "http://no-such-name.invalid/"})).await.unwrap_err();
        assert_eq!((failure.kind, &*failure.reason), (FailureKind::Dns, "name not resolved"));
    });
}

#[test]
fn redirects_are_one_exchange() {
    run(async {
        let to = |status: u16, place: &str| {
            format!("HTTP/1.1 {status} Go\r\nLocation: {place}\r\nSet-Cookie: s{status}=1\r\nContent-Length: 0\r\n\r\n")
        };
        let (base, log) = peer(vec![vec![to(302, "/b"), to(307, "c?d"), OK.into(), to(302, "/x")]], usize::MAX).await;
        let mut rig = Rig::new(&json!({"host": base}), BTreeMap::new());
        let reply =
            rig.send(&json!({"method": "post", "url": "/a", "json": 1, "cookies": {"own": "1"}})).await.unwrap();
        assert_eq!(reply.status, Some(200));
        let fields = json!({"method": "get", "url": "/", "allow_redirects": false});
        assert_eq!(rig.send(&fields).await.unwrap().status, Some(302));
        let log = log.borrow();
        assert!(
            log[1].starts_with("GET /b ")
                && log[1].contains("Cookie: s302=1; own=1\r\n")
                && !log[1].contains("Content-")
        );
        assert!(log[2].starts_with("GET /c?d ") && log[2].contains("Cookie: s302=1; s307=1; own=1\r\n"));
        assert!(log[3].starts_with("GET / ") && log[3].contains("Cookie: s302=1; s307=1\r\n"));
    });
    run(async {
        let back = "HTTP/1.1 301 Go\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
        let (base, log) = peer(vec![vec![back.to_owned(); 40]], usize::MAX).await;
        let mut rig = Rig::new(&json!({"host": base}), BTreeMap::new());
        assert_eq!(rig.get("/").await.unwrap_err(), "more than 30 redirects");
        assert_eq!(log.borrow().len(), 31);
    });
}

#[test]
fn policies_decide_who_keeps_connections() {
    run(async {
        for policy in ["per_request", "per_iteration"] {
            let (base, log) = peer(vec![texts(&[OK, ""]), texts(&[OK, ""])], usize::MAX).await;
            let mut rig = Rig::new(&json!({"host": base, "connections": policy}), BTreeMap::new());
            assert!(rig.get("/").await.is_ok());
            rig.http.end_iteration(&mut rig.session);
            assert!(rig.get("/").await.is_ok());
            assert_eq!(log.borrow().len(), 2);
        }
        // Two users, one connection: the second waits for the first.
        let (base, log) = peer(vec![texts(&[OK, OK])], usize::MAX).await;
        let rig = Rig::new(&json!({"host": base, "connections": {"shared": 1}}), BTreeMap::new());
        let task = rig.http.compile(&task_plan(&json!({"method": "get", "url": "/"}))).unwrap();
        let (mut one, mut two) = (rig.http.session(), rig.http.session());
        let (mut p1, mut p2) = (Probe::default(), Probe::default());
        let mut scope = Scope::new(&rig.bindings);
        let first = rig.http.begin(&task, &mut one, &mut scope, &mut p1, Want::default()).unwrap();
        let second = rig.http.begin(&task, &mut two, &mut scope, &mut p2, Want::default()).unwrap();
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(log.borrow().len(), 2);
    });
}

#[test]
fn certificates_are_checked() {
    run(async {
        let ours = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let pem = Bytes::from(ours.cert.pem());
        let key = Bytes::from(ours.signing_key.serialize_pem());
        let blobs: BTreeMap<_, _> = [&pem, &key].map(|blob| (Digest::of(blob), blob.clone())).into();
        let tls = |verify: bool, ca: bool, client: bool| {
            json!({
                "verify": verify, "ca": ca.then(|| Digest::of(&pem)), "certificate": client.then(|| Digest::of(&pem)),
                "key": client.then(|| Digest::of(&key))
            })
        };
        for (settings, wants_client, expected) in [
            (tls(true, true, false), false, Ok((200, "ok".to_owned()))),
            (tls(false, false, false), false, Ok((200, "ok".to_owned()))),
            (
                tls(true, false, false),
                false,
                Err("tls: certificate not trusted (unknown issuer or self-signed)".to_owned()),
            ),
            (tls(true, true, true), true, Ok((200, "ok".to_owned()))),
            (tls(true, true, false), true, Err("tls: refused by the peer (CertificateRequired)".to_owned())),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .unwrap();
            let builder = if wants_client {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(ours.cert.der().clone()).unwrap();
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.unwrap())
            } else {
                builder.with_no_client_auth()
            };
            let key = PrivateKeyDer::try_from(ours.signing_key.serialize_der()).unwrap();
            let config = builder.with_single_cert(vec![ours.cert.der().clone()], key).unwrap();
            let server = tokio::task::spawn_local(async move {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(stream) = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await {
                    play(stream, texts(&[OK, OK]), usize::MAX, &Log::default()).await;
                }
            });
            let mut rig = Rig::new(&json!({"tls": settings}), blobs.clone());
            let url = format!("https://localhost:{port}/");
            // `localhost` may also be ::1, where nobody listens.
            assert_eq!(rig.get(&url).await, expected);
            if expected.is_ok() {
                settle().await;
                assert_eq!(rig.get(&url).await, expected, "session tickets do not end a connection");
            }
            server.await.unwrap();
        }
    });
}

#[test]
fn idle_users_and_exchanges_are_small() {
    let rig = Rig::new(&json!({}), BTreeMap::new());
    let task = rig.http.compile(&task_plan(&json!({"method": "get", "url": "http://h/"}))).unwrap();
    let (mut session, mut scope, mut probe) = (rig.http.session(), Scope::new(&rig.bindings), Probe::default());
    assert!(size_of_val(&session) < 200);
    let exchange = rig.http.begin(&task, &mut session, &mut scope, &mut probe, Want::default()).unwrap();
    assert!(size_of_val(&exchange) <= 1024, "{}", size_of_val(&exchange));
}

#[test]
fn names_are_those_of_the_seed() {
    for (user, name) in [("fast_http_user", "http://h/a b?c=${uuid()}"), ("http_user", "/a%20b?c=${uuid()}&p=1")] {
        let rig = Rig::new(&json!({"user": user}), BTreeMap::new());
        let fields = json!({"method": "get", "url": "http://h/a b?c=${uuid()}", "params": {"p": 1}});
        let task = rig.http.compile(&task_plan(&fields)).unwrap();
        assert_eq!(&*rig.http.default_name(&task), name);
    }
}

#[test]
fn faults_name_their_place() {
    let plan = plan(&json!({}));
    let faults = |fields: Value| -> Vec<String> {
        Http::check(fields.as_object().unwrap(), &plan.scenarios[0])
            .into_iter()
            .map(|fault| format!("{} {} / {}", fault.pointer, fault.message, fault.help.unwrap_or_default()))
            .collect()
    };
    let accepted = "accepted: get, post, put, patch, delete, head, options";
    assert_eq!(faults(json!({"method": "get", "url": "http://h", "data": null, "headers": {"a": null}})), [""; 0]);
    assert_eq!(faults(json!({"method": "get", "url": "${var.u}/x"})), [""; 0]);
    assert_eq!(
        faults(json!({"method": "pots", "url": "/x"})),
        [
            format!("/method unknown method `pots` / did you mean `post`? {accepted}"),
            "/url relative URL `/x` without a host / give `host` on the test, or an absolute URL".to_owned(),
        ]
    );
    assert_eq!(
        faults(json!({
            "method": 1, "request_url": "ftp://h", "headers": {"a b": "", "x": []}, "params": [], "timeout": 0,
            "auth": {"type": "digest"}, "verify": "ca.pem", "cert": "c.pem", "data": 1
        }))
        .len(),
        10
    );
}
