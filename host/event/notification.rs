//! S3's own notification: "Event message structure" in the Amazon S3 user guide.

use serde::{Deserialize, de::SeqAccess};

use super::{
    CREATED, EventError, Events, ObjectEvent, bare,
    field::{Field, Object, Wanted, skip_list},
    known_major, shown,
};
use crate::key;

/// The major version of the records that are known. "If Amazon S3 makes a change to the event structure
/// that's not backward compatible", it gets another; minor ones only add fields.
const MAJOR_VERSION: &str = "2";

/// How the sources of S3's events end: `aws:s3`, and `minio:s3` or `ceph:s3` of stores that speak like it.
const SOURCE: &str = ":s3";

/// The list `Records`, read record by record, so that of each only what counts is kept.
#[derive(Debug)]
pub(super) struct Records(pub Result<Events, EventError>);

impl Wanted for Records {
    const KIND: &'static str = "a list";

    fn from_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let mut events = Events::default();
        let mut index = 0;
        while let Some(record) = list.next_element::<Field<Object<Record>>>()? {
            match read(record) {
                Ok(Read::Created(event)) => events.objects.push(event),
                Ok(Read::Other(name)) => events.ignored.push(name),
                Err(reason) => {
                    skip_list(&mut list)?;
                    return Ok(Some(Self(Err(EventError::Record { index, reason }))));
                }
            }
            index += 1;
        }
        Ok(Some(Self(Ok(events))))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Record {
    event_version: Field<String>,
    event_source: Field<String>,
    event_name: Field<String>,
    event_time: Field<String>,
    s3: Field<Object<Entity>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entity {
    bucket: Field<Object<Bucket>>,
    object: Field<Object<S3Object>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bucket {
    name: Field<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct S3Object {
    key: Field<String>,
    size: Field<u64>,
    e_tag: Field<String>,
    version_id: Field<String>,
}

/// What a record is about.
enum Read {
    Created(ObjectEvent),
    /// Something else, which has this name.
    Other(String),
}

fn read(record: Field<Object<Record>>) -> Result<Read, String> {
    let record = match record {
        Field::Is(Object(record)) => record,
        Field::Absent => return Err("it is null, and should be an object".to_owned()),
        Field::IsNot(kind) => return Err(format!("it is {kind}, and should be an object")),
    };
    // First: in another version the rest may mean anything.
    if let Some(version) = record.event_version.text("eventVersion")? {
        known_major("eventVersion", &version, MAJOR_VERSION)?;
    }
    // A record of another service may not be taken for one that is of no interest.
    let source = record.event_source.text("eventSource")?;
    if let Some(source) = source.filter(|source| !source.ends_with(SOURCE)) {
        return Err(format!("its `eventSource` is `{}`, and should be `aws:s3`", shown(&source)));
    }
    let name = record.event_name.required_text("eventName")?;
    let name = name.strip_prefix("s3:").unwrap_or(&name);
    // Records of other events need not have an object at all.
    if !name.starts_with(CREATED) {
        return Ok(Read::Other(shown(name)));
    }
    let Object(entity) = record.s3.required("s3")?;
    let Object(bucket) = entity.bucket.required("s3.bucket")?;
    let Object(object) = entity.object.required("s3.object")?;
    let key = object.key.required_text("s3.object.key")?;
    Ok(Read::Created(ObjectEvent {
        bucket: bucket.name.required_text("s3.bucket.name")?,
        key: key::decode(&key).map_err(|error| error.to_string())?,
        size: object.size.optional("s3.object.size")?,
        etag: bare(object.e_tag.text("s3.object.eTag")?),
        version_id: object.version_id.text("s3.object.versionId")?,
        event_time: record.event_time.text("eventTime")?,
        event_name: name.to_owned(),
    }))
}
