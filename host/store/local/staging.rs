//! Outputs of one call, in memory while they are small and in files once they are not.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex as BlockingMutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use tokio::sync::Mutex;

use super::{Shared, blocking, into_io_error};
use crate::{
    directory::{Identity, sync},
    io::{BoxFuture, IoError, OutputMeta, Outputs},
    store::{Provenance, StoreError},
};

/// What one output keeps in memory: fewer, larger writes, and none at all before a small output is wanted.
const OUTPUT_MEMORY: usize = 1 << 20;

/// What all outputs of one call keep in memory together, for a plugin that makes a thousand small ones.
const STAGING_MEMORY: usize = 4 << 20;

/// The outputs of one call. Clones share them; the last one throws away what was not published.
#[derive(Debug, Clone)]
pub struct LocalStaging(Arc<Area>);

#[derive(Debug)]
struct Area {
    shared: Arc<Shared>,
    /// Unique in this run of the host.
    number: u64,
    provenance: Provenance,
    outputs: BlockingMutex<Vec<(OutputMeta, Arc<Mutex<Output>>)>>,
    buffered: AtomicUsize,
}

/// How far an output has come.
#[derive(Debug)]
pub(super) enum Output {
    /// Takes bytes: `written` are in the file, the rest is in `buffer`.
    Open { written: u64, buffer: Vec<u8> },
    /// Whole in its file.
    Sealed(Identity),
    /// At its key.
    Published,
    /// A write failed or was cancelled half-way, so what is in the file is not what the plugin meant.
    Broken,
}

impl LocalStaging {
    pub(super) fn new(shared: &Arc<Shared>, provenance: Provenance) -> Self {
        Self(Arc::new(Area {
            shared: Arc::clone(shared),
            number: shared.next_staging.fetch_add(1, Ordering::Relaxed),
            provenance,
            outputs: BlockingMutex::default(),
            buffered: AtomicUsize::new(0),
        }))
    }

    /// How the output is to be stored, and its state, which publishing holds until it is done.
    pub(super) fn output(&self, index: usize) -> Result<(OutputMeta, Arc<Mutex<Output>>), StoreError> {
        let outputs = self.0.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let never = || StoreError::Impossible(format!("output number {index} was never created"));
        outputs.get(index).cloned().ok_or_else(never)
    }

    /// Where all of them come from.
    pub(super) fn provenance(&self) -> &Provenance {
        &self.0.provenance
    }

    /// The name of the output's file among the staged ones.
    pub(super) fn file_name(&self, index: usize) -> String {
        self.0.file_name(index)
    }

    /// Brings all of the output into its file. The identity stays the same at its key.
    pub(super) async fn seal(&self, output: &mut Output, index: usize) -> Result<Identity, StoreError> {
        let (written, buffer) = match std::mem::replace(output, Output::Broken) {
            Output::Open { written, buffer } => (written, buffer),
            Output::Sealed(identity) => {
                *output = Output::Sealed(identity);
                return Ok(identity);
            }
            Output::Published => {
                *output = Output::Published;
                return Err(StoreError::Impossible(format!("output number {index} was published already")));
            }
            Output::Broken => return Err(broken(index)),
        };
        self.0.buffered.fetch_sub(buffer.len(), Ordering::Relaxed);
        let area = Arc::clone(&self.0);
        let identity = blocking(move || {
            let file = area.append(index, written, &[&buffer])?;
            let refused = |reason| area.shared.refused_staging("write", &area.file_name(index), reason);
            Ok(Identity::of(&rustix::fs::fstat(&file).map_err(refused)?))
        })
        .await?;
        *output = Output::Sealed(identity);
        Ok(identity)
    }

    /// Brings the output's file to disk.
    pub(super) async fn settle(&self, index: usize) -> Result<(), StoreError> {
        let area = Arc::clone(&self.0);
        blocking(move || {
            let name = area.file_name(index);
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&area.shared.outputs, &name, flags, Mode::empty())
                .and_then(sync)
                .map_err(|reason| area.shared.refused_staging("write through to disk", &name, reason))
        })
        .await
    }
}

impl Outputs for LocalStaging {
    fn create(&self, meta: OutputMeta) {
        let empty = Arc::new(Mutex::new(Output::Open { written: 0, buffer: Vec::new() }));
        self.0.outputs.lock().unwrap_or_else(PoisonError::into_inner).push((meta, empty));
    }

    fn write(&self, index: usize, bytes: Bytes) -> BoxFuture<'_, Result<(), IoError>> {
        Box::pin(async move {
            let (_, output) = self.output(index).map_err(into_io_error)?;
            let mut output = output.lock().await;
            // Broken unless this comes to its end.
            let state = std::mem::replace(&mut *output, Output::Broken);
            let Output::Open { written, mut buffer } = state else { return Err(into_io_error(broken(index))) };

            let fits = buffer.len() + bytes.len() <= OUTPUT_MEMORY
                && self.0.buffered.load(Ordering::Relaxed) + bytes.len() <= STAGING_MEMORY;
            *output = if fits {
                self.0.buffered.fetch_add(bytes.len(), Ordering::Relaxed);
                buffer.extend_from_slice(&bytes);
                Output::Open { written, buffer }
            } else {
                self.0.buffered.fetch_sub(buffer.len(), Ordering::Relaxed);
                let end = written + (buffer.len() + bytes.len()) as u64;
                let area = Arc::clone(&self.0);
                blocking(move || area.append(index, written, &[&buffer, &bytes])).await.map_err(into_io_error)?;
                Output::Open { written: end, buffer: Vec::new() }
            };
            Ok(())
        })
    }
}

fn broken(index: usize) -> StoreError {
    StoreError::Unavailable(format!("output number {index} is incomplete: an earlier write to it failed"))
}

impl Area {
    fn file_name(&self, index: usize) -> String {
        format!("{}-{index}", self.number)
    }

    /// The file is opened for every append: a thousand outputs must not hold a thousand descriptors, and an
    /// append is mostly a mebibyte.
    fn append(&self, index: usize, mut offset: u64, parts: &[&[u8]]) -> Result<File, StoreError> {
        let name = self.file_name(index);
        let refused = |reason: Errno| self.shared.refused_staging("write", &name, reason);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        let file: File = rustix::fs::openat(&self.shared.outputs, &name, flags, mode).map_err(refused)?.into();
        for part in parts {
            file.write_all_at(part, offset)
                .map_err(|error| refused(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
            offset += part.len() as u64;
        }
        Ok(file)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        let outputs = std::mem::take(self.outputs.get_mut().unwrap_or_else(PoisonError::into_inner));
        let left = outputs.into_iter().enumerate().filter(|(_, (_, output))| {
            // Somebody who still holds the output is a write that was cancelled on its way to the file.
            !matches!(output.try_lock().as_deref(), Ok(Output::Published | Output::Open { written: 0, .. }))
        });
        for (index, _) in left {
            self.shared.janitor.remove(self.file_name(index));
        }
    }
}
