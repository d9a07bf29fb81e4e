//! The ways to tell a host where its bucket is, and what it refuses.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;

use crate::{
    SOON, Uploads, all_to, on_ministack,
    support::{
        auditor::{Object, Output},
        host::{Host, built_in_file, command, sha256},
        remote_auditor::RemoteAuditor,
        remote_bucket::Events,
        remote_host::Deployment,
        samples::{is_whole_image, png},
    },
};

#[test]
fn an_environment_is_all_it_takes() {
    let remote = on_ministack(Events::Direct);
    let mut uploads = Uploads::to(&remote);
    let outputs = ["photo-320.png", "photo-1280.png"]
        .map(|name| Output::like(format!("processed/a b/{name}"), "resize", is_whole_image));
    let image = png(400, 30, 7);
    uploads.add(&image, Object::processed("uploads/a b/photo.png", &image, &["resize"], outputs.into()));
    let lines = |bytes: &[u8]| bytes == b"{\"id\":1}\n";
    let summary = |bytes: &[u8]| serde_json::from_slice(bytes).is_ok_and(|json: Value| json["records"] == 1);
    let outputs = vec![
        Output::like("processed/table.csv.ndjson".to_owned(), "parse", lines),
        Output::like("processed/table.csv.summary.json".to_owned(), "parse", summary),
    ];
    uploads.add(b"id\n1\n", Object::processed("uploads/table.csv", b"id\n1\n", &["parse"], outputs));
    uploads.add(b"x", Object::processed("uploads/other", b"x", &["passthrough"], Vec::new()));

    // Nothing but this: no file, no flags.
    let folder = tempfile::tempdir().unwrap();
    let mut host = command(&["run", "--json", "--until-idle"]);
    host.current_dir(folder.path())
        .env("BUCKET", &remote.bucket)
        .env("QUEUE_URL", &remote.queue)
        .envs(remote.environment());
    Host::spawn(&mut host).finish().expect(0).expect_counts(&[("processed", 3)]);

    let version = |name: &str| (name.to_owned(), BTreeSet::from([sha256(&fs::read(built_in_file(name)).unwrap())]));
    let versions = BTreeMap::from(["resize", "parse", "passthrough"].map(version));
    RemoteAuditor::new(&remote, &uploads.list, versions).check();
}

#[test]
fn a_file_is_enough_beside_credentials() {
    let remote = on_ministack(Events::Direct);
    let place = format!("bucket = \"{}\"\nqueue_url = \"{}\"\nregion = \"us-east-1\"\n", remote.bucket, remote.queue);
    let deployment = Deployment::new(&remote, &["copy"], &(place + &all_to("[\"copy\"]")))
        .with("BUCKET", "")
        .with("QUEUE_URL", "")
        .with("AWS_REGION", "");
    let mut uploads = Uploads::to(&remote);
    uploads.add(b"content", Object::copied("uploads/a", b"content"));
    deployment.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
    uploads.auditor(&deployment).check();
}

#[test]
fn results_may_not_land_where_they_would_be_processed_again() {
    let remote = on_ministack(Events::Direct);
    for (source, destination) in [("uploads/", "uploads/done/"), ("in/new/", "in/"), ("in/", "in/"), ("in", "in/out")] {
        let deployment =
            Deployment::new(&remote, &["copy"], SOON).with("SRC_PREFIX", source).with("DST_PREFIX", destination);
        let finished = deployment.run(&["--until-idle"]).finish().expect(78);
        assert!(finished.log().contains("DST_PREFIX"), "{source} {destination}: {}", finished.log());
    }
    let routes = format!("{SOON}[[route]]\ndestination_prefix = \"uploads/done/\"\nplugins = [\"copy\"]\n");
    let finished = Deployment::new(&remote, &["copy"], &routes).run(&["--until-idle"]).finish().expect(78);
    assert!(finished.log().contains("is inside the source prefix"), "{}", finished.log());
}

#[test]
fn a_queue_or_bucket_that_is_not_there_is_said_so() {
    let remote = on_ministack(Events::Direct);
    let missing = format!("{}-missing", remote.queue);
    let deployment = Deployment::new(&remote, &["copy"], SOON).with("QUEUE_URL", &missing);
    let finished = deployment.run(&["--until-idle"]).finish().expect(1);
    assert!(finished.log().contains(&missing), "{}", finished.log());
}
