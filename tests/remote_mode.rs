//! The main job on S3 and SQS, by the real binary as people deploy it: on a server of another make, whose
//! events are most like AWS's, and on one in this process, whose conditions are exact.

#[allow(dead_code, reason = "each test uses a part of it")]
mod support {
    pub mod auditor;
    pub mod cloud;
    pub mod host;
    pub mod ministack;
    pub mod remote_auditor;
    pub mod remote_bucket;
    pub mod remote_host;
    pub mod samples;
}
mod remote {
    mod audit;
    mod deployment;
    mod events;
    mod exact;
    mod letters;
    mod names;
    mod once;
    mod stopping;
}

use support::{
    auditor::Object,
    ministack,
    remote_auditor::{RemoteAuditor, Upload},
    remote_bucket::{Attributes, Events, Remote},
    remote_host::Deployment,
};

/// Before routes: failures are tried again soon.
const SOON: &str = "[retry]\nmax_attempts = 3\nbase = \"1s\"\nmax = \"1s\"\n";

/// Everything to these plugins.
fn all_to(plugins: &str) -> String {
    format!("{SOON}[[route]]\nplugins = {plugins}\n")
}

/// A bucket on the stand-in, whose events come this way.
fn on_ministack(events: Events) -> Remote {
    Remote::new(ministack::endpoint(), events)
}

/// Uploads with what has to become of them.
struct Uploads<'a> {
    remote: &'a Remote,
    list: Vec<Upload>,
}

impl<'a> Uploads<'a> {
    fn to(remote: &'a Remote) -> Self {
        Self { remote, list: Vec::new() }
    }

    fn add(&mut self, content: &[u8], object: Object) {
        self.add_with(content, object, Attributes::default());
    }

    fn add_with(&mut self, content: &[u8], object: Object, attributes: Attributes) {
        let etag = self.remote.put_with(&object.key, content, &attributes);
        self.list.push(Upload { object, etag, attributes });
    }

    fn add_all(&mut self, objects: Vec<(Vec<u8>, Object)>) {
        let attributes = Attributes::default();
        let put = objects.iter().map(|(content, object)| (object.key.clone(), content.clone(), attributes.clone()));
        let etags = self.remote.put_all(put.collect::<Vec<_>>());
        self.list.extend(objects.into_iter().zip(etags).map(|((_, object), etag)| Upload {
            object,
            etag,
            attributes: attributes.clone(),
        }));
    }

    fn auditor(&self, deployment: &Deployment<'_>) -> RemoteAuditor<'_> {
        RemoteAuditor::new(self.remote, &self.list, deployment.versions())
    }
}
