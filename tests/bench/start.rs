//! A host that starts with ten plugins whose code it has.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use gristmill::{
    config::{Limits, Trust},
    plugin::{Cache, CompileLimits, Compiler, Engine},
    registry::Registry,
};

use super::{Discard, Result, Zeros, call, done, manifest, runtime};

/// From the scan of the directory to the end of the first call, with code from the cache and without.
pub fn start() -> Result<()> {
    const GUESTS: [&str; 10] =
        ["copy", "upper", "split", "nothing", "skip", "reject", "echo-info", "remember", "digest-a", "digest-b"];
    const ROUNDS: usize = 20;
    let folder = tempfile::tempdir()?;
    let plugins = folder.path().join("plugins");
    fs::create_dir(&plugins)?;
    for guest in GUESTS {
        let to = plugins.join(guest).with_extension("wasm");
        fs::copy(manifest("target/guests").join(guest).with_extension("wasm"), &to)?;
        // The host waits for files that were written just now.
        fs::File::options().write(true).open(&to)?.set_modified(SystemTime::now() - Duration::from_secs(60))?;
    }
    let runtime = runtime(1)?;
    let first_object = || -> Result<Duration> {
        let engine = Engine::new(8)?;
        let cache = Cache::open(&folder.path().join("cache"), &folder.path().join("state/cache.key"))?;
        let compiler = Compiler::in_child(env!("CARGO_BIN_EXE_gristmill"), CompileLimits::default());
        let started = Instant::now();
        let compiler = compiler.with_cache(Some(cache));
        let registry = Registry::watch(engine, compiler, &plugins, &Trust::default(), None)?;
        let catalog = Arc::clone(&registry.catalog().borrow());
        let copy = catalog.get("copy").ok_or("`copy` was not loaded")?;
        done(&runtime.block_on(copy.call(call(Zeros::of(64 << 10), Arc::new(Discard::default()), Limits::default()))))?;
        let took = started.elapsed();
        assert_eq!(catalog.iter().filter(|(_, entry)| entry.plugin.is_some()).count(), GUESTS.len());
        Ok(took)
    };
    let cold = first_object()?;
    let mut warm = (0..ROUNDS).map(|_| first_object()).collect::<Result<Vec<_>>>()?;
    warm.sort_unstable();
    println!(
        "ten Rust plugins, from the scan to the end of the first object: {:.0} ms compiled, {:.1} ms from the cache \
         (median; at most {:.1})",
        cold.as_secs_f64() * 1e3,
        warm[ROUNDS / 2].as_secs_f64() * 1e3,
        warm[ROUNDS - 1].as_secs_f64() * 1e3
    );
    Ok(())
}
