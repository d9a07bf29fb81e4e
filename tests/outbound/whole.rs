//! The real program, with the system's own resolver and certificate authorities.

use std::process::Command;

use super::rig::Web;
use crate::support::host::{Bucket, Finished, Host, command};

async fn run(bucket: &Bucket) -> Finished {
    let root = bucket.root().to_str().unwrap().to_owned();
    let running = tokio::task::spawn_blocking(move || {
        let mut host: Command = command(&["dev", &root, "--until-idle", "--json"]);
        host.env("SSL_CERT_FILE", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/tls/server.pem"));
        Host::spawn(&mut host).finish()
    });
    running.await.unwrap()
}

/// A bucket whose plugin `fetch` has these lines in its table.
fn bucket(grants: &str, requests: &str) -> Bucket {
    let route = "[retry]\nmax_attempts = 1\n[[route]]\nplugins = [\"fetch\"]\n";
    let bucket = Bucket::with(&["fetch"], &format!("[plugin.fetch]\n{grants}\n{route}"));
    bucket.write("uploads/list", requests.as_bytes());
    bucket
}

#[tokio::test]
async fn a_host_sends_what_its_configuration_grants_and_nothing_else() {
    let web = Web::start_tls().await;
    let origin = format!("https://localhost:{}", web.port);
    let requests = format!("GET {origin}/\nGET https://example.com/");
    // `localhost` may have both.
    let grants = format!("http = [\"{origin}\"]\nprivate_addresses = [\"127.0.0.1\", \"::1\"]");
    let granted = bucket(&grants, &requests);
    let finished = run(&granted).await.expect(0);
    let expected = "200 hello\nerror HttpRequestDenied\n";
    assert_eq!(granted.read_text("processed/list.fetched"), expected, "{}", finished.log());
    assert!(finished.log().contains("the request of a plugin is refused"), "{}", finished.log());

    let connections = web.connections();
    let private = bucket(&format!("http = [\"{origin}\"]"), &requests);
    let finished = run(&private).await.expect(0);
    let expected = "error DestinationIpProhibited\nerror HttpRequestDenied\n";
    assert_eq!(private.read_text("processed/list.fetched"), expected, "{}", finished.log());
    assert!(finished.log().contains("name it in `private_addresses`"), "{}", finished.log());

    let nothing = bucket("clocks = true", &requests);
    let finished = run(&nothing).await.expect(1);
    assert!(finished.log().contains("set `http` in `[plugin.fetch]`"), "{}", finished.log());
    assert!(nothing.exists("uploads/list"), "it waits for the plugin, and is then given up with the reason");
    assert_eq!(web.connections(), connections);
}
