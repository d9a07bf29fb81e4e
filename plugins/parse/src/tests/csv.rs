//! Tables.

use super::*;

#[test]
fn values_are_typed_and_counted() {
    let got = parse(
        "orders.csv",
        "id,name,price,paid,day,at,zip\r\n\
         1,\"Müller, Anna\",9.50,true,2026-11-22,2026-11-22T09:30:00Z,01234\r\n\
         2,\"say \"\"hi\"\"\nthere\",10,false,2024-02-29,2026-11-22 09:30:00.5+01:00,80331\r\n\
         3,,,,,,\r\n",
    );
    assert_eq!(
        got.records[0],
        json!({"id": 1, "name": "Müller, Anna", "price": 9.5, "paid": true, "day": "2026-11-22",
               "at": "2026-11-22T09:30:00Z", "zip": "01234"})
    );
    assert_eq!(got.records[1]["name"], "say \"hi\"\nthere");
    assert_eq!(got.records[1]["zip"], "80331", "one leading zero keeps the whole column text");
    assert_eq!(got.records[2]["name"], Value::Null);
    let expected = [
        ("id", "integer", 0),
        ("name", "string", 1),
        ("price", "number", 1),
        ("paid", "boolean", 1),
        ("day", "date", 1),
        ("at", "timestamp", 1),
        ("zip", "string", 1),
    ];
    let columns: Vec<Value> =
        expected.iter().map(|(name, kind, nulls)| json!({"name": name, "type": kind, "nulls": nulls})).collect();
    assert_eq!(got.summary["columns"], Value::from(columns));
    assert_eq!(
        (&got.summary["records"], &got.summary["errors"], &got.summary["delimiter"], &got.summary["header"]),
        (&json!(3), &json!(0), &json!(","), &json!(true))
    );
    assert!(!got.files.contains_key("orders.csv.errors.ndjson"), "an output without content was made");
    let raw = String::from_utf8(got.files["orders.csv.ndjson"].clone()).unwrap();
    assert!(raw.contains("\"price\":9.50,"), "a number is written as it came: {raw}");
}

#[test]
fn nothing_is_lost_to_numbers() {
    for text in [
        "007",
        "+1",
        "-0",
        " 1",
        "1.",
        ".5",
        "0x1f",
        "9223372036854775808",
        "1e999",
        "0.1234567890123456",
        "NaN",
        "2026-02-29",
        "2026-13-01",
        "2026-1-1",
        "1-2",
        "--1",
        "1e",
        "1,5",
        "2026-11-22T25:00:00Z",
    ] {
        let got = parse_with("a.csv", json!({"delimiter": "|", "header": true}), format!("a|b\n{text}|x\n"));
        assert_eq!(got.records[0]["a"], text);
        assert_eq!(got.summary["columns"][0]["type"], "string", "{text}");
    }
    for (text, kind) in
        [("9223372036854775807", "integer"), ("-12", "integer"), ("-0.5e-3", "number"), ("0", "integer")]
    {
        let got = parse("a.csv", format!("a,b\n{text},x\n"));
        assert!(got.records[0]["a"].is_number(), "{text}");
        assert_eq!(got.summary["columns"][0]["type"], kind, "{text}");
    }
}

#[test]
fn types_can_be_turned_off() {
    let got = parse_with("a.csv", json!({"types": false}), "a,b\n1,true\n,x\n");
    assert_eq!(got.records, [json!({"a": "1", "b": "true"}), json!({"a": null, "b": "x"})]);
    assert_eq!(got.summary["columns"][0]["type"], "integer", "the summary tells the types all the same");
}

#[test]
fn a_value_past_the_sample_that_does_not_fit_its_column_stays_text() {
    let mut input = String::from("n,t\n");
    for number in 0..60_000 {
        input.push_str(&format!("{number},x\n"));
    }
    input.push_str("007,x\n1.5,x\n");
    let got = parse("a.csv", &input);
    assert_eq!(got.records.len(), 60_002);
    assert_eq!(got.records[59_999]["n"], 59_999);
    assert_eq!(got.records[60_000]["n"], "007");
    assert_eq!(got.records[60_001]["n"], 1.5);
    assert_eq!(got.summary["columns"][0]["type"], "string");
}

#[test]
fn delimiters_are_found_out() {
    for (delimiter, name) in [(',', "a.txt"), ('\t', "a.tsv"), (';', "a.csv"), ('|', "a.dat")] {
        let got = parse(name, format!("a{delimiter}b\n1{delimiter}\"x{delimiter}y\"\n2{delimiter}z\n"));
        assert_eq!(got.summary["delimiter"], delimiter.to_string());
        assert_eq!(got.records[0], json!({"a": 1, "b": format!("x{delimiter}y")}));
    }
    let semicolons = parse("a.csv", "preis;menge\n1,50;2\n2,75;3\n");
    assert_eq!(semicolons.summary["delimiter"], ";", "decimal commas are no separators");
    let one_column = parse("a.csv", "name\nanna\nbert\n");
    assert_eq!(one_column.records, [json!({"name": "anna"}), json!({"name": "bert"})]);
}

#[test]
fn headers_are_found_out_and_made_unique() {
    let none = parse("a.csv", "1,anna\n2,bert\n");
    assert_eq!(none.summary["header"], false);
    assert_eq!(none.records[0], json!({"column_1": 1, "column_2": "anna"}));
    let years = parse("a.csv", "name,2025,2026\nanna,1,2\n,3,4\n");
    assert_eq!(years.summary["header"], false, "nothing tells that years are names when all columns have text on top");
    let typed = parse("a.csv", "name,id,2026\nanna,1,2\n");
    assert_eq!(typed.summary["header"], true);
    let forced = parse_with("a.csv", json!({"header": true}), "a,,a,a_2, a ,\n1,2,3,4,5,6\n");
    assert_eq!(forced.records[0], json!({"a": 1, "column_2": 2, "a_3": 3, "a_2": 4, "a_4": 5, "column_6": 6}));
    let refused = parse_with("a.csv", json!({"header": false}), "a,b\nc,d\n");
    assert_eq!(refused.records.len(), 2);
    let only = parse("a.csv", "a,b\n");
    assert_eq!((only.records.len(), &only.summary["columns"][1]["name"]), (0, &json!("b")));
    assert_eq!(only.summary["columns"][1]["type"], "null");
}

#[test]
fn bad_rows_are_reported_with_their_line() {
    let mut input = b"id,name\n1,a\n\n2\n3,\"x\ny\"\n4,b,c\n5,".to_vec();
    input.extend_from_slice(b"\xff\n6,d\n");
    let got = parse("a.csv", input);
    let ids: Vec<_> = got.records.iter().map(|record| record["id"].clone()).collect();
    assert_eq!(ids, [json!(1), json!(3), json!(6)]);
    assert_eq!(
        got.errors,
        [
            json!({"line": 4, "reason": "1 field where the header has 2", "raw": "2"}),
            json!({"line": 7, "reason": "3 fields where the header has 2", "raw": "4,b,c"}),
            json!({"line": 8, "reason": "not UTF-8 at byte 2 of the row; convert the file to UTF-8", "raw": "5,\u{fffd}"}),
        ]
    );
    assert_eq!(got.summary["first_errors"][1]["line"], 7);
    assert_eq!(got.summary["errors"], 3);
}

#[test]
fn a_stray_quote_costs_one_line() {
    for rest in ["3,c\n4,d\n", "3,\"ok\"\"\"\n4,d\n"] {
        let got = parse("a.csv", format!("id,name\n1,\"broken\n2,b\n{rest}"));
        assert_eq!(got.errors.len(), 1, "{:?}", got.errors);
        assert_eq!((&got.errors[0]["line"], &got.errors[0]["raw"]), (&json!(2), &json!("1,\"broken")));
        assert_eq!(got.records.len(), 3);
    }

    let mut far = String::from("id,name\n1,\"broken\n");
    for id in 2..100 {
        far.push_str(&format!("{id},b\n"));
    }
    let got = parse_with("a.csv", json!({"max_record_bytes": 64}), far);
    assert_eq!((got.errors.len(), got.records.len()), (1, 98));
}

#[test]
fn a_row_that_is_too_long_costs_itself_only() {
    let long = "x".repeat(5000);
    let got = parse_with("a.csv", json!({"max_record_bytes": 4000}), format!("a,b\n1,x\n2,{long}\n3,\"y\n\"\n4,z\n"));
    assert_eq!(got.records.len(), 3);
    assert_eq!(got.errors[0]["line"], 3);
    assert_eq!(got.errors[0]["reason"], "longer than 4000 bytes; the setting `max_record_bytes` allows no more");
    assert_eq!((got.errors[0]["raw"].as_str().unwrap().len(), &got.errors[0]["cut"]), (1024, &json!(true)));
    let none = rejection("a.csv", r#"{"max_record_bytes":4000}"#, format!("a,b\n1,{long}\n"));
    assert!(none.starts_with("no record could be read, errors: 1, the first on line 2: longer than"), "{none}");
}

#[test]
fn line_breaks_of_every_kind() {
    for newline in ["\n", "\r\n", "\r"] {
        let got = parse("a.csv", format!("\u{feff}a,b{newline}1,x{newline}{newline}2,y{newline}bad"));
        assert_eq!(got.records, [json!({"a": 1, "b": "x"}), json!({"a": 2, "b": "y"})], "{newline:?}");
        assert_eq!(got.errors[0]["line"], 5, "{newline:?}");
        assert_eq!(got.summary["columns"][0]["name"], "a", "the byte order mark is no part of the name");
    }
}

#[test]
fn every_control_character_is_escaped() {
    let text: String = (1_u8..32).filter(|byte| !b"\n\r".contains(byte)).map(char::from).collect();
    let got = parse("a.csv", format!("a,b\n{text}\\é,\"{}\"\n", "long enough for whole strides \u{1f600} \"\" \n end"));
    assert_eq!(got.records[0]["a"], format!("{text}\\é"));
    assert_eq!(got.records[0]["b"], "long enough for whole strides \u{1f600} \" \n end");
}
