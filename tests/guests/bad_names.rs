//! Tries to create outputs with all sorts of names and metadata, and writes to `{name}.names` what came of
//! each, a line each: what was tried (as a JSON string), a tab, and `created`, `duplicate-name`,
//! `invalid-name: WHY` or `invalid-metadata: WHY`. The outputs that were created are empty.

use guests::{Body, ObjectInfo, OutputError, Processed, create_output, json_string};

guests::plugin!(process);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    let long = "n".repeat(1025);
    let names = [
        // Fine, if unusual.
        "plain.txt",
        "folder/inner.txt",
        "with space + plus % percent.txt",
        "-dash",
        "ünïcødé-\u{1f33e}.txt",
        "..twodots",
        "...",
        // Twice the same.
        "plain.txt",
        // Not fine.
        "",
        ".",
        "..",
        "../up.txt",
        "folder/../../up.txt",
        "folder/./here.txt",
        "/absolute",
        "trailing/",
        "a//b",
        "nul\0byte",
        "line\nfeed",
        "escape\u{1b}[2J",
        "delete\u{7f}",
        "c1\u{85}control",
        &long,
        &object.name,
    ];
    let mut lines = String::new();
    for name in names {
        let shown = if name.len() > 100 { "LONG" } else { name };
        line(&mut lines, shown, create_output(name, None, &[]));
    }
    let big = "v".repeat(3 << 10);
    let metadata = [
        ("fine", "value"),
        ("Fine_2.a-b", "välue"),
        ("", "empty key"),
        ("with space", "v"),
        ("ümlaut", "v"),
        ("colon:", "v"),
        ("gristmill-source", "forged"),
        ("Gristmill-Source", "forged"),
        ("linefeed", "a\r\nx-injected: b"),
        ("big", &big),
    ];
    for (index, (key, value)) in metadata.into_iter().enumerate() {
        let pair = [(key.to_owned(), value.to_owned())];
        line(&mut lines, &format!("metadata {key}"), create_output(&format!("metadata-{index}"), None, &pair));
    }
    for (index, content_type) in ["text/plain; charset=utf-8", "", "a\r\nx-injected: b", &big].into_iter().enumerate() {
        let shown = if content_type.len() > 100 { "LONG" } else { content_type };
        let created = create_output(&format!("content-type-{index}"), Some(content_type), &[]);
        line(&mut lines, &format!("content-type {shown}"), created);
    }
    guests::answer(&object, "names", &lines)
}

fn line<T>(lines: &mut String, tried: &str, outcome: Result<T, OutputError>) {
    let outcome = match outcome {
        Ok(_) => "created".into(),
        Err(OutputError::DuplicateName) => "duplicate-name".into(),
        Err(OutputError::InvalidName(why)) => format!("invalid-name: {why}"),
        Err(OutputError::InvalidMetadata(why)) => format!("invalid-metadata: {why}"),
    };
    lines.push_str(&format!("{}\t{outcome}\n", json_string(tried)));
}
