//! The command line as people and scripts meet it: exit codes, messages, and what goes to which stream.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod support {
    pub mod host;
    pub mod samples;
}

use std::{fs, path::Path};

use serde_json::{Value, json};
use support::{
    host::{Bucket, Finished, Host, built_in_file, command, gristmill, guest_file, sha256},
    samples::png,
};

/// Checks that standard error has all of these, and returns the run.
#[track_caller]
fn says(finished: Finished, expected: &[&str]) -> Finished {
    for text in expected {
        assert!(finished.log().contains(text), "{text:?} is not in\n{}", finished.log());
    }
    finished
}

/// A path as an argument.
fn argument(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn wrong_usage_is_64() {
    let wrong: [(&[&str], &str); 11] = [
        (&[], "Usage: gristmill"),
        (&["dev"], "<DIR>"),
        (&["dev", "somewhere", "--untl-idle"], "'--until-idle'"),
        (&["devv", "somewhere"], "'dev'"),
        (&["run", "somewhere"], "unexpected argument 'somewhere'"),
        (&["dev", "somewhere", "--slots", "many"], "invalid value 'many'"),
        (&["--log-format", "xml", "plugin", "list"], "[possible values: text, json]"),
        (&["--log", "a=b=c", "plugin", "list"], "log filter `a=b=c`"),
        (&["plugin", "run", "resize"], "<INPUT>"),
        (&["plugin", "run", "resize", "x", "--set", "novalue"], "write it as `KEY=VALUE`"),
        (&["completions", "tcsh"], "[possible values: bash,"),
    ];
    for (arguments, expected) in wrong {
        let finished = says(gristmill(arguments).expect(64), &[expected]);
        assert_eq!(finished.out, [""; 0], "{arguments:?}");
    }
    assert!(!Path::new("somewhere").exists(), "wrong usage must not make the directory");
}

#[test]
fn help_and_version_are_no_mistakes() {
    let verbs: [(&[&str], &[&str]); 16] = [
        (
            &[],
            &[
                "dev",
                "run",
                "check",
                "dlq",
                "reconcile",
                "replay",
                "plugin",
                "completions",
                "--log-format",
                "--log",
                "Exit codes:",
            ],
        ),
        (&["dev"], &["<DIR>", "--config", "--plugins", "--slots", "--until-idle", "--json", "--log"]),
        (&["run"], &["-c, --config", "--plugins", "--slots", "--until-idle", "--json"]),
        (&["check"], &["-c, --config", "-d, --directory", "--live", "--json", "Examples:"]),
        (&["dlq"], &["list", "show", "redrive", "purge"]),
        (
            &["dlq", "list"],
            &["-c, --config", "-d, --directory", "--class", "--reason", "--limit", "--json", "Examples:"],
        ),
        (&["dlq", "show"], &["<ID>...", "--json", "Examples:"]),
        (&["dlq", "redrive"], &["[ID]...", "--all", "--class", "--reason", "--rate", "--dry-run", "Examples:"]),
        (&["dlq", "purge"], &["[ID]...", "--all", "--class", "--reason", "--dry-run", "Examples:"]),
        (&["reconcile"], &["--older-than", "--include-dead", "--dry-run", "--json", "Examples:"]),
        (&["replay"], &["<KEY>", "--plugin <FILE|NAME@DIGEST>", "--commit", "--json", "-d, --directory", "Examples:"]),
        (&["plugin"], &["list", "inspect", "promote", "rollback", "run"]),
        (&["plugin", "list"], &["[DIR]", "-c, --config", "-d, --directory", "--json"]),
        (&["plugin", "promote"], &["<NAME>", "-c, --config", "-d, --directory"]),
        (&["plugin", "inspect"], &["<FILE>", "-c, --config", "--json"]),
        (&["plugin", "run"], &["<PLUGIN>", "<INPUT>...", "-o, --output", "--set", "--force"]),
    ];
    for (verb, expected) in verbs {
        let finished = gristmill(&[verb, &["--help"]].concat()).expect(0);
        let help = finished.out.join("\n");
        for text in expected {
            assert!(help.contains(text), "{text:?} is not in the help of {verb:?}:\n{help}");
        }
        assert_eq!(finished.err, [""; 0]);
    }
    let version = gristmill(&["--version"]).expect(0);
    assert_eq!(version.out, [format!("gristmill {}", env!("CARGO_PKG_VERSION"))]);
}

#[test]
fn every_shell_gets_its_completions() {
    for (shell, expected) in [("bash", "complete -F"), ("zsh", "#compdef gristmill"), ("fish", "complete -c gristmill")]
    {
        let script = gristmill(&["completions", shell]).expect(0).out.join("\n");
        assert!(script.contains(expected) && script.contains("until-idle"), "{shell}: {script}");
    }
}

/// Nine things are wrong with it.
const WRONG: &str = r#"slots = "many"
sources = "uploads/"
visibility_timeout = "30"
destination_prefix = "uploads/done/"

[retry]
max_atempts = 3
base = "1h"
max = "1s"

[[route]]
mach = "*.jpg"
plugins = ["Resize", "resize.wasm"]
"#;

#[test]
fn everything_wrong_with_a_configuration_is_told_at_once_with_its_place() {
    let bucket = Bucket::with(&[], WRONG);
    let file = bucket.path("gristmill.toml");
    let place = |line: u32| format!("{}:{line}: ", file.display());
    let expected = [
        place(1) + "`slots`: `many` is not a whole number",
        place(2) + "unknown key `sources`",
        place(3) + "`visibility_timeout`: `30` is not a duration; write it like `30s`",
        place(4) + "the destination prefix `uploads/done/` is inside the source prefix",
        place(7) + "unknown key `max_atempts` in `[retry]`; did you mean `max_attempts`?",
        place(8) + "`base`: `1h` is longer than `max`, `1s`",
        place(12) + "unknown key `mach` in `[[route]]`; did you mean `match`?",
        place(13) + "`plugins`: `Resize` is not a plugin's name",
        place(13) + "`plugins`: `resize.wasm` is a file's name; write the plugin's, `resize`",
    ];
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    let checks = [
        gristmill(&["check", "-c", argument(&file)]),
        gristmill(&["run", "-c", argument(&file)]),
        gristmill(&["dev", argument(bucket.root())]),
    ];
    for finished in checks {
        let finished = says(finished.expect(78), &expected);
        assert_eq!(finished.out, [""; 0]);
    }
    assert!(!bucket.exists(".gristmill"), "nothing is begun with a wrong configuration");
}

#[test]
fn wrong_syntax_and_missing_files_are_told_with_their_place() {
    let bucket = Bucket::with(&[], "slots = 1\nslots 2\n");
    let file = bucket.path("gristmill.toml");
    says(gristmill(&["check", "-c", argument(&file)]).expect(78), &[&format!("{}:2: ", file.display())]);
    let missing = bucket.path("missing.toml");
    let expected = format!("{}: cannot be read", missing.display());
    says(gristmill(&["check", "-c", argument(&missing)]).expect(78), &[&expected]);
}

#[test]
fn wrong_variables_are_told_by_name() {
    let bucket = Bucket::new();
    let mut wrong = command(&["dev", argument(bucket.root()), "--until-idle"]);
    wrong.env("GRISTMILL_SLOT", "3").env("SRC_PREFIX", "/uploads");
    says(
        Host::spawn(&mut wrong).finish().expect(78),
        &[
            "environment: GRISTMILL_SLOT: unknown variable; did you mean `GRISTMILL_SLOTS`?",
            "environment: SRC_PREFIX: ",
        ],
    );
}

#[test]
fn a_good_configuration_passes() {
    let bucket = Bucket::with(&["copy"], "directory = \".\"\nslots = 3\n[[route]]\nplugins = [\"copy\"]\n");
    let file = bucket.path("gristmill.toml");
    let finished = gristmill(&["check", "-c", argument(&file)]).expect(0);
    assert!(
        finished.out[0].starts_with("good: ") && finished.out[0].contains("1 routes, 3 slots"),
        "{:?}",
        finished.out
    );
    assert_eq!(finished.err, [""; 0]);
}

#[test]
fn check_tells_of_plugins_too() {
    let bucket = Bucket::with(&["copy"], "directory = \".\"\n[[route]]\nplugins = [\"copy\", \"resize\"]\n");
    bucket.write("plugins/broken.wasm", b"no plugin");
    says(
        gristmill(&["check", "-c", argument(&bucket.path("gristmill.toml"))]).expect(78),
        &["plugin `broken`: is not WebAssembly", "a route names the plugin `resize`, which is not there"],
    );
}

#[test]
fn run_takes_its_directory_from_the_configuration() {
    let bucket = Bucket::with(&["copy"], "directory = \".\"\n[[route]]\nplugins = [\"copy\"]\n");
    bucket.write("uploads/a", b"x");
    let file = bucket.path("gristmill.toml");
    let finished = gristmill(&["run", "-c", argument(&file), "--until-idle", "--json"]).expect(0);
    assert_eq!(finished.record("uploads/a")["outcome"], "processed");
    assert_eq!(bucket.read_text("processed/a.copy"), "x");
}

#[test]
fn flags_and_variables_change_where_things_are() {
    let bucket = Bucket::new();
    let plugins = tempfile::tempdir().unwrap();
    fs::copy(guest_file("nothing"), plugins.path().join("passthrough.wasm")).unwrap();
    bucket.write("in/a", b"x");
    let mut host = command(&["dev", "--plugins", argument(plugins.path()), "--slots", "1", "--until-idle", "--json"]);
    host.arg(bucket.root())
        .env("SRC_PREFIX", "in")
        .env("GRISTMILL_DESTINATION_PREFIX", "done")
        .env("DST_PREFIX", "not");
    let finished = Host::spawn(&mut host).finish().expect(0);
    let digest = sha256(&fs::read(guest_file("nothing")).unwrap());
    assert_eq!(finished.record("in/a")["plugins"][0]["digest"], digest.as_str());
    assert_eq!(bucket.read_text("done/a"), "x");
}

#[test]
fn the_work_goes_on_when_nobody_reads_what_it_says() {
    let bucket = Bucket::with(&["copy"], "[[route]]\nplugins = [\"copy\"]\n");
    for n in 0..20 {
        bucket.write(&format!("uploads/{n}"), b"x");
    }
    let mut child = command(&["dev", argument(bucket.root()), "--until-idle", "--json"]).spawn().unwrap();
    drop(child.stdout.take());
    let finished = Host::following(child).finish().expect(0);
    assert_eq!(fs::read_dir(bucket.path("processed")).unwrap().count(), 40, "{}", finished.log());
}

#[test]
fn json_is_all_that_is_on_standard_output() {
    let bucket = Bucket::with(
        &["copy", "log-flood", "panic"],
        "[retry]\nmax_attempts = 1\n[[route]]\nmatch = \"log*\"\nplugins = [\"log-flood\"]\n[[route]]\nmatch = \"panic\"\nplugins = [\"panic\"]\n[[route]]\nplugins = [\"copy\"]\n",
    );
    bucket.write("plugins/broken.wasm", b"no plugin");
    for name in ["a", "log", "panic"] {
        bucket.write(&format!("uploads/{name}"), b"x");
    }
    for flags in [&["--log", "debug", "--log-format", "json"][..], &["--log", "trace"]] {
        let arguments = [flags, &["dev", argument(bucket.root()), "--until-idle", "--json"]].concat();
        let finished = gristmill(&arguments);
        // Each line is parsed there.
        let records = finished.records();
        assert!(records.iter().all(|record| record["key"].is_string() && record["outcome"].is_string()));
        assert!(finished.log().contains("plugin refused"), "the log is on standard error: {}", finished.log());
        bucket.write("uploads/b", b"again");
    }
}

#[test]
fn plugins_are_listed_with_what_is_wrong_with_them() {
    let bucket = Bucket::with(&["copy"], "");
    let directory = bucket.path("plugins");
    let good = gristmill(&["plugin", "list", argument(&directory)]).expect(0);
    assert_eq!(good.out.len(), 2, "{:?}", good.out);
    assert!(good.out[0].starts_with("NAME"), "{:?}", good.out);

    bucket.write("plugins/broken.wasm", b"no plugin");
    bucket.write("plugins/Wrong Name.wasm", b"");
    bucket.write("plugins/notes.txt", b"not looked at");
    let finished = gristmill(&["plugin", "list", argument(&directory)]).expect(1);
    let row = |name: &str| finished.out.iter().find(|line| line.starts_with(name)).expect(name).clone();
    let digest = sha256(&fs::read(guest_file("copy")).unwrap());
    for expected in [&digest[..12], "0.1.0", "loaded", "gristmill:plugin/host@0.1.0"] {
        assert!(row("copy").contains(expected), "{expected}: {}", row("copy"));
    }
    assert!(row("broken").contains("refused") && row("broken").contains("is not WebAssembly"), "{}", row("broken"));
    assert!(row("Wrong Name").contains("cannot be a plugin's name"), "{}", row("Wrong Name"));
    assert_eq!(finished.out.len(), 4, "{:?}", finished.out);

    let finished = gristmill(&["plugin", "list", argument(&directory), "--json"]).expect(1);
    let plugins: Vec<Value> = finished.out.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |name: &str| plugins.iter().find(|plugin| plugin["name"] == name).expect(name);
    assert_eq!((&named("copy")["digest"], &named("copy")["state"]), (&digest.as_str().into(), &"loaded".into()));
    assert_eq!(named("copy")["size"], fs::metadata(guest_file("copy")).unwrap().len());
    assert_eq!(named("broken")["state"], "refused");
    assert!(named("broken")["reason"].is_string());

    says(gristmill(&["plugin", "list", "/nowhere/at/all"]).expect(1), &["/nowhere/at/all"]);
}

#[test]
fn the_built_in_plugins_are_listed_without_a_directory() {
    let finished = gristmill(&["plugin", "list", "--json"]).expect(0);
    let plugins: Vec<Value> = finished.out.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (plugin, name) in plugins.iter().zip(["parse", "passthrough", "resize"]) {
        assert_eq!(plugin["name"], name);
        assert_eq!(plugin["digest"], sha256(&fs::read(built_in_file(name)).unwrap()).as_str());
    }
    assert_eq!(plugins.len(), 3);
}

#[test]
fn a_plugin_is_inspected() {
    let file = guest_file("copy");
    let digest = sha256(&fs::read(&file).unwrap());
    let text = gristmill(&["plugin", "inspect", argument(&file)]).expect(0).out.join("\n");
    for expected in ["name       copy", &digest, "gristmill:plugin@0.1.0", "imports    gristmill:plugin/host@0.1.0"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let json = gristmill(&["plugin", "inspect", argument(&file), "--json"]).expect(0).out.join("\n");
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["digest"], digest.as_str());

    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.wasm");
    fs::write(&bad, "no plugin").unwrap();
    let refused =
        says(gristmill(&["plugin", "inspect", argument(&bad)]).expect(1), &["bad.wasm", "is not WebAssembly"]);
    assert_eq!(refused.out, [""; 0]);
    says(gristmill(&["plugin", "inspect", argument(folder.path())]).expect(1), &["is not a regular file"]);
    says(gristmill(&["plugin", "inspect", "/nowhere.wasm"]).expect(1), &["/nowhere.wasm: cannot be read"]);
}

#[test]
fn what_a_plugin_asks_for_is_shown_against_what_it_is_granted() {
    let file = guest_file("fetch");
    let text = gristmill(&["plugin", "inspect", argument(&file)]).expect(1).out.join("\n");
    let expected = "asks for   wasi:http/outgoing-handler@0.2.0: not granted, the plugin is refused; `http` in \
                    `[plugin.fetch]` grants it";
    assert!(text.contains(expected), "{text}");
    says(
        gristmill(&["plugin", "run", argument(&file), argument(&file)]).expect(1),
        &["imports `wasi:http/", "set `http` in `[plugin.fetch]`"],
    );

    let bucket =
        Bucket::with(&["fetch", "surroundings"], "directory = \".\"\n[plugin.fetch]\nhttp = \"api.example.com\"\n");
    let config = bucket.path("gristmill.toml");
    let granted = gristmill(&["plugin", "inspect", argument(&file), "-c", argument(&config)]).expect(0).out.join("\n");
    assert!(granted.contains("asks for   wasi:http/outgoing-handler@0.2.0: granted"), "{granted}");
    let json = gristmill(&["plugin", "inspect", argument(&guest_file("surroundings")), "--json"]).expect(0);
    let asks = &serde_json::from_str::<Value>(&json.out.join("\n")).unwrap()["asks"];
    let clock = json!({ "import": "wasi:clocks/wall-clock@0.2.0", "key": "clocks", "answer": "nothing" });
    assert!(asks.as_array().unwrap().contains(&clock), "{asks}");

    let listed = |more: &[&str]| gristmill(&[&["plugin", "list", argument(&bucket.path("plugins"))], more].concat());
    assert!(listed(&[]).expect(1).out.join("\n").contains("is not granted that"));
    listed(&["-c", argument(&config)]).expect(0);
    gristmill(&["check", "-c", argument(&config)]).expect(0);
}

#[test]
fn a_plugin_is_tried_on_files() {
    let bucket = Bucket::new();
    bucket.write("in/picture.png", &png(900, 10, 7));
    let (input, output) = (bucket.path("in/picture.png"), bucket.path("out/deep"));
    let resize = |more: &[&str]| {
        let arguments = ["plugin", "run", "resize", argument(&input), "-o", argument(&output), "--set", "sizes=[64]"];
        gristmill(&[&arguments, more].concat())
    };
    let line = resize(&[]).expect(0).out.join("\n");
    assert!(line.contains("picture.png: done in") && line.contains("picture-64.png (image/png, "), "{line}");
    // The width, in the PNG's header.
    let made = || bucket.read("out/deep/picture-64.png").unwrap();
    assert_eq!(made()[16..20], 64_u32.to_be_bytes());
    assert!(input.is_file(), "the input stays where it is");

    bucket.write("out/deep/picture-64.png", b"somebody's");
    let refused = resize(&[]).expect(1);
    assert!(refused.out.join("\n").contains("is already there"), "{refused:?}");
    assert_eq!(made(), b"somebody's");
    resize(&["--force"]).expect(0);
    assert_eq!(made()[16..20], 64_u32.to_be_bytes());
    let left: Vec<_> = fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["picture-64.png"], "nothing is left over");
}

#[test]
fn a_plugin_that_does_not_succeed_is_exit_code_one() {
    let bucket = Bucket::new();
    bucket.write("in/a", b"x");
    bucket.write("in/b", b"y");
    let (a, b, output) = (bucket.path("in/a"), bucket.path("in/b"), bucket.path("out"));
    let run = |plugin: &Path, inputs: &[&Path], more: &[&str]| {
        let inputs: Vec<&str> = inputs.iter().map(|input| argument(input)).collect();
        let finished =
            gristmill(&[&["plugin", "run", argument(plugin)], &inputs[..], &["-o", argument(&output)], more].concat());
        (finished.code, finished.out.join("\n"))
    };
    let (code, text) = run(&guest_file("reject"), &[&a, &b], &["--set", "reason=too old"]);
    assert_eq!((code, text.matches("rejected in").count()), (Some(1), 2), "{text}");
    assert!(text.contains("too old"), "{text}");
    let (code, text) = run(&guest_file("retry"), &[&a], &[]);
    assert!(code == Some(1) && text.contains("wants to be retried") && text.contains("not yet"), "{text}");
    let (code, text) = run(&guest_file("panic"), &[&a], &[]);
    assert!(code == Some(1) && text.contains("failed in"), "{text}");
    let (code, text) = run(&guest_file("skip"), &[&a], &[]);
    assert!(code == Some(0) && text.contains("skipped in") && text.contains("nothing to do"), "{text}");
    let missing = bucket.path("in/missing");
    let (code, text) = run(&guest_file("copy"), &[&missing, &a], &[]);
    assert!(code == Some(1) && text.contains("missing: cannot be read") && text.contains("a.copy"), "{text}");
    let made: Vec<_> = fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(made, ["a.copy"], "only what succeeded left something");
}
