//! `gristmill plugin`: list, inspect, and run one object without a queue; signing has a file of its own.

use std::{
    collections::BTreeMap,
    fs::{File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use bytesize::ByteSize;
use serde_json::json;
use tempfile::NamedTempFile;

use super::{Fatal, LOCAL_BUCKET, file::FileBody, release, signing};
use crate::{
    cli::PluginCommand,
    config::{Config, Grants, Limits, Plugins},
    io::{BoxFuture, IoError, OutputMeta, Outputs},
    key,
    plugin::{
        Answer, Ask, Call, CallError, CallReport, Compiler, Digest, Engine, Granted, LoadError, ObjectInfo, Plugin,
        Verdict,
    },
    registry::{self, Entry},
};

/// `gristmill plugin …`, with the configuration of the host that it is about, if it is about one: it says what
/// plugins may have. They are compiled by `compiler`.
///
/// # Errors
/// When a file or directory cannot be read, or a plugin is refused.
pub fn run(command: PluginCommand, config: Option<&Config>, compiler: &Compiler) -> Result<ExitCode, Fatal> {
    let engine = engine(config.map(|config| config.grants.clone()).unwrap_or_default())?;
    match command {
        PluginCommand::List { plugins, json, .. } => list(&engine, plugins.as_deref(), config, json, compiler),
        PluginCommand::Promote { name, .. } => release::change(config, &name, release::Verb::Promote),
        PluginCommand::Rollback { name, .. } => release::change(config, &name, release::Verb::RollBack),
        PluginCommand::Inspect { file, json, .. } => inspect(&engine, &file, json, compiler),
        PluginCommand::Run { plugin, inputs, output, settings, force, .. } => {
            let plugin = load(&engine, &plugin, compiler, Plugin::load)?;
            let settings = Arc::new(settings.into_iter().collect());
            run_all(&plugin, &inputs, &output, &settings, force)
        }
        PluginCommand::Keygen { output, no_password } => signing::keygen(&output, no_password),
        PluginCommand::Sign { files, key } => signing::sign(&files, &key),
        PluginCommand::Verify { files, public_key } => signing::verify(&files, &public_key),
    }
}

/// An engine for one call at a time.
pub(super) fn engine(grants: BTreeMap<String, Grants>) -> Result<Arc<Engine>, Fatal> {
    Engine::granting(1, Granted::new(grants).map_err(Fatal::failed)?).map_err(Fatal::failed)
}

fn list(
    engine: &Arc<Engine>,
    directory: Option<&Path>,
    config: Option<&Config>,
    as_json: bool,
    compiler: &Compiler,
) -> Result<ExitCode, Fatal> {
    let configured = config.and_then(|config| match &config.plugins {
        Plugins::BuiltIn => None,
        Plugins::Directory(directory) => Some(directory.as_path()),
    });
    let known = config.map(release::Known::of).transpose()?.flatten();
    let trust = config.map(|config| config.trust.clone()).unwrap_or_default();
    let catalog = match directory.or(configured) {
        Some(directory) => registry::load_directory(engine, compiler, directory, &trust),
        None => registry::load_built_in(engine, compiler, &trust),
    };
    let catalog = catalog.map_err(Fatal::failed)?;
    let mut out = io::stdout().lock();
    let mut print = || -> io::Result<()> {
        if !as_json {
            writeln!(out, "{:<20} {:<12} {:>10} {:<9} {:<8} IMPORTS", "NAME", "DIGEST", "SIZE", "INTERFACE", "STATE")?;
        }
        for (name, entry) in catalog.iter() {
            if as_json {
                writeln!(out, "{}", entry_json(name, entry))?
            } else {
                writeln!(out, "{}", entry_row(name, entry))?
            }
        }
        for (plugin, record) in known.iter().flat_map(release::Known::records) {
            match as_json {
                true => writeln!(out, "{}", release::json(plugin, record))?,
                false => release::rows(plugin, record).iter().try_for_each(|row| writeln!(out, "{row}"))?,
            }
        }
        Ok(())
    };
    tolerate_closed_pipe(print())?;
    let refused = catalog.iter().any(|(_, entry)| entry.refused.is_some());
    Ok(if refused { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn entry_row(name: &str, entry: &Entry) -> String {
    match (&entry.plugin, &entry.refused) {
        (Some(plugin), None) => format!(
            "{name:<20} {:<12} {:>10} {:<9} {:<8} {}",
            plugin.digest.short(),
            ByteSize(plugin.size).to_string(),
            plugin.interface,
            "loaded",
            plugin.imports.join(" ")
        ),
        (_, Some(refused)) => {
            let digest = refused.digest.map_or_else(String::new, |digest| digest.short());
            format!("{name:<20} {digest:<12} {:>10} {:<9} {:<8} {}", "", "", "refused", refused.reason)
        }
        (None, None) => format!("{name:<20} {:<12} {:>10} {:<9} {:<8}", "", "", "", "changing"),
    }
}

fn entry_json(name: &str, entry: &Entry) -> serde_json::Value {
    match (&entry.plugin, &entry.refused) {
        (Some(plugin), None) => plugin_json(plugin),
        (_, Some(refused)) => json!({
            "name": name,
            "digest": refused.digest.map(|digest| digest.to_string()),
            "state": "refused",
            "reason": refused.reason,
        }),
        (None, None) => json!({ "name": name, "state": "changing" }),
    }
}

fn plugin_json(plugin: &Plugin) -> serde_json::Value {
    json!({
        "name": plugin.name,
        "digest": plugin.digest.to_string(),
        "size": plugin.size,
        "interface": plugin.interface,
        "imports": plugin.imports,
        "asks": plugin.asks.iter().map(ask_json).collect::<Vec<_>>(),
        "state": if is_refused(plugin) { "refused" } else { "loaded" },
    })
}

fn is_refused(plugin: &Plugin) -> bool {
    plugin.asks.iter().any(|ask| ask.answer == Answer::Refused)
}

fn ask_json(ask: &Ask) -> serde_json::Value {
    json!({
        "import": ask.import,
        "key": ask.capability.key(),
        "answer": match ask.answer {
            Answer::Granted => "granted",
            Answer::Nothing => "nothing",
            Answer::Refused => "refused",
        },
    })
}

/// What it asks for, whether it has it, and else what to do.
fn ask_row(ask: &Ask, plugin: &str) -> String {
    let import = &ask.import;
    match (ask.answer, ask.capability.key()) {
        (Answer::Granted, _) => format!("asks for   {import}: granted"),
        (_, None) => format!("asks for   {import}: never granted, {}", ask.capability.instead()),
        (_, Some(key)) => {
            let instead = ask.capability.instead();
            format!("asks for   {import}: not granted, {instead}; `{key}` in `[plugin.{plugin}]` grants it")
        }
    }
}

fn inspect(engine: &Arc<Engine>, file: &Path, as_json: bool, compiler: &Compiler) -> Result<ExitCode, Fatal> {
    let started = Instant::now();
    let plugin = load(engine, file, compiler, Plugin::examine)?;
    let mut out = io::stdout().lock();
    let mut print = || {
        if as_json {
            return writeln!(out, "{}", plugin_json(&plugin));
        }
        writeln!(out, "name       {}", plugin.name)?;
        writeln!(out, "sha256     {}", plugin.digest)?;
        writeln!(out, "size       {}", ByteSize(plugin.size))?;
        writeln!(out, "interface  gristmill:plugin@{}", plugin.interface)?;
        writeln!(out, "loaded in  {:.0} ms", started.elapsed().as_secs_f64() * 1e3)?;
        plugin.imports.iter().try_for_each(|import| writeln!(out, "imports    {import}"))?;
        plugin.asks.iter().try_for_each(|ask| writeln!(out, "{}", ask_row(ask, &plugin.name)))
    };
    tolerate_closed_pipe(print())?;
    Ok(if is_refused(&plugin) { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// A file, or the name of a built-in plugin.
fn load(
    engine: &Arc<Engine>,
    plugin: &Path,
    compiler: &Compiler,
    load: impl FnOnce(&Arc<Engine>, &Compiler, &str, &[u8]) -> Result<Plugin, LoadError>,
) -> Result<Plugin, Fatal> {
    let built_in = plugin.to_str().and_then(registry::built_in_bytes);
    let bytes = match built_in {
        Some(bytes) if !plugin.exists() => bytes.to_vec(),
        _ => registry::read_named_file(plugin)
            .map_err(|error| Fatal::Failed(format!("{}: {error}", plugin.display())))?,
    };
    let name = plugin.file_stem().map_or_else(|| "plugin".into(), |stem| stem.to_string_lossy());
    let digest = Digest::of(&bytes);
    load(engine, compiler, &name, &bytes)
        .map_err(|error| Fatal::Failed(format!("{} ({}): {error}", plugin.display(), digest.short())))
}

fn run_all(
    plugin: &Plugin,
    inputs: &[PathBuf],
    output: &Path,
    settings: &Arc<serde_json::Map<String, serde_json::Value>>,
    force: bool,
) -> Result<ExitCode, Fatal> {
    std::fs::create_dir_all(output)
        .map_err(|error| Fatal::Failed(format!("cannot make {}: {error}", output.display())))?;
    let runtime = super::runtime()?;
    let mut code = ExitCode::SUCCESS;
    for input in inputs {
        let shown = input.display();
        match runtime.block_on(run_one(plugin, input, output, settings, force)) {
            Ok(line) => tolerate_closed_pipe(writeln!(io::stdout(), "{shown}: {line}"))?,
            Err(error) => {
                code = ExitCode::from(1);
                tolerate_closed_pipe(writeln!(io::stdout(), "{shown}: {error}"))?;
            }
        }
    }
    Ok(code)
}

async fn run_one(
    plugin: &Plugin,
    input: &Path,
    folder: &Path,
    settings: &Arc<serde_json::Map<String, serde_json::Value>>,
    force: bool,
) -> Result<String, String> {
    let file = File::open(input).map_err(|error| format!("cannot be read: {error}"))?;
    let meta = file.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    if !meta.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let name = input.file_name().and_then(|name| name.to_str()).ok_or("its name is not UTF-8")?;
    let staged = Arc::new(Staged { folder: folder.to_owned(), files: Mutex::default() });
    let call = Call {
        object: ObjectInfo {
            bucket: LOCAL_BUCKET.to_owned(),
            key: name.to_owned(),
            name: name.to_owned(),
            stem: key::stem(name).to_owned(),
            size: meta.len(),
            etag: String::new(),
            version_id: None,
            content_type: key::guess_content_type(name).map(str::to_owned),
            metadata: Vec::new(),
            event_time: None,
            attempt: 1,
        },
        body: Box::new(FileBody::new(file)),
        outputs: Arc::clone(&staged) as Arc<dyn Outputs>,
        destination: name.to_owned(),
        settings: Arc::clone(settings),
        limits: Limits::default(),
    };
    let started = Instant::now();
    let CallReport { result, outputs, bytes_read, .. } = plugin.call(call).await;
    let took = format!("{:.1} ms, read {}", started.elapsed().as_secs_f64() * 1e3, ByteSize(bytes_read));
    match result {
        Ok(Verdict::Done) => {
            let mut line = format!("done in {took}");
            for (index, output) in outputs.iter().enumerate() {
                let path = folder.join(&output.meta.key);
                staged.keep(index, &path, force).map_err(|error| format!("{}: {error}", path.display()))?;
                line.push_str(&format!(
                    "\n  -> {} ({}, {})",
                    path.display(),
                    output.meta.content_type,
                    ByteSize(output.size)
                ));
            }
            Ok(line)
        }
        Ok(Verdict::Skipped(reason)) => Ok(format!("skipped in {took}: {reason}")),
        Err(CallError::Reject(reason)) => Err(format!("rejected in {took}: {reason}")),
        Err(CallError::Retry { reason, .. }) => Err(format!("wants to be retried after {took}: {reason}")),
        Err(error) => {
            let (CallError::Trap { backtrace, .. } | CallError::Limit { backtrace, .. }) = &error else {
                return Err(format!("failed in {took}: {error}"));
            };
            let at = backtrace
                .as_ref()
                .map_or_else(String::new, |frames| format!("\n  at {}", frames.replace(" <- ", "\n     ")));
            Err(format!("failed in {took}: {error}{at}"))
        }
    }
}

/// Outputs in temporary files beside their place, gone unless they are kept.
struct Staged {
    folder: PathBuf,
    files: Mutex<BTreeMap<usize, NamedTempFile>>,
}

impl Staged {
    /// With the mode that any new file has, for it is going to be one.
    fn temporary(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(&self.folder)
    }

    fn append(&self, index: usize, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match files.entry(index) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(self.temporary()?),
        };
        file.write_all(bytes)
    }

    fn keep(&self, index: usize, path: &Path, force: bool) -> Result<(), String> {
        // An output that was never written to has no file yet.
        self.append(index, b"").map_err(|error| error.to_string())?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| error.to_string())?;
        }
        let Some(file) = self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(&index) else {
            return Ok(());
        };
        let kept = if force { file.persist(path) } else { file.persist_noclobber(path) };
        match kept {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Err("is already there; name another folder with -o, or replace it with --force".to_owned())
            }
            Err(error) => Err(error.error.to_string()),
        }
    }
}

impl Outputs for Staged {
    fn create(&self, _: OutputMeta) {}

    fn write(&self, index: usize, bytes: Bytes) -> BoxFuture<'_, Result<(), IoError>> {
        Box::pin(async move { self.append(index, &bytes).map_err(unavailable) })
    }
}

fn unavailable(error: io::Error) -> IoError {
    IoError::Unavailable(error.to_string())
}

/// `gristmill plugin list | head` is no error.
pub(super) fn tolerate_closed_pipe(written: io::Result<()>) -> Result<(), Fatal> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Fatal::Failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
