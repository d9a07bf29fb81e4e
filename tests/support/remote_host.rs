//! The real binary as people deploy it before a bucket: `gristmill run` with an environment and a file.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::PathBuf,
};

use tempfile::TempDir;

use super::{
    host::{Finished, Host, command, guest_file, modified, sha256},
    remote_bucket::Remote,
};

/// What stands on the machine that runs a host: its plugins, its file, its environment.
pub struct Deployment<'a> {
    remote: &'a Remote,
    folder: TempDir,
    environment: BTreeMap<String, String>,
}

impl<'a> Deployment<'a> {
    /// With these guests as plugins of the same name. Bucket and queue are in the environment; `configuration`
    /// is the rest.
    pub fn new(remote: &'a Remote, guests: &[&str], configuration: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("gristmill-test-").tempdir().unwrap();
        fs::write(folder.path().join("gristmill.toml"), configuration).unwrap();
        let this = Self { remote, folder, environment: BTreeMap::new() };
        for guest in guests {
            this.plugin(guest, guest);
        }
        let variables = [("BUCKET", &remote.bucket), ("QUEUE_URL", &remote.queue)];
        let variables = variables.map(|(name, value)| (name, value.clone())).into_iter().chain(remote.environment());
        variables.fold(this, |this, (name, value)| this.with(name, &value))
    }

    /// With another variable, or another value of one.
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.environment.insert(variable.to_owned(), value.to_owned());
        self
    }

    /// Puts a guest into the plugin directory under a name.
    pub fn plugin(&self, guest: &str, name: &str) {
        let (from, to) = (guest_file(guest), self.plugins().join(name).with_extension("wasm"));
        fs::create_dir_all(self.plugins()).unwrap();
        fs::copy(&from, &to).unwrap();
        // As `cp -p` does. The host waits for files that were written just now.
        File::options().write(true).open(&to).unwrap().set_modified(modified(&from)).unwrap();
    }

    fn plugins(&self) -> PathBuf {
        self.folder.path().join("plugins")
    }

    /// The digest of each plugin that is there now, by its name.
    pub fn versions(&self) -> BTreeMap<String, BTreeSet<String>> {
        let files = fs::read_dir(self.plugins()).into_iter().flatten().map(|file| file.unwrap().path());
        let version = |path: PathBuf| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, BTreeSet::from([sha256(&fs::read(path).unwrap())]))
        };
        files.map(version).collect()
    }

    /// Any verb, where the file is and with the environment.
    pub fn gristmill(&self, arguments: &[&str]) -> Host {
        let mut command = command(arguments);
        Host::spawn(command.current_dir(self.folder.path()).envs(&self.environment))
    }

    /// `gristmill run`, with everything that it tells as JSON.
    pub fn run(&self, flags: &[&str]) -> Host {
        let arguments: Vec<&str> =
            ["run", "--json", "--log-format", "json"].into_iter().chain(flags.iter().copied()).collect();
        self.gristmill(&arguments)
    }

    /// Serves until the queue is empty.
    pub fn run_until_idle(&self) -> Finished {
        self.run(&["--until-idle"]).finish()
    }
}
