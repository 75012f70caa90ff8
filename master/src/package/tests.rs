use super::*;
use std::io::Write as _;
use std::time::Duration;

/// A package written as a shell script.
fn script(dir: &tempfile::TempDir, body: &str) -> Launch {
    let path = dir.path().join("package");
    let mut file = std::fs::File::create(&path).unwrap();
    writeln!(file, "#!/bin/sh\n{body}").unwrap();
    drop(file);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    Launch::of(path.to_str().unwrap(), "python3").unwrap()
}

const LIST: &str = r#"read line; echo '{"id": 1, "ok": true, "commands": [{"name": "LD_x"}]}'; read line;"#;

async fn fails(body: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { answer_within: Duration::from_millis(500), answer_bytes: 1000 };
    let (package, commands) = Package::start(script(&dir, &format!("{LIST} {body}")), limits).await.unwrap();
    assert_eq!(commands[0].name, "LD_x");
    let nothing = json!({});
    let call = package.call("LD_x", &nothing);
    let bounded = tokio::time::timeout(Duration::from_secs(10), call).await.expect("bounded in time");
    let error = bounded.unwrap_err().to_string();
    error.replace(dir.path().to_str().unwrap(), "DIR")
}

#[tokio::test]
async fn whatever_a_package_does_ends_in_bounded_time() {
    let table = [
        ("sleep 100", "the package `DIR/package` did not answer within 500ms and was ended"),
        (
            "echo oh no >&2; exit 3",
            "the package `DIR/package` ended without an answer (exit status: 3); its stderr ends: oh no",
        ),
        ("kill -9 $$", "the package `DIR/package` ended without an answer (signal: 9 (SIGKILL))"),
        (
            "yes",
            "the package `DIR/package` broke the protocol and was ended: a line that is no JSON (expected value at line 1 column 1): `y`",
        ),
        ("yes | tr -d '\\n'", "the package `DIR/package` sent a line of more than 1000 bytes and was ended"),
        (
            r#"echo '{"id": 1, "ok": true}'"#,
            "the package `DIR/package` broke the protocol and was ended: an answer to another request than 2: `{\"id\": 1, \"ok\": true}`",
        ),
        (
            r#"echo '{"id": 2}'"#,
            "the package `DIR/package` broke the protocol and was ended: an answer without `ok`: `{\"id\": 2}`",
        ),
        (r#"echo '{"id": 2, "ok": false, "error": {"kind": "K", "message": "no"}}'"#, "no"),
        (r#"echo '{"id": 2, "ok": false}'"#, "it gave no message"),
        ("exec >&-; sleep 100", "the package `DIR/package` ended without an answer (it closed its output and stayed)"),
    ];
    for (body, expected) in table {
        assert_eq!(fails(body).await, expected, "{body}");
    }
    let flood = fails("yes 'stderr is read while nobody looks' >&2").await;
    assert!(flood.contains("did not answer within 500ms"), "{flood}");
}

#[tokio::test]
async fn a_package_that_died_starts_anew_with_the_next_call() {
    let dir = tempfile::tempdir().unwrap();
    let body = format!("{LIST} exit 1");
    let (package, _) = Package::start(script(&dir, &body), Limits::default()).await.unwrap();
    assert!(package.call("LD_x", &json!([])).await.is_err());
    // the new process answers its first line as if it were asked for its list: number 1 again
    assert_eq!(package.call("LD_x", &json!([])).await.unwrap(), Value::Null);
}

#[tokio::test]
async fn python_packages_are_served_by_the_bridge() {
    let dir = tempfile::tempdir().unwrap();
    let module = "import json\ndef greet(name, times=1):\n    'Says hello.'\n    print('noise')\n    return {'said': ['hello ' + name] * times}\ndef fail():\n    raise KeyError('x')\ndef leave():\n    raise SystemExit(1)\n";
    std::fs::write(dir.path().join("ld_test_package.py"), module).unwrap();
    let mut launch = Launch::of("ld_test_package", "python3").unwrap();
    launch.arguments[2] = format!("import sys; sys.path.insert(0, {:?})\n{BRIDGE}", dir.path());
    let (package, commands) = Package::start(launch, Limits::default()).await.unwrap();
    let names: Vec<&str> = commands.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["fail", "greet", "leave"]);
    assert_eq!((commands[1].about.as_str(), commands[1].parameters[1].required), ("Says hello.", false));
    let said = package.call("greet", &json!({"name": "you"})).await.unwrap();
    assert_eq!(said, json!({"said": ["hello you"]}));
    assert_eq!(package.call("greet", &json!(["you", 2])).await.unwrap()["said"][1], "hello you");
    let error = package.call("fail", &json!({})).await.unwrap_err();
    assert!(
        matches!(&error, PackageError::Said { kind, message } if kind == "KeyError" && message == "'x'"),
        "{error}"
    );
    assert!(package.call("leave", &json!({})).await.is_err());
    assert!(package.call("greet", &json!([])).await.is_err(), "it lives on");
    package.end().await;
}

#[tokio::test]
async fn what_is_no_package_is_said() {
    let missing = Launch::of("./no/such", "python3").unwrap_err().to_string();
    assert_eq!(missing, "there is no package `./no/such`: neither an executable file nor the name of a Python package");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data.txt");
    std::fs::write(&file, "x").unwrap();
    assert!(Launch::of(file.to_str().unwrap(), "python3").unwrap_err().to_string().contains("not marked executable"));
    let launch = Launch::of("no_such_python_package", "python3").unwrap();
    let error = Package::start(launch, Limits::default()).await.unwrap_err();
    assert!(matches!(&error, PackageError::Said { kind, .. } if kind == "ModuleNotFoundError"), "{error}");
    let launch = Launch::of("os", "no-such-python").unwrap();
    assert!(Package::start(launch, Limits::default()).await.unwrap_err().to_string().starts_with("cannot start"));
}
