//! The client against daemons that behave and that do not.

use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use super::super::report::*;
use super::*;

/// A daemon that takes one client and, for each line it sends, writes the next of `answers` as it is. It then
/// closes the connection, and yields the lines.
fn fake(dir: &Path, answers: &'static [&'static str]) -> JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(dir.join(SOCKET)).expect("listen");
    thread::spawn(move || {
        let (stream, _) = listener.accept().expect("accept");
        let mut reader = BufReader::new(stream);
        let mut lines = Vec::new();
        for answer in answers {
            let mut line = String::new();
            reader.read_line(&mut line).expect("request");
            lines.push(line);
            reader.get_mut().write_all(answer.as_bytes()).expect("answer");
        }
        lines
    })
}

fn ask_one(answers: &'static [&'static str]) -> Result<Reply, String> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let daemon = fake(dir.path(), answers);
    let mut client = Client::connect(dir.path()).expect("connect");
    let reply = client.ask(&Request::Drops);
    drop(client);
    daemon.join().expect("daemon");
    reply.map_err(|e| e.to_string().replace(&dir.path().display().to_string(), "DIR"))
}

#[test]
fn several_requests_over_one_connection() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let daemon = fake(dir.path(), &["\"done\"\n", "{\"fdb\":{\"entries\":[]}}\n"]);
    let mut client = Client::connect(dir.path()).expect("connect");
    assert!(matches!(client.ask(&Request::FdbFlush { bridge: None }), Ok(Reply::Done)));
    let fdb = client.ask(&Request::Fdb { bridge: Some("br0".into()) });
    assert!(matches!(fdb, Ok(Reply::Fdb(FdbReport { entries })) if entries.is_empty()));
    assert_eq!(
        daemon.join().expect("daemon"),
        ["{\"command\":\"fdb-flush\",\"bridge\":null}\n", "{\"command\":\"fdb\",\"bridge\":\"br0\"}\n"]
    );
}

#[test]
fn errors_say_what_to_do() {
    let refused = ask_one(&["{\"error\":\"no bridge br7; there are: br0\"}\n"]);
    assert_eq!(refused.expect_err("refused"), "no bridge br7; there are: br0");
    let closed = ask_one(&["{\"drops\":"]);
    assert_eq!(
        closed.expect_err("closed"),
        "the daemon on DIR/control.sock closed the connection without an answer"
    );
    let foreign = ask_one(&["HTTP/1.1 400 Bad Request\n"]).expect_err("foreign");
    assert!(foreign.starts_with("the daemon on DIR/control.sock speaks another version"), "{foreign}");

    let dir = tempfile::tempdir().expect("temporary directory");
    let daemon = fake(dir.path(), &["\"done\"\n"]);
    let mut client = Client::connect(dir.path()).expect("connect");
    assert!(matches!(client.show(), Err(ClientError::Protocol { .. })));
    daemon.join().expect("daemon");
}

#[test]
fn no_daemon() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let text = Client::connect(dir.path()).expect_err("nobody").to_string();
    assert_eq!(
        text,
        format!(
            "no sluice daemon answers on {}/control.sock: start one with 'sluice daemon', \
             or name its run directory with --rundir",
            dir.path().display()
        )
    );
    // Left behind by a daemon that was killed.
    drop(UnixListener::bind(dir.path().join(SOCKET)).expect("listen"));
    assert!(matches!(Client::connect(dir.path()), Err(ClientError::NoDaemon { .. })));
    let long = dir.path().join("x".repeat(120));
    assert!(matches!(Client::connect(&long), Err(ClientError::Connect { why: Errno::ENAMETOOLONG, .. })));
}

#[test]
fn a_daemon_that_hangs_is_given_up() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let _listener = UnixListener::bind(dir.path().join(SOCKET)).expect("listen");
    let mut client = Client::connect_within(dir.path(), Duration::from_millis(50)).expect("connect");
    assert!(matches!(client.ask(&Request::Show), Err(ClientError::Timeout { .. })));
}

/// What either side writes, the other reads as the same.
#[test]
fn protocol_round_trip() {
    let requests = [
        Request::Show,
        Request::Flows { bridge: Some("br0".into()) },
        Request::Fdb { bridge: None },
        Request::FdbFlush { bridge: None },
        Request::Drops,
        Request::Top,
        Request::TracePacket { port: "p1".into(), packet: Some("ffff".into()), flow: None },
    ];
    for request in requests {
        let text = serde_json::to_string(&request).expect("written");
        assert_eq!(serde_json::from_str::<Request>(&text).expect("read"), request);
    }
    let replies = [
        Reply::Show(ShowReport { bridges: vec![BridgeReport::default()], ..ShowReport::default() }),
        Reply::Flows(FlowsReport {
            flows: vec![FlowReport {
                used_s: Some(0.5),
                rules: vec![RuleReport::default()],
                ..FlowReport::default()
            }],
        }),
        Reply::Fdb(FdbReport { entries: vec![FdbEntry::default()] }),
        Reply::Done,
        Reply::Drops(DropsReport { reasons: vec![DropReport::default()] }),
        Reply::Top(TopReport::default()),
        Reply::Trace(TraceReport { drop: Some("policy".into()), ..TraceReport::default() }),
        Reply::Error("no".into()),
    ];
    for reply in replies {
        let text = serde_json::to_string(&reply).expect("written");
        assert!(!text.contains('\n'), "an answer is one line");
        let again: Reply = serde_json::from_str(&text).expect("read");
        assert_eq!(serde_json::to_string(&again).expect("written"), text);
    }
}
