//! WASI 0.2, as far as it is there: every language's runtime finds what it imports, and none gets at
//! anything that the operator has not granted.

use rand::{SeedableRng as _, rngs::StdRng};
use sha2::{Digest as _, Sha256};
use wasmtime::component::Linker;
use wasmtime_wasi::{
    FsPerms, HostWallClock, WasiCtx,
    cli::{WasiCli, WasiCliView as _},
    filesystem::{WasiFilesystem, WasiFilesystemView as _},
    p2::bindings::{cli, clocks::monotonic_clock, filesystem, random},
    random::{WasiRandom, WasiRandomView as _},
};

use super::{
    Plugin,
    asks::Capability,
    clock::{Clock, MonotonicClock},
    imports::{Guest, MAX_READ},
    invoke::ObjectInfo,
};
/// Where a plugin finds the folder that it may read.
const DATA: &str = "/data";

/// Everything of WASI that there is. Sockets are not: a plugin that imports them is refused.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    // Streams, clocks, `random` and standard input and output, which lead nowhere.
    wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(linker)?;
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<Guest, MonotonicClock>(linker, Guest::monotonic_clock)?;
    linker.allow_shadowing(false);
    random::insecure::add_to_linker::<Guest, WasiRandom>(linker, Guest::random)?;
    random::insecure_seed::add_to_linker::<Guest, WasiRandom>(linker, Guest::random)?;
    filesystem::types::add_to_linker::<Guest, WasiFilesystem>(linker, Guest::filesystem)?;
    filesystem::preopens::add_to_linker::<Guest, WasiFilesystem>(linker, Guest::filesystem)?;
    cli::environment::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::exit::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::terminal_input::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::terminal_output::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::terminal_stdin::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::terminal_stdout::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::terminal_stderr::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

/// The world of one call.
///
/// # Errors
/// When the folder that was granted cannot be opened. It is opened anew for each call, so that it can be
/// replaced as a whole while the host runs.
pub(super) fn context(plugin: &Plugin, clock: &Clock, object: &ObjectInfo) -> wasmtime::Result<WasiCtx> {
    let (mut context, grants) = (WasiCtx::builder(), &plugin.grants);
    let asks_for = |capability| plugin.asks.iter().any(|ask| ask.capability == capability);
    // Randomness is made in one go, during which no other guest gets the thread.
    context.max_random_size(MAX_READ.into());
    if asks_for(Capability::Clocks) && !grants.clocks {
        context.wall_clock(clock.clone());
    }
    if asks_for(Capability::Randomness) && !grants.randomness {
        let seed = seed(object);
        let [first, second, third] = [b"secure", b"insecu", b"seeded"].map(|purpose| derived(&seed, purpose));
        let (third, _) = third.split_at(size_of::<u128>());
        context
            .secure_random(StdRng::from_seed(first))
            .insecure_random(StdRng::from_seed(second))
            .insecure_random_seed(third.iter().fold(0, |seed, byte| seed << 8 | u128::from(*byte)));
    }
    if let Some(folder) = grants.data.as_ref().filter(|_| asks_for(Capability::Data)) {
        context.preopened_dir(folder, DATA, FsPerms::ReadOnly).map_err(|error| {
            wasmtime::format_err!("its folder `{}` (`data`) cannot be opened: {error:#}", folder.display())
        })?;
    }
    Ok(context.build())
}

/// Of the object and of nothing else, so that a delivery after a crash, and another version of the plugin,
/// have the same randomness and so the same results.
fn seed(object: &ObjectInfo) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [&object.bucket, &object.key, &object.etag, object.version_id.as_deref().unwrap_or_default()] {
        // The length first: else "a" and "bc" would be "ab" and "c".
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn derived(seed: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(seed).chain_update(purpose).finalize().into()
}

impl HostWallClock for Clock {
    fn resolution(&self) -> std::time::Duration {
        Self::resolution()
    }

    fn now(&self) -> std::time::Duration {
        self.since_epoch()
    }
}
