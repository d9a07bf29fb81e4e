//! [`load`] from end to end.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = include_str!("../../examples/gristmill.toml");

fn sources(text: &str, env: &[(&str, &str)]) -> Sources {
    Sources {
        file: Some((PathBuf::from("conf/gristmill.toml"), text.to_owned())),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        overrides: Overrides::default(),
        cores: 2,
        is_directory: |_| false,
    }
}

fn valid(text: &str) -> Config {
    load(sources(text, &[])).unwrap()
}

/// The report on a file, without the path that begins each of its lines.
fn report(text: &str) -> String {
    load(sources(text, &[])).unwrap_err().to_string().replace("conf/gristmill.toml:", "")
}

/// Checks that exactly one thing is wrong with a local configuration that has `lines` from line 2 on.
fn refused(lines: &str, expected: &str) {
    assert_eq!(report(&format!("directory = 'd'\n{lines}")), expected);
}

#[test]
fn the_example_is_valid_and_its_defaults_are_true() {
    let config = valid(EXAMPLE);
    assert_eq!(config.place, Place::Directory("conf/data".into()));
    assert_eq!(config.retry, Retry::default());
    let [photos, reports, rest] = &config.routes[..] else { panic!("{:?}", config.routes) };
    assert_eq!(photos.uses[0].settings["sizes"], serde_json::json!([320, 1280]));
    assert_eq!(photos.uses[0].limits.memory, 768 << 20);
    assert_eq!(photos.uses[0].limits.outputs, Limits::default().outputs);
    assert_eq!(photos.uses[1].limits, Limits::default(), "the file's [limits] repeat the defaults");
    assert_eq!((reports.source_prefix.as_str(), reports.destination_prefix.as_str()), ("uploads/reports/", "tables/"));
    assert!(rest.uses.is_empty());

    let granted = &config.grants["notify"];
    let servers: Vec<String> = granted.http.iter().map(ToString::to_string).collect();
    assert_eq!(
        servers,
        ["https://api.example.com", "https://hooks.example.com:8443", "http://vault.internal:8200"],
        "as they are written"
    );
    assert_eq!(granted.data, Some("conf/tables".into()), "from the file's folder");
    assert!(granted.clocks && granted.randomness && granted.private_addresses.len() == 1);
    assert_eq!(config.grants["resize"], Grants::default(), "nothing is granted that is not written");

    let bare = valid("directory = 'data'");
    assert_eq!(
        (config.visibility_timeout, config.drain_timeout, config.slots, &config.source_prefix),
        (bare.visibility_timeout, bare.drain_timeout, bare.slots, &bare.source_prefix)
    );
    assert_eq!(config.destination_prefix, bare.destination_prefix);
    assert_eq!(config.bytes_in_flight, bare.bytes_in_flight);
    assert_eq!(config.concurrency("resize"), bare.concurrency("resize"), "the file repeats the default");
    assert_eq!(config.canaries["resize"], Canary::default(), "the file repeats the default");
    assert_eq!((&config.trust, &bare.trust), (&Trust::default(), &Trust::default()));
}

#[test]
fn plugins_are_trusted_as_far_as_somebody_says() {
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let [a, b] = ["aB".repeat(32), "0".repeat(64)];
    let config = valid(&format!(
        "directory = 'd'\nplugins_of_any_owner = true\nplugins_signed_by = ['{KEY}']\n[plugin.p]\nsha256 = '{a}'\n\
         [plugin.q]\nsha256 = ['{a}', '{b}']\nconcurrency = 1"
    ));
    assert!(config.trust.any_owner && !config.trust.links);
    assert_eq!(config.trust.signed_by.iter().map(ToString::to_string).collect::<Vec<_>>(), [KEY]);
    assert_eq!(config.trust.pins["p"], ["ab".repeat(32)]);
    assert_eq!(config.trust.pins["q"], ["ab".repeat(32), b]);
    let given = sources("directory = 'd'", &[("GRISTMILL_PLUGINS_BY_LINKS", "true")]);
    assert!(load(given).unwrap().trust.links);
    for (lines, expected) in [
        (
            "plugins_signed_by = ['RWx']",
            "2: `plugins_signed_by`: `RWx` is no public key of minisign; it is the line of a `.pub` file that begins with `RW`",
        ),
        // An empty list could mean that nothing has to be signed, or that nothing is good enough.
        ("plugins_signed_by = []", "2: `plugins_signed_by`: the list is empty; leave it out instead"),
        (
            "[plugin.p]\nsha256 = 'abc'",
            "3: `sha256`: `abc` is no SHA-256: 64 hexadecimal digits, as `gristmill plugin inspect` prints it",
        ),
        ("[plugin.p]\nsha256 = []", "3: `sha256`: the list is empty; leave it out instead"),
    ] {
        refused(lines, expected);
    }
}

#[test]
fn canaries_have_rules() {
    let config = valid("directory = 'd'\n[plugin.new.canary]\nshare = '0.5%'\nafter = 3\nlatency_margin = '200 %'");
    let expected = Canary { share: 0.005, after: 3, latency_margin: 2.0, ..Canary::default() };
    assert_eq!(config.canaries["new"], expected);
    for (lines, expected) in [
        ("share = '95%'", "3: `share`: `95%` is too much; write at most `90%`"),
        ("share = '0%'", "3: `share`: `0%` is too little; write at least `0.1%`"),
        ("failure_margin = 'NaN%'", "3: `failure_margin`: `NaN%` is not a percentage; write it like `10%`"),
        ("latency_margin = '5'", "3: `latency_margin`: `5` is not a percentage; write it like `10%`"),
        ("after = 0", "3: `after`: `0` is not a whole number from 1 to 1000000"),
    ] {
        refused(&format!("[plugin.new.canary]\n{lines}"), expected);
    }
}

#[test]
fn the_state_is_beside_the_objects_or_where_it_is_told() {
    assert_eq!(valid("directory = 'd'").state, Some("conf/d/.gristmill".into()));
    let bucket = "bucket = 'photos'\nqueue_url = 'https://sqs.eu-west-1.amazonaws.com/1/q'\n";
    assert_eq!(valid(bucket).state, None);
    assert_eq!(valid(&format!("{bucket}state = 's'")).state, Some("conf/s".into()));
    refused("state = 's'", "2: `state`: local mode keeps everything in its directory; leave it out");
}

#[test]
fn plugins_share_the_slots() {
    let config = valid("directory = 'd'\nslots = 9\n[plugin.slow]\nconcurrency = 2\n[plugin.not-there-yet]");
    assert_eq!((config.concurrency("slow"), config.concurrency("other")), (2, 7));
    assert_eq!(config.concurrency.len(), 1);
    let of_slots = |slots| valid(&format!("directory = 'd'\nslots = {slots}")).concurrency("any");
    assert_eq!([1, 2, 3, 4, 8, 1_000].map(of_slots), [1, 2, 3, 3, 6, 750]);
    assert_eq!(valid("bytes_in_flight = '1.5GiB'\ndirectory = 'd'").bytes_in_flight, 3 << 29);
    let given = sources("directory = 'd'", &[("GRISTMILL_BYTES_IN_FLIGHT", "5MiB")]);
    assert_eq!(load(given).unwrap().bytes_in_flight, 5 << 20);
    for (lines, expected) in [
        ("bytes_in_flight = 7", "2: `bytes_in_flight`: `7` is too little; write at least `1.0 MiB`"),
        ("plugin = 7", "2: `plugin`: expected a table, found the number `7`; write `[plugin.NAME]`"),
        ("[plugin]\nslow = 7", "3: `slow`: expected a table, found the number `7`; write `[plugin.NAME]`"),
        ("[plugin.slow]\nconcurrency = 0", "3: `concurrency`: `0` is not a whole number from 1 to 1000"),
        (
            "[plugin.slow]\nhttp = ['https://user@api.example.com']",
            "3: `http`: `https://user@api.example.com` is not a server; leave the user out: plugins send credentials as a \
             header",
        ),
        ("[plugin.slow]\nhttp = []", "3: `http`: the list is empty; leave it out instead"),
        (
            "[plugin.slow]\nprivate_addresses = '10.0.0.0/8'",
            "3: `private_addresses` says where the servers of `http` may be, and there is no `http`; add one",
        ),
        ("[plugin.slow]\nclocks = 'yes'", "3: `clocks`: expected `true` or `false`, found the string `yes`"),
        (
            "[plugin.slow]\nconcurency = 1",
            "3: unknown key `concurency` in `[plugin.NAME]`; did you mean `concurrency`?",
        ),
        ("[plugin.\"slow.wasm\"]\nconcurrency = 1", "2: `slow.wasm` is a file's name; write the plugin's, `slow`"),
        (
            "[plugin.Slow]\nconcurrency = 1",
            "2: `Slow` is not a plugin's name: up to 64 of `a-z`, `0-9`, `_` and `-`, beginning with a letter or digit",
        ),
    ] {
        refused(lines, expected);
    }
}

#[test]
fn without_routes_there_are_three() {
    let routes = valid("directory = 'd'\ndestination_prefix = 'out'\n[limits]\ndeadline = '7s'").routes;
    let plugin_of = |name: &str| {
        let takes = |route: &&Route| route.keys.is_empty() || route.keys.iter().any(|pattern| pattern.matches(name));
        routes.iter().find(takes).map(|route| route.uses[0].plugin.as_str())
    };
    for (name, plugin) in [
        ("cat.JPG", "resize"),
        ("a/b.jpeg", "resize"),
        ("x.webp", "resize"),
        ("t.csv", "parse"),
        ("t.jsonl", "parse"),
        ("README", "passthrough"),
    ] {
        assert_eq!(plugin_of(name), Some(plugin), "{name}");
    }
    assert!(routes.iter().all(|route| route.destination_prefix == "out/"));
    assert!(routes.iter().all(|route| route.uses[0].limits.deadline == Duration::from_secs(7)));
    assert!(valid("directory = 'd'\nroute = []").routes.is_empty());
}

#[test]
fn a_route_with_a_source_of_its_own_moves_its_destination_along() {
    let config = valid("directory = 'd'\n[[route]]\nsource_prefix = 'uploads/a'\n");
    assert_eq!(config.routes[0].source_prefix, "uploads/a/");
    assert_eq!(config.routes[0].destination_prefix, "processed/a/");
}

#[test]
fn precedence_is_flag_environment_file_default() {
    let text = "directory = 'd'\nslots = 3\nplugins = 'p'";
    let config = valid(text);
    assert_eq!((config.slots, config.plugins), (3, Plugins::Directory("conf/p".into())));

    let mut given = sources(text, &[("GRISTMILL_SLOTS", "4"), ("GRISTMILL_PLUGINS", "q")]);
    let config = load(given.clone()).unwrap();
    assert_eq!((config.slots, config.plugins), (4, Plugins::Directory("q".into())));

    given.overrides = Overrides { slots: Some(5), plugins: Some("r".into()), ..Overrides::default() };
    let config = load(given).unwrap();
    assert_eq!((config.slots, config.plugins), (5, Plugins::Directory("r".into())));
    assert_eq!(valid("directory = 'd'").slots, 8);
    assert_eq!(valid("bucket = 'photos'\nqueue_url = 'https://sqs.us-east-1.amazonaws.com/1/q'").slots, 64);
}

#[test]
fn a_workers_environment_is_enough() {
    let mut given = sources(
        "",
        &[
            ("BUCKET", "photos"),
            ("REGION", "eu-west-1"),
            ("AWS_REGION", "us-east-1"),
            ("QUEUE_URL", "https://sqs/1/q"),
            ("SRC_PREFIX", "in"),
            ("DST_PREFIX", "out"),
        ],
    );
    given.file = None;
    let config = load(given).unwrap();
    let expected = Place::Bucket(Bucket {
        name: "photos".to_owned(),
        region: Some("eu-west-1".to_owned()),
        queue_url: "https://sqs/1/q".to_owned(),
        dead_letter_queue_url: None,
        path_style: false,
        copy_in_parts_above: 5 << 30,
    });
    assert_eq!(config.place, expected);
    assert_eq!((config.source_prefix.as_str(), config.destination_prefix.as_str()), ("in/", "out/"));
    assert_eq!(config.plugins, Plugins::BuiltIn);
}

#[test]
fn a_workers_environment_does_not_get_in_the_way_of_local_mode() {
    let worker = [("BUCKET", "!"), ("REGION", "!"), ("QUEUE_URL", "!"), ("AWS_REGION", "!")];
    assert_eq!(load(sources("directory = 'd'", &worker)).unwrap().place, Place::Directory("conf/d".into()));

    let mut given = sources("bucket = 'photos'\nqueue_url = 'https://sqs/1/q'", &worker);
    given.overrides.directory = Some("here".into());
    assert_eq!(load(given).unwrap().place, Place::Directory("here".into()));

    let chosen = [("GRISTMILL_BUCKET", "photos"), ("QUEUE_URL", "https://sqs/1/q")];
    assert!(load(sources("directory = 'd'", &chosen)).unwrap().place.directory().is_none());
    let chosen = [("GRISTMILL_DIRECTORY", "e"), ("BUCKET", "photos")];
    let place = load(sources("bucket = 'photos'\nqueue_url = 'https://sqs/1/q'", &chosen)).unwrap().place;
    assert_eq!(place, Place::Directory("e".into()));
}

#[test]
fn plugins_are_where_they_usually_are() {
    let mut given = sources("directory = 'd'", &[]);
    given.is_directory = |_| true;
    assert_eq!(load(given.clone()).unwrap().plugins, Plugins::Directory("conf/plugins".into()));
    given.is_directory = |path| path == Path::new("conf/d/plugins");
    assert_eq!(load(given.clone()).unwrap().plugins, Plugins::Directory("conf/d/plugins".into()));
    given.is_directory = |path| path == Path::new("plugins");
    given.overrides.directory = Some("e".into());
    given.file = None;
    assert_eq!(load(given).unwrap().plugins, Plugins::BuiltIn, "the working directory may hold anything");
}

#[test]
fn settings_reach_plugins_as_json() {
    let config = valid(
        "directory = 'd'\n[[route]]\n[[route.use]]\nplugin = 'p'\n[route.use.settings]\n\
         n = 1_000\nh = 0xff\nf = 1.5\nb = true\nd = 2026-11-22T09:30:00Z\nl = [1, 'x']\nt.u = ''",
    );
    let expected = serde_json::json!({
        "n": 1000, "h": 255, "f": 1.5, "b": true, "d": "2026-11-22T09:30:00Z", "l": [1, "x"], "t": {"u": ""},
    });
    assert_eq!(serde_json::Value::Object((*config.routes[0].uses[0].settings).clone()), expected);
}

#[test]
fn everything_wrong_is_reported_at_once_in_the_order_of_the_file() {
    let text = "\
bucket = 'photos'
slot = 4
visibility_timeout = '30 parsecs'
slots = 0
[limits]
memory = '2GiB'
drain_timeout = '1s'
[retry]
base = '10m'
[[route]]
match = ['*.jpg', '[x']
source_prefix = 'elsewhere'
destination_prefix = 'uploads/done'
plugins = ['Resize', 'parse']
use = 7
[[route]]
[[route.use]]
settings = { ratio = inf }
[route.use.limits]
handles = 0
";
    let env = [("GRISTMILL_DRAIN_TIMEOUT", "soon"), ("GRISTMILL_SLOT", "1")];
    let expected = "\
environment: GRISTMILL_DRAIN_TIMEOUT: `soon` is not a duration; write it like `30s` or `2m`
environment: GRISTMILL_SLOT: unknown variable; did you mean `GRISTMILL_SLOTS`?
conf/gristmill.toml:1: the bucket has no queue beside it; set `queue_url` too
conf/gristmill.toml:2: unknown key `slot`; did you mean `slots`?
conf/gristmill.toml:3: `visibility_timeout`: `30 parsecs` is not a duration; write it like `30s` or `2m`
conf/gristmill.toml:4: `slots`: `0` is not a whole number from 1 to 1000
conf/gristmill.toml:6: `memory`: `2GiB` is too much; write at most `1.0 GiB`
conf/gristmill.toml:7: unknown key `drain_timeout` in `[limits]`; it belongs at the top of the file, above the first `[…]`
conf/gristmill.toml:9: `base`: `10m` is longer than `max`, `5m`; make `base` the shorter one
conf/gristmill.toml:11: `match`: `[x` is not a pattern: unclosed character class; missing ']'
conf/gristmill.toml:12: `source_prefix`: `elsewhere/` is not below `uploads/`, where objects are looked for; write `uploads/elsewhere/`
conf/gristmill.toml:13: the destination prefix `uploads/done/` is inside the source prefix `uploads/`: results would be processed again, without end; keep the two apart, as `uploads/` and `processed/` are
conf/gristmill.toml:14: `plugins`: `Resize` is not a plugin's name: up to 64 of `a-z`, `0-9`, `_` and `-`, beginning with a letter or digit
conf/gristmill.toml:15: `use`: expected a list of tables, found the number `7`; write `[[route.use]]`
conf/gristmill.toml:15: `use`: the route has `plugins` too; name each plugin once, with `use` if it needs settings
conf/gristmill.toml:17: `plugin` is missing; name one as in `NAME.wasm`
conf/gristmill.toml:18: `ratio`: the number cannot be handed to a plugin: JSON has no `inf`, no `nan` and, here, whole numbers of 64 bits; write it as a string
conf/gristmill.toml:20: `handles`: `0` is not a whole number from 1 to 1000000";
    let errors = load(sources(text, &env)).unwrap_err().to_string();
    for (found, expected) in errors.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(errors, expected);
}

#[test]
fn syntax_errors_have_their_lines() {
    let errors = report("directory = 'd'\nslots = \n\n[limits\nslots = 'x");
    let lines: Vec<_> = errors.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["2", "4", "5"], "{errors}");
    assert_eq!(report("slots = 1\nslots = 2"), "2: duplicate key");
}

#[test]
fn where_the_objects_are_is_said_once() {
    assert_eq!(
        report(""),
        "configuration: nothing says where the objects are; set `directory`, or `bucket` and `queue_url`"
    );
    refused(
        "bucket = 'photos'\nregion = 'eu-west-1'",
        "2: `bucket` is for a bucket in S3, but `directory` says local mode; remove one of them\n\
         3: `region` is for a bucket in S3, but `directory` says local mode; remove one of them",
    );
    assert_eq!(report("queue_url = 'https://sqs/1/q'"), "1: the queue has no bucket beside it; set `bucket` too");
    assert_eq!(report("directory = 5"), "1: `directory`: expected a string, found the number `5`");
    let both = load(sources("", &[("GRISTMILL_BUCKET", "photos"), ("GRISTMILL_DIRECTORY", "d")])).unwrap_err();
    assert_eq!(both.to_string(), "environment: GRISTMILL_DIRECTORY: `GRISTMILL_BUCKET` is set too; unset one of them");
}

#[test]
fn loops_are_refused_and_explained() {
    let looping = |relation: &str, destination: &str, source: &str| {
        format!(
            "the destination prefix `{destination}` is {relation} the source prefix `{source}`: results would be \
             processed again, without end; keep the two apart, as `uploads/` and `processed/` are"
        )
    };
    refused("destination_prefix = 'uploads'", &format!("2: {}", looping("the same as", "uploads/", "uploads/")));
    refused("destination_prefix = 'uploads/x'", &format!("2: {}", looping("inside", "uploads/x/", "uploads/")));
    refused("source_prefix = 'processed/in'", &format!("2: {}", looping("around", "processed/", "processed/in/")));
    let errors = load(sources("directory = 'd'", &[("DST_PREFIX", "uploads/")])).unwrap_err().to_string();
    assert_eq!(errors, format!("environment: DST_PREFIX: {}", looping("the same as", "uploads/", "uploads/")));
    assert!(report("directory = 'd'\nsource_prefix = ''").contains("would land where uploads are looked for"));
    // A common beginning of names is no common folder.
    assert_eq!(valid("directory = 'd'\ndestination_prefix = 'uploads-done'").destination_prefix, "uploads-done/");
}

#[test]
fn the_hosts_own_folders_and_the_objects_keep_apart() {
    refused(
        "plugins = 'p'\n[[route]]\ndestination_prefix = 'q'\n[[route]]\ndestination_prefix = '.gristmill/x'",
        "configuration: `conf/d/.gristmill/x/` is inside the host's own `conf/d/.gristmill`; choose another prefix",
    );
    refused(
        "plugins = 'd/p'\n[[route]]\ndestination_prefix = 'p'",
        "2: `plugins`: `conf/d/p` must not be inside the objects' `conf/d/p/`; move it",
    );
}

#[test]
fn routes_say_what_is_wrong_with_them() {
    for (route, expected) in [
        ("match = []", "`match`: the list is empty; leave it out instead"),
        (
            "match = 'uploads/*.jpg'",
            "`match`: `uploads/*.jpg` begins with the source prefix `uploads/`, but patterns are held against the key \
             below it; leave the prefix out",
        ),
        ("content_type = 'png'", "`content_type`: `png` is not a content type; write it like `image/png` or `image/*`"),
        (
            "max_size = '1kB'\nmin_size = '1KiB'",
            "`min_size`: 1024 bytes are more than `max_size`, 1000; no object matches both",
        ),
        ("plugins = ['a', 'b', 'a']", "`a` is used twice with the same settings; remove one"),
        ("plugns = ['a']", "unknown key `plugns` in `[[route]]`; did you mean `plugins`?"),
        (
            "[[route.use]]\nplugin = 'a'\nquality = 3",
            "unknown key `quality` in `[[route.use]]`; known here are `plugin`, `settings`, `limits`",
        ),
        (
            "[[route.use]]\nplugin = 'a'\nlimits.memry = '1MiB'",
            "unknown key `memry` in `[route.use.limits]`; did you mean `memory`?",
        ),
        ("[[route.use]]\nplugin = 'a'\nsettings = 'x'", "`settings`: expected a table, found the string `x`"),
    ] {
        let lines = route.lines().count() + 2;
        refused(&format!("[[route]]\n{route}"), &format!("{lines}: {expected}"));
    }
    refused("[route]\nmatch = '*'", "2: `route`: expected a list of tables, found a table; write `[[route]]`");
    let twice = "[[route]]\n[[route.use]]\nplugin = 'a'\n[[route.use]]\nplugin = 'a'\nsettings.x = 1";
    assert_eq!(valid(&format!("directory = 'd'\n{twice}")).routes[0].uses.len(), 2);
}

#[test]
fn a_wrong_prefix_is_one_error() {
    let routes = "[[route]]\nmatch = 'in/*'\nsource_prefix = 'in/a'\ndestination_prefix = 'out'";
    refused(
        &format!("source_prefix = '/in'\n{routes}"),
        "2: `source_prefix`: `/in` begins with `/`, which keys don't; leave it out",
    );
}

#[test]
fn flags_are_named_when_they_are_wrong() {
    let mut given = sources("directory = 'd'", &[]);
    given.overrides.slots = Some(0);
    assert_eq!(load(given).unwrap_err().to_string(), "--slots: `0` is not a whole number from 1 to 1000");
}

#[test]
fn a_file_cannot_exhaust_the_reader() {
    assert_eq!(report(&"#".repeat((1 << 20) + 1)), "1: the file is larger than 1048576 bytes; shorten it");
    for deep in ["[".repeat(500_000), format!("a{} = 1", ".a".repeat(500_000)), format!("a = {}", "[".repeat(500_000))]
    {
        assert!(load(sources(&deep, &[])).is_err());
    }
}

/// A line that is wrong by itself, and the table that it belongs into.
fn wrong_line() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop::sample::select(vec![
        ("", "slots = 0"),
        ("", "colour = 'red'"),
        ("", "drain_timeout = 30"),
        ("[limits]\n", "outputs = -1"),
        ("[limits]\n", "deadlin = '1s'"),
        ("[retry]\n", "max = 'ever'"),
        ("[[route]]\n", "match = ['a', '{']"),
        ("[[route]]\n[[route.use]]\nplugin = 'p'\n", "plugins = 1"),
        ("[[route]]\nmatch = [\n'*',\n", "'/x']"),
    ])
}

proptest! {
    #[test]
    fn every_error_names_its_line(before in 0..40_usize, (table, wrong) in wrong_line(), after in 0..9_usize, crlf: bool) {
        let head = format!("directory = 'é'\n{}{table}", "# a comment\n".repeat(before));
        let line = head.lines().count() + 1;
        let mut text = format!("{head}{wrong}\n{}", "\n".repeat(after));
        if crlf {
            text = text.replace('\n', "\r\n");
        }
        let errors = load(sources(&text, &[])).unwrap_err().0;
        prop_assert_eq!(errors.len(), 1);
        prop_assert_eq!(&errors[0].origin, &Origin::File { path: PathBuf::from("conf/gristmill.toml"), line });
    }

    #[test]
    fn a_typo_in_a_key_is_refused_with_the_key_that_was_meant(pick: prop::sample::Index, at: prop::sample::Index) {
        let keys: Vec<(usize, &str)> = EXAMPLE
            .lines()
            .enumerate()
            .filter_map(|(number, line)| line.split_once(" = ").map(|(key, _)| (number, key)))
            .filter(|(_, key)| key.len() > 3 && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
            .collect();
        let (number, key) = *pick.get(&keys);
        let mut typo = key.to_owned();
        typo.insert(at.index(key.len()), 'x');
        let lines = EXAMPLE.lines().enumerate();
        let text: Vec<_> = lines.map(|(n, line)| if n == number { line.replacen(key, &typo, 1) } else { line.to_owned() }).collect();
        let report = report(&text.join("\n"));
        let expected = format!("{}: unknown key `{typo}`", number + 1);
        let found = report.lines().find(|line| line.starts_with(&expected));
        let advice = format!("; did you mean `{key}`?");
        prop_assert!(found.is_some_and(|line| line.ends_with(&advice)), "{}", report);
    }

    #[test]
    fn no_text_panics(text: String, value: String) {
        let _ = load(sources(&text, &[("GRISTMILL_SLOTS", &value), ("SRC_PREFIX", &value), ("BUCKET", &value)]));
    }

    #[test]
    fn no_text_of_the_right_alphabet_panics(text in "([a-z_]{1,5}|\\[|\\]|\\{|\\}|=|\\.|,|\"|'|#|\n| |route|use|limits|[-+0-9:TZ_.ex]{1,6}){0,60}") {
        let _ = load(sources(&text, &[]));
    }

    #[test]
    fn no_damaged_file_panics(cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..30_usize, "\\PC{0,4}"), 1..6)) {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for (at, length, insert) in cuts {
            let start = at.index(text.len() + 1);
            let end = (start + length).min(text.len());
            text.splice(start..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        let _ = load(sources(&text, &[]));
    }

    #[test]
    fn no_value_panics(value: String) {
        let quoted = toml::Value::String(value.clone()).to_string();
        for key in ["directory", "source_prefix", "slots", "drain_timeout", "limits.memory", "retry.base"] {
            let _ = load(sources(&format!("{key} = {quoted}"), &[]));
        }
        let _ = load(sources(&format!("[[route]]\nmatch = {quoted}\ncontent_type = {quoted}\nplugins = {quoted}"), &[]));
    }

    #[test]
    fn what_is_accepted_cannot_loop(source in "[ab]/?([ab]/?){0,2}", destination in "[ab]/?([ab]/?){0,2}") {
        let text = format!("directory = 'd'\nsource_prefix = '{source}'\ndestination_prefix = '{destination}'");
        if let Ok(config) = load(sources(&text, &[])) {
            let key = format!("{}x", config.source_prefix);
            let moved = crate::key::destination_key(&config.source_prefix, &config.destination_prefix, &key).unwrap();
            prop_assert!(!moved.starts_with(&config.source_prefix));
            prop_assert!(!config.source_prefix.starts_with(&config.destination_prefix));
        }
    }
}

#[test]
fn keys_of_the_environment_are_keys_of_the_file() {
    let env: BTreeMap<String, String> =
        environment::KEYS.iter().map(|key| (format!("GRISTMILL_{}", key.to_uppercase()), String::new())).collect();
    let text: String = environment::KEYS.iter().map(|key| format!("{key} = []\n")).collect();
    let report = load(Sources { env, ..sources(&text, &[]) }).unwrap_err().to_string();
    assert!(!report.contains("unknown"), "{report}");
    for key in environment::KEYS {
        let expected = |what| report.contains(&format!("`{key}`: expected {what}, found a list"));
        assert!(expected("a string") || expected("`true` or `false`"), "{key}: {report}");
    }
}
