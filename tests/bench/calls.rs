//! What calls cost the host, with plugins that do next to nothing themselves.

use std::{
    fs, future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use gristmill::{
    config::Limits,
    io::{Body, BoxFuture, IoError},
    lanes::{self, Threads},
    plugin::{Engine, Plugin},
};
use tokio::task::JoinSet;

use super::{Discard, Result, Zeros, call, done, micros, plugin, resident, runtime};

const CHUNK: u64 = 64 << 10;

/// What one call costs: a fresh instance, with nothing to do and with 64 KiB in and out.
pub fn overhead() -> Result<()> {
    const CALLS: usize = 20_000;
    let runtime = runtime(1)?;
    let engine = Engine::new(8)?;
    for (guest, bytes) in [("nothing", 0), ("copy", CHUNK)] {
        let plugin = Arc::new(plugin(&engine, "guests", guest)?);
        // On the runtime's own thread, as the host's calls are.
        let mut times = runtime.block_on(runtime.spawn(async move {
            let mut times = Vec::with_capacity(CALLS);
            for _ in 0..CALLS {
                let call = call(Zeros::of(bytes), Arc::new(Discard::default()), Limits::default());
                let started = Instant::now();
                let report = plugin.call(call).await;
                times.push(started.elapsed());
                done(&report).map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(times)
        }))??;
        times.sort_unstable();
        let at = |part: f64| micros(times[((times.len() - 1) as f64 * part) as usize]);
        println!("{guest:<8} {:>3} KiB in and out: p50 {:.1} us, p99 {:.1} us", bytes >> 10, at(0.5), at(0.99));
    }
    Ok(())
}

/// The same on two threads against one, and each beside a plain loop: the machine's cores may not be two.
pub fn threads() -> Result<()> {
    const ROUNDS: usize = 9;
    let engine = Engine::new(8)?;
    let copy = Arc::new(plugin(&engine, "guests", "copy")?);
    let mut ratios = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let [alone, both] = [1, 2].map(|threads| throughput(&copy, threads));
        let [loop_alone, loop_both] = [1, 2].map(plain_loop);
        let (calls, plain) = (both? / alone?, loop_both / loop_alone);
        ratios.push((calls / plain, calls, plain));
    }
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, calls, plain) = ratios[ROUNDS / 2];
    println!(
        "two threads: {calls:.2} times the calls of one, a plain loop {plain:.2} times: {:.2} of 2 (median of {ROUNDS} rounds)",
        ratio * 2.0
    );
    Ok(())
}

fn throughput(plugin: &Arc<Plugin>, threads: usize) -> Result<f64> {
    const CALLS: usize = 5_000;
    let runtime = runtime(threads)?;
    let started = Instant::now();
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..threads {
            let plugin = Arc::clone(plugin);
            tasks.spawn(async move {
                for _ in 0..CALLS {
                    plugin.call(call(Zeros::of(CHUNK), Arc::new(Discard::default()), Limits::default())).await;
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        Result::Ok(())
    })?;
    Ok((CALLS * threads) as f64 / started.elapsed().as_secs_f64())
}

fn plain_loop(threads: usize) -> f64 {
    const ROUNDS: u64 = 100_000_000;
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..ROUNDS).fold(1_u64, |x, i| std::hint::black_box(x.wrapping_mul(31).wrapping_add(i))));
        }
    });
    (ROUNDS * threads as u64) as f64 / started.elapsed().as_secs_f64()
}

/// 10,000 instances at the same time, each in the middle of its object.
pub fn alive() -> Result<()> {
    const INSTANCES: usize = 10_000;
    let runtime = runtime(2)?;
    let engine = Engine::new(INSTANCES)?;
    let plugin = Arc::new(plugin(&engine, "guests", "copy")?);
    let idle = resident("VmRSS")?;
    let reading = Arc::new(AtomicUsize::new(0));
    runtime.block_on(async {
        let mut calls = JoinSet::new();
        for _ in 0..INSTANCES {
            let (plugin, body) = (Arc::clone(&plugin), Box::new(Silent(Arc::clone(&reading))));
            calls.spawn(async move { plugin.call(call(body, Arc::new(Discard::default()), Limits::default())).await });
        }
        while reading.load(Ordering::Relaxed) < INSTANCES {
            if let Some(ended) = calls.try_join_next() {
                return Err(format!("an instance ended early: {:?}", ended?.result).into());
            }
            tokio::task::yield_now().await;
        }
        println!(
            "{INSTANCES} instances alive: {:.1} KiB each of RSS, {} mappings of the process",
            (resident("VmRSS")? - idle) / INSTANCES as f64,
            fs::read_to_string("/proc/self/maps")?.lines().count()
        );
        Result::Ok(())
    })
}

/// Counts who asks, and never answers.
struct Silent(Arc<AtomicUsize>);

impl Body for Silent {
    fn read(&mut self, _: usize) -> BoxFuture<'_, std::result::Result<Bytes, IoError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(future::pending())
    }

    fn read_at(&mut self, _: u64, _: usize) -> BoxFuture<'_, std::result::Result<Bytes, IoError>> {
        Box::pin(future::pending())
    }
}

/// What calls of other plugins feel of one whose guests compute until their deadline, as many of them as such a
/// plugin may have at the same time: the same calls in turn without and with it.
pub fn fairness() -> Result<()> {
    const SPINNING: usize = 48;
    const ROUNDS: usize = 6;
    /// A call of each of the two kinds, and how many of it in each round.
    const KINDS: [(&str, u64, usize); 2] = [("64 KiB", CHUNK, 300), ("128 MiB", 128 << 20, 12)];
    let mut control = tokio::runtime::Builder::new_multi_thread();
    let control = control.worker_threads(2).on_thread_start(lanes::moments).enable_all().build()?;
    let threads = Threads::start(std::thread::available_parallelism()?.get())?;
    let lanes = threads.lanes(control.handle().clone());
    let engine = Engine::new(SPINNING + 8)?;
    let [spin, copy] = ["spin", "copy"].map(|name| plugin(&engine, "guests", name).map(Arc::new));
    let (spin, copy) = (spin?, copy?);
    let mut times: [[Vec<f64>; 2]; 2] = Default::default();
    control.block_on(async {
        for round in 0..ROUNDS * 2 {
            let disturbed = round % 2;
            let mut spinning = JoinSet::new();
            for _ in 0..SPINNING * disturbed {
                let (lanes, spin) = (Arc::clone(&lanes), Arc::clone(&spin));
                spinning.spawn(async move {
                    let limits = Limits { deadline: Duration::from_millis(500), ..Limits::default() };
                    loop {
                        let (spin, outputs) = (Arc::clone(&spin), Arc::new(Discard::default()));
                        let call = async move { spin.call(call(Zeros::of(0), outputs, limits)).await };
                        if lanes.run("spin", call).await.is_err() {
                            return;
                        }
                    }
                });
            }
            for ((name, bytes, calls), times) in KINDS.into_iter().zip(&mut times) {
                for _ in 0..calls {
                    let copy = Arc::clone(&copy);
                    let started = Instant::now();
                    let call = async move {
                        copy.call(call(Zeros::of(bytes), Arc::new(Discard::default()), Limits::default())).await
                    };
                    done(&lanes.run(name, call).await?)?;
                    times[disturbed].push(started.elapsed().as_secs_f64());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            spinning.shutdown().await;
        }
        Result::Ok(())
    })?;
    for ((name, ..), [mut alone, mut beside]) in KINDS.into_iter().zip(times) {
        for times in [&mut alone, &mut beside] {
            times.sort_by(f64::total_cmp);
        }
        let at = |times: &[f64], part: f64| times[((times.len() - 1) as f64 * part) as usize] * 1e6;
        for (quantile, part) in [("p50", 0.5), ("p99", 0.99)] {
            let (alone, beside) = (at(&alone, part), at(&beside, part));
            println!(
                "{name:>7} copied, {quantile}: {alone:.0} us alone, {beside:.0} us beside {SPINNING} that spin: {:.2} times",
                beside / alone
            );
        }
    }
    threads.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}
