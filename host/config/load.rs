//! From the sources to a [`Config`], or to everything that is wrong with them.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use super::{
    Config, ConfigErrors, Limits, MAX_VISIBILITY, Origin, Place, Plugins, Retry, Trust,
    document::Document,
    environment::Environment,
    error::{Located, Problems},
    layers::Layers,
    limits::{Named, read_limits, read_plugins, read_retry},
    routes::{Defaults, refuse_loop},
    value,
};
use crate::directory::STATE;

/// Each slot reserves some GiB of address space; a thousand fit into what a process has.
const SLOTS: RangeInclusive<usize> = 1..=1_000;

/// Objects in work for each core: most of them wait for the store, not for a core.
const SLOTS_PER_CORE: usize = 4;

/// The same where each call crosses a network. One that takes 20 ms costs half a millisecond of a core, and an
/// object takes four of them in a row.
const BUCKET_SLOTS_PER_CORE: usize = 32;

/// With less than a MiB even small objects would have to wait for each other; more than a PiB is no bound.
const BYTES_IN_FLIGHT: RangeInclusive<u64> = (1 << 20)..=(1 << 50);

/// Enough for thirty photographs at the same time, and little beside the memory that thirty guests may have.
const DEFAULT_BYTES_IN_FLIGHT: u64 = 256 << 20;

/// What SQS can express, without zero: at zero a message would be everybody's at once.
const VISIBILITY: RangeInclusive<Duration> = Duration::from_secs(1)..=MAX_VISIBILITY;

/// Long enough to finish a film, short enough that somebody who stops the host sees it stop.
const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);

/// Short, since a lease renews it: this is how long a crashed host's objects wait for another one.
const DEFAULT_VISIBILITY: Duration = Duration::from_secs(30);

/// What `docker stop`, systemd and ECS leave a process, or can be told to.
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

/// Soon enough after somebody has mended what a plugin depends on, and a burden to nobody until then.
const DEFAULT_PROBE: Duration = Duration::from_secs(30);

/// Everything that a configuration is made of. `main` collects it; nothing else reads files, the
/// environment or the machine for it.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The path as given and the text of `gristmill.toml`, if there is one. Relative paths in it start
    /// at its folder; those of flags and variables start where the host was started.
    pub file: Option<(PathBuf, String)>,
    /// The whole environment, as far as it is Unicode.
    pub env: BTreeMap<String, String>,
    /// What the command line says.
    pub overrides: Overrides,
    /// How many cores there are, for the default number of slots.
    pub cores: usize,
    /// Whether there is a directory at a path: decides between built-in plugins and a folder of them.
    pub is_directory: fn(&Path) -> bool,
}

/// What command-line flags set.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Chooses local mode over whatever the other sources say.
    pub directory: Option<PathBuf>,
    /// `--plugins`
    pub plugins: Option<PathBuf>,
    /// `--slots`
    pub slots: Option<usize>,
}

/// Reads and checks everything, and reports all that is wrong at once. The order of precedence is that
/// of the [module](super).
pub fn load(sources: Sources) -> Result<Config, ConfigErrors> {
    let problems = Problems::default();
    match read(&sources, &problems) {
        Some(config) if problems.count() == 0 => Ok(config),
        _ => Err(problems.into_errors()),
    }
}

/// `None` has at least one problem recorded; so may `Some`, in which defaults then stand for what was
/// wrong.
fn read(sources: &Sources, problems: &Problems) -> Option<Config> {
    let environment = Environment::new(&sources.env, problems);
    environment.refuse_unknown();
    let (path, text) = sources.file.as_ref().map_or((Path::new(""), ""), |(path, text)| (path, text));
    let document = Document::new(path, text, problems);
    let tree = document.parse()?;
    let base = path.parent().unwrap_or(path);
    let overrides = &sources.overrides;
    let mut layers = Layers { overrides, environment, file: document.top(&tree), base, problems };

    let place = layers.place();
    let plugins = layers.path("plugins", overrides.plugins.as_deref().map(|path| ("--plugins", path)));
    let any_owner = layers.flag("plugins_of_any_owner");
    let links = layers.flag("plugins_by_links");
    let signed_by = layers.file.list("plugins_signed_by", value::public_key).unwrap_or_default();
    let state = layers.path("state", None);
    let slots = layers.count("slots", ("--slots", overrides.slots), value::count(SLOTS));
    let bytes_in_flight = layers.scalar("bytes_in_flight", value::size(BYTES_IN_FLIGHT));
    let visibility_timeout = layers.scalar("visibility_timeout", value::duration(VISIBILITY));
    let drain_timeout = layers.scalar("drain_timeout", value::duration(DRAIN));
    let (source_prefix, destination_prefix) = prefixes(&mut layers);
    let mut file = layers.file;
    let limits = file.table("limits", "[limits]").map(|table| read_limits(table, Limits::default()));
    let retry = file.table("retry", "[retry]").map(|table| read_retry(table, problems));
    let (retry, has_default_attempts, probe_interval) = retry.unwrap_or((Retry::default(), true, None));
    let named = file.named_tables("plugin", "[plugin.NAME]").unwrap_or_default();
    let Named { concurrency, pins, grants, canaries } = read_plugins(named, base, problems);
    let defaults = Defaults {
        source_prefix: source_prefix.as_deref(),
        destination_prefix: destination_prefix.as_deref(),
        limits: limits.unwrap_or_default(),
        problems,
    };
    let written = file.tables("route", "[[route]]").map(|tables| defaults.read(tables));
    let has_default_routes = written.is_none();
    let routes = written.unwrap_or_else(|| defaults.default_routes());
    file.finish();

    let (place, source_prefix, destination_prefix) = (place?, source_prefix?, destination_prefix?);
    let plugins = plugins.or_else(|| {
        let beside_file = sources.file.is_some().then(|| base.join("plugins"));
        let among_objects = place.directory().map(|directory| directory.join("plugins"));
        let mut usual = beside_file.into_iter().chain(among_objects);
        usual.find(|path| (sources.is_directory)(path)).map(Located::default)
    });
    if let Place::Directory(bucket) = &place {
        let destinations = routes.iter().map(|route| route.destination_prefix.as_str());
        let prefixes = [source_prefix.as_str(), &destination_prefix].into_iter().chain(destinations);
        let folders: Vec<PathBuf> = prefixes.map(|prefix| bucket.join(prefix)).collect();
        refuse_objects_in_state(bucket, &folders, problems);
        refuse_plugins_among_objects(plugins.as_ref(), &folders, problems);
    }
    let default_slots = default_slots(&place, sources.cores);
    let state = match (&place, state) {
        // It goes with the objects, as the queue does.
        (Place::Directory(_), Some(Located { origin, .. })) => {
            problems.add(origin, "`state`: local mode keeps everything in its directory; leave it out");
            None
        }
        (Place::Directory(directory), None) => Some(directory.join(STATE)),
        (Place::Bucket(_), state) => state.map(|given| given.value),
    };
    Some(Config {
        place,
        source_prefix,
        destination_prefix,
        trust: Trust {
            any_owner: any_owner.is_some_and(|given| given.value),
            links: links.is_some_and(|given| given.value),
            signed_by: signed_by.into_iter().map(|given| given.value).collect(),
            pins,
        },
        plugins: plugins.map_or(Plugins::BuiltIn, |given| Plugins::Directory(given.value)),
        state,
        routes,
        has_default_routes,
        retry,
        has_default_attempts,
        probe_interval: probe_interval.unwrap_or(DEFAULT_PROBE),
        visibility_timeout: visibility_timeout.map_or(DEFAULT_VISIBILITY, |given| given.value),
        slots: slots.map_or(default_slots, |given| given.value),
        concurrency,
        grants,
        canaries,
        bytes_in_flight: bytes_in_flight.map_or(DEFAULT_BYTES_IN_FLIGHT, |given| given.value),
        drain_timeout: drain_timeout.map_or(DEFAULT_DRAIN, |given| given.value),
    })
}

/// `None` stands for a prefix that was given and is wrong.
fn prefixes(layers: &mut Layers<'_>) -> (Option<String>, Option<String>) {
    let source = layers.text_or("source_prefix", value::prefix, "uploads/".to_owned());
    let destination = layers.text_or("destination_prefix", value::prefix, "processed/".to_owned());
    if let (Some(source), Some(destination)) = (&source, &destination) {
        // A default is never to blame.
        let origin = if destination.origin == Origin::Default { &source.origin } else { &destination.origin };
        refuse_loop(&source.value, &destination.value, origin, layers.problems);
    }
    (source.map(|given| given.value), destination.map(|given| given.value))
}

fn default_slots(place: &Place, cores: usize) -> usize {
    let per_core = if place.directory().is_some() { SLOTS_PER_CORE } else { BUCKET_SLOTS_PER_CORE };
    cores.saturating_mul(per_core).clamp(*SLOTS.start(), *SLOTS.end())
}

/// The host would process its own files as objects, or an object could land among them.
fn refuse_objects_in_state(bucket: &Path, folders: &[PathBuf], problems: &Problems) {
    let state = bucket.join(STATE);
    if let Some(folder) = folders.iter().find(|folder| is_inside(folder, &state)) {
        let [state, folder] = [state.display(), folder.display()];
        problems.add(Origin::Default, format!("`{folder}` is inside the host's own `{state}`; choose another prefix"));
    }
}

/// Plugins would be moved away as objects, or an object could become a plugin, and run.
fn refuse_plugins_among_objects(plugins: Option<&Located<PathBuf>>, folders: &[PathBuf], problems: &Problems) {
    let Some(Located { value: plugins, origin }) = plugins else { return };
    if let Some(folder) = folders.iter().find(|folder| is_inside(plugins, folder)) {
        let [plugins, folder] = [plugins.display(), folder.display()];
        let message = format!("`plugins`: `{plugins}` must not be inside the objects' `{folder}`; move it");
        problems.add(origin.clone(), message);
    }
}

/// By the names alone, so that no configuration depends on which links there are today.
fn is_inside(path: &Path, folder: &Path) -> bool {
    let plain = |path: &Path| path.components().filter(|part| *part != Component::CurDir).collect::<PathBuf>();
    plain(path).starts_with(plain(folder))
}
