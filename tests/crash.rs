//! `kill -9` of the real binary at random moments: nothing is lost, nothing is doubled, and nothing partial
//! is ever visible.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod support {
    pub mod auditor;
    pub mod host;
    pub mod samples;
}

use std::{fs, thread, time::Duration};

use support::{
    auditor::{Auditor, Object, Output, destination, in_flight},
    host::{Bucket, Host, eventually},
    samples::text,
};

const OBJECTS: usize = 420;

const KILLS: usize = 70;

/// Objects that are there before the first host starts. The others come while hosts live and die.
const EARLY: usize = 100;

/// Of one object in this many the outputs are larger than what a host keeps in memory.
const LARGE: usize = 30;

const PLUGINS: &[&str] = &["copy", "upper", "reject", "flaky"];

/// Few slots, so that work is left at every kill; and attempts without end, since a kill costs one.
const CONFIGURATION: &str = r#"
slots = 3

[retry]
max_attempts = 1000
base = "5ms"
max = "20ms"

[[route]]
match = "*.two"
plugins = ["copy", "upper"]

[[route]]
match = "*.one"
plugins = ["upper"]

[[route]]
match = "*.bad"
plugins = ["reject"]

[[route]]
match = "*.flaky"
plugins = ["flaky"]

[[route]]
match = "*.plain"
"#;

/// What is dropped as number `n`, and what has to become of it.
fn upload(n: usize) -> (Vec<u8>, Object) {
    let length = if n.is_multiple_of(LARGE) { (1 << 20) + n * 1_000 } else { n * 13 };
    let content = text(n as u64, length);
    let folder = ["", "a/", "a/b c/", "ü/"][n % 4];
    let key = |extension: &str| format!("uploads/{folder}{n}.{extension}");
    let object = match n % 7 {
        0..=2 => Object::copied_and_upper(&key("two"), &content),
        3 => {
            let key = key("one");
            let output = Output::upper(&key, &content);
            Object::processed(&key, &content, &["upper"], vec![output])
        }
        4 => Object::dead(&key("bad"), &content, "reject"),
        5 => {
            let key = key("flaky");
            let to = destination(&key);
            let output = Output::exactly(format!("{to}.copy"), "flaky", &content);
            Object::processed(&key, &content, &["flaky"], vec![output])
        }
        _ => Object::processed(&key("plain"), &content, &[], Vec::new()),
    };
    (content, object)
}

/// Drops files until there are so many. Some are written in their place, others elsewhere and moved in.
fn drop_until(bucket: &Bucket, manifest: &mut Vec<Object>, number: usize) {
    while manifest.len() < number.min(OBJECTS) {
        let (content, object) = upload(manifest.len());
        if manifest.len().is_multiple_of(2) {
            bucket.write(&object.key, &content);
        } else {
            bucket.write("elsewhere", &content);
            let to = bucket.path(&object.key);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::rename(bucket.path("elsewhere"), to).unwrap();
        }
        manifest.push(object);
    }
}

#[test]
fn kills_at_random_moments_lose_and_double_nothing() {
    let seed =
        std::env::var("GRISTMILL_TEST_SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}: repeat its choices with GRISTMILL_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let bucket = Bucket::with(PLUGINS, CONFIGURATION);
    let mut manifest = Vec::new();
    drop_until(&bucket, &mut manifest, EARLY);

    let (mut in_work, mut on_the_way) = (0, 0);
    for kill in 1..=KILLS {
        let host = Host::dev(&bucket, &["--json"]);
        let number = EARLY + kill * (OBJECTS - EARLY) / KILLS;
        // Some hosts die at any moment, their start included; the others soon after they were given work.
        if random.u8(0..3) == 0 {
            drop_until(&bucket, &mut manifest, number);
            thread::sleep(Duration::from_millis(random.u64(20..400)));
        } else {
            host.wait_for_log("its plugins", |lines| (lines.len() >= PLUGINS.len()).then_some(()));
            drop_until(&bucket, &mut manifest, number);
            thread::sleep(Duration::from_micros(random.u64(0..40_000)));
        }
        let killed = host.kill();
        assert_eq!(killed.code, None, "it ended by itself: {}", killed.log());
        in_work += usize::from(in_flight(bucket.root()) > 0);
        let auditor = Auditor::new(bucket.root(), &manifest);
        on_the_way += usize::from(auditor.check_at_any_moment());
    }
    assert_eq!(manifest.len(), OBJECTS);
    let before = Auditor::new(bucket.root(), &manifest).waiting();

    let finished = bucket.run_until_idle();
    let summary = finished.summary();
    println!(
        "{KILLS} kills: {in_work} with objects in work, {on_the_way} amid a commit; {before} objects were left for the \
         end, which came to {summary}"
    );
    Auditor::new(bucket.root(), &manifest).check();
    // Else the kills came when nothing happened, and showed nothing.
    assert!(in_work >= KILLS / 8, "only {in_work} of {KILLS} kills met objects in work");
}

/// The moments that a kill at random hardly meets, since they last microseconds: made by hand.
#[test]
fn what_a_kill_leaves_on_its_way_is_cleared_up() {
    let bucket = Bucket::with(&["spin"], "[[route]]\nplugins = [\"spin\"]\n");
    let host = Host::dev(&bucket, &["--json"]);
    let names = ["moving", "in a folder/moving", "overtaken"];
    for name in names {
        bucket.write(&format!("uploads/{name}"), b"content");
    }
    eventually("the objects to be in work", || in_flight(bucket.root()) == names.len());
    host.kill();
    for name in names {
        let transit = bucket.path(&format!(".gristmill/staging/moving/uploads/{name}"));
        fs::create_dir_all(transit.parent().unwrap()).unwrap();
        fs::rename(bucket.path(&format!("uploads/{name}")), transit).unwrap();
    }
    bucket.write("uploads/overtaken", b"a newer upload");
    bucket.write(".gristmill/staging/outputs/0-0", b"half of an out");

    bucket.plugin("copy", "spin");
    bucket.run_until_idle().expect(0);
    let manifest = names.map(|name| {
        let key = format!("uploads/{name}");
        let content = if name == "overtaken" { &b"a newer upload"[..] } else { b"content" };
        let output = Output::exactly(format!("processed/{name}.copy"), "spin", content);
        Object::processed(&key, content, &["spin"], vec![output])
    });
    Auditor::new(bucket.root(), &manifest).check();
}
