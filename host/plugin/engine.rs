//! The wasmtime engine: its configuration, its pool of instances, and the clock that interrupts guests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, component::Linker};

use super::{
    Granted,
    imports::{self, Guest},
    wasi,
};
use crate::config::MAX_MEMORY;

/// How often a running guest gives way to others and its deadline is looked at.
const TICK: Duration = Duration::from_millis(10);

/// Address space for each memory. With 4 GiB every 32-bit address lies inside it or its guard, so the
/// code needs no bounds checks; a smaller one made loops 1.5 times slower.
const MEMORY_RESERVATION: u64 = 4 << 30;

/// Pages of a memory that stay mapped between instances, reset by copying. Only with PAGEMAP_SCAN, which
/// finds the touched ones; without it the whole range would be cleared at every call.
const MEMORY_KEEP_RESIDENT: usize = 2 << 20;
const TABLE_KEEP_RESIDENT: usize = 64 << 10;

/// Elements of a table: the largest language runtime seen (SpiderMonkey) fits.
const TABLE_ELEMENTS: usize = 40_000;

/// What one component may consist of. Adapters and runtimes come as several core instances; a chain
/// composed of a few components still fits.
const CORE_INSTANCES_PER_COMPONENT: u32 = 32;
const MEMORIES_PER_COMPONENT: u32 = 4;
const TABLES_PER_COMPONENT: u32 = 8;
const INSTANCE_SIZE: usize = 4 << 20;

/// Of all components together: half of the address space of a process, 47 bits, in [`MEMORY_RESERVATION`]s.
/// With so many slots that it counts, plugins with several memories have to share what is left.
const MEMORIES: u32 = 16 << 10;

/// The most slots: with one memory and one stack each they need five or six mappings, and the kernel gives a
/// process 65,530 (`vm.max_map_count`).
const SLOTS: u32 = 10_000;

/// Stack of a guest's own frames, and of the fiber it runs on, which also holds the host calls.
const WASM_STACK: usize = 1 << 20;
const FIBER_STACK: usize = 2 << 20;

/// Frames kept of a guest's call stack.
const BACKTRACE_FRAMES: usize = 16;

/// Why the engine could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the WebAssembly engine for {slots} slots: {source:#}; try fewer `slots`")]
pub struct EngineError {
    slots: usize,
    source: wasmtime::Error,
}

/// Compiles and runs components. One for the process; see [`Engine::new`].
pub struct Engine {
    pub(super) wasmtime: wasmtime::Engine,
    pub(super) linker: Linker<Guest>,
    pub(super) granted: Granted,
    _ticker: Ticker,
}

impl Engine {
    /// An engine that can run `slots` components at the same time.
    ///
    /// # Errors
    /// When the address space for them cannot be had.
    pub fn new(slots: usize) -> Result<Arc<Self>, EngineError> {
        Self::granting(slots, Granted::default())
    }

    /// The same, whose plugins may have more than their objects.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn granting(slots: usize, granted: Granted) -> Result<Arc<Self>, EngineError> {
        Self::build(slots, TICK, granted)
    }

    /// The same with a clock of another pace. A simulation that has to come out the same each time takes
    /// one that never ticks: then a guest runs from one host call to the next in one go.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn with_tick(slots: usize, tick: Duration) -> Result<Arc<Self>, EngineError> {
        Self::build(slots, tick, Granted::default())
    }

    fn build(slots: usize, tick: Duration, granted: Granted) -> Result<Arc<Self>, EngineError> {
        let build = || -> wasmtime::Result<Arc<Self>> {
            let wasmtime = wasmtime::Engine::new(&config(slots))?;
            let mut linker = Linker::new(&wasmtime);
            wasi::link(&mut linker)?;
            imports::add_to_linker(&mut linker)?;
            let ticker = Ticker::start(wasmtime.clone(), tick)?;
            Ok(Arc::new(Self { wasmtime, linker, granted, _ticker: ticker }))
        };
        build().map_err(|source| EngineError { slots, source })
    }
}

fn config(slots: usize) -> Config {
    let slots = u32::try_from(slots).unwrap_or(u32::MAX).clamp(1, SLOTS);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(slots.saturating_mul(MEMORIES_PER_COMPONENT).min(MEMORIES))
        .total_tables(slots.saturating_mul(TABLES_PER_COMPONENT))
        .total_stacks(slots)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_component_instance_size(INSTANCE_SIZE)
        .max_core_instance_size(INSTANCE_SIZE)
        .max_memory_size(usize::try_from(MAX_MEMORY).unwrap_or(usize::MAX))
        .table_elements(TABLE_ELEMENTS);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT)
            .table_keep_resident(TABLE_KEEP_RESIDENT);
    }

    let mut config = code_config();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES));
    config
}

/// What the code of a plugin depends on. Whoever compiles has to have it in common with whoever runs the code, and
/// takes no address space for instances.
pub(super) fn code_config() -> Config {
    let mut config = Config::new();
    config
        .memory_reservation(MEMORY_RESERVATION)
        .epoch_interruption(true)
        // No plugin can use component-model async before the interface does.
        .concurrency_support(false)
        .gc_support(false)
        // Proposals that no toolchain for plugins needs: less compiler and runtime to trust.
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .wasm_threads(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_tail_call(false)
        .wasm_relaxed_simd(false);
    config
}

/// Moves the engine's epoch on until it is dropped.
struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: wasmtime::Engine, tick: Duration) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("epoch".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                thread::park_timeout(tick);
                engine.increment_epoch();
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It only counts; there is nothing that a panic there could have left behind.
            let _ = thread.join();
        }
    }
}
