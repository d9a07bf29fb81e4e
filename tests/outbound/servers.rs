//! Which servers a request may be for: what was granted, in its one spelling.

use gristmill::plugin::{CallError, Compiler, LoadError, Plugin};

use super::rig::{Names, Web, fetch, grants, send};
use crate::support::guests::{Calling, bytes, engine};

const LOCAL: &[&[&str]] = &[&["127.0.0.1"]];

#[tokio::test]
async fn a_granted_server_is_reached_with_its_name_and_nothing_is_added() {
    let (web, names) = (Web::start().await, Names::api(LOCAL));
    let origin = format!("http://api.example.com:{}", web.port);
    let plugin = fetch(&names, grants(&[&origin], &["127.0.0.1/32"]));
    let requests = [
        format!("GET {origin}/echo"),
        format!("POST {origin}/echo some text"),
        format!("GET {}/echo?x=1", origin.to_uppercase().replace("HTTP", "http")),
        format!("HEAD {origin}/"),
    ];
    let host = format!("api.example.com:{}", web.port);
    let expected = [
        format!("200 GET host {host} plugin fetch body "),
        format!("200 POST host {host} plugin fetch body some text"),
        format!("200 GET host {} plugin fetch body ", host.to_uppercase()),
        "200 ".to_owned(),
    ];
    assert_eq!(send(&plugin, &requests).await, expected);
    assert_eq!(web.connections(), 4, "none is used twice");
}

#[tokio::test]
async fn tls_is_for_the_name_and_of_an_authority_that_is_trusted() {
    let (web, names) = (Web::start_tls().await, Names::api(LOCAL));
    let origin = format!("https://api.example.com:{}", web.port);
    let address = format!("https://127.0.0.1:{}", web.port);
    let plugin = fetch(&names, grants(&[&origin, &address], &["127.0.0.1/32"]));
    let answers = send(&plugin, &[format!("GET {origin}/"), format!("GET {address}/")]).await;
    assert_eq!(answers, ["200 hello", "error TlsCertificateError"], "its certificate is not for the address");

    let plain = Web::start().await;
    let origin = format!("https://api.example.com:{}", plain.port);
    let plugin = fetch(&names, grants(&[&origin], &["127.0.0.1/32"]));
    assert_eq!(send(&plugin, &[format!("GET {origin}/")]).await, ["error TlsProtocolError"]);
}

/// Of all that has been used to talk past a filter, nothing gets as far as a resolver.
#[tokio::test]
async fn any_other_server_is_refused_before_anybody_is_asked() {
    let (web, names) = (Web::start().await, Names::api(LOCAL));
    let port = web.port;
    let origin = format!("http://api.example.com:{port}");
    let plugin = fetch(&names, grants(&[&origin], &["127.0.0.1/32"]));
    let others = [
        // Another scheme, port or name.
        format!("https://api.example.com:{port}"),
        "http://api.example.com".to_owned(),
        "http://api.example.com:22".to_owned(),
        format!("http://example.com:{port}"),
        format!("http://www.api.example.com:{port}"),
        format!("http://api.example.com.evil.example:{port}"),
        format!("http://api-example.com:{port}"),
        // The address itself, in every notation.
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        format!("http://2130706433:{port}"),
        format!("http://017700000001:{port}"),
        format!("http://0x7f000001:{port}"),
        format!("http://0x7f.0.0.1:{port}"),
        format!("http://0177.0.0.1:{port}"),
        format!("http://127.1:{port}"),
        format!("http://127.0.0.1.:{port}"),
        format!("http://0:{port}"),
        format!("http://[::1]:{port}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        format!("http://[::ffff:7f00:1]:{port}"),
        format!("http://[::127.0.0.1]:{port}"),
        format!("http://[64:ff9b::7f00:1]:{port}"),
        format!("http://[2002:7f00:1::]:{port}"),
        "http://169.254.169.254".to_owned(),
        "http://[fd00:ec2::254]".to_owned(),
        // Another spelling of the name.
        format!("http://api.example.com.:{port}"),
        format!("http://api.example.com:0{port}"),
        format!("http://api.example.com:{port}:{port}"),
        format!("http://user@api.example.com:{port}"),
        format!("http://api.example.com:{port}@127.0.0.1:{port}"),
        format!("http://api.example.com%2e:{port}"),
        format!("http://api%2eexample.com:{port}"),
        format!("http://api。example.com:{port}"),
        format!("http://ａpi.example.com:{port}"),
        format!("http://xn--api-.example.com:{port}"),
        "http://".to_owned(),
    ];
    for urls in others.chunks(15) {
        let requests: Vec<String> = urls.iter().map(|url| format!("GET {url}/")).collect();
        for (url, answer) in urls.iter().zip(send(&plugin, &requests).await) {
            // What the library takes for no authority at all it refuses itself.
            let refusals = [
                "error HttpRequestDenied",
                "error HttpRequestUriInvalid",
                "error HttpProtocolError",
                "error no authority",
            ];
            assert!(refusals.contains(&answer.as_str()), "{url}: {answer}");
        }
    }
    assert_eq!((names.asked(), web.connections()), (0, 0));
    assert_eq!(send(&plugin, &[format!("GET {origin}/")]).await, ["200 hello"], "it was not for want of a server");
}

#[tokio::test]
async fn an_address_that_was_granted_is_reached_as_such_only() {
    let (web, names) = (Web::start().await, Names::api(LOCAL));
    let port = web.port;
    let plugin = fetch(&names, grants(&[&format!("http://127.0.0.1:{port}")], &[]));
    let requests = [
        format!("GET http://127.0.0.1:{port}/"),
        format!("GET http://[::ffff:127.0.0.1]:{port}/"),
        format!("GET http://api.example.com:{port}/"),
    ];
    let expected = ["200 hello", "error HttpRequestDenied", "error HttpRequestDenied"];
    assert_eq!(send(&plugin, &requests).await, expected);
}

#[tokio::test]
async fn nobody_is_made_a_proxy() {
    let (web, names) = (Web::start().await, Names::api(LOCAL));
    let origin = format!("http://api.example.com:{}", web.port);
    let plugin = fetch(&names, grants(&[&origin], &["127.0.0.1/32"]));
    let requests = ["CONNECT", "TRACE", "CONNECT\u{a0}"].map(|method| format!("{method} {origin}/"));
    let refused = send(&plugin, &requests).await;
    assert_eq!(refused[..2], ["error HttpRequestMethodInvalid", "error HttpRequestMethodInvalid"]);
    assert!(refused[2].starts_with("error "), "{refused:?}");
    assert_eq!(web.connections(), 0);
}

/// Nothing follows a redirect but the plugin, and its next request is looked at like the first.
#[tokio::test]
async fn a_redirect_leads_nowhere_that_a_request_would_not() {
    let (web, inside, names) = (Web::start().await, Web::start().await, Names::api(LOCAL));
    let origin = format!("http://api.example.com:{}", web.port);
    let plugin = fetch(&names, grants(&[&origin], &["127.0.0.1/32"]));
    let targets = [
        format!("http://127.0.0.1:{}/", inside.port),
        format!("http://api.example.com:{}/", inside.port),
        format!("http://api.example.com:{}@127.0.0.1:{}/", web.port, inside.port),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://[fd00:ec2::254]/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://api.example.com/".to_owned(),
        "//api.example.com/".to_owned(),
        // By way of the server that is allowed.
        format!("{origin}/to/http://127.0.0.1:{}/", inside.port),
    ];
    let requests: Vec<String> = targets.iter().map(|target| format!("GET {origin}/to/{target}")).collect();
    let called = super::rig::calling(&requests).setting("follow", 3).run(&plugin).await;
    for (target, answer) in targets.iter().zip(super::rig::answers(&called)) {
        assert!(answer.starts_with("error "), "{target}: {answer}");
    }
    assert_eq!(inside.connections(), 0);

    let followed = super::rig::calling(&[format!("GET {origin}/to/{origin}/echo")]).setting("follow", 1);
    let followed = super::rig::answers(&followed.run(&plugin).await);
    assert!(followed[0].starts_with("200 GET host api.example.com"), "{followed:?}");
    assert_eq!(send(&plugin, &[format!("GET {origin}/to/http://127.0.0.1/")]).await, ["302 "], "nor by itself");
}

#[tokio::test]
async fn without_a_grant_a_plugin_that_sends_requests_is_refused_and_could_not_send_them() {
    let refused = Plugin::load(engine(), &Compiler::in_process(), "fetch", &bytes("fetch")).unwrap_err();
    let LoadError::NotGranted { import, key: "http", .. } = &refused else { panic!("{refused:?}") };
    assert!(import.starts_with("wasi:http/"), "{import}");
    let text = refused.to_string();
    assert!(text.ends_with("and is not granted that: set `http` in `[plugin.fetch]` to grant it"), "{text}");

    let web = Web::start().await;
    let examined = Plugin::examine(engine(), &Compiler::in_process(), "fetch", &bytes("fetch")).unwrap();
    let called = Calling::new("list", format!("GET http://127.0.0.1:{}/", web.port)).run(&examined).await;
    assert!(!matches!(called.report.result, Err(CallError::Trap { .. })), "{:?}", called.report);
    assert_eq!((called.text(), web.connections()), ("error HttpRequestDenied\n", 0));
}
