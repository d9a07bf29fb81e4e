//! What holds for any input.

use super::*;

/// Text that looks enough like tables and JSON to get everywhere.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("\""),
        Just("\"\""),
        Just(","),
        Just(";"),
        Just("\n"),
        Just("\r\n"),
        Just("\r"),
        Just("a"),
        Just("12"),
        Just("0.5"),
        Just("true"),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(":"),
        Just("\\"),
        Just(" "),
        Just("{\"a\":1}"),
        Just("\"k\":"),
        Just("é"),
        Just("null"),
        Just("longer text with blanks"),
    ];
    prop::collection::vec(piece, 0..120).prop_map(|pieces| pieces.concat().into_bytes())
}

fn settings() -> impl Strategy<Value = String> {
    let format = prop_oneof![Just("auto"), Just("csv"), Just("json"), Just("ndjson")];
    (format, prop_oneof![Just(64), Just(100), Just(1 << 20)], 1..5_u32).prop_map(|(format, bytes, nesting)| {
        json!({"format": format, "max_record_bytes": bytes, "max_nesting": nesting}).to_string()
    })
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9,;\"\n\r é.-]{0,12}", Just(String::new()), "-?[0-9]{1,4}"]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_end_well(input: Vec<u8>, settings in settings()) {
        let _ = run_pieces("a", &settings, &input, usize::MAX);
    }

    #[test]
    fn how_the_bytes_arrive_changes_nothing(input in text(), settings in settings(), piece in 1_usize..40) {
        let whole = run_pieces("a.csv", &settings, &input, usize::MAX);
        let pieces = run_pieces("a.csv", &settings, &input, piece);
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn outputs_are_json_and_their_counts_agree(input in text(), settings in settings()) {
        if let Ok((Verdict::Done, files)) = run_pieces("a", &settings, &input, 7) {
            let got = outcome("a", files);
            prop_assert_eq!(&got.summary["records"], &json!(got.records.len()));
            prop_assert_eq!(&got.summary["errors"], &json!(got.errors.len()));
        }
    }

    /// Against the `csv` crate, on tables as writers make them, some rows with a field too many.
    #[test]
    fn every_row_is_a_record_or_an_error(
        rows in prop::collection::vec((prop::collection::vec(field(), 3), prop::option::weighted(0.2, field())), 1..30),
    ) {
        let mut writer = ::csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
        writer.write_record(["x", "y", "z"]).unwrap();
        for (fields, more) in &rows {
            writer.write_record(fields.iter().chain(more)).unwrap();
        }
        let input = writer.into_inner().unwrap();
        let settings = r#"{"format":"csv","header":true,"delimiter":",","types":false}"#;
        let (mut records, mut bad) = (Vec::new(), 0);
        for row in ::csv::ReaderBuilder::new().flexible(true).from_reader(input.as_slice()).records() {
            let row = row.unwrap();
            if row.len() == 3 {
                let value = |at: usize| if row[at].is_empty() { Value::Null } else { json!(row[at]) };
                records.push(json!({"x": value(0), "y": value(1), "z": value(2)}));
            } else {
                bad += 1;
            }
        }
        match run_pieces("a.csv", settings, &input, 13) {
            Ok((_, files)) => {
                let got = outcome("a.csv", files);
                prop_assert_eq!(got.errors.len(), bad);
                prop_assert_eq!(got.records, records);
            }
            Err(_) => prop_assert!(records.is_empty() && bad > 0),
        }
    }

    #[test]
    fn json_goes_through_unchanged(
        rows in prop::collection::vec(prop::collection::btree_map("[a-c\"\\\\é]{0,3}", "[a-z\"\\\\\n{}\\[\\]:,é]{0,9}", 0..4), 1..20),
        pretty: bool,
        piece in 1_usize..50,
    ) {
        let text = if pretty { serde_json::to_vec_pretty(&rows) } else { serde_json::to_vec(&rows) }.unwrap();
        let (_, files) = run_pieces("a.json", "{}", &text, piece).unwrap();
        let expected: Vec<Value> = rows.iter().map(|row| json!(row)).collect();
        prop_assert_eq!(lines(&files, "a.json.ndjson"), expected);
    }

    #[test]
    fn numbers_lose_no_digit(text in "-?[0-9]{1,9}(\\.[0-9]{1,9})?([eE][-+]?[0-9]{1,3})?|[-+0-9.eE]{0,10}") {
        let digits = |text: &str| {
            let mantissa = text.split(['e', 'E']).next().unwrap_or_default().replace(['-', '.'], "");
            mantissa.trim_matches('0').to_owned()
        };
        if crate::value::classify(text.as_bytes()).is_numeric() {
            serde_json::from_str::<&serde_json::value::RawValue>(&text).unwrap();
            let read: f64 = text.parse().unwrap();
            prop_assert_eq!(digits(&format!("{read:e}")), digits(&text));
        }
    }
}
