//! Which objects are ours, which route takes them, and where they go; pure.

use crate::{
    config::{Config, Route},
    event::ObjectEvent,
    key::{self, NameError},
    store::ObjectMeta,
};

/// Why the event is none of this host's business, if it isn't. The reason is for people.
pub fn guard(config: &Config, bucket: &str, event: &ObjectEvent) -> Option<String> {
    if event.bucket != bucket {
        return Some(format!("it is in the bucket `{}`, and this host works on `{bucket}`", event.bucket));
    }
    if key::is_folder_marker(&event.key) {
        return Some("it only marks a folder".to_owned());
    }
    if !event.key.starts_with(&config.source_prefix) {
        return Some(format!("it is not below `{}`", config.source_prefix));
    }
    // The configuration cannot be so, but what it would cost is an endless loop.
    let destinations = config.routes.iter().map(|route| &route.destination_prefix).chain([&config.destination_prefix]);
    let result = destinations.into_iter().find(|prefix| event.key.starts_with(prefix.as_str()));
    result.map(|prefix| format!("it is below `{prefix}`, where results go"))
}

/// The first route that takes the object and whose plugins are all usable. With none, it is only moved to
/// the default destination.
pub fn route<'a>(routes: &'a [Route], object: &ObjectMeta, is_usable: impl Fn(&str) -> bool) -> Option<&'a Route> {
    routes.iter().find(|route| takes(route, object) && route.uses.iter().all(|used| is_usable(&used.plugin)))
}

/// Where the original goes.
pub fn destination(config: &Config, route: Option<&Route>, key: &str) -> Result<String, NameError> {
    let (source, destination) = match route {
        Some(route) => (&route.source_prefix, &route.destination_prefix),
        None => (&config.source_prefix, &config.destination_prefix),
    };
    key::destination_key(source, destination, key)
}

/// Where the original may have gone, when only its key is still known: each place once.
pub fn possible_destinations(config: &Config, key: &str) -> Vec<String> {
    let routes = config.routes.iter().filter(|route| takes_key(route, key)).map(Some);
    let mut destinations = Vec::new();
    for destination in routes.chain([None]).filter_map(|route| destination(config, route, key).ok()) {
        if !destinations.contains(&destination) {
            destinations.push(destination);
        }
    }
    destinations
}

/// The key that an original had before it was moved to `key`, as far as that can be told from the key.
pub fn possible_source(config: &Config, key: &str) -> Option<String> {
    let prefixes = config.routes.iter().map(|route| (&route.source_prefix, &route.destination_prefix));
    let prefixes = prefixes.chain([(&config.source_prefix, &config.destination_prefix)]);
    let mut sources = prefixes.filter_map(|(source, destination)| {
        let below = key.strip_prefix(destination.as_str())?;
        Some(format!("{source}{below}"))
    });
    sources.find(|source| possible_destinations(config, source).iter().any(|destination| destination == key))
}

/// Every condition that the route names must hold.
fn takes(route: &Route, object: &ObjectMeta) -> bool {
    let type_matches = || {
        let found = object.content_type.as_deref();
        found.is_some_and(|found| route.content_types.iter().any(|wanted| is_of_type(found, wanted)))
    };
    takes_key(route, &object.key)
        && (route.content_types.is_empty() || type_matches())
        && route.min_size.is_none_or(|least| object.size >= least)
        && route.max_size.is_none_or(|most| object.size <= most)
}

fn takes_key(route: &Route, key: &str) -> bool {
    key.strip_prefix(route.source_prefix.as_str())
        .is_some_and(|below| route.keys.is_empty() || route.keys.iter().any(|pattern| pattern.matches(below)))
}

/// Compares without case and without parameters: `Text/CSV; charset=utf-8` is `text/csv` and `text/*`.
fn is_of_type(found: &str, wanted: &str) -> bool {
    let found = found.split_once(';').map_or(found, |(kind, _)| kind).trim();
    match wanted.strip_suffix('*') {
        Some(kind) => found.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind)),
        None => found.eq_ignore_ascii_case(wanted),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{KeyPattern, Overrides, Sources, load};

    fn route<'a>(routes: &'a [Route], object: &ObjectMeta) -> Option<&'a Route> {
        super::route(routes, object, |_| true)
    }

    #[test]
    fn a_route_whose_plugin_cannot_be_used_is_passed_over() {
        let used = |plugin: &str| crate::config::Use {
            plugin: plugin.to_owned(),
            settings: Default::default(),
            limits: Default::default(),
        };
        let routes = [
            Route { uses: vec![used("a"), used("gone")], ..any() },
            Route { uses: vec![used("a")], destination_prefix: "second/".to_owned(), ..any() },
        ];
        let found = super::route(&routes, &object("uploads/x", 1, None), |plugin| plugin != "gone");
        assert_eq!(found.map(|route| route.destination_prefix.as_str()), Some("second/"));
    }

    fn any() -> Route {
        Route {
            keys: Vec::new(),
            content_types: Vec::new(),
            min_size: None,
            max_size: None,
            source_prefix: "uploads/".to_owned(),
            destination_prefix: "processed/".to_owned(),
            uses: Vec::new(),
        }
    }

    fn object(key: &str, size: u64, content_type: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            key: key.to_owned(),
            size,
            etag: "e".to_owned(),
            version_id: None,
            content_type: content_type.map(str::to_owned),
            metadata: Vec::new(),
            modified: None,
        }
    }

    #[test]
    fn the_first_that_matches_wins() {
        let pattern = |text| vec![KeyPattern::new(text).unwrap()];
        let routes = [
            Route { keys: pattern("*.jpg"), destination_prefix: "one/".to_owned(), ..any() },
            Route { keys: pattern("photos/**"), destination_prefix: "two/".to_owned(), ..any() },
        ];
        let destination = |key| route(&routes, &object(key, 1, None)).map(|route| route.destination_prefix.as_str());
        assert_eq!(destination("uploads/photos/cat.JPG"), Some("one/"));
        assert_eq!(destination("uploads/photos/cat.png"), Some("two/"));
        assert_eq!(destination("uploads/cat.png"), None);
        assert_eq!(destination("elsewhere/cat.jpg"), None);
    }

    #[test]
    fn patterns_see_the_key_below_the_routes_own_prefix() {
        let keys = vec![KeyPattern::new("raw/*").unwrap()];
        let routes = [Route { keys, source_prefix: "uploads/a/".to_owned(), ..any() }];
        assert!(route(&routes, &object("uploads/a/raw/x", 1, None)).is_some());
        assert!(route(&routes, &object("uploads/raw/x", 1, None)).is_none());
        assert!(route(&routes, &object("uploads/ab/raw/x", 1, None)).is_none());
    }

    #[test]
    fn types_match_without_case_and_parameters() {
        let content_types = vec!["image/*".to_owned(), "text/csv".to_owned()];
        let routes = [Route { content_types, ..any() }];
        let taken = |found| route(&routes, &object("uploads/x", 1, found)).is_some();
        for right in ["image/png", "IMAGE/PNG", "text/csv", "Text/CSV ; charset=utf-8"] {
            assert!(taken(Some(right)), "{right}");
        }
        for wrong in ["text/csvx", "imag", "images/png", "é", ""] {
            assert!(!taken(Some(wrong)), "{wrong}");
        }
        assert!(!taken(None));
        assert!(route(&[any()], &object("uploads/x", 1, None)).is_some());
    }

    #[test]
    fn sizes_are_inclusive() {
        let routes = [Route { min_size: Some(2), max_size: Some(4), ..any() }];
        let taken: Vec<_> = (0..6).filter(|size| route(&routes, &object("uploads/x", *size, None)).is_some()).collect();
        assert_eq!(taken, [2, 3, 4]);
    }
    fn config(text: &str) -> Config {
        let sources = Sources {
            file: Some(("gristmill.toml".into(), text.to_owned())),
            env: BTreeMap::new(),
            overrides: Overrides::default(),
            cores: 1,
            is_directory: |_| false,
        };
        load(sources).unwrap()
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let config = config("directory = 'd'\n[[route]]\ndestination_prefix = 'thumbs'");
        let guard = |bucket: &str, key: &str| {
            let event = ObjectEvent {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                size: None,
                etag: None,
                version_id: None,
                event_time: None,
                event_name: "ObjectCreated:Put".to_owned(),
            };
            super::guard(&config, "ours", &event)
        };
        assert_eq!(guard("ours", "uploads/a/b"), None);
        let theirs = "it is in the bucket `theirs`, and this host works on `ours`";
        assert_eq!(guard("theirs", "uploads/a").as_deref(), Some(theirs));
        assert_eq!(guard("ours", "uploads/a/").as_deref(), Some("it only marks a folder"));
        for outside in ["uploads", "Uploads/a", "thumbs/a", "processed/uploads/a"] {
            assert_eq!(guard("ours", outside).as_deref(), Some("it is not below `uploads/`"));
        }
    }

    #[test]
    fn no_result_is_processed_even_under_a_configuration_that_cannot_be() {
        let mut config = config("directory = 'd'");
        config.routes[1].destination_prefix = "uploads/done/".to_owned();
        let mut event = crate::event::parse(
            br#"{"Records":[{"eventName":"ObjectCreated:Put","s3":
            {"bucket":{"name":"b"},"object":{"key":"uploads/done/x"}}}]}"#,
        )
        .unwrap()
        .objects
        .remove(0);
        assert_eq!(guard(&config, "b", &event).as_deref(), Some("it is below `uploads/done/`, where results go"));
        event.key = "uploads/x".to_owned();
        assert_eq!(guard(&config, "b", &event), None);
    }

    #[test]
    fn an_object_that_is_gone_is_looked_for_wherever_it_may_be() {
        let config = config(
            "directory = 'd'\n[[route]]\nmatch = '*.jpg'\ncontent_type = 'image/*'\ndestination_prefix = 'pictures'\n\
             [[route]]\nmatch = '*.csv'\ndestination_prefix = 'tables'\n[[route]]\nsource_prefix = 'uploads/a'",
        );
        assert_eq!(possible_destinations(&config, "uploads/a/x.jpg"), ["pictures/a/x.jpg", "processed/a/x.jpg"]);
        assert_eq!(possible_destinations(&config, "uploads/x.txt"), ["processed/x.txt"]);
        assert_eq!(possible_destinations(&config, "uploads/../x"), [""; 0]);
        let found = route(&config.routes, &object("uploads/x.jpg", 1, Some("image/jpeg")));
        assert_eq!(destination(&config, found, "uploads/x.jpg").as_deref(), Ok("pictures/x.jpg"));
        assert_eq!(destination(&config, None, "uploads/x.jpg").as_deref(), Ok("processed/x.jpg"));
    }
}
