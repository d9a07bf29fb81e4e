//! What is in a bucket, page by page.

use std::time::SystemTime;

use aws_sdk_s3::types::{EncodingType, Object};

use super::S3Store;
use crate::{aws::words, key, store::StoreError};

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The whole key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Opaque, without quotes.
    pub etag: Option<String>,
    /// Last modification.
    pub modified: Option<SystemTime>,
}

/// Up to a thousand objects, in the order of their keys.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Perhaps none, though more pages follow.
    pub objects: Vec<Listed>,
    /// Where the next page begins; nothing on the last one.
    pub next: Option<String>,
}

impl S3Store {
    /// The objects below a prefix: the first page, or the one that `after`, the last page's
    /// [`next`](Page::next), names.
    ///
    /// # Errors
    /// When the bucket cannot be listed.
    pub async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        let refused = |what: &str| StoreError::Unavailable(format!("s3:ListBucket on {}: {what}", self.shared.bucket));
        let page = self
            .shared
            .client
            .list_objects_v2()
            .bucket(&self.shared.bucket)
            .prefix(prefix)
            .set_continuation_token(after.map(str::to_owned))
            // XML cannot carry every character that a key can.
            .encoding_type(EncodingType::Url)
            .send()
            .await
            .map_err(|error| refused(&words(error)))?;
        let is_encoded = page.encoding_type() == Some(&EncodingType::Url);
        let objects: Result<Vec<Listed>, String> =
            page.contents().iter().filter_map(|object| listed(object, is_encoded)).collect();
        let next = page.next_continuation_token().filter(|_| page.is_truncated() == Some(true));
        // It would never end.
        if next.is_some() && next == after {
            return Err(refused("the store names the same page again and again"));
        }
        Ok(Page { objects: objects.map_err(|what| refused(&what))?, next: next.map(str::to_owned) })
    }
}

/// Nothing without a key, an error when that cannot be read. Not every store encodes keys because it was asked
/// to.
fn listed(object: &Object, is_encoded: bool) -> Option<Result<Listed, String>> {
    let key = match object.key()? {
        encoded if is_encoded => match key::decode(encoded) {
            Ok(key) => key,
            Err(error) => return Some(Err(error.to_string())),
        },
        key => key.to_owned(),
    };
    Some(Ok(Listed {
        key,
        size: object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
        etag: object.e_tag().map(|etag| etag.trim_matches('"').to_owned()),
        modified: object.last_modified().and_then(|time| SystemTime::try_from(*time).ok()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_where_the_store_has_encoded_them() {
        let object = Object::builder().key("uploads/a+b%2Bc.txt").size(7).e_tag("\"abc\"").build();
        let listed = |is_encoded| super::listed(&object, is_encoded).unwrap().unwrap();
        assert_eq!(listed(true).key, "uploads/a b+c.txt");
        let plain = listed(false);
        assert_eq!((plain.key.as_str(), plain.size, plain.etag.as_deref()), ("uploads/a+b%2Bc.txt", 7, Some("abc")));
        assert!(super::listed(&Object::builder().key("%").build(), true).is_some_and(|listed| listed.is_err()));
    }
}
