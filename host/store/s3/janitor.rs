//! Aborts uploads that nobody completes, since destructors cannot wait.
//!
//! What a crash leaves, and what cannot be aborted, is for a lifecycle rule of the bucket
//! (`AbortIncompleteMultipartUpload`): such uploads are invisible, but their parts are paid for.

use std::{
    sync::{Mutex, PoisonError, mpsc as blocking},
    thread,
    time::Duration,
};

use aws_sdk_s3::Client;
use tokio::{runtime::Builder, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    error::{Operation, Refusal},
    requests::apart,
};

/// Uploads that wait to be aborted. More only come together when S3 is in trouble; the rest is then left to
/// the lifecycle rule.
const WAITING: usize = 1_024;

/// What the end of the host waits for it.
const END: Duration = Duration::from_secs(5);

/// How long S3 may take to accept its connection: less than [`END`].
const CONNECT: Duration = Duration::from_millis(2_500);

/// Dropping it ends its thread after what was asked for before, or after [`END`].
#[derive(Debug)]
pub(super) struct Janitor {
    client: Client,
    bucket: String,
    /// From the first upload on that is to be aborted: mostly there is none.
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    uploads: mpsc::Sender<Abandoned>,
    stop: CancellationToken,
    ended: blocking::Receiver<()>,
    thread: thread::JoinHandle<()>,
}

/// An upload that nobody completes.
#[derive(Debug)]
pub(super) struct Abandoned {
    pub(super) key: String,
    pub(super) id: String,
}

impl Janitor {
    pub(super) fn new(client: &Client, bucket: &str) -> Self {
        Self { client: apart(client, CONNECT), bucket: bucket.to_owned(), running: Mutex::default() }
    }

    /// Aborts the upload soon.
    pub(super) fn abort(&self, upload: Abandoned) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            match Running::start(self.client.clone(), self.bucket.clone()) {
                Ok(started) => *running = Some(started),
                Err(reason) => {
                    tracing::warn!(key = upload.key, %reason, "cannot abort an upload; a lifecycle rule has to");
                    return;
                }
            }
        }
        if let Some(Err(error)) = running.as_ref().map(|running| running.uploads.try_send(upload)) {
            let (mpsc::error::TrySendError::Full(upload) | mpsc::error::TrySendError::Closed(upload)) = error;
            tracing::warn!(key = upload.key, "too many uploads wait to be aborted; a lifecycle rule has to");
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { uploads, stop, ended, thread }) = running else { return };
        drop(uploads);
        // On a thread of its own, so that this may wait wherever it is called.
        let _ = ended.recv_timeout(END);
        stop.cancel();
        let _ = thread.join();
    }
}

impl Running {
    fn start(client: Client, bucket: String) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (uploads, waiting) = mpsc::channel(WAITING);
        let (end, ended) = blocking::sync_channel(1);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = thread::Builder::new().name("janitor".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = work(&client, &bucket, waiting) => {}
                    () = stopped.cancelled() => {
                        tracing::warn!("uploads are left that could not be aborted; a lifecycle rule has to");
                    }
                }
            });
            // Nobody waits any more when the receiver is gone.
            let _ = end.send(());
        })?;
        Ok(Self { uploads, stop, ended, thread })
    }
}

async fn work(client: &Client, bucket: &str, mut waiting: mpsc::Receiver<Abandoned>) {
    while let Some(Abandoned { key, id }) = waiting.recv().await {
        let aborted = client.abort_multipart_upload().bucket(bucket).key(&key).upload_id(&id).send().await;
        if let Err(error) = aborted {
            let refusal = Refusal::new(Operation::AbortUpload, &key, &error);
            if !refusal.is_no_such_upload() {
                let reason = refusal.into_error(bucket);
                tracing::warn!(key, id, %reason, "cannot abort an upload; a lifecycle rule has to");
            }
        }
    }
}
