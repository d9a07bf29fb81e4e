//! Writes everything that it was told to `{name}.info.json`: each field of `object-info` under its WIT
//! name, and `settings` as the host gave them, and `setting`, the text of the setting `probe` or null.

use guests::{Body, ObjectInfo, Processed, json_string};

guests::plugin!(process);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    let metadata: Vec<_> =
        object.metadata.iter().map(|(key, value)| format!("[{},{}]", json_string(key), json_string(value))).collect();
    let fields = [
        ("bucket", json_string(&object.bucket)),
        ("key", json_string(&object.key)),
        ("name", json_string(&object.name)),
        ("stem", json_string(&object.stem)),
        ("size", object.size.to_string()),
        ("etag", json_string(&object.etag)),
        ("version-id", optional(object.version_id.as_deref())),
        ("content-type", optional(object.content_type.as_deref())),
        ("metadata", format!("[{}]", metadata.join(","))),
        ("event-time", optional(object.event_time.as_deref())),
        ("attempt", object.attempt.to_string()),
        ("settings", guests::settings()),
        ("setting", optional(guests::setting("probe").as_deref())),
    ];
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("  {}: {value}", json_string(name))).collect();
    guests::answer(&object, "info.json", &format!("{{\n{}\n}}\n", fields.join(",\n")))
}

fn optional(text: Option<&str>) -> String {
    text.map_or_else(|| "null".into(), json_string)
}
