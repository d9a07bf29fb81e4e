//! A thousand names that people, programs and attackers give their objects.

use std::collections::BTreeSet;

use crate::{
    SOON, Uploads, on_ministack,
    support::{auditor::Object, remote_bucket::Events, remote_host::Deployment, samples::text},
};

/// Names of which each is awkward in its own way.
const ODD: &[&str] = &[
    "with spaces and  two.bin",
    " leading and trailing .bin ",
    "plus+plus.bin",
    "percent%41.bin",
    "100%.bin",
    "%",
    "+",
    "%2B",
    "%20",
    "%00",
    "%252F",
    "%2e%2e%2fetc",
    "a%2Fb+c d.bin",
    "%C3%28",
    "naïve-é.bin",
    "nai\u{308}ve-e\u{301}.bin",
    "猫/写真 2026/原本.bin",
    "emoji-🦀👩‍👩‍👧.bin",
    "שלום.bin",
    "-",
    "--help",
    "-rf/-v",
    ".env",
    ".hidden/.inside.bin",
    "...",
    "..a",
    "a..",
    "dot.",
    "quote\"s'and`ticks.bin",
    "back\\slash.bin",
    "c:\\windows\\path.bin",
    "star*?[x]{y}.bin",
    "semi;colon|pipe&and>more<less$HOME.bin",
    "<key>&amp;</key>.bin",
    "query?versionId=null",
    "fragment#here",
    "a=b&c=d",
    "http://example.org/a",
    "comma,colon:at@.bin",
    "tab\tand\nnewline\r.bin",
    "bell\u{7}.bin",
    "escape\u{1b}[31m.bin",
    "first\u{1}last\u{1f}.bin",
    "delete\u{7f}.bin",
    "c1\u{85}control.bin",
    "\u{202e}gpj.exe",
    "zero\u{200b}width.bin",
    "\u{feff}mark.bin",
    "not a character \u{ffff}.bin",
    "beyond\u{10ffff}.bin",
    "no\u{a0}break.bin",
    "//two at the start",
    "a//b///c",
    "uploads/uploads",
    "processed/inside",
    "gristmill-source",
    "UPPER.bin",
    "upper.bin",
    "~",
];

/// What the other names are put together from.
const PIECES: &[&str] = &[
    "a", "Z", "0", " ", "+", "%", "%41", "%2F", "%zz", "é", "猫", "🦀", "\"", "'", "`", "\\", "&", "=", "?", "#", ";",
    ":", "@", ",", "<", ">", "|", "{", "}", "[", "]", "^", "~", "*", "$", "!", "(", ")", "_", "-", ".", "\t", "\n",
    "\u{1}", "\u{7f}", "\u{85}", "\u{2028}", "/",
];

const NAMES: usize = 1_000;

/// The most bytes of a name whose destination, under the longer prefix, is still a key.
const LONGEST: usize = 1_024 - "processed/".len();

/// No two are alike.
fn names() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ODD.iter().map(|name| (*name).to_owned()).collect();
    names.insert("n".repeat(LONGEST));
    // Each of these characters becomes three of nine where a key is escaped.
    names.insert(format!("n{}", "猫".repeat((LONGEST - 1) / 3)));
    names.insert(" ".repeat(LONGEST));
    let mut random = fastrand::Rng::with_seed(1);
    while names.len() < NAMES {
        let pieces = random.usize(1..12);
        let name: String = (0..pieces).filter_map(|_| random.choice(PIECES)).copied().collect();
        // Those are folder markers and what a path may not have; both have tests of their own.
        if !name.ends_with('/') && !name.split('/').any(|segment| segment == "." || segment == "..") {
            names.insert(name);
        }
    }
    names
}

/// Whether an output may be called so.
fn can_be_copied(name: &str) -> bool {
    let own = name.rsplit('/').next().unwrap_or(name);
    !own.chars().any(char::is_control) && name.len() < 900
}

#[test]
fn a_thousand_awkward_names_all_arrive() {
    let remote = on_ministack(Events::Direct);
    let routes = "[[route]]\nmatch = \"copied/**\"\nplugins = [\"copy\"]\n";
    let deployment = Deployment::new(&remote, &["copy"], &format!("{SOON}{routes}")).with("GRISTMILL_SLOTS", "16");
    let objects = names().into_iter().enumerate().map(|(n, name)| {
        let content = text(n as u64, n % 7);
        let object = if n % 5 == 0 && can_be_copied(&name) {
            Object::copied(&format!("uploads/copied/{name}"), &content)
        } else {
            Object::processed(&format!("uploads/{name}"), &content, &[], Vec::new())
        };
        (content, object)
    });
    let mut uploads = Uploads::to(&remote);
    uploads.add_all(objects.collect());
    deployment.run_until_idle().expect(0).expect_counts(&[("processed", NAMES as u64)]);
    uploads.auditor(&deployment).check();
}

#[test]
fn names_that_cannot_be_moved_stay_with_the_reason() {
    let remote = on_ministack(Events::Direct);
    let deployment = Deployment::new(&remote, &["copy"], &format!("{SOON}[[route]]\nplugins = [\"copy\"]\n"));
    let mut uploads = Uploads::to(&remote);
    // Its destination would be too long; so would its output's; no output may be called like the last one's.
    for (name, class) in [
        ("n".repeat(LONGEST + 1), "impossible"),
        ("n".repeat(LONGEST - 1), "reject"),
        ("new\nline".to_owned(), "reject"),
    ] {
        uploads.add(b"x", Object::dead(&format!("uploads/{name}"), b"x", class));
    }
    deployment.run_until_idle().expect(1).expect_counts(&[("rejected", 3)]);
    uploads.auditor(&deployment).check();
}
