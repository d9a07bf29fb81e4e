//! An independent auditor of what a host leaves behind: invariants I1 to I4 of the design, read from the
//! file system and the two databases. It shares no code with the host, so that both would have to be wrong
//! in the same way. (I5, that the queue drains, is what every test waits for with a deadline.)

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::host::sha256;

/// One upload, and what has to become of it.
pub struct Object {
    /// As in `uploads/cat.jpg`.
    pub key: String,
    /// Of its content.
    pub sha256: String,
    pub fate: Fate,
}

pub enum Fate {
    /// Moved to `processed/`, with these outputs and no others, by these plugins in this order.
    Processed { plugins: Vec<String>, outputs: Vec<Output> },
    /// Where it was, with a dead letter of this class. The outputs may be visible: those that were placed
    /// before a conflict was met.
    Dead { class: String, outputs: Vec<Output> },
    /// Where it was, with a message in the queue.
    Waiting,
}

type Accept = Box<dyn Fn(&[u8]) -> bool>;

/// What a plugin has to make of an object.
pub struct Output {
    pub key: String,
    pub plugin: String,
    pub content: Content,
}

pub enum Content {
    /// Of these bytes, by their digest.
    Exactly(String),
    /// It depends on the version of the plugin: by the version's digest.
    ByVersion(BTreeMap<String, String>),
    /// Anything that this accepts.
    Like(Accept),
}

impl Object {
    pub fn processed(key: &str, content: &[u8], plugins: &[&str], outputs: Vec<Output>) -> Self {
        let plugins = plugins.iter().map(|plugin| (*plugin).to_owned()).collect();
        Self { key: key.to_owned(), sha256: sha256(content), fate: Fate::Processed { plugins, outputs } }
    }

    pub fn dead(key: &str, content: &[u8], class: &str) -> Self {
        let fate = Fate::Dead { class: class.to_owned(), outputs: Vec::new() };
        Self { key: key.to_owned(), sha256: sha256(content), fate }
    }

    pub fn waiting(key: &str, content: &[u8]) -> Self {
        Self { key: key.to_owned(), sha256: sha256(content), fate: Fate::Waiting }
    }

    /// What the guest `copy` makes of it.
    pub fn copied(key: &str, content: &[u8]) -> Self {
        Self::processed(key, content, &["copy"], vec![Output::copy(key, content)])
    }

    /// What the guests `copy` and `upper` make of it.
    pub fn copied_and_upper(key: &str, content: &[u8]) -> Self {
        Self::processed(key, content, &["copy", "upper"], vec![Output::copy(key, content), Output::upper(key, content)])
    }

    /// The same, made by another plugin that does what the expected one does.
    #[must_use]
    pub fn made_by(mut self, plugin: &str) -> Self {
        if let Fate::Processed { plugins, outputs } = &mut self.fate {
            *plugins = vec![plugin.to_owned()];
            outputs.iter_mut().for_each(|output| output.plugin = plugin.to_owned());
        }
        self
    }

    pub fn outputs(&self) -> &[Output] {
        match &self.fate {
            Fate::Processed { outputs, .. } | Fate::Dead { outputs, .. } => outputs,
            Fate::Waiting => &[],
        }
    }

    fn destination(&self) -> String {
        destination(&self.key)
    }
}

impl Output {
    pub fn exactly(key: String, plugin: &str, content: &[u8]) -> Self {
        Self { key, plugin: plugin.to_owned(), content: Content::Exactly(sha256(content)) }
    }

    pub fn like(key: String, plugin: &str, accept: impl Fn(&[u8]) -> bool + 'static) -> Self {
        Self { key, plugin: plugin.to_owned(), content: Content::Like(Box::new(accept)) }
    }

    pub fn copy(key: &str, content: &[u8]) -> Self {
        Self::exactly(format!("{}.copy", destination(key)), "copy", content)
    }

    pub fn upper(key: &str, content: &[u8]) -> Self {
        Self::exactly(format!("{}.upper", destination(key)), "upper", &content.to_ascii_uppercase())
    }
}

/// Where an original goes.
pub fn destination(key: &str) -> String {
    format!("processed/{}", key.strip_prefix("uploads/").unwrap())
}

/// What a directory is held against.
pub struct Auditor<'a> {
    pub directory: &'a Path,
    pub manifest: &'a [Object],
    /// Every version of each plugin that has ever been there.
    pub versions: BTreeMap<String, BTreeSet<String>>,
    /// What others put there and the host must leave alone.
    pub foreign: BTreeSet<String>,
}

impl<'a> Auditor<'a> {
    /// With the plugins that are in the directory now.
    pub fn new(directory: &'a Path, manifest: &'a [Object]) -> Self {
        let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in fs::read_dir(directory.join("plugins")).into_iter().flatten() {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            versions.entry(name).or_default().insert(sha256(&fs::read(path).unwrap()));
        }
        Self { directory, manifest, versions, foreign: BTreeSet::new() }
    }

    /// Checks everything, after the host has ended and nothing is left to do.
    #[track_caller]
    pub fn check(&self) {
        let problems = self.problems();
        assert!(problems.is_empty(), "the auditor found {} problems:\n{}", problems.len(), problems.join("\n"));
    }

    /// Everything that is wrong.
    pub fn problems(&self) -> Vec<String> {
        let found = Found::read(self.directory);
        let mut problems = Vec::new();
        self.check_visible(&found, &mut problems);
        self.check_fates(&found, &mut problems);
        self.check_uploads(&found, &mut problems);
        problems.extend(found.staged.iter().map(|path| format!("{path} is left over from a commit")));
        problems
    }

    /// Checks what has to hold at any moment: each object is somewhere, once, and what is visible under
    /// `processed/` is whole. Answers whether a commit is under way, or was when its host was killed.
    #[track_caller]
    pub fn check_at_any_moment(&self) -> bool {
        let found = Found::read(self.directory);
        let mut problems = Vec::new();
        self.check_visible(&found, &mut problems);
        for object in self.manifest {
            let places: Vec<&str> = found.holders(&object.key).map(|(place, _)| place).collect();
            if places.len() != 1 {
                problems.push(format!("{} is not in one place, but in {places:?}", object.key));
            }
        }
        assert!(problems.is_empty(), "the auditor found {} problems:\n{}", problems.len(), problems.join("\n"));
        !found.staged.is_empty()
    }

    /// How many uploads are still where they were and have no dead letter.
    pub fn waiting(&self) -> usize {
        let found = Found::read(self.directory);
        let is_dead = |key: &str| found.dead.iter().any(|dead| dead.key == key);
        self.manifest.iter().filter(|object| found.files.contains_key(&object.key) && !is_dead(&object.key)).count()
    }

    /// I2 and I3: all that is under `processed/` is an original or an output of one, whole, once, and says
    /// where it came from.
    fn check_visible(&self, found: &Found, problems: &mut Vec<String>) {
        let originals: BTreeMap<String, &Object> = self.manifest.iter().map(|o| (o.destination(), o)).collect();
        let outputs: BTreeMap<&str, (&Object, &Output)> = self
            .manifest
            .iter()
            .flat_map(|o| o.outputs().iter().map(move |out| (out.key.as_str(), (o, out))))
            .collect();
        for (key, file) in found.files.range("processed/".to_owned().."processed0".to_owned()) {
            if self.foreign.contains(key) {
                continue;
            }
            let Some(from) = found.provenance.get(&(key.clone(), file.etag.clone())) else {
                problems.push(format!("{key} has no provenance"));
                continue;
            };
            for (name, digest) in &from.plugins {
                if !self.versions.get(name).is_some_and(|digests| digests.contains(digest)) {
                    problems.push(format!("{key}: there never was a {name} with the digest {digest}"));
                }
            }
            // Not by the key alone: an upload may be called like another one's output.
            match (originals.get(key.as_str()), outputs.get(key.as_str())) {
                (Some(object), _) if object.key == from.source => self.check_original(object, file, from, problems),
                (_, Some((object, output))) if object.key == from.source => {
                    self.check_output(object, output, file, from, found, problems);
                }
                _ => problems.push(format!("nobody knows of {key}, made from {}", from.source)),
            }
        }
    }

    fn check_original(&self, object: &Object, file: &File, from: &Provenance, problems: &mut Vec<String>) {
        let key = object.destination();
        if file.sha256 != object.sha256 {
            problems.push(format!("{key} is not what was uploaded"));
        }
        if from.etag != file.etag {
            problems.push(format!("{key} is {}, its provenance says {}", file.etag, from.etag));
        }
        let plugins: Vec<&str> = from.plugins.iter().map(|(name, _)| name.as_str()).collect();
        match &object.fate {
            Fate::Processed { plugins: expected, .. } if plugins == *expected => {}
            Fate::Processed { plugins: expected, .. } => {
                problems.push(format!("{key} went through {plugins:?} and not through {expected:?}"));
            }
            Fate::Dead { .. } | Fate::Waiting => problems.push(format!("{key} should not have been moved")),
        }
    }

    fn check_output(
        &self,
        object: &Object,
        output: &Output,
        file: &File,
        from: &Provenance,
        found: &Found,
        problems: &mut Vec<String>,
    ) {
        let key = &output.key;
        let [(plugin, digest)] = &from.plugins[..] else {
            problems.push(format!("{key} was not made by one plugin: {:?}", from.plugins));
            return;
        };
        if *plugin != output.plugin {
            problems.push(format!("{key} was made by {plugin} and not by {}", output.plugin));
        }
        // The source itself moves on; wherever it is, it is the file that the output was made from.
        if !found.holders(&object.key).any(|(_, file)| file.etag == from.etag && file.sha256 == object.sha256) {
            problems.push(format!("{key} was made from {}, which is nowhere", from.etag));
        }
        let whole = match &output.content {
            Content::Exactly(expected) => file.sha256 == *expected,
            Content::ByVersion(expected) => expected.get(digest) == Some(&file.sha256),
            Content::Like(accept) => accept(&fs::read(self.directory.join(key)).unwrap()),
        };
        if !whole {
            problems.push(format!("{key} ({} bytes) is not what {plugin} makes of {}", file.size, object.key));
        }
    }

    /// I1 and I4: each object is in one place, and where it waits or died the queue says so.
    fn check_fates(&self, found: &Found, problems: &mut Vec<String>) {
        for object in self.manifest {
            let key = &object.key;
            let upload = found.files.get(key);
            let moved = found.moved(key);
            let live: Vec<&String> = found.live.iter().filter(|(live, _)| live == key).map(|(_, etag)| etag).collect();
            let dead: Vec<&Dead> = found.dead.iter().filter(|dead| dead.key == *key).collect();
            let state = format!(
                "{key}: {} in uploads, {} in processed, {} messages, {} dead letters",
                usize::from(upload.is_some()),
                usize::from(moved.is_some()),
                live.len(),
                dead.len()
            );
            let kept = upload.filter(|file| file.sha256 == object.sha256);
            match &object.fate {
                Fate::Processed { outputs, .. } => {
                    if upload.is_some() || moved.is_none() || !live.is_empty() || !dead.is_empty() {
                        problems.push(format!("{state}; it should be processed"));
                    }
                    for output in outputs.iter().filter(|output| !found.files.contains_key(&output.key)) {
                        problems.push(format!("{key}: its output {} is missing", output.key));
                    }
                }
                Fate::Dead { class, .. } => match (kept, &dead[..]) {
                    (Some(kept), [dead]) if moved.is_none() && live.is_empty() => {
                        if dead.etag != kept.etag {
                            problems.push(format!("{key}: the dead letter is about {}, not {}", dead.etag, kept.etag));
                        }
                        if dead.class != *class || dead.reason.is_empty() || dead.attempts == 0 {
                            problems.push(format!("{key}: expected a dead letter of class {class}: {dead:?}"));
                        }
                    }
                    _ => problems.push(format!("{state}; it should be dead and as it was uploaded")),
                },
                Fate::Waiting => match (kept, &live[..]) {
                    (Some(kept), [etag]) if moved.is_none() && dead.is_empty() && **etag == kept.etag => {}
                    _ => problems.push(format!("{state}; it should be waiting, as it was uploaded")),
                },
            }
        }
    }

    /// Nothing is under `uploads/` or in the queue that nobody put there.
    fn check_uploads(&self, found: &Found, problems: &mut Vec<String>) {
        let known: BTreeSet<&str> = self.manifest.iter().map(|object| object.key.as_str()).collect();
        for key in found.files.range("uploads/".to_owned().."uploads0".to_owned()).map(|(key, _)| key) {
            if !known.contains(key.as_str()) && !self.foreign.contains(key) {
                problems.push(format!("nobody uploaded {key}"));
            }
        }
        let messages = found.live.iter().map(|(key, _)| key).chain(found.dead.iter().map(|dead| &dead.key));
        for key in messages.filter(|key| !known.contains(key.as_str())) {
            problems.push(format!("the queue has {key}, which nobody uploaded"));
        }
    }
}

/// What is in the directory.
struct Found {
    /// By key: everything below `uploads/` and `processed/` that is no directory.
    files: BTreeMap<String, File>,
    /// Originals on their way, by key.
    moving: BTreeMap<String, File>,
    /// Paths of what is staged or on its way.
    staged: Vec<String>,
    /// By key and entity tag.
    provenance: BTreeMap<(String, String), Provenance>,
    /// Keys and entity tags.
    live: Vec<(String, String)>,
    dead: Vec<Dead>,
}

#[derive(Debug)]
struct File {
    etag: String,
    size: u64,
    /// Empty for what is no regular file.
    sha256: String,
}

#[derive(Debug)]
struct Provenance {
    source: String,
    etag: String,
    /// Names and digests.
    plugins: Vec<(String, String)>,
}

#[derive(Debug)]
struct Dead {
    key: String,
    etag: String,
    class: String,
    reason: String,
    attempts: i64,
}

impl Found {
    fn read(directory: &Path) -> Self {
        let (mut files, mut moving, mut outputs) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for folder in ["uploads", "processed"] {
            walk(&directory.join(folder), folder, &mut files);
        }
        walk(&directory.join(".gristmill/staging/moving"), "", &mut moving);
        walk(&directory.join(".gristmill/staging/outputs"), "", &mut outputs);
        let staged = moving.keys().map(|key| format!("moving/{key}"));
        let staged = staged.chain(outputs.keys().map(|name| format!("outputs/{name}"))).collect();

        let queue = open(directory, "queue.db");
        let live = rows(&queue, "SELECT key, etag FROM messages", |row| (text(row, 0), text(row, 1)));
        let dead = rows(&queue, "SELECT key, etag, class, reason, attempts FROM dead_letters", |row| Dead {
            key: text(row, 0),
            etag: text(row, 1),
            class: text(row, 2),
            reason: text(row, 3),
            attempts: row.get(4).unwrap(),
        });
        let records = rows(&open(directory, "provenance.db"), "SELECT key, etag, provenance FROM provenance", |row| {
            ((text(row, 0), text(row, 1)), provenance(&text(row, 2)))
        });
        Self { files, moving, staged, provenance: records.into_iter().collect(), live, dead }
    }

    /// The original at its destination, if it is the one that is there.
    fn moved(&self, key: &str) -> Option<&File> {
        let to = destination(key);
        let file = self.files.get(&to)?;
        let from = self.provenance.get(&(to, file.etag.clone()))?;
        (from.source == key && from.etag == file.etag).then_some(file)
    }

    /// Wherever the object is.
    fn holders(&self, key: &str) -> impl Iterator<Item = (&'static str, &File)> {
        let places =
            [("uploads", self.files.get(key)), ("moving", self.moving.get(key)), ("processed", self.moved(key))];
        places.into_iter().filter_map(|(place, file)| Some((place, file?)))
    }
}

fn walk(folder: &Path, key: &str, into: &mut BTreeMap<String, File>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let key = if key.is_empty() { name } else { format!("{key}/{name}") };
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            walk(&path, &key, into);
            continue;
        }
        let modified = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        let mut etag = String::new();
        write!(etag, "{:x}-{:x}-{modified:x}", meta.ino(), meta.size()).unwrap();
        let sha256 = if meta.is_file() { sha256(&fs::read(&path).unwrap()) } else { String::new() };
        into.insert(key, File { etag, size: meta.size(), sha256 });
    }
}

/// Nothing when the host was stopped before it made the database.
fn open(directory: &Path, name: &str) -> Option<Connection> {
    let path = directory.join(".gristmill").join(name);
    path.is_file().then(|| Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap())
}

fn rows<T>(connection: &Option<Connection>, query: &str, row: impl Fn(&rusqlite::Row<'_>) -> T) -> Vec<T> {
    let Some(connection) = connection else { return Vec::new() };
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    if tables == 0 {
        return Vec::new();
    }
    connection.prepare(query).unwrap().query_map([], |found| Ok(row(found))).unwrap().map(Result::unwrap).collect()
}

fn text(row: &rusqlite::Row<'_>, column: usize) -> String {
    row.get(column).unwrap()
}

fn provenance(json: &str) -> Provenance {
    let json: Value = serde_json::from_str(json).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let plugins = json["plugins"].as_array().unwrap().iter();
    Provenance {
        source: text(&json["source_key"]),
        etag: text(&json["source_etag"]),
        plugins: plugins.map(|plugin| (text(&plugin["name"]), text(&plugin["digest"]))).collect(),
    }
}

/// How many messages somebody has received and not settled.
pub fn in_flight(directory: &Path) -> usize {
    rows(&open(directory, "queue.db"), "SELECT 1 FROM messages WHERE receive_count > 0", |_| ()).len()
}

/// How many messages there are.
pub fn live(directory: &Path) -> usize {
    rows(&open(directory, "queue.db"), "SELECT 1 FROM messages", |_| ()).len()
}
