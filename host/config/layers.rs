//! One value out of the sources that may give it: flag, environment, file.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use super::{
    Bucket, Overrides, Place,
    document::Table,
    environment::Environment,
    error::{Located, Origin, Problems},
    value,
};

/// S3 copies up to 5 GiB in one request; parts have at least 5 MiB.
const COPY_IN_PARTS: RangeInclusive<u64> = (5 << 20)..=(5 << 30);

/// The sources in their order of precedence.
pub(super) struct Layers<'a> {
    pub overrides: &'a Overrides,
    pub environment: Environment<'a>,
    pub file: Table<'a>,
    /// Where relative paths of the file start.
    pub base: &'a Path,
    pub problems: &'a Problems,
}

impl Layers<'_> {
    /// A string from the environment, else from the file. What the file says is checked in any case: it
    /// is wrong even where something stronger hides it today.
    pub fn text<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Located<T>> {
        let file = self.file.text(key, &parse);
        self.environment.get(key, &parse).or(file)
    }

    /// The same, or else the default. `None`: something was given, and it is wrong.
    pub fn text_or<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        default: T,
    ) -> Option<Located<T>> {
        let before = self.problems.count();
        let given = self.text(key, parse);
        given.or_else(|| (self.problems.count() == before).then(|| Located::default(default)))
    }

    /// The same as [`Layers::text`] for what the file may write as a string or as a number.
    pub fn scalar<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Located<T>> {
        let file = self.file.scalar(key, &parse);
        self.environment.get(key, &parse).or(file)
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> Option<Located<bool>> {
        let file = self.file.flag(key);
        self.environment.get(key, value::flag).or(file)
    }

    /// A path from a flag, else from the environment, else from the file, where it starts at the
    /// file's own folder.
    pub fn path(&mut self, key: &'static str, flag: Option<(&'static str, &Path)>) -> Option<Located<PathBuf>> {
        let file = self.file.text(key, value::path).map(|given| given.map(|path| self.base.join(path)));
        let environment = self.environment.get(key, value::path);
        let flag = flag.map(|(name, path)| Located { value: path.to_owned(), origin: Origin::Flag(name) });
        flag.or(environment).or(file)
    }

    /// A number from a flag, else from the environment, else from the file.
    pub fn count(
        &mut self,
        key: &'static str,
        flag: (&'static str, Option<usize>),
        parse: impl Fn(&str) -> Result<usize, String>,
    ) -> Option<Located<usize>> {
        let weaker = self.scalar(key, &parse);
        let (name, Some(number)) = flag else { return weaker };
        match parse(&number.to_string()) {
            Ok(value) => Some(Located { value, origin: Origin::Flag(name) }),
            Err(message) => {
                self.problems.add(Origin::Flag(name), message);
                None
            }
        }
    }

    /// Where the objects are. `None` has a problem recorded.
    ///
    /// A source that says `directory` or `bucket` chooses between local mode and S3, the strongest one
    /// first. Workers' names (`BUCKET`) choose last of all, and in local mode none of the three of S3
    /// is looked at: the environment of somebody's worker must not get in the way of `gristmill dev`.
    pub fn place(&mut self) -> Option<Place> {
        let before = self.problems.count();
        let directory = self.file.text("directory", value::path).map(|given| given.map(|path| self.base.join(path)));
        let bucket = self.file.text("bucket", value::bucket);
        let queue_url = self.file.text("queue_url", value::queue_url);
        let region = self.file.text("region", value::region);
        let dead_letter_queue_url = self.text("dead_letter_queue_url", value::queue_url);
        let path_style = self.flag("path_style");
        let copy_in_parts_above = self.scalar("copy_in_parts_above", value::size(COPY_IN_PARTS));
        self.refuse_both_modes();

        if let Some(path) = &self.overrides.directory {
            return Some(Place::Directory(path.clone()));
        }
        let local = match (self.environment.own("directory"), self.environment.own("bucket")) {
            (Some(origin), Some(_)) => {
                self.problems.add(origin, "`GRISTMILL_BUCKET` is set too; unset one of them");
                return None;
            }
            (Some(_), None) => self.environment.get("directory", value::path),
            (None, Some(_)) => None,
            (None, None) => directory,
        };
        if let Some(directory) = local {
            return Some(Place::Directory(directory.value));
        }
        let bucket = self.environment.get("bucket", value::bucket).or(bucket);
        let queue_url = self.environment.get("queue_url", value::queue_url).or(queue_url);
        let region = self.environment.get("region", value::region).or(region);
        let (origin, missing) = match (bucket, queue_url) {
            (Some(bucket), Some(queue_url)) => {
                let region = region.map(|given| given.value);
                return Some(Place::Bucket(Bucket {
                    name: bucket.value,
                    region,
                    queue_url: queue_url.value,
                    dead_letter_queue_url: dead_letter_queue_url.map(|given| given.value),
                    path_style: path_style.is_some_and(|given| given.value),
                    copy_in_parts_above: copy_in_parts_above.map_or(*COPY_IN_PARTS.end(), |given| given.value),
                }));
            }
            (Some(bucket), None) => (bucket.origin, "the bucket has no queue beside it; set `queue_url` too"),
            (None, Some(queue_url)) => (queue_url.origin, "the queue has no bucket beside it; set `bucket` too"),
            (None, None) => {
                (Origin::Default, "nothing says where the objects are; set `directory`, or `bucket` and `queue_url`")
            }
        };
        // A value that is there but wrong has been reported, and is not missing.
        if self.problems.count() == before {
            self.problems.add(origin, missing);
        }
        None
    }

    fn refuse_both_modes(&self) {
        if self.file.origin_of("directory").is_none() {
            return;
        }
        for key in ["bucket", "queue_url", "region", "dead_letter_queue_url", "path_style", "copy_in_parts_above"] {
            if let Some(origin) = self.file.origin_of(key) {
                let message =
                    format!("`{key}` is for a bucket in S3, but `directory` says local mode; remove one of them");
                self.problems.add(origin, message);
            }
        }
    }
}
