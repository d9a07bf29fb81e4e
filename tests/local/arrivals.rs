//! How files come in, and how a host stops.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    thread,
    time::Duration,
};

use crate::{
    COPY, Uploads, all_to,
    support::{
        auditor::{Auditor, Object, Output, in_flight},
        host::{Bucket, Host, eventually},
        samples::text,
    },
};

#[test]
fn links_pipes_and_directories_are_left_alone() {
    let bucket = Bucket::with(&["copy"], COPY);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "nobody's business").unwrap();
    symlink(outside.path().join("secret"), bucket.path("uploads/link")).unwrap();
    symlink(outside.path(), bucket.path("uploads/folder-link")).unwrap();
    symlink("nowhere", bucket.path("uploads/dangling")).unwrap();
    let (fifo, rights) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
    rustix::fs::mknodat(rustix::fs::CWD, bucket.path("uploads/pipe"), fifo, rights, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bucket.path("uploads/socket")).unwrap();
    fs::create_dir(bucket.path("uploads/empty-folder")).unwrap();
    let not_utf8 = bucket.path("uploads").join(OsStr::from_bytes(b"not-\xff-utf8"));
    fs::write(&not_utf8, "x").unwrap();
    bucket.write("uploads/file", b"x");

    let finished = bucket.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
    let log = finished.log();
    for name in ["link", "folder-link", "dangling", "pipe", "socket"] {
        let line = finished.err.iter().find(|line| line.contains(&format!("uploads/{name}\"")));
        assert!(line.is_some_and(|line| line.contains("left alone")), "{name}: {log}");
    }
    assert!(log.contains("not UTF-8"), "{log}");
    assert!(not_utf8.is_file() && bucket.path("uploads/empty-folder").is_dir());
    assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "nobody's business");
    let manifest = [Object::copied("uploads/file", b"x")];
    let mut auditor = Auditor::new(bucket.root(), &manifest);
    auditor.foreign = ["link", "folder-link", "dangling", "pipe", "socket", "not-\u{fffd}-utf8"]
        .map(|name| format!("uploads/{name}"))
        .into();
    auditor.check();
}

#[test]
fn a_file_that_is_growing_is_waited_out() {
    let bucket = Bucket::with(&["copy"], COPY);
    let content = text(1, 300_000);
    let mut file = File::create(bucket.path("uploads/growing")).unwrap();
    let chunks: Vec<Vec<u8>> = content.chunks(10_000).map(<[u8]>::to_vec).collect();
    let writer = thread::spawn(move || {
        for chunk in chunks {
            file.write_all(&chunk).unwrap();
            // In all, longer than a file that stays the same is waited for.
            thread::sleep(Duration::from_millis(60));
        }
    });
    bucket.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
    writer.join().unwrap();
    Auditor::new(bucket.root(), &[Object::copied("uploads/growing", &content)]).check();
}

#[test]
fn a_writer_that_pauses_is_waited_for() {
    let bucket = Bucket::with(&["copy"], COPY);
    let host = Host::dev(&bucket, &["--json"]);
    bucket.write("uploads/first", b"1");
    host.wait_for_objects(1);
    let mut file = File::create(bucket.path("uploads/slow")).unwrap();
    file.write_all(b"one half, ").unwrap();
    // Longer than a file that nobody writes to is waited for.
    thread::sleep(Duration::from_millis(1_500));
    bucket.write("uploads/second", b"2");
    host.wait_for_objects(2);
    assert!(!bucket.exists("processed/slow"));
    file.write_all(b"and the other").unwrap();
    drop(file);
    host.wait_for_objects(3);
    host.terminate();
    host.finish().expect(0).expect_counts(&[("processed", 3)]);
    let manifest = [("first", &b"1"[..]), ("second", b"2"), ("slow", b"one half, and the other")]
        .map(|(name, content)| Object::copied(&format!("uploads/{name}"), content));
    Auditor::new(bucket.root(), &manifest).check();
}

#[test]
fn files_are_taken_as_they_come_until_sigterm() {
    let mut uploads = Uploads::to(Bucket::with(&["copy"], COPY));
    let host = Host::dev(&uploads.bucket, &["--json"]);
    for n in 0..30 {
        let (key, content) = (format!("uploads/{}/{n}", n % 4), text(n, n as usize * 100));
        let object = Object::copied(&key, &content);
        if n % 2 == 0 {
            uploads.add(content, object);
        } else {
            // Written elsewhere and moved in.
            uploads.bucket.write("elsewhere", &content);
            let to = uploads.bucket.path(&key);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::rename(uploads.bucket.path("elsewhere"), to).unwrap();
            uploads.manifest.push(object);
        }
        if n % 10 == 9 {
            host.wait_for_objects(n as usize + 1);
        }
    }
    host.terminate();
    host.finish().expect(0).expect_counts(&[("processed", 30)]);
    Auditor::new(uploads.bucket.root(), &uploads.manifest).check();
}

#[test]
fn sigterm_lets_work_in_flight_finish() {
    let routes = "[[route.use]]\nplugin = \"slow\"\nsettings = { rounds = 4000 }";
    let bucket = Bucket::with(&["slow"], &all_to(3, routes));
    let host = Host::dev(&bucket, &["--json"]);
    bucket.write("uploads/a", b"x");
    eventually("the object to be in work", || in_flight(bucket.root()) == 1);
    host.terminate();
    host.finish().expect(0).expect_counts(&[("processed", 1)]);
    let output = Output::exactly("processed/a.copy".to_owned(), "slow", b"x");
    Auditor::new(bucket.root(), &[Object::processed("uploads/a", b"x", &["slow"], vec![output])]).check();
}

#[test]
fn a_second_signal_ends_the_host_at_once() {
    let configuration = format!("drain_timeout = \"1h\"\n{}", all_to(3, r#"plugins = ["spin"]"#));
    let bucket = Bucket::with(&["spin"], &configuration);
    let host = Host::dev(&bucket, &["--json"]);
    bucket.write("uploads/a", b"x");
    eventually("the object to be in work", || in_flight(bucket.root()) == 1);
    host.terminate();
    host.interrupt();
    host.finish().expect(0).expect_counts(&[]);
    Auditor::new(bucket.root(), &[Object::waiting("uploads/a", b"x")]).check();
}

#[test]
fn work_that_outlasts_the_drain_is_given_back() {
    let configuration = format!("drain_timeout = \"200ms\"\n{}", all_to(3, r#"plugins = ["spin"]"#));
    let bucket = Bucket::with(&["spin"], &configuration);
    let host = Host::dev(&bucket, &["--json"]);
    bucket.write("uploads/a", b"x");
    eventually("the object to be in work", || in_flight(bucket.root()) == 1);
    host.terminate();
    host.finish().expect(0).expect_counts(&[]);
    Auditor::new(bucket.root(), &[Object::waiting("uploads/a", b"x")]).check();
}

#[test]
fn a_second_host_on_the_same_directory_is_refused() {
    let bucket = Bucket::with(&["copy"], COPY);
    let first = Host::dev(&bucket, &["--json"]);
    bucket.write("uploads/a", b"x");
    first.wait_for_objects(1);
    let second = bucket.run_until_idle().expect(1);
    assert_eq!(second.out, [""; 0]);
    let expected = format!("another gristmill (process {}) is at work on", first.id());
    assert!(second.log().contains(&expected), "{}", second.log());
    first.terminate();
    first.finish().expect(0);
    bucket.run_until_idle().expect(0);
}
