//! `kill -9` of real hosts on a queue and a bucket: nothing is lost, nothing is doubled.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod support {
    pub mod audited;
    pub mod cloud;
    pub mod host;
    pub mod ledger;
    pub mod remote;
    pub mod toys;
}

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use support::{
    audited::Audited,
    cloud::Fault,
    host::{Host, command, eventually, guest_file, modified},
    toys::{GUESTS, Kind},
};

const OBJECTS: usize = 2_000;

const KILLS: usize = 110;

/// Hosts that are alive at the same time, most of the time.
const HOSTS: usize = 3;

/// What is uploaded before the first kill. The rest comes with the kills, so that each meets some work.
const EARLY: usize = 80;

/// Long enough for calls that a kill cuts off between two of them, short enough for what takes all of it.
const LATENCY: Duration = Duration::from_millis(3);

/// Attempts without end, since a kill costs one; and what a killed host had comes back soon.
const CONFIGURATION: &str = r#"
slots = 16
visibility_timeout = "2s"

[retry]
max_attempts = 1000
base = "1s"
max = "2s"
"#;

/// Of the queue: a backstop that no object reaches.
const MAX_RECEIVES: u32 = 500;

const KINDS: &[Kind] =
    &[Kind::Move, Kind::Copy, Kind::Fan, Kind::Split, Kind::Move, Kind::Copy, Kind::Flaky, Kind::Skip];

fn kind(number: usize) -> Kind {
    if number % 100 == 99 { Kind::Reject } else { KINDS[number % KINDS.len()] }
}

/// The hosts' configuration and their plugins.
fn prepare(folder: &Path, remote: &Audited) -> PathBuf {
    let plugins = folder.join("plugins");
    fs::create_dir(&plugins).unwrap();
    for guest in GUESTS {
        let (from, to) = (guest_file(guest), plugins.join(guest).with_extension("wasm"));
        fs::copy(&from, &to).unwrap();
        // As `cp -p` does. The host waits for files that were written just now.
        File::options().write(true).open(&to).unwrap().set_modified(modified(&from)).unwrap();
    }
    let file = folder.join("gristmill.toml");
    fs::write(&file, format!("{}{CONFIGURATION}{}", remote.configuration(), routes())).unwrap();
    file
}

/// Those of the kinds.
fn routes() -> String {
    let mut routes = String::new();
    for kind in Kind::ALL {
        write!(routes, "[[route]]\nmatch = \"*.{}\"\n", kind.suffix()).unwrap();
        for plugin in kind.plugins() {
            write!(routes, "[[route.use]]\nplugin = \"{plugin}\"\nsettings = {{ until = 2 }}\n").unwrap();
        }
    }
    routes
}

fn start(configuration: &Path, remote: &Audited) -> Host {
    let mut command = command(&["run", "--config"]);
    Host::spawn(command.arg(configuration).envs(remote.cloud.environment()))
}

#[test]
fn kills_at_random_moments_lose_and_double_nothing() {
    let seed = env::var("GRISTMILL_TEST_SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}: repeat its choices with GRISTMILL_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let remote = Audited::new(MAX_RECEIVES);
    remote.cloud.latency(LATENCY);
    let reads = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    remote.cloud.faults({
        let reads = Arc::clone(&reads);
        move |call| {
            if call.operation == "GetObject" {
                *reads.lock().unwrap().entry(call.key.clone()).or_default() += 1;
            }
            Fault::None
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let configuration = prepare(folder.path(), &remote);
    let mut uploaded = 0;
    let mut upload_until = |number: usize| {
        while uploaded < number {
            remote.upload_kind(kind(uploaded), uploaded, 100 + uploaded);
            uploaded += 1;
        }
    };
    upload_until(EARLY);

    let mut hosts: Vec<Host> = (0..HOSTS).map(|_| start(&configuration, &remote)).collect();
    let mut in_work = 0;
    for kill in 1..=KILLS {
        thread::sleep(Duration::from_millis(random.u64(20..300)));
        upload_until(EARLY + kill * (OBJECTS - EARLY) / KILLS);
        // Some die with their hands full, others at any moment, their start included.
        if random.bool() {
            eventually("messages in flight", || remote.in_flight() > 0 || remote.live() == 0);
            thread::sleep(Duration::from_micros(random.u64(0..30_000)));
        }
        let before = remote.in_flight();
        let killed = hosts.swap_remove(random.usize(..hosts.len())).kill();
        assert_eq!(killed.code, None, "it ended by itself: {}", killed.log());
        in_work += usize::from(before > 0);
        hosts.push(start(&configuration, &remote));
    }
    assert_eq!(uploaded, OBJECTS);
    let left = remote.live();
    eventually("an empty queue", || remote.live() == 0);
    for host in hosts {
        host.terminate();
        let ended = host.finish();
        assert!(matches!(ended.code, Some(0 | 1)), "{}", ended.log());
    }

    let reads = reads.lock().unwrap();
    let repeated: usize =
        remote.uploads().iter().filter_map(|key| reads.get(key)?.checked_sub(once(Kind::of(key))?)).sum();
    println!(
        "{KILLS} kills over {OBJECTS} objects: {in_work} with messages in flight, {left} objects were left at the end, \
         {repeated} runs of plugins were repeated"
    );
    remote.check();
    // Else the kills came when nothing happened, and showed nothing.
    assert!(in_work >= KILLS / 2, "only {in_work} of {KILLS} kills met messages in flight");
}

/// How often an object is read when all goes well, by plugins of which each run reads it once.
fn once(kind: Kind) -> Option<usize> {
    match kind {
        Kind::Copy | Kind::Split => Some(1),
        Kind::Fan => Some(2),
        _ => None,
    }
}
