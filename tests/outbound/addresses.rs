//! Which addresses a server may have: all of them are looked at, once, and what was looked at is what is connected
//! to.

use super::rig::{Names, Web, fetch, grants, send};

/// Some address of every kind that is refused; `address.rs` has a test of each range.
const FORBIDDEN: &[&str] = &[
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.8.8.8",
    "169.254.169.254",
    "169.254.170.2",
    "168.63.129.16",
    "172.16.0.1",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::127.0.0.1",
    "64:ff9b:1::a9fe:a9fe",
    "2002:7f00:1::1",
    "2001:0:1::80ff:fffe",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
];

#[tokio::test]
async fn a_name_that_stands_for_a_forbidden_address_is_refused() {
    let web = Web::start().await;
    let origin = format!("http://api.example.com:{}", web.port);
    for address in FORBIDDEN {
        // Alone, and before and behind a public one: one is enough.
        for answer in [vec![*address], vec![*address, "93.184.216.34"], vec!["93.184.216.34", *address]] {
            let names = Names::api(&[&answer]);
            let plugin = fetch(&names, grants(&[&origin], &[]));
            let answers = send(&plugin, &[format!("GET {origin}/")]).await;
            assert_eq!(answers, ["error DestinationIpProhibited"], "{answer:?}");
            assert_eq!(names.asked(), 1);
        }
    }
    assert_eq!(web.connections(), 0);
}

#[tokio::test]
async fn a_range_that_was_named_opens_itself_only() {
    let web = Web::start().await;
    let origin = format!("http://api.example.com:{}", web.port);
    for (named, answers) in [
        (&["127.0.0.1/32"][..], "200 hello"),
        (&["127.0.0.0/8"], "200 hello"),
        (&["127.0.0.2/32"], "error DestinationIpProhibited"),
        (&["10.0.0.0/8", "::/0"], "error DestinationIpProhibited"),
    ] {
        let plugin = fetch(&Names::api(&[&["127.0.0.1"]]), grants(&[&origin], named));
        assert_eq!(send(&plugin, &[format!("GET {origin}/")]).await, [answers], "{named:?}");
    }
    // The address is named, and the way of writing it is not.
    let plugin = fetch(&Names::api(&[&["::ffff:127.0.0.1"]]), grants(&[&origin], &["127.0.0.0/8"]));
    assert_eq!(send(&plugin, &[format!("GET {origin}/")]).await, ["error DestinationIpProhibited"]);
    assert_eq!(web.connections(), 2);
}

/// A name whose first answer passes the check, and whose second one is what an attacker wants to get at.
#[tokio::test]
async fn a_name_that_is_bound_anew_between_check_and_connection_gains_nothing() {
    let web = Web::start().await;
    let origin = format!("http://api.example.com:{}", web.port);
    // Nobody listens at the address that may be had, and the server is at the one that may not.
    let names = Names::api(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let plugin = fetch(&names, grants(&[&origin], &["127.0.0.2/32"]));
    assert_eq!(send(&plugin, &[format!("GET {origin}/")]).await, ["error ConnectionRefused"]);
    assert_eq!((names.asked(), web.connections()), (1, 0), "it is resolved once, and that is where it goes");
    assert_eq!(send(&plugin, &[format!("GET {origin}/")]).await, ["error DestinationIpProhibited"]);
    assert_eq!(web.connections(), 0);
}

#[tokio::test]
async fn each_request_is_looked_at_for_itself() {
    let web = Web::start().await;
    let origin = format!("http://api.example.com:{}", web.port);
    let names = Names::api(&[&["127.0.0.1"], &["169.254.169.254"], &["127.0.0.1"]]);
    let plugin = fetch(&names, grants(&[&origin], &["127.0.0.1/32"]));
    let answers = send(&plugin, &vec![format!("GET {origin}/"); 3]).await;
    assert_eq!(answers, ["200 hello", "error DestinationIpProhibited", "200 hello"]);
}

#[tokio::test]
async fn the_next_address_is_tried_where_one_does_not_answer() {
    let web = Web::start().await;
    let origin = format!("http://api.example.com:{}", web.port);
    let plugin = fetch(&Names::api(&[&["127.0.0.2", "127.0.0.1"]]), grants(&[&origin], &["127.0.0.0/8"]));
    assert_eq!(send(&plugin, &[format!("GET {origin}/")]).await, ["200 hello"]);
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_told_as_such() {
    let plugin = fetch(&Names::default(), grants(&["http://api.example.com"], &[]));
    assert_eq!(send(&plugin, &["GET http://api.example.com/".to_owned()]).await, ["error DnsError"]);
    let nothing = fetch(&Names::api(&[&[]]), grants(&["http://api.example.com"], &[]));
    assert_eq!(send(&nothing, &["GET http://api.example.com/".to_owned()]).await, ["error ConnectionRefused"]);
}
