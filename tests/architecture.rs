//! Which module may know which, held against the sources of the host.
//!
//! A path counts wherever it stands, in a `use` or in an expression. Comments, strings and unit tests don't.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What is known only in some places. Places are the beginnings of paths below `host/`.
const ONLY: &[(&[&str], &[&str], &str)] = &[
    (
        &["wasmtime", "wasmtime_wasi", "wasmtime_wasi_http", "wit_component", "wasm_encoder", "wasmparser"],
        &["plugin/"],
        "the sandbox is one module",
    ),
    (
        &["http", "http_body", "http_body_util", "hyper", "rustls", "rustls_native_certs", "tokio_rustls"],
        &["plugin/http/"],
        "requests leave the host in one place",
    ),
    (&["rusqlite"], &["sqlite.rs", "queue/local", "store/local"], "SQL is a secret of local mode"),
    (&["clap", "clap_complete"], &["cli.rs", "main.rs"], "the command line is defined in one place"),
    (
        &["libc", "notify", "rustix"],
        &[
            "directory/",
            "lanes/",
            "queue/intake",
            "queue/local",
            "store/local",
            "registry/",
            "plugin/compiler/",
            "private.rs",
        ],
        "the operating system is met at the edge",
    ),
    (&["std::env"], &["main.rs", "build.rs"], "nothing below `main` reads the environment"),
    (&["std::process::exit"], &[], "jobs drain, and `main` returns an exit code"),
    (&["unsafe"], &["plugin/code.rs", "lanes/priority.rs"], "two files are to be read with suspicion"),
    (
        &["aws_config", "aws_sdk_s3", "aws_sdk_sqs", "aws_smithy_http_client"],
        &["aws.rs", "queue/sqs/", "store/s3/"],
        "AWS is one of two",
    ),
    (&["crate::cli"], &["main.rs", "commands/"], "nobody else was called by a command line"),
];

const IO: &[&str] = &[
    "tokio",
    "tokio_util",
    "rustix",
    "notify",
    "rusqlite",
    "tracing",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::process",
    "std::thread",
    "std::env",
    "std::time::SystemTime",
    "std::time::Instant",
    "crate::queue",
    "crate::directory",
    "crate::job",
    "crate::worker",
    "crate::registry",
    "crate::plugin",
];

/// What some places must not know.
const NEVER: &[(&[&str], &[&str], &str)] = &[
    (
        &["plugin/"],
        &[
            "crate::queue",
            "crate::store",
            "crate::job",
            "crate::worker",
            "crate::registry",
            "crate::route",
            "crate::retry",
            "crate::event",
            "crate::directory",
            "crate::sqlite",
        ],
        "the sandbox is handed bytes, and knows not from where",
    ),
    (
        &["queue/"],
        &[
            "crate::store",
            "crate::job",
            "crate::worker",
            "crate::plugin",
            "crate::registry",
            "crate::route",
            "crate::retry",
            "crate::report",
        ],
        "a queue carries messages, and knows not what for",
    ),
    (
        &["store/"],
        &[
            "crate::queue",
            "crate::job",
            "crate::worker",
            "crate::plugin",
            "crate::registry",
            "crate::route",
            "crate::retry",
            "crate::event",
            "crate::report",
        ],
        "a store holds objects, and knows not what for",
    ),
    (
        &["registry/"],
        &["crate::queue", "crate::store", "crate::job", "crate::worker"],
        "the registry knows plugins only",
    ),
    (&["job.rs", "job/"], &["crate::queue", "crate::worker", "crate::report"], "an object knows nothing of messages"),
    (&["worker.rs"], &["crate::plugin", "crate::registry", "crate::report"], "messages know nothing of plugins"),
    (
        &["address.rs", "event/", "key.rs", "release/", "route.rs", "retry.rs", "text.rs", "provenance.rs"],
        IO,
        "decisions are pure: plain data in, plain data out",
    ),
    (
        &["config/"],
        &["crate::queue", "crate::store", "crate::job", "crate::worker", "crate::plugin", "crate::registry", "tokio"],
        "a configuration is data",
    ),
    (
        &["admission/"],
        &["crate::queue", "crate::store", "crate::job", "crate::worker", "crate::plugin", "crate::registry"],
        "who may go on does not depend on what he does",
    ),
    (
        &["job.rs", "job/", "worker.rs", "queue/mod.rs", "queue/lease.rs", "store/mod.rs", "io.rs"],
        &["crate::queue::local", "crate::store::local", "crate::queue::intake", "crate::directory", "crate::sqlite"],
        "local mode is one of two",
    ),
];

/// Above this, ask what second thing is in there. Unit tests don't count.
const MAX_LINES: usize = 500;

/// Files that are longer all the same, each with the reason.
const LONGER: &[(&str, &str)] = &[];

/// A source file of the host, without comments, strings and unit tests.
struct Source {
    /// Below `host/`.
    name: String,
    code: String,
    /// Line and path, as in `crate::queue::Queue`.
    paths: Vec<(usize, String)>,
}

fn host() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("host")
}

fn sources() -> Vec<Source> {
    let (mut folders, mut sources) = (vec![host()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(host()).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                let code = without_tests(&without_comments_and_strings(&fs::read_to_string(&path).unwrap()));
                let paths = paths(&code, &name);
                sources.push(Source { name, code, paths });
            }
        }
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    sources
}

/// Lines stay where they are.
fn without_comments_and_strings(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    let skip = |out: &mut String, skipped: &str| out.extend(skipped.chars().filter(|c| *c == '\n'));
    while let Some(first) = rest.chars().next() {
        let hashes = rest.strip_prefix('r').map(|raw| raw.bytes().take_while(|byte| *byte == b'#').count());
        let raw = hashes.filter(|hashes| rest[1 + hashes..].starts_with('"') && !ends_in_word(&out));
        let end = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw {
            let close = format!("\"{}", "#".repeat(hashes));
            let start = 2 + hashes;
            start + rest[start..].find(&close).unwrap() + close.len()
        } else if first == '"' {
            let mut escaped = false;
            let closes = |c: char| {
                let closes = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                closes
            };
            1 + rest[1..].find(closes).unwrap() + 1
        } else if let Some(length) = character(rest) {
            length
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        skip(&mut out, &rest[..end]);
        rest = &rest[end..];
    }
    out
}

fn ends_in_word(text: &str) -> bool {
    text.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// The length of a character literal, which begins like a lifetime.
fn character(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    if first == '\\' {
        return Some(1 + 2 + inner[2..].find('\'')? + 1);
    }
    inner[first.len_utf8()..].starts_with('\'').then_some(1 + first.len_utf8() + 1)
}

/// Unit tests stand at the end of their file.
fn without_tests(code: &str) -> String {
    match code.find("#[cfg(test)]\nmod tests {") {
        Some(start) => code[..start].to_owned(),
        None => code.to_owned(),
    }
}

/// Every path in the code, with those in the braces of a `use` written out, and `super` and `self` resolved.
fn paths(code: &str, name: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let line = |at: usize| 1 + code[..at].matches('\n').count();
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut at = 0;
    while let Some(start) = code[at..].find(is_word).map(|start| at + start) {
        let end = code[start..].find(|c| !is_word(c)).map_or(code.len(), |length| start + length);
        let word = &code[start..end];
        at = end;
        if word == "use" {
            let end = start + code[start..].find(';').unwrap();
            expand(&code[start + 3..end], line(start), "", &mut found);
            at = end;
        } else if word.contains("::") || word == "unsafe" {
            found.push((line(start), word.to_owned()));
        }
    }
    // `super` is the folder's own module, or the crate.
    let module: Vec<&str> = name.trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect();
    for (_, path) in &mut found {
        let ups = path.split("::").take_while(|part| *part == "super").count();
        if ups > 0 {
            let rest: Vec<&str> = path.split("::").skip(ups).collect();
            let base = module[..module.len().saturating_sub(ups)].iter().copied();
            *path = ["crate"].into_iter().chain(base).chain(rest).collect::<Vec<_>>().join("::");
        }
    }
    found
}

/// `a::{b, c::{d}}` is `a::b` and `a::c::d`.
fn expand(tree: &str, line: usize, prefix: &str, found: &mut Vec<(usize, String)>) {
    let (mut depth, mut start, mut at) = (0, 0, line);
    let mut parts = Vec::new();
    for (index, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push((at, &tree[start..index]));
                (start, at) = (index + 1, line + tree[..index].matches('\n').count());
            }
            _ => {}
        }
    }
    parts.push((at, &tree[start..]));
    for (line, part) in parts {
        let line = line + part[..part.len() - part.trim_start().len()].matches('\n').count();
        let part = part.trim();
        match part.split_once('{') {
            Some((head, inner)) => {
                expand(inner.strip_suffix('}').unwrap(), line, &format!("{prefix}{}", head.trim()), found);
            }
            None if part.is_empty() => {}
            None => found.push((line, format!("{prefix}{}", part.split(" as ").next().unwrap().trim()))),
        }
    }
}

fn is_in(name: &str, places: &[&str]) -> bool {
    places.iter().any(|place| name.starts_with(place))
}

/// Whether a path is the thing, or leads into it.
fn leads_to(path: &str, thing: &str) -> bool {
    let path = path.trim_start_matches("::").replace("gristmill::", "crate::");
    path.strip_prefix(thing).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        // `env::var` after `use std::env` was caught at the `use`; a bare `std::env!` is a macro.
        && !path.ends_with("::env!")
}

#[test]
fn everybody_knows_only_what_he_may() {
    let mut broken = BTreeSet::new();
    for Source { name, paths, .. } in sources() {
        for (line, path) in paths {
            for (things, places, why) in ONLY {
                if !is_in(&name, places) && things.iter().any(|thing| leads_to(&path, thing)) {
                    broken.insert(format!("host/{name}:{line}: `{path}`, but only {places:?} may: {why}"));
                }
            }
            for (places, things, why) in NEVER {
                if is_in(&name, places) && things.iter().any(|thing| leads_to(&path, thing)) {
                    broken.insert(format!("host/{name}:{line}: `{path}`, but {places:?} may not: {why}"));
                }
            }
        }
    }
    let broken: Vec<String> = broken.into_iter().collect();
    assert!(broken.is_empty(), "{} dependencies break the rules:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn a_module_is_one_thing() {
    for Source { name, code, .. } in sources() {
        let (lines, excused) = (code.lines().count(), LONGER.iter().any(|(longer, _)| *longer == name));
        assert!(excused || lines <= MAX_LINES, "host/{name} has {lines} lines, more than {MAX_LINES}: split it");
        assert!(!excused || lines > MAX_LINES, "host/{name} has {lines} lines and needs no exception");
    }
}

/// A rule about something that is nowhere holds whatever happens.
#[test]
fn every_rule_is_about_something() {
    let sources = sources();
    let places = ONLY.iter().map(|(_, places, _)| *places).chain(NEVER.iter().map(|(places, ..)| *places));
    for place in places.flatten().filter(|place| !["queue/sqs.rs", "store/s3.rs"].contains(place)) {
        assert!(sources.iter().any(|source| source.name.starts_with(place)), "there is no host/{place}");
    }
    let things = ONLY.iter().map(|(things, ..)| *things).chain(NEVER.iter().map(|(_, things, _)| *things));
    let modules = things.flatten().filter_map(|thing| thing.strip_prefix("crate::"));
    for module in modules {
        let (file, folder) = (module.replace("::", "/") + ".rs", module.replace("::", "/") + "/mod.rs");
        assert!(sources.iter().any(|source| source.name == file || source.name == folder), "there is no {module}");
    }
}

#[test]
fn the_scanner_sees_what_is_there() {
    let code = without_comments_and_strings(
        "// use a::b;\nuse crate::{\n    job::{self, Context},\n    queue::Queue as _,\n};\nlet x = \"std::env\"; \
         let y = r#\"\"tokio::x\"#; let c = '\"'; let d: &'a str = super::queue::f(std::env::var());",
    );
    let paths = paths(&code, "worker/inner.rs");
    let expected = [
        (3, "crate::job::self"),
        (3, "crate::job::Context"),
        (4, "crate::queue::Queue"),
        (6, "crate::worker::queue::f"),
        (6, "std::env::var"),
    ];
    assert_eq!(paths, expected.map(|(line, path)| (line, path.to_owned())));
}
