use proptest::prelude::*;

use super::*;

/// From "Event message structure" in the Amazon S3 user guide, shortened.
const PUT: &str = r#"{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"us-west-2",
    "eventTime":"1970-01-01T00:00:00.000Z","eventName":"ObjectCreated:Put",
    "s3":{"s3SchemaVersion":"1.0","configurationId":"testConfigRule",
    "bucket":{"name":"amzn-s3-demo-bucket","arn":"arn:aws:s3:::amzn-s3-demo-bucket"},
    "object":{"key":"uploads/red+flower%2B1.jpg","size":1024,"eTag":"d41d8cd98f00b204e9800998ecf8427e",
    "versionId":"096fKKXTRTtl3on89fVO.nfljtsv6qko","sequencer":"0055AED6DCD90281E5"}}}]}"#;

#[test]
fn a_put_is_read() {
    let events = parse(PUT.as_bytes()).unwrap();
    let expected = ObjectEvent {
        bucket: "amzn-s3-demo-bucket".to_owned(),
        key: "uploads/red flower+1.jpg".to_owned(),
        size: Some(1024),
        etag: Some("d41d8cd98f00b204e9800998ecf8427e".to_owned()),
        version_id: Some("096fKKXTRTtl3on89fVO.nfljtsv6qko".to_owned()),
        event_time: Some("1970-01-01T00:00:00.000Z".to_owned()),
        event_name: "ObjectCreated:Put".to_owned(),
    };
    assert_eq!(events, Events { objects: vec![expected], ignored: Vec::new() });
}

#[test]
fn every_record_counts_and_others_are_named() {
    let record = |name: &str, key: &str| {
        format!(r#"{{"eventName":"{name}","s3":{{"bucket":{{"name":"b"}},"object":{{"key":"{key}"}}}}}}"#)
    };
    let body = format!(
        r#"{{"Records":[{},{},{},{{"eventName":"Replication:Later"}}]}}"#,
        record("ObjectCreated:Copy", "a"),
        record("ObjectRemoved:Delete", "%zz"),
        record("s3:ObjectCreated:CompleteMultipartUpload", "c"),
    );
    let events = parse(body.as_bytes()).unwrap();
    assert_eq!(events.objects.iter().map(|event| event.key.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(events.objects[1].event_name, "ObjectCreated:CompleteMultipartUpload");
    assert_eq!(events.ignored, ["ObjectRemoved:Delete", "Replication:Later"]);
}

#[test]
fn a_test_event_has_no_objects() {
    let body = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2014-10-13T15:57:02.089Z",
        "Bucket":"b","RequestId":"5582815E1AEA5ADF","HostId":"8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR"}"#;
    let events = parse(body.as_bytes()).unwrap();
    assert_eq!(events, Events { objects: Vec::new(), ignored: vec![TEST_EVENT.to_owned()] });
    assert_eq!(parse(br#"{"Records":[]}"#), Ok(Events::default()));
}

#[test]
fn what_cannot_be_read_says_why() {
    let record = |object: &str| {
        format!(
            r#"{{"Records":[{{"eventName":"ObjectCreated:Put","s3":{{"bucket":{{"name":"b"}},"object":{object}}}}}]}}"#
        )
    };
    for (body, why) in [
        (String::new(), "the message is not JSON: EOF"),
        ("{".repeat(100_000), "not JSON"),
        ("[".repeat(100_000), "not JSON: EOF"),
        ("null".to_owned(), "no event of S3: it is null, and should be an object"),
        ("[1]".to_owned(), "no event of S3: it is a list, and should be an object"),
        ("{}".to_owned(), "it has neither `Records`"),
        (r#"{"Records":{}}"#.to_owned(), "its `Records` is an object, and should be a list"),
        (r#"{"Records":[],"Records":[]}"#.to_owned(), "duplicate field `Records`"),
        (r#"{"Event":"x"}"#.to_owned(), "its `Event` is `x`"),
        (r#"{"Records":[7]}"#.to_owned(), "record 0 of the message cannot be read: it is a number"),
        (r#"{"Records":[{"eventName":"x"},[]]}"#.to_owned(), "record 1 of the message cannot be read: it is a list"),
        (r#"{"Records":[{}]}"#.to_owned(), "it has no `eventName`"),
        (r#"{"Records":[{"eventName":"ObjectCreated:Put"}]}"#.to_owned(), "it has no `s3`"),
        (record("{}"), "it has no `s3.object.key`"),
        (record(r#"{"key":""}"#), "its `s3.object.key` is empty"),
        (record(r#"{"key":["a"]}"#), "its `s3.object.key` is a list, and should be a string"),
        (record(r#"{"key":"a%2"}"#), "`a%2`"),
        (record(r#"{"key":"a","size":-1}"#), "its `s3.object.size` is a negative number"),
        (record(r#"{"key":"a","size":1.5}"#), "a number with a fraction"),
        (record(r#"{"key":"a","size":"1"}"#), "is a string, and should be a whole number"),
        (record(r#"["a"]"#), "its `s3.object` is a list, and should be an object"),
    ] {
        let error = parse(body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// An empty text is as good as none.
fn text() -> impl Strategy<Value = Option<String>> {
    prop::option::of(".+")
}

prop_compose! {
    fn event()(
        bucket in ".+", key in ".+", size: Option<u64>, etag in prop::option::of("[^\"]+"),
        version_id in text(), event_time in text(), kind: String,
    ) -> ObjectEvent {
        ObjectEvent { bucket, key, size, etag, version_id, event_time, event_name: format!("{CREATED}{kind}") }
    }
}

fn envelope(message: &str) -> String {
    json!({ "Type": "Notification", "TopicArn": "arn:aws:sns:eu-west-1:111122223333:t", "Message": message })
        .to_string()
}

fn reason(body: &str) -> String {
    parse(body.as_bytes()).unwrap_err().to_string()
}

#[test]
fn an_envelope_changes_nothing_and_there_is_one_at_most() {
    let bare = parse(PUT.as_bytes());
    assert_eq!(parse(envelope(PUT).as_bytes()), bare);
    assert_eq!(
        reason(&envelope(&envelope(PUT))).as_str(),
        "in an SNS envelope: the message is JSON, but no event of S3: it is one more envelope, and one is the most"
    );
    assert!(reason(&envelope("hello")).starts_with("in an SNS envelope: the message is not JSON"));
    let record = envelope(r#"{"Records":[{}]}"#);
    assert_eq!(reason(&record), "in an SNS envelope: record 0 of the message cannot be read: it has no `eventName`");
    assert!(reason(r#"{"Type":"Notification"}"#).ends_with("it has no `Message`"));
    assert!(reason(r#"{"Type":"Complaint","Message":"{}"}"#).contains("its `Type` is `Complaint`"));
}

#[test]
fn a_subscription_that_waits_for_somebody_is_no_secret() {
    let body =
        r#"{"Type":"SubscriptionConfirmation","TopicArn":"arn:aws:sns:eu-west-1:111122223333:t","Message":"You"}"#;
    let reason = reason(body);
    assert!(reason.contains("`arn:aws:sns:eu-west-1:111122223333:t`") && reason.contains("SubscribeURL"), "{reason}");
}

fn bridge(source: &str, detail_type: &str, object: &str) -> String {
    format!(
        r#"{{"version":"0","source":"{source}","detail-type":"{detail_type}","time":"2021-11-12T00:00:00Z",
        "detail":{{"version":"0","bucket":{{"name":"b"}},"object":{object},"reason":"PutObject"}}}}"#
    )
}

#[test]
fn keys_of_event_bridge_are_literal() {
    let body =
        bridge("aws.s3", "Object Created", r#"{"key":"uploads/a+b%20c.jpg","size":5,"etag":"e","version-id":"v"}"#);
    let expected = ObjectEvent {
        bucket: "b".to_owned(),
        key: "uploads/a+b%20c.jpg".to_owned(),
        size: Some(5),
        etag: Some("e".to_owned()),
        version_id: Some("v".to_owned()),
        event_time: Some("2021-11-12T00:00:00Z".to_owned()),
        event_name: "ObjectCreated:Put".to_owned(),
    };
    let expected = Ok(Events { objects: vec![expected], ignored: Vec::new() });
    assert_eq!(parse(body.as_bytes()), expected);
    assert_eq!(parse(envelope(&body).as_bytes()), expected);
}

#[test]
fn what_else_event_bridge_sends_is_named() {
    let deleted = bridge("aws.s3", "Object Deleted", "7");
    assert_eq!(parse(deleted.as_bytes()).unwrap().ignored, ["Object Deleted"]);
    assert!(reason(&bridge("aws.ec2", "Object Created", "{}")).contains("its `source` is `aws.ec2`"));
    assert!(reason(&bridge("aws.s3", "AWS API Call via CloudTrail", "{}")).contains("turn on EventBridge"));
    assert!(reason(&bridge("aws.s3", "Object Created", "{}")).ends_with("it has no `detail.object.key`"));
}

#[test]
fn only_another_major_version_is_refused() {
    let of_version = |version: &str| {
        let record = format!(
            r#"{{"Records":[{{"eventVersion":{version},"eventName":"ObjectCreated:Put","s3":
            {{"bucket":{{"name":"b"}},"object":{{"key":"k"}}}}}}]}}"#
        );
        parse(record.as_bytes()).map_err(|error| error.to_string())
    };
    for version in [r#""2.0""#, r#""2.1""#, r#""2.5""#, r#""2.117""#, r#""2""#, "null"] {
        assert_eq!(of_version(version).map(|events| events.objects.len()), Ok(1), "{version}");
    }
    for version in [r#""3.0""#, r#""1.0""#, r#""20.1""#, r#""x""#] {
        let error = of_version(version).unwrap_err();
        assert!(error.starts_with("record 0 of the message") && error.contains(version.trim_matches('"')), "{error}");
    }
    // Of another version, not even the name is believed.
    assert!(reason(r#"{"Records":[{"eventVersion":"3.0","eventName":"ObjectRemoved:Delete"}]}"#).contains("`3.0`"));
}

#[test]
fn records_of_other_services_are_not_ignored_by_mistake() {
    let record = r#"{"Records":[{"eventSource":"aws:dynamodb","eventName":"INSERT"}]}"#;
    assert!(reason(record).contains("its `eventSource` is `aws:dynamodb`"));
    let record = r#"{"Records":[{"eventSource":"minio:s3","eventName":"s3:ObjectAccessed:Get"}]}"#;
    assert_eq!(parse(record.as_bytes()).unwrap().ignored, ["ObjectAccessed:Get"]);
}

#[test]
fn a_reason_repeats_little_of_the_message() {
    let long = r"\u001b\u202e".repeat(1 << 15);
    for body in [
        format!(r#"{{"Event":"{long}"}}"#),
        format!(r#"{{"Type":"{long}"}}"#),
        format!(r#"{{"source":"{long}","detail-type":"x"}}"#),
        format!(r#"{{"Records":[{{"eventVersion":"{long}"}}]}}"#),
        format!(r#"{{"Records":[{{"eventSource":"{long}"}}]}}"#),
        format!(r#"{{"Records":[],"Records":"{long}"}}"#),
    ] {
        let reason = reason(&body);
        assert!(reason.len() < 500 && !reason.contains(['\u{1b}', '\u{202e}']), "{}", reason.len());
    }
    let named = parse(format!(r#"{{"Records":[{{"eventName":"{long}"}}]}}"#).as_bytes()).unwrap();
    assert!(named.ignored[0].len() < 500);
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(event in event()) {
        let events = parse(&encode(&event)).unwrap();
        prop_assert_eq!(events, Events { objects: vec![event], ignored: Vec::new() });
    }

    #[test]
    fn no_bytes_panic(body: Vec<u8>) {
        let _ = parse(&body);
    }

    #[test]
    fn no_damaged_message_panics(at in 0..PUT.len(), byte: u8, end in 0..PUT.len()) {
        let mut body = PUT.as_bytes().to_vec();
        body[at] = byte;
        let _ = parse(&body);
        body.truncate(end);
        prop_assert!(parse(&body).is_err());
    }
}
