//! How much a call may send and receive, and how long it may wait.

use std::time::Duration;

use gristmill::plugin::{CallError, LimitHit, Plugin};

use super::rig::{Names, Web, calling, fetch, grants, send};
use crate::support::guests::Called;

async fn rig() -> (Web, String, Plugin) {
    let web = Web::start().await;
    let origin = format!("http://api.example.com:{}", web.port);
    let plugin = fetch(&Names::api(&[&["127.0.0.1"]]), grants(&[&origin], &["127.0.0.1/32"]));
    (web, origin, plugin)
}

fn assert_cut(called: &Called, expected: LimitHit, says: &str) {
    let Err(error @ CallError::Limit { limit, .. }) = &called.report.result else { panic!("{:?}", called.report) };
    assert_eq!(*limit, expected);
    assert!(error.to_string().contains(says), "{error}");
}

#[tokio::test]
async fn requests_end_at_their_number_whatever_comes_of_them() {
    let (web, origin, plugin) = rig().await;
    let many = |url: &str, count| calling(&vec![format!("GET {url}/"); count]);
    assert!(many(&origin, 20).run(&plugin).await.report.result.is_ok());
    let called = many(&origin, 21).run(&plugin).await;
    assert_cut(&called, LimitHit::HttpRequests(20), "limit `http_requests` of 20");
    assert_eq!(web.connections(), 40);
    let called = many("http://not.granted.example", 21).run(&plugin).await;
    assert_cut(&called, LimitHit::HttpRequests(20), "limit `http_requests` of 20");
}

#[tokio::test]
async fn bytes_end_at_their_number_in_both_directions() {
    let (_web, origin, plugin) = rig().await;
    let less = send(&plugin, &[format!("GET {origin}/bytes/900000")]).await;
    assert_eq!(less, ["200 900000 bytes"]);
    let limit = LimitHit::HttpBytes(1 << 20);
    let called = calling(&[format!("GET {origin}/bytes/1100000")]).run(&plugin).await;
    assert_cut(&called, limit, "limit `http_bytes` of 1.0 MiB");
    let called = calling(&vec![format!("GET {origin}/bytes/300000"); 4]).run(&plugin).await;
    assert_cut(&called, limit, "limit `http_bytes`");
    let sent = [format!("POST {origin}/echo {}", "x".repeat(1_100_000))];
    assert_cut(&calling(&sent).run(&plugin).await, limit, "limit `http_bytes`");
    // Heads count, too: a path is as good as a body.
    let long = vec![format!("GET {origin}/{}", "x".repeat(60_000)); 20];
    assert_cut(&calling(&long).run(&plugin).await, limit, "limit `http_bytes`");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_waited_for_until_the_deadline() {
    let (web, origin, plugin) = rig().await;
    let deadline = Duration::from_millis(300);
    for path in ["silent", "drip"] {
        let call = calling(&[format!("GET {origin}/{path}")]).limits(|limits| limits.deadline = deadline);
        assert_cut(&call.run(&plugin).await, LimitHit::Deadline(deadline), "limit `deadline`");
    }
    assert_eq!(web.connections(), 2);
    assert_eq!(send(&plugin, &[format!("GET {origin}/")]).await, ["200 hello"], "its places are free again");
}

#[tokio::test]
async fn calls_do_not_count_for_each_other() {
    let (_web, origin, plugin) = rig().await;
    let call = || calling(&vec![format!("GET {origin}/bytes/40000"); 20]).run(&plugin);
    let (one, two, three) = tokio::join!(call(), call(), call());
    for called in [one, two, three] {
        assert!(called.report.result.is_ok(), "{:?}", called.report);
        assert_eq!(called.text().lines().count(), 20);
    }
}

#[tokio::test]
async fn an_answer_with_an_endless_head_is_an_error() {
    let (_web, origin, plugin) = rig().await;
    let answers = send(&plugin, &[60_000, 300_000].map(|bytes| format!("GET {origin}/head/{bytes}"))).await;
    assert_eq!(answers, ["200 ", "error HttpProtocolError"]);
}
