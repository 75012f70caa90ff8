//! Files of every form, full disks, killed writers.

use super::*;
use chrono::TimeZone as _;
use ld_shared::record::RequestLine;
use std::io::Read as _;

fn line(n: u64, error: Option<&str>) -> RequestLine {
    RequestLine {
        started_at: n * 1_500_000,
        request_type: "GET".into(),
        url: format!("http://h/{n},\"x\"").into(),
        name: "näme\r\n".into(),
        status: error.is_none().then_some(200),
        response_us: 1_234 + n,
        body_bytes: 7,
        error: error.map(Into::into),
    }
}

fn batch(lines: &[RequestLine]) -> LineBatch {
    let mut encoded = Lines::default();
    for line in lines {
        encoded.push(line);
    }
    let run_started = Utc.timestamp_micros(1_764_012_345_000_001).single().unwrap();
    LineBatch { worker: "w1".into(), run_started, lines: encoded.take() }
}

async fn written(path: &Path, batches: &[Vec<RequestLine>]) -> Written {
    let file = RecordFile::create(path).unwrap();
    let sink = file.sink();
    for lines in batches {
        sink.offer(batch(lines));
    }
    drop(sink);
    file.finish().await
}

fn read(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let plain =
        if path.extension().is_some_and(|e| e == "zst") { zstd::decode_all(bytes.as_slice()).unwrap() } else { bytes };
    String::from_utf8(plain).unwrap()
}

#[tokio::test]
async fn every_form_holds_every_request() {
    let dir = tempfile::tempdir().unwrap();
    let batches = [vec![line(0, None), line(1, Some("refused"))], vec![line(2, None)]];
    for ending in ENDINGS {
        let path = dir.path().join(format!("all{ending}"));
        check(&path).unwrap();
        let done = written(&path, &batches).await;
        assert_eq!((done.requests, done.fault), (3, None), "{ending}");
        let text = read(&path);
        if ending.starts_with(".csv") {
            assert_eq!(
                text,
                "outcome,Method,test_url,name,status_code,response_time_ms,response_length,error,start_time,worker\r\n\
                 success,GET,\"http://h/0,\"\"x\"\"\",\"näme\r\n\",200,1.234,7,,1764012345.000001,w1\r\n\
                 failure,GET,\"http://h/1,\"\"x\"\"\",\"näme\r\n\",,1.235,7,refused,1764012345.001501,w1\r\n\
                 success,GET,\"http://h/2,\"\"x\"\"\",\"näme\r\n\",200,1.236,7,,1764012345.003001,w1\r\n"
            );
        } else {
            let rows: Vec<serde_json::Value> = text.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
            assert_eq!(rows.len(), 3);
            assert_eq!(rows[1]["error"], "refused");
            assert_eq!(rows[1]["status_code"], serde_json::Value::Null);
            assert_eq!(
                (&rows[2]["status_code"], &rows[2]["start_time"]),
                (&"200".into(), &1_764_012_345.003_001.into())
            );
        }
    }
}

#[tokio::test]
async fn what_was_flushed_is_readable_while_the_file_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.csv.zst");
    let file = RecordFile::create(&path).unwrap();
    let sink = file.sink();
    sink.offer(batch(&[line(0, None), line(1, None)]));
    let mut seen = String::new();
    // as a reader after a killed master: no end of the compressed frame, yet everything flushed before
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        seen.clear();
        let mut decoder = zstd::Decoder::new(File::open(&path).unwrap()).unwrap();
        let cut = decoder.read_to_string(&mut seen);
        assert!(cut.is_err());
        if seen.lines().count() > 1 {
            break;
        }
    }
    assert!(seen.contains("http://h/1"), "{seen}");
    drop(sink);
    assert_eq!(file.finish().await.requests, 2);
}

#[test]
fn what_cannot_be_written_is_said_before() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(check(&dir.path().join("no/all.csv")).unwrap_err(), "its folder does not exist");
    assert_eq!(check(dir.path()).unwrap_err(), "it is a folder");
    let error = RecordFile::create(&dir.path().join("no/all.csv")).unwrap_err().to_string();
    assert!(error.ends_with("no/all.csv`: its folder does not exist"), "{error}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_ends_the_file_and_not_the_run() {
    // a link, so that the name says which form is wanted
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.csv.zst");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let error = RecordFile::create(&path).unwrap_err().to_string();
    assert!(error.contains("no space left on the disk"), "{error}");
    // the same in mid-run
    let mut writer = Writer {
        rows: Rows::new(Form::Csv),
        output: Output::Plain(File::options().write(true).open("/dev/full").unwrap()),
        rows_written: 5,
        safe: Written { requests: 5, fault: None },
    };
    let (out, input) = channel();
    let sink = LineSink { out, waiting: Arc::default() };
    for n in 0..3 {
        sink.offer(batch(&[line(n, None)]));
    }
    let waiting = Arc::clone(&sink.waiting);
    drop(sink);
    assert!(writer.write(&batch(&[line(9, None)])).is_err());
    let done = writer.run("all.csv", &input, &waiting);
    assert_eq!((done.requests, waiting.load(Ordering::Relaxed)), (5, 0));
    assert_eq!(done.fault.unwrap().0, "no space left on the disk");
}
