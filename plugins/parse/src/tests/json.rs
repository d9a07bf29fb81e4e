//! JSON documents and NDJSON.

use super::*;

#[test]
fn arrays_are_split_and_compacted() {
    let got = parse(
        "a.json",
        "[\n  {\"id\": 1, \"big\": 123456789012345678901234567890, \"s\": \"a \\\" ] } b\"},\n  {\"id\": 2.0, \"t\": {\"x\": [1, 2]}},\n  {\"id\": null, \"t\": \"x\"}\n]\n",
    );
    let raw = String::from_utf8(got.files["a.json.ndjson"].clone()).unwrap();
    assert_eq!(
        raw,
        "{\"id\":1,\"big\":123456789012345678901234567890,\"s\":\"a \\\" ] } b\"}\n\
         {\"id\":2.0,\"t\":{\"x\":[1,2]}}\n\
         {\"id\":null,\"t\":\"x\"}\n"
    );
    assert_eq!(got.summary["format"], "json");
    assert_eq!(
        got.summary["columns"],
        json!([
            {"name": "id", "type": "number", "nulls": 1},
            {"name": "big", "type": "number", "nulls": 2},
            {"name": "s", "type": "string", "nulls": 2},
            {"name": "t", "type": "mixed", "nulls": 1},
        ])
    );
}

#[test]
fn an_object_is_one_record_and_values_may_follow_each_other() {
    let one = parse("a.json", "{\n \"a\": {\"b\": []}\n}");
    assert_eq!(one.records, [json!({"a": {"b": []}})]);
    let many = parse("a.json", "{\n \"a\": 1}\n{\"a\":\n2} [{\"a\":3}]");
    assert_eq!(many.records.len(), 3);
    assert_eq!(parse("a.json", "[]").summary["records"], 0);
}

#[test]
fn ndjson_is_told_by_content_or_name() {
    let got = parse("a.txt", "{\"a\": 1}\nnonsense\n\n {\"a\": 2} \r\n{\"a\": 1} x\n[1]\n{\"a\":");
    assert_eq!(got.summary["format"], "ndjson");
    assert_eq!(got.records, [json!({"a": 1}), json!({"a": 2})]);
    let errors: Vec<(u64, &str)> =
        got.errors.iter().map(|e| (e["line"].as_u64().unwrap(), e["reason"].as_str().unwrap())).collect();
    assert_eq!(errors[0], (2, "not valid JSON at byte 2 of the record: expected ident"));
    assert_eq!(errors[1], (5, "not valid JSON at byte 10 of the record: trailing characters"));
    assert_eq!(errors[2], (6, "a record is an object, this is an array"));
    assert_eq!(errors[3], (7, "not valid JSON at byte 5 of the record: EOF while parsing a value"));
    let named = parse("a.jsonl", "junk\n{\"a\":1}\n");
    assert_eq!((&named.summary["format"], named.records.len(), named.errors.len()), (&json!("ndjson"), 1, 1));
}

#[test]
fn a_bad_element_costs_itself_only() {
    let got = parse("a.json", "[{\"a\":1},\n{\"a\":01},\n7,\n{\"a\":\n  nul}\n,{\"a\":2}]");
    assert_eq!(got.records, [json!({"a": 1}), json!({"a": 2})]);
    assert_eq!(got.errors.len(), 3);
    assert_eq!(got.errors[1]["reason"], "a record is an object, this is a number");
    assert_eq!(got.errors[2]["line"], 4);
    assert!(
        got.errors[2]["reason"].as_str().unwrap().starts_with("not valid JSON at line 5, byte"),
        "{}",
        got.errors[2]
    );
    assert_eq!(got.summary["truncated"], false);
}

#[test]
fn a_lost_structure_ends_the_reading() {
    for (input, line, reason) in [
        ("[{\"a\":1},\n{\"a\":[1}, {\"a\":2}]", 2, "brackets do not match in this value"),
        ("[{\"a\":1},\n{\"a\":\"", 2, "the input ends inside this value"),
        ("[{\"a\":1}\n{\"a\":2}]", 2, "a comma or `]` is missing here"),
        ("[{\"a\":1},\n]", 2, "a value is missing before `]`"),
        ("[{\"a\":1},", 1, "the input ends inside the array that starts on line 1"),
        ("[{\"a\":1}]\n]", 2, "a value is missing before `]`"),
    ] {
        let got = parse("a.json", input);
        assert_eq!(got.records, [json!({"a": 1})], "{input}");
        assert_eq!(got.errors[0]["line"], line, "{input}");
        assert_eq!(got.errors[0]["reason"], format!("{reason}; the rest of the input was not read"));
        assert_eq!((got.errors.len(), &got.summary["truncated"]), (1, &json!(true)));
    }
}

#[test]
fn limits_are_errors_of_the_record() {
    let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    let got = parse("a.json", format!("[{},{},{},{{}}]", deep(64), deep(65), deep(5000)));
    assert_eq!((got.records.len(), got.errors.len()), (2, 2));
    assert_eq!(got.errors[0]["reason"], "nested 65 levels deep; the setting `max_nesting` allows 64");
    assert!(got.errors[1]["reason"].as_str().unwrap().starts_with("nested 5000 levels deep"));

    let long = "x".repeat(300_000);
    let input = format!("[{{\"a\":\"{long}\"}},\n{{\"a\":1}}]");
    let got = parse_with("a.json", json!({"max_record_bytes": 2000}), &input);
    assert_eq!((got.records.len(), got.errors.len(), &got.errors[0]["line"]), (1, 1, &json!(1)));
    assert_eq!(got.errors[0]["raw"].as_str().unwrap().len(), 1024);
}

#[test]
fn a_bad_record_brings_no_columns() {
    let got = parse("a.ndjson", "{\"a\":1}\n{\"b\":1,\"c\":}\n{\"c\":true}\n");
    let names: Vec<_> = got.summary["columns"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, [json!("a"), json!("c")]);
}

#[test]
fn keys_without_end_do_not_fill_the_memory() {
    let input: String = (0..20_000).map(|key| format!("{{\"k{key}\":1}}\n")).collect();
    let got = parse("a.ndjson", input);
    assert_eq!(got.records.len(), 20_000);
    assert_eq!(got.summary["columns"].as_array().unwrap().len(), 16_384);
    assert_eq!(got.summary["columns_left_out"], true);
}
