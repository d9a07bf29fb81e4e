//! Events that come more than once, out of order, or late.

use crate::{
    SOON, Uploads, all_to, on_ministack,
    support::{
        auditor::Object,
        host::eventually,
        remote_bucket::{Attributes, Events, message, record},
        remote_host::Deployment,
        samples::text,
    },
};

/// Objects whose every event comes `TIMES` times.
const OBJECTS: usize = 500;
const TIMES: usize = 5;

#[test]
fn five_times_out_of_order_is_like_once() {
    let remote = on_ministack(Events::None);
    let routes = "[[route]]\nmatch = \"copied/*\"\nplugins = [\"copy\"]\n";
    let deployment = Deployment::new(&remote, &["copy"], &format!("{SOON}{routes}")).with("GRISTMILL_SLOTS", "16");
    let mut uploads = Uploads::to(&remote);
    uploads.add_all(
        (0..OBJECTS)
            .map(|n| {
                let content = text(n as u64, n % 50 * 40);
                let object = match n % 5 {
                    0 => Object::copied(&format!("uploads/copied/{n}"), &content),
                    _ => Object::processed(&format!("uploads/moved/{n}"), &content, &[], Vec::new()),
                };
                (content, object)
            })
            .collect(),
    );
    let mut records: Vec<_> = uploads
        .list
        .iter()
        .flat_map(|upload| {
            let record = record("ObjectCreated:Put", &remote.bucket, &upload.object.key, &upload.etag);
            std::iter::repeat_n(record, TIMES)
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(5);
    random.shuffle(&mut records);
    let mut bodies = Vec::new();
    let mut rest = records.as_slice();
    while !rest.is_empty() {
        // S3 sends them one by one; who forwards them may pack several together.
        let (first, others) = rest.split_at(random.usize(1..=3).min(rest.len()));
        bodies.push(message(first));
        rest = others;
    }
    remote.send(&bodies);

    let finished = deployment.run_until_idle().expect(0);
    let summary = finished.summary();
    assert_eq!((&summary["rejected"], &summary["dead"]), (&0.into(), &0.into()), "{summary}");
    uploads.auditor(&deployment).check();

    // An event of long ago changes nothing either.
    remote.send(&bodies[..10]);
    let late = deployment.run_until_idle().expect(0).records();
    assert!(late.iter().all(|record| record["reason"] == "an earlier delivery did it all"), "{late:?}");
    uploads.auditor(&deployment).check();
}

/// The newest version is what is processed in the end, wherever the host was with an older one.
#[test]
fn what_is_overwritten_on_the_way_ends_as_the_newest() {
    let remote = on_ministack(Events::Direct);
    let routes = format!("{SOON}[[route]]\n[[route.use]]\nplugin = \"slow\"\nsettings = {{ rounds = 100 }}\n");
    let deployment = Deployment::new(&remote, &["slow"], &routes).with("GRISTMILL_SLOTS", "4");
    let keys: Vec<String> = (0..12).map(|n| format!("uploads/{n}")).collect();
    let content = |n: usize, version: u64| text(n as u64 * 10 + version, 500 + n);
    let put = |version: u64| {
        let objects = keys.iter().enumerate();
        remote.put_all(
            objects.map(|(n, key)| (key.clone(), content(n, version), Attributes::default())).collect::<Vec<_>>(),
        )
    };
    put(0);
    let host = deployment.run(&["--until-idle"]);
    for version in 1..4 {
        // Some are in work, some are done, some wait.
        eventually("a part to be done", || keys.iter().filter(|key| !remote.exists(key)).count() >= 3);
        put(version);
    }
    let etags = put(4);
    host.finish().expect(0);

    let mut uploads = Uploads::to(&remote);
    for (n, (key, etag)) in keys.iter().zip(etags).enumerate() {
        let content = content(n, 4);
        let object = Object::copied(key, &content).made_by("slow");
        uploads.list.push(crate::Upload { object, etag, attributes: Attributes::default() });
    }
    uploads.auditor(&deployment).check();
}

#[test]
fn a_newer_version_is_not_mixed_with_what_was_made_of_the_old_one() {
    let remote = on_ministack(Events::Direct);
    let routes = format!("{SOON}[[route]]\n[[route.use]]\nplugin = \"slow\"\nsettings = {{ rounds = 4000 }}\n");
    let deployment = Deployment::new(&remote, &["slow"], &routes);
    remote.put("uploads/a", &text(1, 100_000));
    let host = deployment.run(&["--until-idle"]);
    eventually("the object to be in work", || remote.counts(&remote.queue).1 == 1);
    let mut uploads = Uploads::to(&remote);
    let newer = text(2, 120_000);
    uploads.add(&newer, Object::copied("uploads/a", &newer).made_by("slow"));
    host.finish().expect(0);
    uploads.auditor(&deployment).check();
}

#[test]
fn an_event_of_an_older_version_is_good_for_the_newer_one() {
    let remote = on_ministack(Events::None);
    let deployment = Deployment::new(&remote, &["copy"], &all_to("[\"copy\"]"));
    let old = remote.put("uploads/a", b"old");
    let mut uploads = Uploads::to(&remote);
    uploads.add(b"new", Object::copied("uploads/a", b"new"));
    // Two writes in short succession may be told of once.
    remote.send(&[message(&[record("ObjectCreated:Put", &remote.bucket, "uploads/a", &old)])]);
    deployment.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
    uploads.auditor(&deployment).check();
    assert_eq!(remote.get("processed/a.copy").unwrap().content, b"new");
}
