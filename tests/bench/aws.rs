//! The host over a bucket and a queue, held against the worker that people write by hand, on the same server
//! in the same run.
//!
//! The server is in this process, the clients are processes of their own: what they cost is what the system
//! counts for them.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Result, manifest,
    remote::{BUCKET, Remote},
};

/// Objects before the measurement: connections, threads and caches are there by then.
const WARM_UP: usize = 40;

/// How long a measurement takes, about.
const MEASURED: Duration = Duration::from_secs(6);

/// Of one measurement: the server keeps everything in memory.
const MOST_OBJECTS: f64 = 6_000.0;

/// How long a client may take for anything.
const PATIENCE: Duration = Duration::from_secs(180);

/// Between two looks whether everything is done.
const LOOK: Duration = Duration::from_millis(5);

/// Never reached: a client that fails is noticed.
const MAX_RECEIVES: u32 = 100;

/// Of one object.
const BYTES: usize = 64 << 10;

/// What `/proc/PID/stat` counts in: USER_HZ, which is this for every program on Linux.
const TICKS: f64 = 100.0;

#[derive(Clone, Copy, PartialEq)]
enum Client {
    Gristmill,
    Boto3 { threads: usize },
}

#[derive(Clone, Copy, PartialEq)]
enum Work {
    Move,
    Copy,
}

/// What one client did.
struct Figures {
    objects_per_second: f64,
    /// Seconds of a core for each object.
    cpu: f64,
    calls: f64,
}

/// Objects per second, and per second of a core.
pub fn aws() -> Result<()> {
    let clients = [Client::Gristmill, Client::Boto3 { threads: 1 }, Client::Boto3 { threads: 16 }];
    println!("64 KiB objects; each row: objects/s, client CPU ms and calls an object; then ours over theirs");
    println!(
        "{:<28}{:<21}{:>10}{:>9}{:>7}{:>13}{:>15}",
        "", "client", "objects/s", "CPU ms", "calls", "x objects/s", "x objects/CPU"
    );
    for (work, name) in [(Work::Move, "moved (passthrough)"), (Work::Copy, "copied by a plugin")] {
        for latency in [Duration::ZERO, Duration::from_millis(20)] {
            let figures = clients.map(|client| measure(client, work, latency));
            let [ours, ..] = &figures;
            let ours = ours.as_ref().map_err(ToString::to_string)?;
            for (client, theirs) in clients.iter().zip(&figures) {
                let theirs = theirs.as_ref().map_err(ToString::to_string)?;
                let (title, client) = match client {
                    Client::Gristmill => (format!("{name}, +{} ms", latency.as_millis()), "gristmill".to_owned()),
                    Client::Boto3 { threads: 1 } => (String::new(), "boto3, sequential".to_owned()),
                    Client::Boto3 { threads } => (String::new(), format!("boto3, {threads} threads")),
                };
                println!(
                    "{title:<28}{client:<21}{:>10.0}{:>9.2}{:>7.1}{:>13.1}{:>15.1}",
                    theirs.objects_per_second,
                    theirs.cpu * 1e3,
                    theirs.calls,
                    ours.objects_per_second / theirs.objects_per_second,
                    theirs.cpu / ours.cpu,
                );
            }
        }
    }
    Ok(())
}

/// What a host costs that has nothing to do.
pub fn idle() -> Result<()> {
    const FOR: Duration = Duration::from_secs(60);
    let remote = Remote::new(MAX_RECEIVES);
    let folder = tempfile::tempdir()?;
    let client = start(Client::Gristmill, Work::Move, &remote, folder.path())?;
    work(&remote, &client, 0, WARM_UP)?;
    let (calls, cpu) = (remote.calls(), client.cpu()?);
    thread::sleep(FOR);
    println!("idle: {:.1} ms of CPU and {} calls a minute", (client.cpu()? - cpu) * 1e3, remote.calls() - calls);
    Ok(())
}

/// What a host needs that has ten thousand large objects ahead of it, and copies them.
pub fn memory() -> Result<()> {
    const QUEUED: usize = 10_000;
    const LARGE: usize = 20 << 20;
    /// After so many it needs no more: each is as large as any other. The server keeps them all.
    const COPIED: usize = 100;
    let remote = Remote::new(MAX_RECEIVES);
    let folder = tempfile::tempdir()?;
    remote.upload("original", vec![b'x'; LARGE]);
    // Copies share the server's memory, uploads would not.
    let s3 = remote.cloud.s3_client();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        for number in 0..QUEUED {
            let copy = s3.copy_object().bucket(BUCKET).key(format!("uploads/{number}.large"));
            copy.copy_source(format!("{BUCKET}/original")).send().await?;
        }
        Ok::<_, aws_sdk_s3::Error>(())
    })?;
    let client = start(Client::Gristmill, Work::Copy, &remote, folder.path())?;
    let started = Instant::now();
    while remote.live() > QUEUED - COPIED {
        if started.elapsed() > PATIENCE {
            return Err(format!("{} messages are left", remote.live()).into());
        }
        client.cpu()?;
        thread::sleep(LOOK);
    }
    println!("{QUEUED} objects of 20 MiB queued, {COPIED} copied: peak RSS {:.0} MiB", client.peak_memory()?);
    Ok(())
}

fn measure(client: Client, kind: Work, latency: Duration) -> Result<Figures> {
    let remote = Remote::new(MAX_RECEIVES);
    remote.cloud.latency(latency);
    let folder = tempfile::tempdir()?;
    let client = start(client, kind, &remote, folder.path())?;
    let warm_up = work(&remote, &client, 0, WARM_UP)?;
    let rate = WARM_UP as f64 / warm_up.as_secs_f64();
    let objects = (rate * MEASURED.as_secs_f64()).clamp(WARM_UP as f64, MOST_OBJECTS) as usize;
    let (calls, cpu) = (remote.calls(), client.cpu()?);
    let seconds = work(&remote, &client, WARM_UP, objects)?.as_secs_f64();
    let outputs = if kind == Work::Copy { 2 } else { 1 };
    assert_eq!(remote.keys("processed/").len(), (WARM_UP + objects) * outputs, "not everything was done");
    Ok(Figures {
        objects_per_second: objects as f64 / seconds,
        cpu: (client.cpu()? - cpu) / objects as f64,
        calls: (remote.calls() - calls) as f64 / objects as f64,
    })
}

/// Uploads so many objects and waits until they are done.
fn work(remote: &Remote, client: &Running, from: usize, objects: usize) -> Result<Duration> {
    let started = Instant::now();
    for number in from..from + objects {
        let mut content = vec![b'x'; BYTES];
        content[..8].copy_from_slice(&number.to_le_bytes());
        remote.upload(&format!("uploads/{number}.bin"), content);
    }
    while remote.live() > 0 {
        if started.elapsed() > PATIENCE {
            return Err(format!("{} of {objects} objects are not done", remote.live()).into());
        }
        client.cpu()?;
        thread::sleep(LOOK);
    }
    Ok(started.elapsed())
}

/// A client at work, until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; that has been noticed elsewhere.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// The most that has been resident so far, MiB.
    fn peak_memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no peak")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }

    /// Seconds of a core so far, its own and the system's for it.
    fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The second field is a name in parentheses, and may hold anything.
        let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [state, user, system] = [0, 11, 12].map(|number| fields.get(number).copied().unwrap_or_default());
        if state == "Z" {
            return Err("the client ended by itself".into());
        }
        Ok((user.parse::<f64>()? + system.parse::<f64>()?) / TICKS)
    }
}

fn start(client: Client, work: Work, remote: &Remote, folder: &Path) -> Result<Running> {
    let mut command = match client {
        Client::Gristmill => {
            let plugins = folder.join("plugins");
            fs::create_dir(&plugins)?;
            let (from, name) = match work {
                Work::Move => ("target/plugins/passthrough.wasm", "passthrough"),
                Work::Copy => ("target/guests/copy.wasm", "copy"),
            };
            fs::copy(manifest(from), plugins.join(name).with_extension("wasm"))?;
            let file = folder.join("gristmill.toml");
            fs::write(&file, format!("{}\n[[route]]\nplugins = [\"{name}\"]\n", remote.configuration()))?;
            let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
            command.args(["--log", "error", "run", "--config"]).arg(file);
            command.env("XDG_CACHE_HOME", folder).env("XDG_STATE_HOME", folder.join("state"));
            command
        }
        Client::Boto3 { threads } => {
            let mut command = Command::new(manifest(".venv/bin/python"));
            command.arg(manifest("examples/boto3/worker.py")).args(["--threads", &threads.to_string()]);
            if work == Work::Copy {
                command.arg("--copy");
            }
            command.env("BUCKET", BUCKET).env("QUEUE_URL", remote.queue_url()).env("REGION", "us-east-1");
            command
        }
    };
    command.envs(remote.cloud.environment()).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Running(command.spawn()?))
}
