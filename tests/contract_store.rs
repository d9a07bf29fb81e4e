//! The same contract for the store in a directory, the one in S3 in two makes and the fake that the simulation uses.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

mod contract {
    pub mod store;
}
#[allow(dead_code, reason = "the simulation uses more of it")]
mod support {
    pub mod cloud;
    pub mod faults;
    pub mod memory_store;
    pub mod ministack;
    pub mod remote_bucket;
}

use std::{path::PathBuf, sync::Arc};

use contract::store::Bench;
use gristmill::{
    directory::Lock,
    key::guess_content_type,
    store::{local::LocalStore, s3::S3Store},
};
use support::{
    cloud::Cloud,
    memory_store::MemoryStore,
    ministack,
    remote_bucket::{Attributes, Events, Remote, clients},
};

struct Memory(MemoryStore);

impl Memory {
    fn new() -> Self {
        Self(MemoryStore::new())
    }
}

impl Bench for Memory {
    type Store = MemoryStore;

    fn store(&self) -> &MemoryStore {
        &self.0
    }

    fn put(&self, key: &str, body: &[u8]) {
        self.0.put(key, body.to_vec());
    }

    fn remove(&self, key: &str) {
        self.0.remove(key);
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.objects().get(key).map(|stored| stored.body.to_vec())
    }
}

struct Local {
    store: LocalStore,
    folder: tempfile::TempDir,
}

impl Local {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lock = Arc::new(Lock::acquire(folder.path()).unwrap());
        Self { store: LocalStore::open(&lock, &["uploads/", "processed/"]).unwrap(), folder }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.path().join(key)
    }
}

impl Bench for Local {
    type Store = LocalStore;

    fn store(&self) -> &LocalStore {
        &self.store
    }

    /// As careful programs do it: a new file takes the name.
    fn put(&self, key: &str, body: &[u8]) {
        let mut new = tempfile::NamedTempFile::new_in(self.folder.path()).unwrap();
        std::io::Write::write_all(&mut new, body).unwrap();
        std::fs::create_dir_all(self.path(key).parent().unwrap()).unwrap();
        new.persist(self.path(key)).unwrap();
    }

    fn remove(&self, key: &str) {
        std::fs::remove_file(self.path(key)).unwrap();
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path(key)).ok()
    }
}

const BUCKET: &str = "pictures";

struct S3 {
    store: S3Store,
    cloud: Cloud,
}

impl S3 {
    fn new() -> Self {
        let cloud = Cloud::start();
        cloud.s3().create_bucket(BUCKET);
        Self { store: S3Store::new(cloud.s3_client(), BUCKET, 5 << 30), cloud }
    }
}

impl Bench for S3 {
    type Store = S3Store;

    fn store(&self) -> &S3Store {
        &self.store
    }

    /// As the tools of AWS do it.
    fn put(&self, key: &str, body: &[u8]) {
        let headers: Vec<_> =
            guess_content_type(key).map(|content_type| ("content-type", content_type)).into_iter().collect();
        self.cloud.s3().put_with(BUCKET, key, body.to_vec(), &headers);
    }

    fn remove(&self, key: &str) {
        self.cloud.s3().remove(BUCKET, key);
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.cloud.s3().get(BUCKET, key).map(|object| object.body.to_vec())
    }
}

/// S3 of another make.
struct Ministack {
    store: S3Store,
    remote: Remote,
}

impl Ministack {
    fn new() -> Self {
        let remote = apart(|| Remote::new(ministack::endpoint(), Events::None));
        let (client, _) = clients(ministack::endpoint());
        Self { store: S3Store::new(client, &remote.bucket, 5 << 30), remote }
    }
}

/// `Remote` has a runtime of its own, which cannot be waited for within another.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

impl Bench for Ministack {
    type Store = S3Store;

    fn store(&self) -> &S3Store {
        &self.store
    }

    fn put(&self, key: &str, body: &[u8]) {
        let mut attributes = Attributes::default();
        if let Some(content_type) = guess_content_type(key) {
            attributes.headers.insert("content-type".to_owned(), content_type.to_owned());
        }
        apart(|| self.remote.put_with(key, body, &attributes));
    }

    fn remove(&self, key: &str) {
        apart(|| self.remote.delete(key));
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        apart(|| self.remote.get(key)).map(|stored| stored.content)
    }
}

macro_rules! contract {
    (all { $($name:ident)* } conditional_copies { $($conditional:ident)* }) => {
        mod memory {
            contract! { on Memory: $($name)* $($conditional)* }
        }
        mod local {
            contract! { on Local: $($name)* $($conditional)* }
        }
        mod s3 {
            contract! { on S3: $($name)* $($conditional)* }
        }
        // It takes no notice of a condition on the destination of a copy.
        mod stand_in {
            contract! { on Ministack: $($name)* }
        }
    };
    (on $bench:ident: $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                super::contract::store::$name(&super::$bench::new()).await;
            }
        )*
    };
}

contract! {
    all {
        nothing_is_not_found
        an_object_is_described
        a_body_is_read_in_order
        a_body_is_read_anywhere
        an_empty_object_is_an_object
        no_byte_of_a_newer_object_is_read
        verify_tells_the_pinned_object_from_others
        an_output_is_visible_when_it_is_published
        large_outputs_are_kept_apart
        a_thousand_small_outputs_are_kept_apart
        what_is_not_published_is_never_seen
        publishing_overwrites_only_what_it_expects
        what_a_user_overwrites_is_foreign
        of_two_writers_one_wins
        a_move_takes_everything_along
        a_move_leaves_a_newer_source_alone
        strange_keys_are_keys
    }
    conditional_copies {
        a_move_overwrites_only_what_it_expects
    }
}
